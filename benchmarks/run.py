"""`make bench`: what a governed call costs, as ratios against the same upstream called directly, in one run.

    python -m benchmarks.run [--seconds 5] [--only sqlite,postgres,rounds,scale,peers] [--servers 1000 --tools 10000 --keys 10000 --rows 0]

Writes benchmarks/RESULTS.md. Load generator, upstream, database and gateway share this machine's processors.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.gauge import ROOT, Reading, load, postgres_commit_ms, quietest, serving, sqlite_commit_ms
from benchmarks.installation import register, stdio_settings
from tests.engines import Postgres, Valkey, free_port
from tests.product import Product

ROUNDS = 5
SETTLE_SECONDS = 4
"""For what a start leaves to do in the background."""
RESULTS = ROOT / "benchmarks" / "RESULTS.md"


@dataclass
class Check:
    """A figure that has to hold."""

    what: str
    measured: float
    limit: float
    more_is_better: bool = False
    unit: str = ""

    @property
    def holds(self) -> bool:
        """Tell whether it does."""
        return self.measured >= self.limit if self.more_is_better else self.measured <= self.limit


@dataclass
class Report:
    """Everything that was measured."""

    readings: list[Reading] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    direct: dict[int, Reading] = field(default_factory=dict)

    def add(self, reading: Reading) -> Reading:
        """Keep a reading, and show it."""
        self.readings.append(reading)
        print(
            f"{reading.what:44} {reading.per_second:8.0f}/s  p50 {reading.p50_ms:7.2f}  p99 {reading.p99_ms:7.2f} ms  "
            f"cpu {reading.cpu_ms:.3f} ms  db {reading.database_cpu_ms:.3f} ms  errors {reading.errors} {reading.sample[:200]}",
            flush=True,
        )
        return reading

    def note(self, text: str) -> None:
        """Keep a line of explanation, and show it."""
        self.notes.append(text)
        print(text, flush=True)


def upstream() -> tuple[subprocess.Popen, str]:
    """Start the trivial MCP server."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "benchmarks.upstream:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen([*command, "--no-access-log"], cwd=ROOT)
    time.sleep(1.5)
    return process, f"http://127.0.0.1:{port}/mcp"


def required_rate(wanted: float, commit_ms: float) -> float:
    """Return the calls per second to hold: on a slow disk less, because every call waits for two commits."""
    return wanted if commit_ms <= 0.3 else min(wanted, 0.6 * 64 / (4 * commit_ms / 1000))


def single(report: Report, name: str, product: Product, commit: float, options, database: list[psutil.Process]) -> None:
    """Measure one gateway before the HTTP upstream, in both eras, at 64 connections and one."""
    cpu_limit, rate = (0.20, 5000.0) if name == "SQLite" else (0.22, 4500.0)
    url, measured = f"{product.base_url}/mcp/bench", serving(product.pid)
    for era in ("modern", "legacy"):
        reading = report.add(
            quietest(
                ROUNDS,
                f"{name}, {era}, 64 connections",
                [url],
                connections=64,
                seconds=options.seconds,
                era=era,
                key=product.key,
                measured=measured,
                database=database,
            )
        )
        report.checks += [
            Check(f"{name} {era}: gateway CPU per call", reading.cpu_ms, cpu_limit, unit="ms"),
            Check(f"{name} {era}: calls/s", reading.per_second, required_rate(rate, commit), more_is_better=True),
            Check(f"{name} {era}: p99", reading.p99_ms, 40, unit="ms"),
            Check(f"{name} {era}: errors", reading.errors, 0),
        ]
        one = report.add(
            quietest(
                ROUNDS,
                f"{name}, {era}, 1 connection",
                [url],
                connections=1,
                seconds=options.seconds,
                era=era,
                key=product.key,
                measured=measured,
                database=database,
            )
        )
        added = one.p50_ms - report.direct[1].p50_ms
        report.checks.append(Check(f"{name} {era}: p50 added at 1 connection", added, 2 * commit + 0.7, unit="ms"))


def sqlite(report: Report, url: str, folder: Path, options) -> None:
    """One process on SQLite, HTTP and stdio upstream."""
    commit = sqlite_commit_ms(folder)
    report.note(f"SQLite FULL: a one-row commit takes {commit:.2f} ms here.")
    with Product(folder / "sqlite") as product:
        register(product, "bench", transport="http", url=url)
        time.sleep(SETTLE_SECONDS)
        single(report, "SQLite", product, commit, options, [])
        register(product, "stdio", **stdio_settings(ROOT))
        reading = report.add(
            quietest(
                ROUNDS,
                "SQLite, stdio upstream, 64 connections",
                [f"{product.base_url}/mcp/stdio"],
                connections=64,
                seconds=options.seconds,
                key=product.key,
                measured=serving(product.pid),
            )
        )
        limit = required_rate(2000.0, commit)
        report.checks.append(Check("stdio upstream: calls/s", reading.per_second, limit, more_is_better=True))


