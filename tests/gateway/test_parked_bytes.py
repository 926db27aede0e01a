"""What parked calls keep for their clients: counted, bounded for each principal and for all, oldest first to go, and free again."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from apps.common.background import Background
from apps.common.errors import UpstreamDied
from apps.gateway.plane.bus import NoBus
from apps.gateway.plane.call import Answer, Call
from apps.gateway.plane.mcp.parked import KEPT_MESSAGES, Parked
from apps.gateway.plane.mcp.parking import ALL_BYTES, CALL_BYTES, Parking
from apps.gateway.plane.views import find_target
from tests.gateway.pictures import KEYRING, caller, definition, picture, server
from tests.support import eventually_async

ELICIT = {"jsonrpc": "2.0", "id": 1, "method": "elicitation/create", "params": {"message": "?"}}


class Asker:
    """An open request of the client's."""

    def __init__(self) -> None:
        self.heard: list[dict] = []
        self.answers: list[Answer] = []

    async def forward(self, message: dict) -> None:
        self.heard.append(message)

    async def answer(self, answer: Answer) -> None:
        self.answers.append(answer)

    def let_go(self) -> None:
        """Nothing: nobody attends to it."""


class House:
    """As much of a plane as parking needs."""

    def __init__(self) -> None:
        self.bus = NoBus()
        self.pipeline = SimpleNamespace(rest=lambda call: None, go_on=lambda call: None)
        self.recorder = SimpleNamespace(asked=lambda *_: None)
        self.parking = Parking(KEYRING, self)  # type: ignore[arg-type]
        self.snapshot = picture(
            servers=(server("first"),), definitions=(definition("first", "read"),), superuser=True, inherits=True
        )
        self.tasks = Background()

    async def park(self, principal: str = "p1") -> tuple[Parked, Asker]:
        """Return a call whose server has asked something, and which waits for its client."""
        one = caller(self.snapshot)
        call = Call(self.snapshot, one, find_target(self.snapshot, one, "first"), "tools/call", {}, "2026-07-28", modern=True)
        call.capabilities, call.request_bytes, call.name = {"elicitation": {}}, 1000, "read"
        call.caller = SimpleNamespace(principal=SimpleNamespace(id=principal, kind="user"), key=None)  # type: ignore[assignment]
        asker = Asker()
        made: list[Parked] = []

        async def run() -> None:
            visit: Any = SimpleNamespace(reply=SimpleNamespace(accepts_stream=True))
            made.append(Parked(self.parking, visit, 1, call))
            made[0]._asker = asker
            await made[0].ask(ELICIT)

        self.tasks.start(run())
        await eventually_async(lambda: asker.answers)
        return made[0], asker

    @property
    def used(self) -> int:
        return self.parking._bytes.used


@pytest.fixture
async def house():
    made = House()
    yield made
    made.parking.close()
    await made.tasks.aclose()


def news(number: int, size: int) -> dict:
    return {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": f"{number} " + "x" * size}}


def numbers(asker: Asker) -> list[int]:
    return [int(one["params"]["data"].split()[0]) for one in asker.heard]


async def test_what_is_kept_is_counted_and_the_oldest_give_way(house):
    parked, _ = await house.park()
    base = house.used
    assert base >= 1000, "what the call itself holds"
    for number in range(KEPT_MESSAGES + 6):
        await parked.forward(news(number, 10))
    assert house.used > base
    back = Asker()
    parked.attach(back, {}, None)
    await eventually_async(lambda: len(back.heard) == KEPT_MESSAGES)
    assert numbers(back) == list(range(6, KEPT_MESSAGES + 6))
    assert house.used == base


async def test_one_call_keeps_so_much_and_a_message_that_never_fits_drives_nothing_out(house):
    parked, _ = await house.park()
    base = house.used
    for number in range(9):
        await parked.forward(news(number, CALL_BYTES // 5))
    assert house.used - base <= CALL_BYTES
    before = house.used
    await parked.forward(news(99, CALL_BYTES))
    assert house.used == before
    back = Asker()
    parked.attach(back, {}, None)
    await eventually_async(lambda: len(back.heard) == 4)
    assert numbers(back) == [5, 6, 7, 8]


async def test_a_principal_has_a_share(house):
    calls = [await house.park() for _ in range(20)]
    for parked, _ in calls:
        for number in range(4):
            await parked.forward(news(number, CALL_BYTES // 5))
    assert house.used <= ALL_BYTES // 4
    other, _ = await house.park("p2")
    base = house.used
    await other.forward(news(1, CALL_BYTES // 5))
    assert house.used > base
    for parked, _ in calls:
        parked.cancel()
    other.cancel()
    await eventually_async(lambda: house.used == 0)
    assert not len(house.parking)


@pytest.mark.parametrize("end", ["cancel", "close", "fail"])
async def test_what_is_kept_is_free_when_the_call_ends(house, end):
    parked, _ = await house.park()
    await parked.forward(news(1, 100_000))
    if end == "cancel":
        parked.cancel(UpstreamDied("It is gone."))
    elif end == "close":
        house.parking.close()
    else:
        house.parking.forget(parked)
        house.tasks.cancel()
    await parked.forward(news(2, 100_000))
    await eventually_async(lambda: house.used == 0)
    assert parked.call.on_request is None


async def test_an_answer_that_nobody_waits_for_is_kept_as_bytes_and_counted(house):
    parked, _ = await house.park()
    base = house.used
    raw = json.dumps({"content": [], "data": "x" * 50_000}).encode()
    await parked.forward(news(1, 10))
    await parked.finish(Answer(result=json.loads(raw), raw=raw))
    assert house.used >= base + len(raw)
    back = Asker()
    parked.attach(back, {}, None)
    await eventually_async(lambda: back.answers)
    assert numbers(back) == [1], "what was said before it comes before it"
    assert back.answers[0].raw == raw
    house.tasks.cancel()
    await eventually_async(lambda: house.used == 0)


async def test_an_answer_that_does_not_fit_is_told_as_an_error(house):
    parked, _ = await house.park()
    await parked.forward(news(1, 10))
    await parked.finish(Answer(result={}, raw=b"x" * (ALL_BYTES // 4 + 1)))
    back = Asker()
    parked.attach(back, {}, None)
    await eventually_async(lambda: back.answers)
    assert "has run" in back.answers[0].message
