"""Garbage that holds much in few objects is collected when the process has grown, and the whole heap is not walked all the time."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from config.processes.memory import CALM_LOOKS, FULL_BYTES, LOOK_SECONDS, PART, YOUNG_BYTES, Collector, resident_bytes
from tests.support import eventually_async

pytestmark = pytest.mark.once


class Node:
    """Holds itself."""

    def __init__(self) -> None:
        self.me = self


class Process:
    """What a process holds, and the time."""

    def __init__(self) -> None:
        self.held = 1_000_000_000
        self.now = 0.0

    def clock(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Have nothing collected by itself."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("quiet")
def test_what_grew_is_collected_young_first(process):
    collector = Collector(lambda: process.held, process.clock)
    gone = weakref.ref(Node())
    assert collector.look() == -1
    process.held += YOUNG_BYTES - 1
    assert collector.look() == -1
    assert gone() is not None
    process.held += 1
    assert collector.look() == 1
    assert gone() is None
    assert collector.look() == -1, "once for the same growth"


@pytest.mark.usefixtures("quiet")
def test_old_garbage_is_collected_when_the_young_was_not_it_and_seldom(process):
    node = Node()
    gone = weakref.ref(node)
    gc.collect()  # now it is old
    del node
    collector = Collector(lambda: process.held, process.clock)
    process.held += FULL_BYTES
    assert collector.look() == 2
    assert gone() is None
    process.held += FULL_BYTES
    assert collector.look() == 1, "not again so soon"
    process.now += 0.001 * PART
    process.held += YOUNG_BYTES
    assert collector.look() == 2


@pytest.mark.usefixtures("quiet")
def test_when_it_is_calm_again_all_is_collected_once_more(process):
    collector = Collector(lambda: process.held, process.clock)
    assert {collector.look() for _ in range(2 * CALM_LOOKS)} == {-1}, "nothing has grown yet"
    process.held += YOUNG_BYTES
    assert [collector.look() for _ in range(2 * CALM_LOOKS)] == [1, *[-1] * (CALM_LOOKS - 1), 2, *[-1] * (CALM_LOOKS - 1)]


@pytest.mark.usefixtures("quiet")
def test_what_shrank_counts_from_there(process):
    collector = Collector(lambda: process.held, process.clock)
    process.held -= 500_000_000
    assert collector.look() == -1
    process.held += YOUNG_BYTES
    assert collector.look() == 1


async def test_it_looks_by_itself(monkeypatch):
    monkeypatch.setattr("config.processes.memory.LOOK_SECONDS", LOOK_SECONDS / 1000)
    looks: list[int] = []
    collector = Collector(lambda: looks.append(1) or 1)
    collector.start()
    await eventually_async(lambda: len(looks) > 3)
    collector.stop()


def test_a_process_knows_what_it_holds():
    assert resident_bytes() > 10_000_000
