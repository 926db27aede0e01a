"""Fills an installation's databases with generated data: servers with tools, keys with grants, audit rows in a valid chain.

    SWITCHYARD_HOME=… [DATABASE_URL=…] python -m benchmarks.fill --url URL --servers 1000 --tools 10000 --keys 10000 --rows 1000000

The installation must have been started once, and must not run.
"""

import argparse
import asyncio
import os
import time

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.development")

import django

django.setup()

from apps.accounts.models import APIKey, Tenant, User  # noqa: E402
from apps.audit.runtime import sink_config_from_settings  # noqa: E402
from apps.audit.sink.record import AuditRecord  # noqa: E402
from apps.audit.sink.sink import open_sink  # noqa: E402
from apps.common.clock import now  # noqa: E402
from apps.common.context import every_tenant  # noqa: E402
from apps.common.crypto.tokens import new_api_key  # noqa: E402
from apps.servers.models import Endpoint, Server  # noqa: E402
from apps.tools.domain import digest  # noqa: E402
from apps.tools.models import Grant, Tool, Toolset  # noqa: E402

BATCH = 1000


def catalogue(url: str, servers: int, tools: int) -> None:
    """Make servers, each with its endpoint, its toolset and an equal share of the tools."""
    tenant = Tenant.objects.get(slug="default")
    each = max(tools // max(servers, 1), 1)
    # as if it had been discovered: what never was is discovered at the next start
    common = {"tenant": tenant, "transport": "http", "discovered_at": now()}
    rows = [Server(slug=f"bulk-{number}", name=f"Bulk {number}", **common) for number in range(servers)]
    Server.objects.bulk_create(rows, BATCH)
    Endpoint.objects.bulk_create(
        [Endpoint(tenant=tenant, server=row, url=url, state="healthy", era="dual") for row in rows], BATCH
    )
    Toolset.objects.bulk_create([Toolset(tenant=tenant, server=row, slug=row.slug, name=row.name) for row in rows], BATCH)
    made = []
    for row in rows:
        for number in range(each):
            definition = {
                "name": f"tool_{number}",
                "description": f"Does the work number {number} of {row.slug}.",
                "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
            }
            made.append(
                Tool(
                    tenant=tenant,
                    server=row,
                    name=definition["name"],
                    definition=definition,
                    digest=digest(definition),
                    position=number,
                )
            )
    Tool.objects.bulk_create(made, BATCH)


def keys(count: int) -> None:
    """Make keys of the first operator, each with a grant of its own."""
    tenant, owner = Tenant.objects.get(slug="default"), User.objects.order_by("date_joined").first()
    rows = []
    for number in range(count):
        made = new_api_key()
        rows.append(APIKey(tenant=tenant, owner=owner, name=f"bulk {number}", prefix=made.prefix, digest=made.digest))
    APIKey.objects.bulk_create(rows, BATCH)
    Grant.objects.bulk_create([Grant(tenant=tenant, kind="tool", api_key=row, pattern="bulk-1__*") for row in rows], BATCH)


async def log(rows: int) -> None:
    """Write audit rows through the sink."""
    with every_tenant():
        config = await asyncio.to_thread(sink_config_from_settings)
    sink = open_sink(config)
    sink.start(asyncio.get_running_loop())
    if not await sink.ready():
        raise SystemExit(f"the audit log cannot be written: {sink.failure}")
    written, started = 0, time.time_ns() // 1000 - rows * 1000
    while written < rows:
        for number in range(written, min(written + 500, rows)):
            sink.post(
                AuditRecord(
                    event_type="call.refused",
                    time_us=started + number * 1000,
                    tenant="01900000-0000-7000-8000-000000000000",
                    actor_kind="api_key",
                    actor_id=f"key-{number % 10_000}",
                    actor="generated",
                    origin="mcp",
                    call_id=f"01900000-0000-7000-8000-{number:012x}",
                    action="tool.call",
                    object_kind="tool",
                    object=f"tool_{number % 10_000}",
                    server=f"bulk-{number % 1000}",
                    tool=f"tool_{number % 10}",
                    outcome="refused",
                    details={"path": "/mcp", "rule": "default-deny"},
                )
            )
        written = min(written + 500, rows)
        while sink.waiting > 5000:
            await asyncio.sleep(0.002)
        if written % 1_000_000 == 0:
            print(f"{written:,} audit rows", flush=True)
    while sink.waiting:
        await asyncio.sleep(0.01)
    await sink.aclose(30)


def roll_up_log() -> int:
    """Make the roll-ups that an installation of this age has, so that it does not make them while it is measured."""
    from apps.audit.services.rollups import roll_up

    total = 0
    while seen := roll_up(100_000):
        total += seen
    return total


def main() -> None:
    """Read the command line and fill."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:9/mcp")
    parser.add_argument("--servers", type=int, default=0)
    parser.add_argument("--tools", type=int, default=0)
    parser.add_argument("--keys", type=int, default=0)
    parser.add_argument("--rows", type=int, default=0)
    options = parser.parse_args()
    with every_tenant():
        catalogue(options.url, options.servers, options.tools)
        keys(options.keys)
    if options.rows:
        asyncio.run(log(options.rows))
        print(f"rolled up {roll_up_log():,} rows", flush=True)


if __name__ == "__main__":
    main()
