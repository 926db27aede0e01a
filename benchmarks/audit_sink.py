"""Measures the audit sink alone: rows per second, processor time per row, time of a commit, on SQLite FULL and PostgreSQL.

    python -m benchmarks.audit_sink [--seconds 4] [--callers 1 8 64] [--database sqlite postgres]

A caller appends an intent and an outcome in turn and waits for each, as the gateway does for a call. Processor time is that of
this whole process (event loop, encoding, chaining, writer thread); PostgreSQL's own is named beside it. The databases are
fresh, durable, and on the disk that `--directory` names.
"""

import argparse
import asyncio
import resource
import tempfile
import time
from pathlib import Path

import psutil
import uvloop

from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import INTENT, OUTCOME, AuditRecord
from apps.audit.sink.sink import open_sink
from apps.common.ids import new_id
from tests.audit.logs import migrate
from tests.engines import Postgres

_TENANT, _KEY, _TOOL = str(new_id()), str(new_id()), str(new_id())


def record(kind: str, call_id: str) -> AuditRecord:
    """Return a row like the gateway's, about 700 bytes of JSON."""
    done = kind == OUTCOME
    return AuditRecord(
        kind,
        time.time_ns() // 1000,
        tenant=_TENANT,
        actor_kind="api_key",
        actor_id=_KEY,
        actor="build agent",
        origin="mcp",
        agent="example-client/1.2.3",
        request_id="17",
        call_id=call_id,
        action="tool.call",
        object_kind="tool",
        object_id=_TOOL,
        object="echo__say",
        server="echo",
        tool="say",
        revision="2026-07-28",
        outcome="ok" if done else None,
        duration_us=1234 if done else None,
        request_bytes=120,
        response_bytes=96 if done else None,
        details={"result_sha256": "b" * 64} if done else {"arguments_sha256": "a" * 64, "arguments": '{"text":"hello"}'},
    )


def processor_seconds(engine: psutil.Process | None) -> dict[int, float]:
    """Return the processor time so far of a database engine's parent process and of each process below it."""
    used = {}
    for process in [engine, *engine.children(recursive=True)] if engine else ():
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used[process.pid] = times.user + times.system
    return used


async def measure(config: SinkConfig, callers: int, seconds: float, engine: psutil.Process | None) -> str:
    """Run the callers for a while and return a line of figures."""
    sink = open_sink(config)
    sink.start(asyncio.get_running_loop())
    if not await sink.ready():
        raise SystemExit(f"the sink does not start: {sink.failure}")
    latencies: list[float] = []
    end = 0.0

    async def caller() -> None:
        while time.perf_counter() < end:
            call_id = str(new_id())
            started = time.perf_counter()
            await sink.append(record(INTENT, call_id))
            latencies.append(time.perf_counter() - started)
            await sink.append(record(OUTCOME, call_id))

    async def phase(length: float) -> None:
        nonlocal end
        end = time.perf_counter() + length
        await asyncio.gather(*(caller() for _ in range(callers)))

    await phase(min(1.0, seconds / 4))
    latencies.clear()
    before = sink.statistics
    rows, commits, in_commits = before.rows, before.commits, before.commit_seconds
    used, engine_used, started = resource.getrusage(resource.RUSAGE_SELF), processor_seconds(engine), time.perf_counter()
    await phase(seconds)
    took = time.perf_counter() - started
    engine_now = processor_seconds(engine)
    now, after = resource.getrusage(resource.RUSAGE_SELF), sink.statistics
    await sink.aclose()
    rows, commits = after.rows - rows, after.commits - commits
    cpu = (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime) / rows
    latencies.sort()
    line = (
        f"{callers:>4} callers  {rows / took:>8,.0f} rows/s  {cpu * 1e6:>6.1f} us CPU/row  batch {rows / commits:>5.1f}  "
        f"commit {(after.commit_seconds - in_commits) / commits * 1e3:>6.2f} ms  "
        f"append p50 {latencies[len(latencies) // 2] * 1e3:>6.2f} p99 {latencies[int(len(latencies) * 0.99)] * 1e3:>6.2f} ms"
    )
    if engine:
        spent = sum(now - engine_used.get(pid, 0.0) for pid, now in engine_now.items())
        line += f"  server {spent / rows * 1e6:.1f} us CPU/row"
    return line


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--database", nargs="*", default=["sqlite", "postgres"])
    parser.add_argument("--directory", default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-", dir=options.directory) as directory:
        home = Path(directory)
        if "sqlite" in options.database:
            migrate(f"sqlite:///{home}/audit.sqlite3")
            print("SQLite, synchronous=FULL")
            for callers in options.callers:
                config = SinkConfig(sqlite=home / "audit.sqlite3", locks=home / "locks")
                print("  " + uvloop.run(measure(config, callers, options.seconds, None)), flush=True)
        if "postgres" in options.database:
            with Postgres(durable=True) as postgres:
                url = postgres.create("bench")
                migrate(url)
                print("PostgreSQL, synchronous_commit=on")
                for callers in options.callers:
                    engine = psutil.Process(postgres.process.pid)
                    print("  " + uvloop.run(measure(SinkConfig(postgres=url), callers, options.seconds, engine)), flush=True)


if __name__ == "__main__":
    main()
