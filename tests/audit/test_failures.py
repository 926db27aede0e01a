"""What goes wrong with the database, and that the sink says so in time, loses nothing it promised, and comes back."""

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import psycopg
import pytest

from apps.audit.sink.config import SinkConfig
from apps.audit.sink.store import StoreFailed
from apps.common.errors import AuditUnavailable
from tests.audit.logs import ROOT, chain_is_whole, intent, migrate, note, outcome, raw, rows, running
from tests.engines import Postgres
from tests.support import eventually_async

CUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'switchyard-audit' AND datname = current_database()
"""


async def refused_in_time(append, within: float = 2.3) -> None:
    """Wait for a refusal and check that it came soon."""
    started = time.monotonic()
    with pytest.raises(AuditUnavailable):
        await append
    assert time.monotonic() - started < within


async def works_again(sink) -> None:
    """Wait until the log can be written, and append a row."""
    await eventually_async(sink.healthy, within=15)
    await sink.append(note("test.back"))


async def test_a_locked_file_is_waited_for_then_refused_then_used_again(sqlite_config: SinkConfig) -> None:
    async with running(sqlite_config) as sink:
        await sink.append(intent("before"))
        with raw(sqlite_config) as other:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.gather(
                refused_in_time(sink.append(intent("locked"))), refused_in_time(sink.append(outcome("before")))
            )
            assert await sink.healthy() is False
            await refused_in_time(sink.append(intent("refused")), within=0.2)
            other.execute("ROLLBACK")
        await works_again(sink)
    assert rows(sqlite_config, "SELECT count(*) FROM audit_event WHERE call_id IN ('locked', 'refused')") == [(0,)]
    # what happened is written later, what was only asked for is not
    assert rows(sqlite_config, "SELECT outcome FROM audit_event WHERE call_id = 'before' ORDER BY id") == [(None,), ("ok",)]
    chain_is_whole(sqlite_config)


async def test_a_short_lock_is_not_noticed(sqlite_config: SinkConfig) -> None:
    async with running(sqlite_config) as sink:
        with raw(sqlite_config) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.ensure_future(sink.append(intent()))
            await asyncio.sleep(0.3)
            assert not waiting.done()
            other.execute("ROLLBACK")
        assert await waiting == 1


DISK_FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from apps.audit.sink.config import SinkConfig
from apps.common.errors import AuditUnavailable
from tests.audit.logs import note, running
from tests.support import eventually_async
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
async def main(path):
    written = 0
    async with running(SinkConfig(sqlite=path, locks=path.parent / "locks")) as sink:
        resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
        refused = 0
        for _ in range(3000):
            try:
                await asyncio.wait_for(sink.append(note(event_type="call.intent", details={"x": "y" * 2000})), 2.3)
                written += 1
            except AuditUnavailable:
                refused += 1
                if refused > 3:
                    break
        assert refused > 3, "the limit was not reached"
        assert not await sink.healthy()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await eventually_async(sink.healthy)
        await sink.append(note("test.back"))
    print(written)
asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_refuses_and_heals(sqlite_config: SinkConfig) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", DISK_FULL, str(sqlite_config.sqlite)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    written = int(done.stdout)
    assert written > 10
    # every acknowledged row is there; a refused intent that got in after all is closed by the sink
    assert chain_is_whole(sqlite_config) >= written + 1
    assert rows(sqlite_config, "SELECT count(*) FROM audit_event WHERE event_type = 'test.back'") == [(1,)]


async def test_a_revoked_right_refuses_and_heals(postgres_config: SinkConfig) -> None:
    async with running(postgres_config) as sink:
        await sink.append(intent("before"))
        with raw(postgres_config) as owner:
            owner.execute("REVOKE INSERT ON audit_event FROM switchyard")
            await refused_in_time(sink.append(intent("refused")))
            await refused_in_time(sink.append(outcome("before")))
            assert await sink.healthy() is False
            owner.execute("GRANT INSERT ON audit_event TO switchyard")
        await works_again(sink)
    assert rows(postgres_config, "SELECT count(*) FROM audit_event WHERE call_id = 'refused'") == [(0,)]
    assert rows(postgres_config, "SELECT count(*) FROM audit_event WHERE call_id = 'before'") == [(2,)]
    chain_is_whole(postgres_config)


async def test_a_cut_connection_is_not_noticed_by_callers(postgres_config: SinkConfig) -> None:
    async with running(postgres_config) as sink:
        done: list[int] = []
        stopping = False

        async def caller(number: int) -> None:
            while not stopping:
                done.append(await sink.append(note(details={"caller": number})))

        callers = [asyncio.ensure_future(caller(number)) for number in range(10)]
        with raw(postgres_config) as other:
            # the first cut often comes before the first commit
            for number in range(5):
                await asyncio.to_thread(other.execute, CUT)
                await eventually_async(lambda number=number: sink.statistics.failures == number + 1)
                before = len(done)
                await eventually_async(lambda before=before: len(done) > before + 50)
        stopping = True
        await asyncio.gather(*callers)
        assert sink.statistics.writer == 0
    assert len(set(done)) == len(done)
    assert chain_is_whole(postgres_config) == len(done)


@pytest.mark.parametrize("came_back", [False, True])
async def test_a_cut_before_the_first_commit_is_not_noticed(postgres_config: SinkConfig, came_back: bool) -> None:
    async with running(postgres_config) as sink:
        with raw(postgres_config) as other:
            if came_back:
                other.execute("REVOKE INSERT ON audit_event FROM switchyard")
                await refused_in_time(sink.append(intent("refused")))
                other.execute("GRANT INSERT ON audit_event TO switchyard")
                await eventually_async(lambda: sink.failure is None)
            other.execute(CUT)
            await eventually_async(lambda: other.execute(CUT).fetchall() == [])
        assert await sink.append(note()) == 1


async def test_failures_in_a_row_are_hidden_for_a_while_only(config: SinkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(config) as sink:
        await sink.append(note())
        append, left = sink._store.append, 3

        def fails(batch) -> None:
            nonlocal left
            left -= 1
            if left == 0:  # committed, but nobody was told
                append(batch)
            if left >= 0:
                raise StoreFailed("cut")
            append(batch)

        monkeypatch.setattr(sink._store, "append", fails)
        assert await asyncio.gather(sink.append(intent("hidden")), sink.append(outcome("hidden"))) == [2, 3]
        assert sink.statistics.failures == 3
        left = 10_000
        await refused_in_time(sink.append(intent("refused")), within=1.5)
        assert left > 9_900
        left = 0
        await works_again(sink)
    assert rows(config, "SELECT count(*) FROM audit_event WHERE call_id = 'hidden'") == [(2,)]
    chain_is_whole(config)


async def test_a_lost_session_is_ended_before_its_rows_are_written_again(postgres_config: SinkConfig) -> None:
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with running(postgres_config) as sink:
        await sink.append(note())
        with psycopg.connect(postgres_config.postgres) as other:
            other.execute("SELECT 1 FROM audit_head WHERE writer = 0 FOR UPDATE")
            append = asyncio.ensure_future(sink.append(intent("once")))
            lost = await eventually_async(lambda: rows(postgres_config, waiting))
            # only the client's side of the connection goes: the server's would still carry out the statement
            sink._store.interrupt()
            await eventually_async(lambda: append.done() or rows(postgres_config, waiting) not in ([], lost))
            other.rollback()
        assert await append == 2
        assert sink.statistics.writer == 0
    assert rows(postgres_config, "SELECT count(*) FROM audit_event WHERE call_id = 'once'") == [(1,)]
    assert chain_is_whole(postgres_config) == 2


@pytest.mark.slow
async def test_a_server_that_hangs_is_refused_in_time_and_what_it_does_later_is_accounted_for() -> None:
    with Postgres() as engine:
        url = engine.create("log")
        migrate(url)
        config = SinkConfig(postgres=url)
        async with running(config) as sink:
            processes = [psutil.Process(engine.process.pid), *psutil.Process(engine.process.pid).children(recursive=True)]
            await sink.append(intent("before"))
            for process in processes:
                process.suspend()
            try:
                await asyncio.gather(
                    refused_in_time(sink.append(intent("hung"))), refused_in_time(sink.append(outcome("before")))
                )
                await refused_in_time(sink.append(intent("refused")), within=0.2)
                assert await sink.healthy() is False
            finally:
                for process in processes:
                    process.resume()
            await works_again(sink)
            await eventually_async(lambda: rows(config, "SELECT count(*) FROM audit_event WHERE call_id = 'before'") == [(2,)])
            await sink.append(note())
        found = rows(config, "SELECT event_type, outcome FROM audit_event WHERE call_id = 'hung' ORDER BY id")
        # the statement was on its way when the server hung: it was carried out, so the sink has closed it
        assert found in ([], [("call.intent", None), ("call.outcome", "refused")])
        assert rows(config, "SELECT count(*) FROM audit_event WHERE call_id = 'refused'") == [(0,)]
        chain_is_whole(config)


@pytest.mark.slow
async def test_a_server_that_is_killed_and_restarted_loses_nothing() -> None:
    with Postgres(durable=True) as engine:
        url = engine.create("log")
        migrate(url)
        config = SinkConfig(postgres=url)
        command, environment = engine.process.args, {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
        async with running(config) as sink:
            done: list[int] = []
            refused = 0
            stopping = False

            async def caller() -> None:
                nonlocal refused
                while not stopping:
                    try:
                        done.append(await sink.append(intent()))
                    except AuditUnavailable:
                        refused += 1
                        await asyncio.sleep(0.01)

            callers = [asyncio.ensure_future(caller()) for _ in range(10)]
            await eventually_async(lambda: len(done) > 200)
            children = psutil.Process(engine.process.pid).children(recursive=True)
            engine.process.kill()
            engine.process.wait()
            psutil.wait_procs(children, timeout=10)
            await eventually_async(lambda: refused > 10)
            # the data directory is whole: the same command starts it again
            engine.process = subprocess.Popen(
                command, cwd=engine.directory / "run", env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True, **engine._owner,
            )  # fmt: skip
            before = len(done)
            await eventually_async(lambda: len(done) > before + 100, within=20)
            stopping = True
            await asyncio.gather(*callers)
            assert await sink.healthy()
        stored = {row[0] for row in rows(config, "SELECT id FROM audit_event")}
        assert set(done) <= stored
        assert len(set(done)) == len(done)
        chain_is_whole(config)
        engine.process.send_signal(signal.SIGINT)


async def test_it_starts_without_a_database_and_begins_when_there_is_one(sqlite_config: SinkConfig) -> None:
    assert sqlite_config.sqlite is not None
    away = sqlite_config.sqlite.with_name("away")
    sqlite_config.sqlite.rename(away)
    async with running(sqlite_config, ready=False) as sink:
        await eventually_async(lambda: sink.failure and "open" in sink.failure)
        await refused_in_time(sink.append(intent()), within=0.2)
        sink.post(note("test.kept"))
        away.rename(sqlite_config.sqlite)
        await works_again(sink)
    assert [row[0] for row in rows(sqlite_config, "SELECT event_type FROM audit_event ORDER BY id")] == [
        "test.kept",
        "test.back",
    ]


async def test_a_log_whose_lock_was_lost_to_another_process_is_continued_elsewhere(postgres_config: SinkConfig) -> None:
    async with running(postgres_config) as sink:
        await sink.append(intent("c1"))
        with psycopg.connect(postgres_config.postgres, autocommit=True) as other:
            other.execute(CUT)
            other.execute("SELECT pg_advisory_lock(%s, 0)", (0x5357_4155,))
            identity = await sink.append(outcome("c1"))
            assert identity >> 40 == 1
            assert sink.statistics.writer == 1
    assert chain_is_whole(postgres_config) == 2
