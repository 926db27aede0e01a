"""The sink on both databases: what it commits, how it groups, whom it refuses."""

import asyncio
import json
import uuid

import pytest

from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import AuditRecord, decode
from apps.common.errors import AuditUnavailable
from tests.audit.logs import chain_is_whole, intent, note, outcome, raw, rows, running
from tests.support import eventually_async


async def test_an_append_is_committed_with_its_columns_when_it_returns(config: SinkConfig) -> None:
    full = AuditRecord(
        "call.outcome", 1_795_166_332_269_930, tenant="t", actor_kind="user", actor_id="u", actor="Ann", origin="mcp", agent="a/1",
        task="k", request_id="r", session="s", trace="f" * 32, call_id="c", action="tool.call", object_kind="tool", object_id="o",
        object="x__y", server="x", tool="y", model="m", revision="2026-07-28", outcome="ok", error_type="e", duration_us=1,
        request_bytes=2, response_bytes=3, tokens_in=4, tokens_out=5, cost_micros=6, details={"ü": [1, None, {"a": 1.5}]},
    )  # fmt: skip
    async with running(config) as sink:
        identity = await sink.append(full)
        assert identity == 1
        (row,) = rows(config, "SELECT * FROM audit_event")
    names = [field.name for field in __import__("django.apps").apps.apps.get_model("audit", "AuditEvent")._meta.fields]
    stored = dict(zip(names, row, strict=True))
    assert decode(bytes(stored["body"])) == full
    when = str(stored["time"])
    assert when.startswith("2026-11-20 09:18:52.26993")
    for name in names[3:30]:
        assert stored[name] == getattr(full, name), name


async def test_sqlite_keeps_times_as_django_writes_them(sqlite_config: SinkConfig) -> None:
    async with running(sqlite_config) as sink:
        await sink.append(note())
        for micros in (0, 7, 999_999):
            await sink.append(AuditRecord("t", 1_795_166_332_000_000 + micros))
    times = [row[0] for row in rows(sqlite_config, "SELECT time FROM audit_event WHERE event_type = 't' ORDER BY id")]
    assert times == ["2026-11-20 09:18:52", "2026-11-20 09:18:52.000007", "2026-11-20 09:18:52.999999"]


@pytest.mark.parametrize("callers", [1, 5, 130, 900])
async def test_what_arrives_during_a_commit_shares_the_next(config: SinkConfig, callers: int) -> None:
    async with running(config) as sink:
        ids = await asyncio.gather(*(sink.append(intent()) for _ in range(callers)))
        assert ids == list(range(1, callers + 1))
        assert sink.statistics.rows == callers
        assert sink.statistics.commits <= 2 + callers // 512 + 1
    assert chain_is_whole(config) == callers


async def test_rows_keep_their_order(config: SinkConfig) -> None:
    async with running(config) as sink:
        for number in range(50):
            sink.post(note(details={"n": number}))
        await sink.append(note(details={"n": 50}))
    bodies = [decode(bytes(row[0])) for row in rows(config, "SELECT body FROM audit_event ORDER BY id")]
    assert [body.details["n"] for body in bodies] == list(range(51))


async def test_a_cancelled_waiter_cancels_neither_its_row_nor_the_others(config: SinkConfig) -> None:
    async with running(config) as sink:
        waiters = [asyncio.ensure_future(sink.append(intent())) for _ in range(40)]
        await asyncio.sleep(0)
        for waiter in waiters[::3]:
            waiter.cancel()
        results = await asyncio.gather(*waiters, return_exceptions=True)
        for number, result in enumerate(results):
            if number % 3 == 0:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == number + 1
    assert chain_is_whole(config) == 40


async def test_the_next_process_goes_on_with_the_chain(config: SinkConfig) -> None:
    for _ in range(3):
        async with running(config) as sink:
            await sink.append(note())
    assert chain_is_whole(config) == 3
    assert rows(config, "SELECT writer, seq FROM audit_head") == [(0, 3)]


