"""Several processes, and processes that die: nothing acknowledged is lost, chains stay whole, open calls are closed."""

import asyncio
import random
import signal
import subprocess
import sys
import time

import pytest

from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import decode
from apps.audit.sink.sweep import sweep_dead_writers
from tests.audit.logs import ROOT, chain_is_whole, intent, note, open_calls, outcome, raw, rows, running
from tests.support import eventually, eventually_async

WORKLOAD = """
import asyncio, os, sys
from pathlib import Path
from apps.audit.sink.config import SinkConfig
from tests.audit.logs import intent, outcome, running
async def main(config, rows):
    async with running(config) as sink:
        async def caller():
            while True:
                begun = intent()
                number = await sink.append(begun)
                os.write(1, b"%d\\n" % number)
                await asyncio.sleep(0)
                os.write(1, b"%d\\n" % await sink.append(outcome(begun.call_id)))
        await asyncio.gather(*(caller() for _ in range(20)))
url, path = sys.argv[1], Path(sys.argv[2])
asyncio.run(main(SinkConfig(postgres=url) if url else SinkConfig(sqlite=path, locks=path.parent / "locks"), 0))
"""


def start(config: SinkConfig) -> subprocess.Popen:
    """A process that appends calls as fast as it can and prints the id of every row that was acknowledged."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKLOAD, config.postgres or "", str(config.sqlite or "/")], cwd=ROOT, stdout=subprocess.PIPE
    )


def killed(process: subprocess.Popen, after: float) -> set[int]:
    """Kill a process some seconds after its first row and return the ids that it printed."""
    first = process.stdout.readline()
    time.sleep(after)  # the moment of death is what this is about
    process.send_signal(signal.SIGKILL)
    printed = (first + process.stdout.read()).split(b"\n")[:-1]
    process.wait()
    return {int(line) for line in printed}


@pytest.mark.parametrize("round", range(3))
async def test_a_killed_process_loses_no_acknowledged_row(config: SinkConfig, round: int) -> None:
    acknowledged = await asyncio.to_thread(killed, start(config), random.uniform(0.0, 0.4))
    stored = {row[0] for row in rows(config, "SELECT id FROM audit_event")}
    assert acknowledged
    assert acknowledged <= stored
    unfinished = {decode(body).call_id for body in open_calls(config)}
    before = len(stored)
    async with running(config) as sink:
        assert sink.statistics.writer == 0
        await sink.append(note())
    assert chain_is_whole(config) == before + len(unfinished) + 1
    assert open_calls(config) == []
    closed = [decode(bytes(row[0])) for row in rows(config, "SELECT body FROM audit_event WHERE outcome = 'unknown'")]
    assert {record.call_id for record in closed} == unfinished
    for record in closed:
        assert record.details == {"closed_by": "sweep"}
        assert (record.tenant, record.tool, record.actor) == ("t1", "say", "key one")


async def test_a_dead_writers_calls_are_closed_by_any_other_process(config: SinkConfig) -> None:
    async with running(config) as living:
        mine = intent("mine")
        await living.append(mine)
        process = start(config)
        await asyncio.to_thread(killed, process, 0.05)
        unfinished = {decode(body).call_id for body in open_calls(config)} - {"mine"}

        def swept() -> bool:
            # PostgreSQL gives the lock of a killed client back when it has noticed
            sweep_dead_writers(config)
            return {decode(body).call_id for body in open_calls(config)} == {"mine"}

        await asyncio.to_thread(eventually, swept)
        assert sweep_dead_writers(config) == 0
        assert [decode(body).call_id for body in open_calls(config)] == ["mine"]
        await living.append(outcome("mine"))
    closed = rows(config, "SELECT count(*) FROM audit_event WHERE outcome = 'unknown'")
    assert closed == [(len(unfinished),)]
    chain_is_whole(config)


async def test_processes_side_by_side_have_chains_of_their_own(config: SinkConfig) -> None:
    async with running(config) as first, running(config) as second:
        ids = await asyncio.gather(*(sink.append(note()) for sink in (first, second) for _ in range(50)))
        assert {identity >> 40 for identity in ids} == {0, 1}

    async def third_is_the_first_again() -> bool:
        async with running(config) as third:
            return third.statistics.writer == 0

    # PostgreSQL gives the lock back when it has ended the session, which is a moment after the client has
    await eventually_async(third_is_the_first_again)
    assert chain_is_whole(config) == 100


async def test_two_loaded_processes_share_a_log(config: SinkConfig) -> None:
    processes = [start(config), start(config)]
    results = await asyncio.gather(*(asyncio.to_thread(killed, process, 0.3) for process in processes))
    assert all(len(result) > 20 for result in results)
    assert not results[0] & results[1]
    stored = {row[0] for row in rows(config, "SELECT id FROM audit_event")}
    assert results[0] | results[1] <= stored
    chain_is_whole(config)


async def test_an_intent_that_was_tampered_with_does_not_keep_the_next_process_from_starting(config: SinkConfig) -> None:
    async with running(config) as sink:
        await sink.append(intent("bad"))
        await sink.append(intent("good"))
    disable = "ALTER TABLE audit_event DISABLE TRIGGER USER" if config.postgres else "DROP TRIGGER audit_event_no_update"
    with raw(config) as owner:
        owner.execute(disable)
        owner.execute("UPDATE audit_event SET body = '{' WHERE id = 1")
    async with running(config) as sink:
        await sink.append(note())
    assert rows(config, "SELECT call_id FROM audit_event WHERE outcome = 'unknown'") == [("good",)]


async def test_an_intent_whose_outcome_is_in_another_chain_is_not_open(config: SinkConfig) -> None:
    async with running(config) as first, running(config) as second:
        await first.append(intent("c"))
        await second.append(outcome("c"))
    async with running(config) as third:
        await third.append(note())
    assert rows(config, "SELECT count(*) FROM audit_event WHERE outcome = 'unknown'") == [(0,)]
