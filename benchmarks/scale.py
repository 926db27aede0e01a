"""Does the cost of a call grow with what is registered and with what is logged? And what does a patch of a large snapshot cost?"""

import http.client
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.gauge import ROOT, load, serving
from benchmarks.installation import api, register
from tests.engines import Postgres, Valkey
from tests.product import Product

ROUNDS = 5


def scale(report: Any, url: str, folder: Path, options: Any) -> None:
    """Measure on SQLite, then on PostgreSQL."""
    _compare(report, "SQLite", url, folder / "scale-sqlite", options, 1.3, {})
    with Postgres() as engine, Valkey() as store:
        for name in ("small", "large"):
            engine.create(name)
        _compare(report, "PostgreSQL", url, folder / "scale-pg", options, 1.1, {"engine": engine, "store": store})


def _compare(report: Any, name: str, url: str, folder: Path, options: Any, limit: float, real: dict[str, Any]) -> None:
    from benchmarks.run import Check

    small, large = (_product(folder / size, size, number, real) for number, size in enumerate(("small", "large")))
    with large:
        register(large, "bench", transport="http", url=url)
    fill = ["--url", url, "--servers", str(options.servers), "--tools", str(options.tools), "--keys", str(options.keys)]
    started = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.fill", *fill, "--rows", str(options.rows)]
    subprocess.run(command, cwd=ROOT, env=large.environment, check=True)
    what = f"{options.servers:,} servers, {options.tools:,} tools, {options.keys:,} keys, {options.rows:,} audit rows"
    report.note(f"{name}: filled with {what} in {time.monotonic() - started:.0f} s.")
    with small, large:
        register(small, "bench", transport="http", url=url)
        readings: dict[str, list[Any]] = {"small": [], "large": []}
        for _ in range(ROUNDS):
            for size, product in (("small", small), ("large", large)):
                readings[size].append(
                    load(
                        f"{name}, {size}",
                        [f"{product.base_url}/mcp/bench"],
                        connections=64,
                        seconds=options.seconds,
                        key=product.key,
                        measured=serving(product.pid),
                    )
                )
        quietest = {size: min(found, key=lambda one: one.cpu_ms) for size, found in readings.items()}
        for size in ("small", "large"):
            quietest[size].what = f"{name}, 64 connections, {'almost empty' if size == 'small' else what}"
            report.add(quietest[size])
        report.checks.append(
            Check(f"{name}: CPU per call, large / small", quietest["large"].cpu_ms / quietest["small"].cpu_ms, limit)
        )
        in_force, stall = _patch(large)
        report.note(f"{name}: a patch of that snapshot was in force after {in_force * 1000:.0f} ms; the longest answer of "
                    f"/health/live meanwhile took {stall * 1000:.1f} ms.")  # fmt: skip
        report.checks.append(Check(f"{name}: patch in force", in_force, 1.0, unit="s"))
        report.checks.append(Check(f"{name}: longest answer of the loop during patches", stall * 1000, 20.0, unit="ms"))


def _product(home: Path, name: str, number: int, real: dict[str, Any]) -> Product:
    if not real:
        return Product(home)
    return Product(home, database_url=real["engine"].url(name), redis_url=real["store"].url(number))


def _patch(product: Product) -> tuple[float, float]:
    """Pause and resume a server ten times; return the median time until it is in force, and the longest health answer."""
    stop, longest = threading.Event(), [0.0]

    def ping() -> None:
        parts = urlsplit(product.base_url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        while not stop.is_set():
            started = time.perf_counter()
            connection.request("GET", "/health/live")
            connection.getresponse().read()
            longest[0] = max(longest[0], time.perf_counter() - started)
            time.sleep(0.002)

    thread = threading.Thread(target=ping)
    thread.start()
    times = []
    try:
        for number in range(10):
            verb = "resume" if number % 2 else "pause"
            started = time.perf_counter()
            api(product, "POST", f"servers/bulk-{number // 2}/{verb}/", {})
            while (_listed(product, f"bulk-{number // 2}") > 0) != (verb == "resume"):
                if time.perf_counter() - started > 5:
                    break
                time.sleep(0.005)
            times.append(time.perf_counter() - started)
    finally:
        stop.set()
        thread.join()
    return statistics.median(times), longest[0]


def _listed(product: Product, slug: str) -> int:
    import json

    parts = urlsplit(product.base_url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    connection.request("POST", f"/mcp/{slug}", body, {**product.headers, "Content-Type": "application/json"})
    return len(json.loads(connection.getresponse().read())["result"]["tools"])