NASTY = {
    "too long": {"actor": "a" * 500, "agent": "ü" * 500, "revision": "x" * 50},
    "nul and surrogate": {"actor": "a\0b\ud800c", "details": {"x\0": "\0\udfff"}},
    "wrong kinds": {"tenant": uuid.uuid4(), "duration_us": "soon", "request_bytes": 2**70, "tokens_in": float("nan")},
    "big integer": {"duration_us": 2**63 + 5},
    "fraction": {"duration_us": 12.75},
    "no json": {"details": {"o": object(), "b": b"\xff", "when": uuid.uuid4()}},
    "deep": {"details": None},
    "huge": {"details": {"text": "x" * 200_000}},
}


@pytest.mark.parametrize("kind", NASTY)
async def test_a_row_that_does_not_fit_is_mended_and_harms_no_other(config: SinkConfig, kind: str) -> None:
    fields = dict(NASTY[kind])
    if kind == "deep":
        deep: dict = {}
        for _ in range(3000):
            deep = {"d": deep}
        fields["details"] = deep
    async with running(config) as sink:
        await asyncio.gather(sink.append(intent()), sink.append(note(**fields)), sink.append(intent()))
    assert chain_is_whole(config) == 3
    (row,) = rows(config, "SELECT tenant, actor, agent, duration_us, body FROM audit_event WHERE event_type = 'test.noted'")
    assert len(row[1] or "") <= 200
    assert len(bytes(row[4])) <= 80_000
    json.loads(bytes(row[4]))
    if kind == "huge":
        details = decode(bytes(row[4])).details
        assert details["cut"] > 200_000
        assert len(details["sha256"]) == 64
    if kind == "fraction":
        assert row[3] == 12


async def test_a_full_queue_refuses_but_takes_outcomes_of_open_calls(sqlite_config: SinkConfig) -> None:
    small = SinkConfig(sqlite=sqlite_config.sqlite, locks=sqlite_config.locks, queue_limit=10)
    async with running(small) as sink:
        with raw(small) as other:
            other.execute("BEGIN IMMEDIATE")
            first = asyncio.ensure_future(sink.append(intent("c1")))
            await asyncio.sleep(0)
            await eventually_async(lambda: sink.waiting == 0)
            for _ in range(10):
                sink.post(note())
            with pytest.raises(AuditUnavailable, match="full"):
                sink.post(note())
            with pytest.raises(AuditUnavailable, match="full"):
                await sink.append(intent())
            last = asyncio.ensure_future(sink.append(outcome("c1")))
            await asyncio.sleep(0)
            other.execute("ROLLBACK")
        assert await first == 1
        assert await last == 12
    assert chain_is_whole(small) == 12


async def test_a_closed_sink_refuses_and_has_written_what_it_took(config: SinkConfig) -> None:
    async with running(config) as sink:
        for _ in range(300):
            sink.post(note())
    with pytest.raises(AuditUnavailable):
        await sink.append(note())
    with pytest.raises(AuditUnavailable):
        sink.post(note())
    assert await sink.healthy() is False
    assert chain_is_whole(config) == 300


async def test_open_from_follows_the_oldest_open_intent(config: SinkConfig) -> None:
    async with running(config) as sink:
        await sink.append(intent("old"))
        for number in range(20):
            await sink.append(intent(f"c{number}"))
            await sink.append(outcome(f"c{number}"))
        await sink.append(note())
        assert rows(config, "SELECT open_from FROM audit_head") == [(1,)]
        await sink.append(outcome("old"))
        await sink.append(note())
        assert rows(config, "SELECT seq, open_from FROM audit_head") == [(44, 44)]


async def test_the_relay_step_is_taken_once(config: SinkConfig) -> None:
    async with running(config) as sink:
        assert await asyncio.wrap_future(sink.submit_relayed([note("a"), note("b")], 0, 7)) is True
        assert await asyncio.wrap_future(sink.submit_relayed([note("a"), note("b")], 0, 7)) is False
        assert await asyncio.wrap_future(sink.submit_relayed([], 7, 9)) is True
        await sink.append(note("c"))
    assert [row[0] for row in rows(config, "SELECT event_type FROM audit_event ORDER BY id")] == ["a", "b", "c"]
    assert rows(config, "SELECT outbox_id FROM audit_relay") == [(9,)]
    assert chain_is_whole(config) == 3


async def test_it_is_healthy_while_it_can_be_written(config: SinkConfig) -> None:
    async with running(config) as sink:
        assert await sink.healthy()
        await sink.append(note())
        assert await sink.healthy()
