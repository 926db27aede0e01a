"""Refusals at the door are recorded one by one, a flood as a number, and none is lost."""

import asyncio

import pytest

from apps.common.errors import AuthenticationRequired
from apps.gateway.plane import refusals
from apps.gateway.plane.recorder import Recorder
from apps.gateway.plane.refusals import ADDRESSES, PER_ADDRESS, Refusals
from tests.support import eventually_async


class Kept:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list = []

    def post(self, record) -> None:
        self.rows.append(record)

    def left_out(self, address: str) -> int:
        return sum(row.details.get("left_out", 0) for row in self.rows if row.details["address"] == address)


@pytest.fixture
def sink(monkeypatch):
    monkeypatch.setattr(refusals, "WINDOW", 0.1)
    return Kept()


ERROR = AuthenticationRequired("The API key is unknown.")


async def test_a_flood_is_summed_up_when_its_window_ends_though_nobody_knocks_again(sink):
    door = Refusals(Recorder(sink))
    for _ in range(PER_ADDRESS + 500):
        door.note(ERROR, "10.0.0.1", "/mcp")
    door.note(ERROR, "10.0.0.2", "/mcp")
    assert len(sink.rows) == PER_ADDRESS + 1
    await eventually_async(lambda: sink.left_out("10.0.0.1") == 500)
    assert sink.left_out("10.0.0.2") == 0
    assert len(sink.rows) == PER_ADDRESS + 2


async def test_a_new_window_begins_with_single_rows(sink):
    door = Refusals(Recorder(sink))
    for _ in range(PER_ADDRESS + 1):
        door.note(ERROR, "10.0.0.1", "/mcp")
    await asyncio.sleep(0.15)
    door.note(ERROR, "10.0.0.1", "/mcp")
    assert [row.error_type for row in sink.rows[-2:]] == ["refused-often", "authentication-required"]


async def test_the_end_of_the_process_and_many_addresses_lose_no_count(sink):
    door = Refusals(Recorder(sink))
    for _ in range(PER_ADDRESS + 7):
        door.note(ERROR, "10.0.0.1", "/mcp")
    for number in range(ADDRESSES):
        door.note(ERROR, f"10.1.{number // 256}.{number % 256}", "/mcp")
    assert sink.left_out("10.0.0.1") == 7
    for _ in range(PER_ADDRESS + 3):
        door.note(ERROR, "10.0.0.9", "/mcp")
    door.close()
    assert sink.left_out("10.0.0.9") == 3