def postgres(report: Report, url: str, folder: Path, options) -> None:
    """One gateway, then two, on PostgreSQL and Redis."""
    with Postgres() as engine, Valkey() as store:
        database_url = engine.create("bench")
        commit = postgres_commit_ms(database_url)
        report.note(f"PostgreSQL synchronous_commit=on: a one-row commit takes {commit:.2f} ms here.")
        data = [engine.process.pid] if engine.process else []
        with Product(folder / "pg", database_url=database_url, redis_url=store.url()) as product:
            register(product, "bench", transport="http", url=url)
            time.sleep(SETTLE_SECONDS)
            family = [one for pid in data for one in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
            single(report, "PostgreSQL", product, commit, options, family)
            key, password = product.key, product.password
        first = Product(
            folder / "pg", role="gateway", database_url=database_url, redis_url=store.url(), key=key, password=password
        )
        with first as one:
            second = Product(
                folder / "pg", role="gateway", database_url=database_url, redis_url=store.url(), key=key, password=password
            )
            with second as two:
                reading = report.add(
                    quietest(
                        ROUNDS,
                        "PostgreSQL, two gateways, 64 connections",
                        [f"{one.base_url}/mcp/bench", f"{two.base_url}/mcp/bench"],
                        connections=64,
                        seconds=options.seconds,
                        key=key,
                        measured=[*serving(one.pid), *serving(two.pid)],
                    )
                )
                limit = required_rate(4000.0, commit)
                report.checks += [
                    Check("two gateways: calls/s", reading.per_second, limit, more_is_better=True),
                    Check("two gateways: errors", reading.errors, 0),
                ]


def peers(report: Report, url: str, options) -> None:
    """fastmcp's proxy before the same upstream."""
    port = free_port()
    program = (
        "from fastmcp.server import create_proxy\n"
        f"create_proxy({url!r}).run(transport='http', host='127.0.0.1', port={port}, show_banner=False, log_level='error')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "FASTMCP_LOG_ENABLED": "false"})
    try:
        time.sleep(6)
        measured = [psutil.Process(process.pid)]
        place = [f"http://127.0.0.1:{port}/mcp"]
        report.add(
            load("fastmcp proxy, modern, 8 connections", place, connections=8, seconds=options.seconds, measured=measured)
        )
    finally:
        process.terminate()
        process.wait(10)


def main() -> int:
    """Measure, write the report, and tell whether every figure holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--only", default="sqlite,postgres,rounds,scale" + (",peers" if os.environ.get("PEERS") else ""))
    parser.add_argument("--servers", type=int, default=1000)
    parser.add_argument("--tools", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=int(os.environ.get("ROWS", "1000000")), help="audit rows of the scale run")
    parser.add_argument("--no-write", action="store_true")
    options = parser.parse_args()
    wanted = options.only.split(",")
    report = Report()
    process, url = upstream()
    try:
        with tempfile.TemporaryDirectory(prefix="switchyard-bench-", dir=options_folder()) as folder:
            for connections in (64, 1):
                measured = [psutil.Process(process.pid)]
                reading = load(
                    f"upstream directly, {connections}",
                    [url],
                    connections=connections,
                    seconds=options.seconds,
                    measured=measured,
                )
                report.direct[connections] = report.add(reading)
            if "sqlite" in wanted:
                sqlite(report, url, Path(folder), options)
            if "postgres" in wanted:
                postgres(report, url, Path(folder), options)
            if "rounds" in wanted:
                from benchmarks.rounds import rounds

                rounds(report, Path(folder))
            if "scale" in wanted:
                from benchmarks.scale import scale

                scale(report, url, Path(folder), options)
            if "peers" in wanted:
                peers(report, url, options)
    finally:
        process.terminate()
        process.wait(10)
    text = render(report)
    if not options.no_write:
        RESULTS.write_text(text)
    print(text)
    return 0 if all(check.holds for check in report.checks) else 1


def options_folder() -> str | None:
    """Return where temporary installations are made: TMPDIR, or the system's default."""
    return os.environ.get("TMPDIR")


def render(report: Report) -> str:
    """Return the report as Markdown."""
    direct = report.direct[64]
    lines = [
        "# What a governed call costs",
        "",
        (
            "Made by `make bench`. Every call is authenticated, authorised, its arguments checked against the accepted schema, and "
            "its intent and outcome committed to the audit log before it is sent and before it is answered."
        ),
        "",
        (
            f"Python {platform.python_version()}, {os.cpu_count()} processors; load generator, upstream, database and gateway share "
            "them. Ratios within one run are what counts. Of five rounds of each load the one that was disturbed least stands here, by CPU or, with one connection, by p50."
        ),
        "",
        *(f"* {note}" for note in report.notes),
        "",
        "| load | calls/s | of direct | p50 ms | p99 ms | CPU ms per call | middle to most | database CPU ms | errors |",
        "|-|-|-|-|-|-|-|-|-|",
    ]
    lines += [
        f"| {one.what} | {one.per_second:,.0f} | {one.per_second / direct.per_second:.2f} | {one.p50_ms:.2f} | {one.p99_ms:.2f} "
        f"| {one.cpu_ms:.3f} | {one.spread} | {one.database_cpu_ms:.3f} | {one.errors} |"
        for one in report.readings
    ]
    lines += ["", "| figure | measured | limit | holds |", "|-|-|-|-|"]
    lines += [
        f"| {check.what} | {check.measured:,.3f} {check.unit} | {'≥' if check.more_is_better else '≤'} {check.limit:,.3f} "
        f"| {'yes' if check.holds else '**no**'} |"
        for check in report.checks
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
