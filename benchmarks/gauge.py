"""Measures one load against one place, with the CPU that named processes used meanwhile."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
SERVING = "run_process"
"""What stands in the command line of the product's own children."""


@dataclass
class Reading:
    """One measured load."""

    what: str
    per_second: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float
    """CPU of the measured processes per call."""
    calls: int
    sample: str = ""
    database_cpu_ms: float = 0.0
    spread: str = ""
    """CPU per call of the round in the middle and of the most disturbed one."""


def cpu_of(processes: list[psutil.Process]) -> float:
    """Return the CPU seconds that processes have used so far."""
    used = 0.0
    for process in processes:
        try:
            used += sum(process.cpu_times()[:2])
        except psutil.NoSuchProcess:
            continue
    return used


def serving(product_pid: int) -> list[psutil.Process]:
    """Return the product's own processes below its supervisor, without the servers that it runs."""
    return [child for child in psutil.Process(product_pid).children(recursive=True) if SERVING in " ".join(_command(child))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def load(
    what: str,
    urls: list[str],
    *,
    connections: int,
    seconds: float,
    era: str = "modern",
    key: str = "",
    tool: str = "echo",
    measured: list[psutil.Process] | None = None,
    database: list[psutil.Process] | None = None,
) -> Reading:
    """Run the load generator and return what it and the processes' clocks say."""
    command = [sys.executable, "-m", "benchmarks.load", *urls, "--connections", str(connections), "--seconds", str(seconds)]
    command += ["--era", era, "--key", key, "--tool", tool]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    before = after = data_before = data_after = 0.0
    result: dict = {}
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("START"):
            before, data_before = cpu_of(measured or []), cpu_of(database or [])
        elif line.startswith("STOP"):
            after, data_after = cpu_of(measured or []), cpu_of(database or [])
        else:
            result = json.loads(line)
    calls = max(result["calls"], 1)
    return Reading(
        what,
        result["per_second"],
        result["p50_ms"],
        result["p99_ms"],
        result["errors"],
        (after - before) * 1000 / calls,
        result["calls"],
        result["sample"],
        (data_after - data_before) * 1000 / calls,
    )


def quietest(rounds: int, *arguments: Any, **options: Any) -> Reading:
    """Run a load several times and return the reading that others disturbed least, by CPU or, with one connection, by p50.

    All errors count. On a machine whose processors others share, single readings differ by a third, and always upwards:
    as with `timeit`, the least one says most about the code.
    """
    found = [load(*arguments, **options) for _ in range(rounds)]
    by_time = options["connections"] == 1
    chosen = min(found, key=lambda one: one.p50_ms if by_time else one.cpu_ms)
    chosen.errors = sum(one.errors for one in found)
    costs = sorted(one.cpu_ms for one in found)
    chosen.spread = f"{costs[rounds // 2]:.3f} to {costs[-1]:.3f}"
    return chosen


def sqlite_commit_ms(directory: Path) -> float:
    """Return the median time of a one-row commit with synchronous=FULL in WAL, in milliseconds."""
    import sqlite3

    path = directory / f"commit-{os.getpid()}.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)")
    times = []
    for _ in range(300):
        started = time.perf_counter()
        connection.execute("INSERT INTO t (body) VALUES (?)", (b"x" * 400,))
        times.append(time.perf_counter() - started)
    connection.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    return sorted(times)[150] * 1000


def postgres_commit_ms(url: str) -> float:
    """Return the median time of a one-row commit with synchronous_commit=on, in milliseconds."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit=on")
        connection.execute("CREATE TABLE IF NOT EXISTS bench_commit (id bigserial PRIMARY KEY, body bytea)")
        times = []
        for _ in range(300):
            started = time.perf_counter()
            connection.execute("INSERT INTO bench_commit (body) VALUES (%s)", (b"x" * 400,))
            times.append(time.perf_counter() - started)
        connection.execute("DROP TABLE bench_commit")
    return sorted(times)[150] * 1000
