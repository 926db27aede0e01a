"""What SQL alone can say: rows of the log are never changed or removed, and SQLite appends by one statement.

Retention, when payloads reach their age, has a way of its own and not through these guards: it detaches whole partitions
(PostgreSQL) or drops and makes the trigger again within the transaction that removes the rows (SQLite), and leaves an event.
An empty table may be truncated. Whoever rebuilds `audit_event` or `audit_chain` on SQLite drops the view first and makes
it and the triggers again.
"""

from typing import Any

from django.db import migrations

from apps.audit.sink.record import FIELDS

GUARDED = ("audit_chain", "audit_event")
_KEPT = "SELECT RAISE(ABORT, 'rows of {} are kept as they were written')"
_COLUMNS = ("event_type", "time", *FIELDS[2:29], "body")

_REPLACED = (
    "CREATE TRIGGER {0}_no_replace BEFORE INSERT ON {0} WHEN EXISTS (SELECT 1 FROM {0} WHERE {1} = NEW.{1}) BEGIN {2}; END"
)
"""REPLACE removes the row in its way without the triggers on DELETE."""

SQLITE = [
    *(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN {_KEPT.format(table)}; END"
        for table in (*GUARDED, "audit_head")
        for verb in (("DELETE",) if table == "audit_head" else ("UPDATE", "DELETE"))
    ),
    *(_REPLACED.format(table, "id", _KEPT.format(table)) for table in GUARDED),
    _REPLACED.format("audit_head", "writer", "SELECT RAISE(IGNORE)"),
    f"""
    CREATE VIEW audit_append AS
    SELECT e.id, c.previous, c.digest, c.form, h.seq AS head_from, h.open_from, {", ".join(f"e.{name}" for name in _COLUMNS)}
    FROM audit_event e JOIN audit_chain c ON c.id = e.id JOIN audit_head h ON h.writer = c.writer
    """,  # noqa: S608 - made of constants
    f"""
    CREATE TRIGGER audit_append_insert INSTEAD OF INSERT ON audit_append WHEN NEW.id IS NOT NULL BEGIN
      INSERT INTO audit_chain (id, writer, seq, previous, digest, form)
        VALUES (NEW.id, NEW.id >> 40, NEW.id & 0xFFFFFFFFFF, NEW.previous, NEW.digest, NEW.form);
      INSERT INTO audit_event (id, {", ".join(_COLUMNS)}) VALUES (NEW.id, {", ".join(f"NEW.{name}" for name in _COLUMNS)});
      UPDATE audit_head SET seq = NEW.id & 0xFFFFFFFFFF, digest = NEW.digest, open_from = NEW.open_from
        WHERE NEW.head_from IS NOT NULL AND writer = NEW.id >> 40 AND seq = NEW.head_from;
      SELECT RAISE(ABORT, 'the head of the chain is not where this writer left it')
        WHERE NEW.head_from IS NOT NULL AND changes() = 0;
    END
    """,  # noqa: S608 - made of constants
]
SQLITE_UNDO = ["DROP VIEW audit_append"] + [
    f"DROP TRIGGER IF EXISTS {table}_no_{verb}"
    for table in (*GUARDED, "audit_head")
    for verb in ("update", "delete", "replace")
]

POSTGRESQL = [
    """
    CREATE FUNCTION audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE filled boolean;
    BEGIN
      IF TG_OP = 'TRUNCATE' THEN
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM %I.%I)', TG_TABLE_SCHEMA, TG_TABLE_NAME) INTO filled;
        IF NOT filled THEN RETURN NULL; END IF;
      END IF;
      RAISE EXCEPTION 'rows of % are kept as they were written', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    *(
        f"CREATE TRIGGER {table}_keep BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION audit_keep()"
        for table in GUARDED
    ),
    "CREATE TRIGGER audit_head_keep BEFORE DELETE ON audit_head FOR EACH ROW EXECUTE FUNCTION audit_keep()",
    *(
        f"CREATE TRIGGER {table}_keep_all BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION audit_keep()"
        for table in (*GUARDED, "audit_head")
    ),
]
POSTGRESQL_UNDO = ["DROP FUNCTION audit_keep() CASCADE"]


def _run(editor: Any, by_vendor: dict[str, list[str]]) -> None:
    for statement in by_vendor[editor.connection.vendor]:
        editor.execute(statement, params=None)


def guard(apps: Any, schema_editor: Any) -> None:
    _run(schema_editor, {"sqlite": SQLITE, "postgresql": POSTGRESQL})


def release(apps: Any, schema_editor: Any) -> None:
    _run(schema_editor, {"sqlite": SQLITE_UNDO, "postgresql": POSTGRESQL_UNDO})


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial")]
    operations = [migrations.RunPython(guard, release, hints={"target": "log"})]
