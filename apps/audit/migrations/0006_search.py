"""Indexes for searches, on PostgreSQL alone: by actor, by server, by tool, by trace, and by what did not succeed.

Each entry costs every call some microseconds of the server's time, none of this process's. On SQLite they would be paid for on the way
of each call, and are left out: there a search by these reads the newest rows, a bounded number for each page.
"""

from typing import Any

from django.db import migrations

INDEXES = {
    "audit_actor": "(actor_id, time) WHERE actor_id IS NOT NULL",
    "audit_server": "(server, time) WHERE server IS NOT NULL",
    "audit_tool": "(tool, time) WHERE tool IS NOT NULL",
    "audit_trace": "(trace) WHERE trace IS NOT NULL",
    "audit_trouble": "(outcome, time) WHERE outcome <> 'ok'",
}


def make(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        for name, what in INDEXES.items():
            schema_editor.execute(f"CREATE INDEX {name} ON audit_event {what}", params=None)


def drop(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        for name in INDEXES:
            schema_editor.execute(f"DROP INDEX {name}", params=None)


class Migration(migrations.Migration):
    dependencies = [("audit", "0005_retention_guard")]
    operations = [migrations.RunPython(make, drop, hints={"target": "log"})]
