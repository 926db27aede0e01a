"""stdio processes: shared, bounded, restarted, and gone when they should be."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from apps.common.errors import UpstreamDied, UpstreamProtocolError, UpstreamTimeout, UpstreamTooLarge, UpstreamUnavailable
from apps.servers.domain import Secrets
from tests.support import eventually, eventually_async
from tests.transports.peers import call, connected

PEER = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stdio_peer.py")))


def alive(pid: int) -> bool:
    """Return whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_modern_calls_share_one_process() -> None:
    async with connected("stdio", command=PEER) as (upstream, recorder):
        assert upstream.stats() == {"in_flight": 0, "calls": 0, "restarts": 0}, "nothing is started yet"
        answers = await asyncio.gather(*(upstream.call(call("echo", {"n": n})) for n in range(50)))
        assert [answer.result["arguments"] for answer in answers] == [{"n": n} for n in range(50)]
        assert answers[0].revision == "2026-07-28"
        assert answers[0].result["meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        assert recorder.named("era_found") == [("endpoint-1", "modern", ("2026-07-28",))]
        ((endpoint, process_id, pid, restarts),) = recorder.named("process_started")
        assert (endpoint, restarts) == ("endpoint-1", 0)
        stats = upstream.stats()
        assert (stats["pid"], stats["process_id"], stats["calls"]) == (pid, process_id, 50)
        assert stats["memory_bytes"] > 1_000_000
        assert abs(stats["started_at"] - time.time()) < 60
        await upstream.aclose()
        assert recorder.named("process_ended") == [("endpoint-1", process_id, 0, "stopped", "")]
        assert not alive(pid)


async def test_legacy_processes_are_initialized(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with connected("stdio", command=(*PEER, "era=legacy", f"log={log}")) as (upstream, recorder):
        answer = await upstream.call(call("echo", {"a": 1}))
        assert answer.revision == "2025-06-18"
        assert answer.result["meta"] is None
        assert recorder.named("era_found") == [("endpoint-1", "legacy", ("2025-06-18",))]
    assert log.read_text().split("\n")[1:-1] == ["server/discover", "initialize", "notifications/initialized", "tools/call"]


async def test_a_known_legacy_process_is_not_asked(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with connected("stdio", command=(*PEER, "era=legacy", f"log={log}"), era="legacy") as (upstream, _):
        await upstream.call(call("echo"))
    assert "server/discover" not in log.read_text()


async def test_a_process_that_left_the_legacy_era_is_followed() -> None:
    async with connected("stdio", command=PEER, era="legacy") as (upstream, recorder):
        assert (await upstream.call(call("echo"))).revision == "2026-07-28"
        assert recorder.named("era_found") == [("endpoint-1", "modern", ("2026-07-28",))]


async def test_silence_to_the_question_means_legacy(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.handshake.SILENCE_SECONDS", 0.1)
    async with connected("stdio", command=(*PEER, "era=mute")) as (upstream, _):
        assert (await upstream.call(call("echo"))).revision == "2025-06-18"


async def test_a_slow_modern_process_is_not_taken_for_a_legacy_one(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.handshake.SILENCE_SECONDS", 0.1)
    async with connected("stdio", command=(*PEER, "start=0.5")) as (upstream, _):
        assert (await upstream.call(call("echo"))).revision == "2026-07-28"


async def test_a_process_that_dies_of_the_question_is_started_again_with_the_handshake() -> None:
    async with connected("stdio", command=(*PEER, "era=shy")) as (upstream, recorder):
        assert (await upstream.call(call("echo"))).revision == "2025-06-18"
        assert len(recorder.named("process_started")) == 2


async def test_the_environment_is_minimal_and_the_group_its_own(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWITCHYARD_SECRET_KEY", "never")
    monkeypatch.setenv("DATABASE_URL", "never")
    secrets = Secrets(env={"TOKEN": "t0ken-value"})
    async with connected("stdio", command=PEER, secrets=secrets, cwd=str(tmp_path)) as (upstream, _):
        said = (await upstream.call(call("environment"))).result
        assert set(said["environment"]) - {"LC_CTYPE"} <= {"PATH", "HOME", "LANG", "TMPDIR", "TOKEN"}
        assert said["environment"]["TOKEN"] == "t0ken-value"
        assert said["cwd"] == str(tmp_path)
        assert said["group"] == said["session"] == upstream.stats()["pid"] != os.getpgid(0)


async def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    command = (*PEER, f"x=$(touch {marker})", f"y=;touch {marker}", f"z=`touch {marker}`")
    async with connected("stdio", command=command) as (upstream, _):
        await upstream.call(call("echo"))
    assert not marker.exists()


@pytest.mark.parametrize("command", ["no-such-program-here", "/no/such/program", "./no-such", "/etc/passwd", ""])
async def test_a_command_that_does_not_exist_is_unavailable(command: str) -> None:
    async with connected("stdio", command=(command,)) as (upstream, _):
        request = call()
        with pytest.raises(UpstreamUnavailable):
            await upstream.call(request)
        assert not request.sent
    async with connected("stdio", command=PEER, cwd="/no/such/directory") as (upstream, _):
        with pytest.raises(UpstreamUnavailable, match="directory"):
            await upstream.call(call())


async def test_death_fails_what_is_in_flight_and_the_next_call_starts_another() -> None:
    async with connected("stdio", command=PEER, secrets=Secrets(env={"S": "last"})) as (upstream, recorder):
        await upstream.call(call("echo"))
        calls = [asyncio.create_task(upstream.call(call("hang"))) for _ in range(3)]
        await eventually_async(lambda: upstream.stats()["in_flight"] == 3)
        with pytest.raises(UpstreamDied, match="code 7") as caught:
            await upstream.call(call("die"))
        assert caught.value.stderr_tail == "*** words", "credentials are blotted out of the tail"
        assert "words" not in str(caught.value.problem())
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UpstreamDied] * 3
        assert (await upstream.call(call("echo"))).result is not None
        assert [event[3] for event in recorder.named("process_started")] == [0, 1]
        assert recorder.named("process_ended")[0][2:] == (7, "died", "*** words")
        assert recorder.named("list_changed") == [("server-1", "all")]
        assert upstream.stats()["restarts"] == 1


async def test_a_crash_loop_is_unavailable_until_the_pause_is_over(monkeypatch) -> None:
    monkeypatch.setattr("apps.servers.transports.announcements.random.uniform", lambda *_: 1.0)
    command = ("/bin/sh", "-c", "echo broken config >&2; exit 3")
    async with connected("stdio", command=command) as (upstream, recorder):
        with pytest.raises(UpstreamUnavailable, match="before it was ready") as caught:
            await upstream.call(call())
        assert caught.value.stderr_tail == "broken config"
        started = len(recorder.named("process_started"))
        with pytest.raises(UpstreamUnavailable, match="started again in") as caught:
            await upstream.call(call())
        assert caught.value.stderr_tail == "broken config"
        assert len(recorder.named("process_started")) == started
        await asyncio.sleep(1.1)
        with pytest.raises(UpstreamUnavailable, match="before it was ready"):
            await upstream.call(call())
        assert len(recorder.named("process_started")) > started


async def test_a_process_that_never_answers_is_ended_after_its_start_up_time() -> None:
    async with connected("stdio", command=(*PEER, "era=ghost"), startup_seconds=0.3) as (upstream, recorder):
        with pytest.raises(UpstreamUnavailable, match=r"0\.3 s"):
            await upstream.call(call())
        ((_, _, pid, _),) = recorder.named("process_started")
        assert not alive(pid)


async def test_a_hasty_caller_leaves_the_start_to_the_next() -> None:
    async with connected("stdio", command=(*PEER, "start=0.5")) as (upstream, recorder):
        with pytest.raises(UpstreamTimeout):
            await upstream.call(call("echo", timeout=0.1))
        assert (await upstream.call(call("echo"))).result is not None
        assert len(recorder.named("process_started")) == 1


async def test_cancelling_and_running_out_of_time_tell_the_process(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with connected("stdio", command=(*PEER, f"log={log}")) as (upstream, _):
        with pytest.raises(UpstreamTimeout):
            await upstream.call(call("hang", timeout=0.3))
        task = asyncio.create_task(upstream.call(call("hang")))
        await eventually_async(lambda: log.read_text().count("tools/call") == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually_async(lambda: log.read_text().count("notifications/cancelled") == 2)
        assert (await upstream.call(call("echo"))).result is not None


async def test_progress_and_announcements() -> None:
    got = []

    async def take(message):
        got.append(message["params"])

    async with connected("stdio", command=PEER) as (upstream, recorder):
        await asyncio.gather(upstream.call(call("progress", on_message=take)), *(upstream.call(call("echo")) for _ in range(5)))
        assert got == [{"progressToken": None, "progress": i} for i in range(3)]
        assert recorder.named("list_changed") == [("server-1", "tools")]


async def test_requests_of_the_process_are_answered_when_one_call_could_have_caused_them() -> None:
    async def take(message):
        return {"result": {"role": "assistant"}}

    async with connected("stdio", command=PEER) as (upstream, _):
        assert (await upstream.call(call("ask"))).result["replies"] == {"q1": {}, "q2": -32601}
        assert (await upstream.call(call("ask", on_request=take))).result["replies"] == {"q1": {}, "q2": {"role": "assistant"}}


async def test_large_answers_are_refused_alone() -> None:
    async with connected("stdio", command=PEER) as (upstream, recorder):
        assert (await upstream.call(call("large", {"size": 3_000_000}))).size > 3_000_000
        for size in (200_000, 3_000_000):
            with pytest.raises(UpstreamTooLarge):
                await upstream.call(call("large", {"size": size}, max_bytes=100_000))
        small, large = await asyncio.gather(
            upstream.call(call("echo")), upstream.call(call("large", {"size": 20_000_000})), return_exceptions=True
        )
        assert isinstance(large, UpstreamTooLarge)
        assert small.result is not None
        assert len(recorder.named("process_started")) == 1


async def test_a_line_without_end_ends_the_process_within_bounded_memory() -> None:
    before = psutil.Process().memory_info().rss
    async with connected("stdio", command=PEER) as (upstream, _):
        with pytest.raises(UpstreamTooLarge):
            await upstream.call(call("endless", max_bytes=1_000_000))
        assert psutil.Process().memory_info().rss - before < 50_000_000
        assert (await upstream.call(call("echo"))).result is not None


async def test_some_rubbish_is_tolerated_and_much_is_not() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        assert (await upstream.call(call("rubbish", {"lines": 90}))).result is not None
        for line in ("5", '"text"', "", "  ", '{"jsonrpc":"2.0"}', "[]", "\x1b[31mcolours"):
            assert (await upstream.call(call("rubbish", {"lines": 10, "line": line}))).result is not None
        with pytest.raises(UpstreamProtocolError, match="not JSON-RPC"):
            await upstream.call(call("rubbish", {"lines": 500}))
        assert (await upstream.call(call("echo"))).result is not None


async def test_answers_to_nobody_are_dropped_and_a_bad_answer_is_a_protocol_error() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        with pytest.raises(UpstreamProtocolError):
            await upstream.call(call("wrong-id"))
        assert (await upstream.call(call("echo"))).result is not None


@pytest.mark.parametrize("name", ["half", "close-stdout"])
async def test_an_end_in_the_middle_is_a_death(name: str) -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        with pytest.raises(UpstreamDied):
            await upstream.call(call(name))
        assert (await upstream.call(call("echo"))).result is not None


async def test_stderr_is_drained_and_its_end_is_kept() -> None:
    async with connected("stdio", command=PEER) as (upstream, recorder):
        await upstream.call(call("stderr", {"size": 1_000_000}))
        with pytest.raises(UpstreamDied):
            await upstream.call(call("die"))
        tail = recorder.named("process_ended")[0][4]
        assert len(tail) <= 4096
        assert tail.endswith("ENDlast words")


async def test_a_process_that_does_not_read_is_not_fed_without_end() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        await upstream.call(call("stop-reading"))
        text = "x" * 4_000_000
        calls = [asyncio.create_task(upstream.call(call("echo", {"text": text}, timeout=1.0))) for _ in range(5)]
        await eventually_async(lambda: upstream.stats()["in_flight"] == 5)
        calls += [asyncio.create_task(upstream.call(call("echo", {"text": text}, timeout=1.0))) for _ in range(10)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {UpstreamTimeout, UpstreamUnavailable}


async def test_an_idle_process_is_ended_and_started_again() -> None:
    async with connected("stdio", command=PEER, idle_seconds=0.3) as (upstream, recorder):
        await upstream.call(call("sleep", {"seconds": 0.6}))
        assert recorder.named("process_ended") == [], "a call in flight is not idleness"
        await eventually_async(lambda: recorder.named("process_ended"))
        assert recorder.named("process_ended")[0][2:4] == (0, "idle")
        assert recorder.named("list_changed") == []
        assert (await upstream.call(call("echo"))).result is not None
        assert recorder.named("list_changed") == [("server-1", "all")], "it may be another version"


async def test_a_supervisor_that_is_killed_is_replaced_though_its_family_holds_the_pipes() -> None:
    async with connected("stdio", command=PEER) as (upstream, recorder):
        family = (await upstream.call(call("family"))).result["pids"]
        first = upstream.stats()["pid"]
        os.kill(first, signal.SIGKILL)

        async def answered() -> bool:
            try:
                await upstream.call(call("echo", timeout=2.0))
                return upstream.stats()["pid"] != first
            except (UpstreamDied, UpstreamTimeout, UpstreamUnavailable):
                return False

        await eventually_async(answered)
        assert len(recorder.named("process_ended")) == 1
    for pid in family:  # those that left the group have lost their pipes and their owner
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["close", "kill", "supervisor"])
async def test_the_whole_family_is_gone(how: str) -> None:
    """Also a grandchild that left group and session, and that ignores SIGTERM."""
    async with connected("stdio", command=PEER) as (upstream, recorder):
        pids = (await upstream.call(call("family"))).result["pids"]
        assert all(alive(pid) for pid in pids)
        started = time.monotonic()
        if how == "close":
            await upstream.aclose("killed")
            assert recorder.named("process_ended")[0][3] == "killed"
        elif how == "kill":
            os.kill(pids[0], signal.SIGKILL)
        else:
            os.kill(upstream.stats()["pid"], signal.SIGTERM)
        await eventually_async(lambda: not any(alive(pid) for pid in pids))
        assert time.monotonic() - started < 9


OWNER = """
import asyncio, sys
sys.path.insert(0, {root!r})
from apps.servers.domain import *
from apps.servers.transports import open_upstream
from apps.servers.transports.base import UpstreamRequest
class Events:
    def __getattr__(self, name): return lambda *_: None
async def main():
    server = ServerFacts("s", "t", "s", "s", "stdio", 1)
    upstream = open_upstream(server, EndpointFacts("e", command={command!r}, args={args!r}), Secrets(), Events())
    answer = await upstream.call(UpstreamRequest("tools/call", {{"name": "family", "arguments": {{}}}}))
    print(*answer.result["pids"], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


def test_nothing_outlives_a_killed_owner() -> None:
    root = str(Path(__file__).parents[2])
    script = OWNER.format(root=root, command=PEER[0], args=PEER[1:])
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert len(pids) == 4
        owner.kill()
    eventually(lambda: not any(alive(pid) for pid in pids))


async def test_closing_ends_starts_and_calls_in_flight() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        await upstream.call(call("echo"))
        hanging = asyncio.create_task(upstream.call(call("hang")))
        await eventually_async(lambda: upstream.stats()["in_flight"] == 1)
        await upstream.aclose()
        with pytest.raises(UpstreamDied):
            await hanging
        with pytest.raises(UpstreamUnavailable):
            await upstream.call(call())
    async with connected("stdio", command=(*PEER, "start=60")) as (upstream, recorder):
        starting = asyncio.create_task(upstream.call(call("echo")))
        await eventually_async(lambda: recorder.named("process_started"))
        await upstream.aclose()
        with pytest.raises(UpstreamDied):
            await starting


async def test_listening_lasts_until_closed_and_starts_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with connected("stdio", command=(*PEER, f"log={log}")) as (upstream, recorder):
        listening = asyncio.create_task(upstream.listen())
        await asyncio.sleep(0)
        assert recorder.events == []
        await upstream.call(call("echo"))
        await eventually_async(lambda: "subscriptions/listen" in log.read_text())
        await upstream.aclose()
        await asyncio.wait_for(listening, 5)


async def test_two_thousand_calls_a_second_through_one_process() -> None:
    async with connected("stdio", command=PEER) as (upstream, _):
        await upstream.call(call("echo"))

        async def work() -> None:
            for _ in range(100):
                await upstream.call(call("echo", {"a": 1}))

        started = time.monotonic()
        await asyncio.gather(*(work() for _ in range(20)))
        assert 2000 / (time.monotonic() - started) > 2000
