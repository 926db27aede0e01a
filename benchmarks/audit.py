"""Measures the log as a whole: verification, export and search over many rows, on SQLite and PostgreSQL.

    python -m benchmarks.audit [--rows 1000000] [--database sqlite postgres] [--directory DIR] [--searches 20]

Fills a fresh log with rows like the gateway's (two for each call, 1 in 50 a change of the control plane) over 30 days, by the
sink's own store, then measures. Search says p50 and p95 of `--searches` different questions of each kind, first page, as the API asks them.
"""

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

DAYS = 30
TENANTS, KEYS, SERVERS, TOOLS = 20, 200, 40, 12


def configure(url: str, home: Path) -> None:
    """Set Django up with the log's tables alone."""
    import django
    from django.conf import settings
    from psycopg.conninfo import conninfo_to_dict

    from apps.audit.checkpoints.keys import new_checkpoint_key
    from config.environment import SQLITE_INIT

    if url:
        at = conninfo_to_dict(url)
        databases = {
            "default": {
                "ENGINE": "django.db.backends.postgresql", "NAME": at["dbname"], "USER": at["user"], "HOST": at["host"],
                "PASSWORD": at["password"], "PORT": str(at["port"]),
            }
        }  # fmt: skip
    else:
        databases = {
            name: {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(home / f"{name}.sqlite3"),
                "OPTIONS": {"timeout": 20, "init_command": SQLITE_INIT.format(sync="FULL")},
            }
            for name in ("default", "audit")
        }
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "apps.common", "apps.audit"],
        DATABASES=databases,
        AUDIT_DATABASE="default" if url else "audit",
        DATABASE_ROUTERS=["apps.audit.router.AuditRouter"],
        USE_TZ=True,
        SWITCHYARD=SimpleNamespace(checkpoint_keys=new_checkpoint_key(), checkpoints=[], aws=None),
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    )
    django.setup()
    from django.core.management import call_command

    for alias in databases:
        call_command("migrate", database=alias, verbosity=0, skip_checks=True)


