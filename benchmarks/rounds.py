"""What a question of the server's to the client costs more through the gateway: a call with one elicitation in it, in each pair of eras."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.installation import register
from tests.e2e.canaries import Report as Sung
from tests.e2e.canaries import Singer, choir
from tests.product import Product

CALLS = 200
LIMIT_MS = 5.0
SETTLE_SECONDS = 4


def rounds(report: Any, folder: Path) -> None:
    """Measure one call after another on one connection, directly and through the gateway."""
    from benchmarks.run import Check

    with choir("modern") as modern, choir("legacy") as legacy, Product(folder / "rounds") as product:
        urls = {"modern": modern, "legacy": legacy}
        for era, url in urls.items():
            register(product, f"choir-{era}", transport="http", url=url)
        time.sleep(SETTLE_SECONDS)
        direct = {era: _median(url, "", era) for era, url in urls.items()}
        for client in urls:
            for server in urls:
                through = _median(f"{product.base_url}/mcp/choir-{server}", product.key, client)
                added = through - direct[server]
                report.note(
                    f"An elicitation, {client} client, {server} server: p50 {through:.2f} ms of the whole call, "
                    f"{direct[server]:.2f} ms directly with a client of the server's era."
                )
                report.checks.append(
                    Check(f"elicitation, {client} client, {server} server: p50 added", added, LIMIT_MS, unit="ms")
                )


def _median(url: str, key: str, era: str) -> float:
    async def measure() -> float:
        sung, times = Sung(), []
        async with aiohttp.ClientSession() as http:
            for number in range(CALLS):
                started = time.perf_counter()
                await Singer(http, url, key, era, f"canary-{number}-0", sung).sing()
                times.append((time.perf_counter() - started) * 1000)
        if sung.answered != CALLS:
            raise RuntimeError(f"{CALLS - sung.answered} calls failed: {(sung.failed + sung.crossed)[:3]}")
        return statistics.median(times)

    return asyncio.run(measure())
