"""Questions of a program of the initialize era: each comes to the caller of its own call, or to nobody.

Several callers without a session, as modern clients are, share one process here.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from apps.common.errors import UpstreamBusy, UpstreamTimeout
from apps.servers.transports import asking_turns
from apps.servers.transports.asking_turns import AskingTurns
from apps.servers.transports.base import Upstream, UpstreamRequest
from tests.support import eventually_async
from tests.transports.peers import call, connected

pytestmark = pytest.mark.once
PEER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("asking_peer.py")))


class Caller:
    """One who calls, and answers when told to."""

    def __init__(self, upstream: Upstream, tag: str, session: str = "") -> None:
        self.upstream = upstream
        self.tag = tag
        self.session = session
        self.heard: list[str] = []
        self.may_answer = asyncio.Event()
        self.taken_back = False

    async def take(self, message: dict[str, Any]) -> dict[str, Any]:
        self.heard.append(message["params"]["message"])
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.taken_back = True
            raise
        return {"result": {"action": "accept", "content": {"by": self.tag}}}

    async def call(self, name: str, timeout: float = 20.0, **arguments: Any) -> Any:
        """Call a tool; return the replies that it got."""
        request = call(name, {"tag": self.tag, **arguments}, on_request=self.take, session=self.session, timeout=timeout)
        return [
            one["content"]["by"] if isinstance(one, dict) else one
            for one in (await self.upstream.call(request)).result["replies"]
        ]

    def begin(self, name: str, **arguments: Any) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.call(name, **arguments))

    async def is_asked(self, times: int = 1) -> None:
        await eventually_async(lambda: len(self.heard) >= times, because=f"{self.tag} was not asked")


async def test_calls_that_ask_run_one_after_the_other_and_hear_their_own_questions_alone() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        callers = [Caller(upstream, tag) for tag in "abcd"]
        for one in callers:
            one.may_answer.set()
        assert await asyncio.gather(*(one.call("ask", rounds=3) for one in callers)) == [[one.tag] * 3 for one in callers]
        assert [one.heard for one in callers] == [[one.tag] * 3 for one in callers]


async def test_what_asks_nothing_is_not_held_up_by_a_call_that_waits_for_its_client() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        first, second = Caller(upstream, "a"), Caller(upstream, "b")
        assert await second.call("plain") == []
        asking = first.begin("ask")
        await first.is_asked()
        async with asyncio.timeout(asking_turns.PATIENCE / 2):
            assert await second.call("plain") == []
        first.may_answer.set()
        assert await asking == ["a"]


async def test_what_is_not_known_yet_waits_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_turns, "PATIENCE", 0.05)
    async with connected("stdio", command=PEER) as (upstream, _):
        first, second = Caller(upstream, "a"), Caller(upstream, "b")
        asking = first.begin("ask")
        await first.is_asked()
        assert await second.call("plain") == [], "the first still waits for its client"
        first.may_answer.set()
        assert await asking == ["a"]


async def test_a_question_that_may_be_anothers_waits_until_it_is_certain_whose_it_is() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        first, second, third = Caller(upstream, "a"), Caller(upstream, "b"), Caller(upstream, "c")
        for one in (first, second):  # what is learned of the tool: it asks nothing
            task = one.begin("slow")
            await eventually_async(lambda: upstream.stats()["in_flight"] == 1)
            assert await third.call("release", tag=one.tag) == []
            assert await task == []
        slow, surprising = first.begin("slow"), second.begin("slow")
        await eventually_async(lambda: upstream.stats()["in_flight"] == 2)
        second.may_answer.set()
        await third.call("release", tag="b", ask=True)
        assert await third.call("plain") == [], "the question has been read by now, and the others go on"
        assert (first.heard, second.heard) == ([], [])
        await third.call("release", tag="a")
        assert await slow == []
        assert await surprising == ["b"]
        assert (first.heard, second.heard) == ([], ["b"])


async def test_a_question_that_waits_is_refused_when_its_call_may_have_been_given_up() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        first, second, third = Caller(upstream, "a"), Caller(upstream, "b"), Caller(upstream, "c")
        assert await third.call("release") == []
        task = first.begin("slow")
        await eventually_async(lambda: upstream.stats()["in_flight"] == 1)
        await third.call("release", tag="a")
        assert await task == []
        tasks = [first.begin("slow"), second.begin("slow")]
        await eventually_async(lambda: upstream.stats()["in_flight"] == 2)
        await third.call("release", tag="b", ask=True)
        tasks[0].cancel()
        assert await tasks[1] == [-32601]
        assert (first.heard, second.heard) == ([], [])


async def test_what_the_server_takes_back_is_asked_of_nobody_any_more() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        first, second, third = Caller(upstream, "a"), Caller(upstream, "b"), Caller(upstream, "c")
        assert await third.call("release") == []
        task = first.begin("slow")
        await eventually_async(lambda: upstream.stats()["in_flight"] == 1)
        await third.call("release", tag="a")
        assert await task == []
        tasks = [first.begin("slow"), second.begin("slow")]
        await eventually_async(lambda: upstream.stats()["in_flight"] == 2)
        await third.call("release", tag="b", ask=True)
        await third.call("release", tag="b", forget=True)
        assert await tasks[1] == []
        await third.call("release", tag="a", ask=True)
        await first.is_asked()
        assert first.heard == ["a"], "what the other call had asked is forgotten"
        await third.call("release", tag="", forget=True)
        await eventually_async(lambda: first.taken_back)
        await third.call("release", tag="a")
        assert await tasks[0] == []


async def test_who_waits_too_long_for_a_turn_is_told_and_nothing_was_sent() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        first, second = Caller(upstream, "a"), Caller(upstream, "b")
        asking = first.begin("ask")
        await first.is_asked()
        request = call("ask", {"tag": "b"}, on_request=second.take, timeout=0.1)
        with pytest.raises(UpstreamBusy, match="one at a time"):
            await upstream.call(request)
        assert not request.sent
        first.may_answer.set()
        assert await asking == ["a"]
        second.may_answer.set()
        assert await second.call("ask") == ["b"], "the next one has its turn"


async def test_a_call_that_is_given_up_and_asks_after_all_asks_nobody() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        first, second = Caller(upstream, "a"), Caller(upstream, "b")
        second.may_answer.set()
        assert await second.call("plain") == [], "the program runs"
        with pytest.raises(UpstreamTimeout):
            await first.call("stubborn", timeout=0.1)
        assert await second.call("ask") == ["b"]
        assert (first.heard, second.heard) == ([], ["b"])


async def test_calls_of_one_session_ask_at_the_same_time() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        one, other = Caller(upstream, "a", session="s"), Caller(upstream, "b", session="s")
        tasks = [one.begin("ask"), other.begin("ask")]
        await eventually_async(lambda: sorted([*one.heard, *other.heard]) == ["a", "b"])
        one.may_answer.set()
        other.may_answer.set()
        await asyncio.gather(*tasks)


async def test_a_process_that_ends_lets_everybody_go() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        callers = [Caller(upstream, tag) for tag in "abc"]
        tasks = [one.begin("ask") for one in callers]
        await eventually_async(lambda: any(one.heard for one in callers))
        await upstream.aclose()
        for task in tasks:
            with suppress(Exception):
                await task
        assert upstream.stats()["in_flight"] == 0


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_turns, "KNOWN", 2)
    turns = AskingTurns()
    turns.asked([UpstreamRequest("tools/call", {"name": "a"}), UpstreamRequest("resources/read", {"uri": "x"})])
    turns.note("tools/call b", False)
    turns.note("resources/read ", False)
    assert [turns.asks(name) for name in ("tools/call a", "resources/read ", "tools/call b")] == [None, True, False]
