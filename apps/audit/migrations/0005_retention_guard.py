"""Payloads may go where an event of the log announced it, and in no other way; events about the log itself never go.

`audit_gone` takes a range of ids only when the stored bytes of the event it names announce that range. The guard on
deletions of `audit_event` lets ids go that stand in it. On PostgreSQL both are done by `audit_remove`, with the rights of the
owner, so that a role without the right to delete can call it and still delete nothing else.
"""

from typing import Any

from django.db import migrations

_BODY = "CAST(e.body AS TEXT)"
SQLITE = [
    f"""
    CREATE TRIGGER audit_gone_no_insert BEFORE INSERT ON audit_gone WHEN NOT EXISTS (
      SELECT 1 FROM audit_event e, json_each({_BODY}, '$.details.runs') r
      WHERE e.id = NEW.event AND json_extract({_BODY}, '$.event_type') = 'audit.payloads_removed'
      AND (json_extract({_BODY}, '$.details.writer') << 40 | json_extract(r.value, '$[0]')) <= NEW.first
      AND (json_extract({_BODY}, '$.details.writer') << 40 | json_extract(r.value, '$[1]')) >= NEW.last AND NEW.first <= NEW.last
    ) BEGIN SELECT RAISE(ABORT, 'no event of the log announces that these payloads go'); END
    """,  # noqa: S608 - made of constants
    *(
        f"CREATE TRIGGER audit_gone_no_{verb.lower()} BEFORE {verb} ON audit_gone "
        "BEGIN SELECT RAISE(ABORT, 'rows of audit_gone are kept as they were written'); END"
        for verb in ("UPDATE", "DELETE")
    ),
    "DROP TRIGGER audit_event_no_delete",
    """
    CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event WHEN OLD.event_type LIKE 'audit.%' OR NOT EXISTS (
      SELECT 1 FROM audit_gone g WHERE g.first = (SELECT max(first) FROM audit_gone WHERE first <= OLD.id) AND g.last >= OLD.id
    ) BEGIN SELECT RAISE(ABORT, 'rows of audit_event are kept as they were written'); END
    """,
]
SQLITE_UNDO = [
    *(f"DROP TRIGGER IF EXISTS audit_gone_no_{verb}" for verb in ("insert", "update", "delete")),
    "DROP TRIGGER audit_event_no_delete",
    """
    CREATE TRIGGER audit_event_no_delete BEFORE DELETE ON audit_event
    BEGIN SELECT RAISE(ABORT, 'rows of audit_event are kept as they were written'); END
    """,
]

POSTGRESQL = [
    """
    CREATE FUNCTION audit_announced() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    DECLARE told json;
    BEGIN
      SELECT convert_from(body, 'UTF8')::json INTO told FROM audit_event WHERE id = NEW.event;
      IF told ->> 'event_type' = 'audit.payloads_removed' AND NEW.first <= NEW.last AND EXISTS (
        SELECT 1 FROM json_array_elements(told #> '{details,runs}') r
        WHERE ((told #>> '{details,writer}')::bigint << 40 | (r ->> 0)::bigint) <= NEW.first
        AND ((told #>> '{details,writer}')::bigint << 40 | (r ->> 1)::bigint) >= NEW.last
      ) THEN RETURN NEW; END IF;
      RAISE EXCEPTION 'no event of the log announces that these payloads go' USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    """
    CREATE FUNCTION audit_keep_event() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
    BEGIN
      IF OLD.event_type NOT LIKE 'audit.%' AND EXISTS (
        SELECT 1 FROM audit_gone g WHERE g.first = (SELECT max(first) FROM audit_gone WHERE first <= OLD.id) AND g.last >= OLD.id
      ) THEN RETURN OLD; END IF;
      RAISE EXCEPTION 'rows of audit_event are kept as they were written' USING ERRCODE = 'integrity_constraint_violation';
    END $$
    """,
    """
    CREATE FUNCTION audit_remove(announcement bigint, lowest bigint, highest bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    DECLARE removed bigint;
    BEGIN
      INSERT INTO audit_gone (first, last, event) VALUES (lowest, highest, announcement) ON CONFLICT DO NOTHING;
      DELETE FROM audit_event WHERE id BETWEEN lowest AND highest;
      GET DIAGNOSTICS removed = ROW_COUNT;
      RETURN removed;
    END $$
    """,
    "REVOKE ALL ON FUNCTION audit_remove(bigint, bigint, bigint) FROM PUBLIC",
    "CREATE TRIGGER audit_gone_announced BEFORE INSERT ON audit_gone FOR EACH ROW EXECUTE FUNCTION audit_announced()",
    "CREATE TRIGGER audit_gone_keep BEFORE UPDATE OR DELETE ON audit_gone FOR EACH ROW EXECUTE FUNCTION audit_keep()",
    "CREATE TRIGGER audit_gone_keep_all BEFORE TRUNCATE ON audit_gone FOR EACH STATEMENT EXECUTE FUNCTION audit_keep()",
    "DROP TRIGGER audit_event_keep ON audit_event",
    "CREATE TRIGGER audit_event_keep BEFORE UPDATE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_keep()",
    "CREATE TRIGGER audit_event_keep_rows BEFORE DELETE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_keep_event()",
]
POSTGRESQL_UNDO = [
    "DROP FUNCTION audit_remove(bigint, bigint, bigint)",
    "DROP TRIGGER audit_event_keep_rows ON audit_event",
    "DROP TRIGGER audit_event_keep ON audit_event",
    "CREATE TRIGGER audit_event_keep BEFORE UPDATE OR DELETE ON audit_event FOR EACH ROW EXECUTE FUNCTION audit_keep()",
    "DROP FUNCTION audit_keep_event()",
    "DROP FUNCTION audit_announced() CASCADE",
    "DROP TRIGGER IF EXISTS audit_gone_keep ON audit_gone",
    "DROP TRIGGER IF EXISTS audit_gone_keep_all ON audit_gone",
]


def _run(editor: Any, by_vendor: dict[str, list[str]]) -> None:
    for statement in by_vendor[editor.connection.vendor]:
        editor.execute(statement, params=None)


def guard(apps: Any, schema_editor: Any) -> None:
    _run(schema_editor, {"sqlite": SQLITE, "postgresql": POSTGRESQL})


def release(apps: Any, schema_editor: Any) -> None:
    _run(schema_editor, {"sqlite": SQLITE_UNDO, "postgresql": POSTGRESQL_UNDO})


class Migration(migrations.Migration):
    dependencies = [("audit", "0004_retention")]
    operations = [migrations.RunPython(guard, release, hints={"target": "log"})]
