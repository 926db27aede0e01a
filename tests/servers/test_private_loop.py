"""A loop of its own for work that a synchronous verb has on the network."""

import asyncio
import threading

import pytest

from apps.common.errors import UpstreamTimeout
from apps.servers.services.private_loop import run_apart


async def test_it_runs_beside_a_running_loop_in_another_thread():
    async def work() -> tuple[str, bool]:
        await asyncio.sleep(0)
        return threading.current_thread().name, asyncio.get_running_loop() is outer

    outer = asyncio.get_running_loop()
    assert run_apart(work, limit=5) == ("private-loop", False)


def test_what_it_raises_is_raised_in_the_caller():
    async def work() -> None:
        raise LookupError("inside")

    with pytest.raises(LookupError, match="inside"):
        run_apart(work, limit=5)


def test_a_thread_that_does_not_end_is_left_after_the_limit():
    let_go = threading.Event()

    async def work() -> None:
        let_go.wait(10)

    with pytest.raises(UpstreamTimeout):
        run_apart(work, limit=0.05)
    let_go.set()