def fill(rows: int, seed: int = 7) -> dict[str, list[str]]:
    """Write rows into two chains; return values to search for."""
    from apps.audit.runtime import sink_config_from_settings
    from apps.audit.sink.chain import Chain
    from apps.audit.sink.record import INTENT, OUTCOME, AuditRecord, encode
    from apps.audit.sink.stores import make_store
    from apps.common.ids import new_id_text

    dice = random.Random(seed)
    tenants = [new_id_text() for _ in range(TENANTS)]
    keys = [(new_id_text(), f"agent {number}", tenants[number % TENANTS]) for number in range(KEYS)]
    tools = [(f"server-{server}", f"tool_{tool}", new_id_text()) for server in range(SERVERS) for tool in range(TOOLS)]
    # a server is of one tenant, whose keys call it
    of_tenant = {
        tenant: [tool for at, tool in enumerate(tools) if at // TOOLS % TENANTS == number]
        for number, tenant in enumerate(tenants)
    }
    known: dict[str, list[str]] = {"tenant": tenants, "actor_id": [key[0] for key in keys], "actor": [key[1] for key in keys]}
    known |= {
        "tool": [tool[1] for tool in tools],
        "server": [tool[0] for tool in tools],
        "object_id": [],
        "call_id": [],
        "trace": [],
    }
    store = make_store(sink_config_from_settings())
    store.open()
    end = time.time_ns() // 1000
    step = DAYS * 86_400_000_000 // rows
    chains = [Chain(store.head(store.claim(writer))) for writer in (0, 1)]
    batch: list[Any] = []
    for number in range(0, rows, 2):
        at = end - (rows - number) * step
        if number % 100 == 0:
            key = dice.choice(keys)
            server, _, identity = dice.choice(of_tenant[key[2]])
            known["object_id"].append(identity)
            batch += [
                AuditRecord("server.updated", at, tenant=key[2], actor_kind="user", actor_id=key[0], actor=key[1], origin="admin",
                            action="server.write", object_kind="server", object_id=identity, object=server, outcome="ok",
                            details={"before": {"paused": False}, "after": {"paused": True}}),
                AuditRecord("auth.login", at, actor_kind="user", actor_id=key[0], actor=key[1], origin="admin", outcome="ok",
                            object_kind="user", object_id=key[0], object=key[1]),
            ]  # fmt: skip
        else:
            key, call_id, trace = dice.choice(keys), new_id_text(), f"{dice.getrandbits(128):032x}"
            tool = dice.choice(of_tenant[key[2]])
            if number % 1000 == 2:
                known["call_id"].append(call_id)
                known["trace"].append(trace)
            for kind in (INTENT, OUTCOME):
                done = kind == OUTCOME
                batch.append(
                    AuditRecord(
                        kind, at, tenant=key[2], actor_kind="api_key", actor_id=key[0], actor=key[1], origin="mcp",
                        agent="example-client/1.2.3", request_id="17", trace=trace, call_id=call_id, action="tool.call",
                        object_kind="tool", object=f"{tool[0]}__{tool[1]}", server=tool[0], tool=tool[1],
                        revision="2026-07-28", duration_us=1234 if done else None,
                        outcome=("error" if dice.random() < 0.02 else "ok") if done else None,
                        request_bytes=120, response_bytes=96 if done else None,
                        details={"result_sha256": "b" * 64} if done else {"arguments_sha256": "a" * 64, "arguments": '{"text":"hello"}'},
                    )
                )  # fmt: skip
        if len(batch) >= 512 or number + 2 >= rows:
            chain = chains[number // 2 % 2]
            for start in range(0, len(batch), 512):
                records = batch[start : start + 512]
                made = chain.batch([encode(record) for record in records])
                store.append(made)
                chain.committed(made, records)
            batch = []
    store.close()
    return known


def timed(what: str, rows: int, action: Any) -> None:
    """Run and print rows per second and how much memory that took."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    count = action()
    took = time.perf_counter() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(
        f"  {what:<34} {count or rows:>10,} rows  {took:>7.2f} s  {(count or rows) / took:>10,.0f} rows/s  +{grown / 1024:.0f} MB",
        flush=True,
    )


def measure(rows: int, searches: int) -> None:
    """Fill and measure the configured database."""
    from django.conf import settings
    from django.db import connections

    from apps.audit.formats import FORMATS
    from apps.audit.services.export import Export
    from apps.audit.services.verify import check_log
    from apps.common.context import SYSTEM, every_tenant

    started = time.perf_counter()
    known = fill(rows)
    print(f"  filled {rows:,} rows in {time.perf_counter() - started:.0f} s", flush=True)
    connection = connections[settings.AUDIT_DATABASE]
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")

    def verify(columns: bool) -> int:
        report = check_log(columns=columns)
        if not report.ok:
            raise SystemExit(f"the log is not whole: {report.problems}")
        return report.rows

    timed("verify, stored bytes alone", rows, lambda: verify(columns=False))
    timed("verify, with columns", rows, lambda: verify(columns=True))

    def export(name: str) -> int:
        with every_tenant(SYSTEM):
            taken = Export(name, {})
            for _ in taken.chunks():
                pass
        return taken.rows

    for name in FORMATS:
        timed(f"export, {name}", rows, lambda name=name: export(name))
    search(known, searches)


def search(known: dict[str, list[str]], searches: int) -> None:
    """Ask different questions of each kind, and print p50 and p95 of a page."""
    from apps.audit import selectors
    from apps.common.clock import now
    from apps.common.context import SYSTEM, every_tenant, tenant_scope

    dice = random.Random(11)

    def some(name: str) -> Any:
        return dice.choice(known[name])

    def page(**filters: Any) -> Any:
        return selectors.events(limit=50, **filters)

    def deep(**filters: Any) -> Any:
        """A page from the middle."""
        return page(until=now() - timedelta(days=DAYS * dice.random()), **filters)

    kinds: dict[str, Any] = {
        "newest": lambda: page(),
        "by tenant, any time": lambda: deep(tenant=some("tenant")),
        "by actor": lambda: deep(actor_id=some("actor_id")),
        "by an actor who is not there": lambda: page(actor_id="nobody"),
        "by tool": lambda: deep(tool=some("tool"), server=some("server")),
        "by a tool that is not there": lambda: page(tool="nothing"),
        "by object": lambda: page(object_kind="server", object_id=some("object_id")),
        "by outcome": lambda: deep(outcome=["error", "failed", "refused", "unknown"]),
        "by outcome that is not there": lambda: page(outcome="cancelled"),
        "by trace": lambda: page(trace=some("trace")),
        "by call": lambda: page(call_id=some("call_id")),
        "by text": lambda: deep(text=some("actor")),
        "by a text that is not there": lambda: page(text="zebra"),
        "by server, outcome and hour": lambda: page(server=some("server"), outcome="error", since=now() - timedelta(hours=1)),
    }
    for scope, opened in (
        ("every tenant", lambda: every_tenant(SYSTEM)),
        ("one tenant", lambda: tenant_scope(some("tenant"), SYSTEM)),
    ):
        worst = 0.0
        for name, ask in kinds.items():
            took = []
            for _ in range(searches):
                with opened():
                    started = time.perf_counter()
                    ask()
                    took.append(time.perf_counter() - started)
            took.sort()
            p95 = took[min(int(len(took) * 0.95), len(took) - 1)]
            worst = max(worst, p95)
            print(f"  search {name:<32} p50 {took[len(took) // 2] * 1e3:>7.1f} ms  p95 {p95 * 1e3:>7.1f} ms", flush=True)
        print(f"  search in {scope}: the slowest kind has p95 {worst * 1e3:.0f} ms", flush=True)


def main() -> None:
    """Run what the command line asks for; each database in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--database", nargs="*", default=["sqlite", "postgres"])
    parser.add_argument("--directory", default=None)
    options = parser.parse_args()
    for database in options.database:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _run(database, options)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit(1)


def _run(database: str, options: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-", dir=options.directory) as directory:
        if database == "postgres":
            from tests.engines import Postgres

            with Postgres(durable=True) as engine:
                configure(engine.create("bench"), Path(directory))
                print("PostgreSQL", flush=True)
                measure(options.rows, options.searches)
        else:
            configure("", Path(directory))
            print("SQLite", flush=True)
            measure(options.rows, options.searches)


if __name__ == "__main__":
    main()
