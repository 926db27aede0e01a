"""PostgreSQL: a role that serves and cannot change the log, also where its triggers were gone."""

from django.conf import settings
from django.db import connections, transaction

from apps.common import authorise
from apps.common.errors import Conflict, NotFound
from apps.common.events import ControlEvent
from apps.common.outbox import audit, unit_of_work

_KEPT = ("audit_chain", "audit_event")
_HEADS = ("audit_head", "audit_relay")
_FUNCTION = "audit_remove(bigint, bigint, bigint)"


def grant_role(name: str) -> None:
    """Give a role of the database what serving needs: everything in the tables, and in the log reading and appending alone.

    For the owner of the tables; an event. Raises PermissionDenied, NotFound, Conflict (another database; the role owns the tables, or is
    above such rights).
    """
    authorise.require("audit.admin", tenant_id=None, kind="audit", object_id="log", label="audit log")
    connection = connections[settings.AUDIT_DATABASE]
    if connection.vendor != "postgresql":
        raise Conflict("Only PostgreSQL has roles; on SQLite the file's owner may do everything.")
    role = connection.ops.quote_name(name)
    with unit_of_work(), transaction.atomic(using=settings.AUDIT_DATABASE), connection.cursor() as cursor:
        cursor.execute(
            "SELECT r.rolsuper OR pg_has_role(r.oid, c.relowner, 'MEMBER'), n.nspname FROM pg_roles r, pg_class c "
            "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE r.rolname = %s AND c.oid = 'audit_event'::regclass",
            [name],
        )
        found = cursor.fetchone()
        if found is None:
            raise NotFound(f"The database has no role {name}: make it first (CREATE ROLE … LOGIN PASSWORD …).")
        above, schema = found
        if above:
            raise Conflict(f"The role {name} owns the log, or is above its rights: use another one for serving.")
        inside = connection.ops.quote_name(schema)
        for statement in (
            f"GRANT USAGE ON SCHEMA {inside} TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {inside} TO {role}",
            f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {inside} TO {role}",
            *(f"REVOKE ALL ON {table} FROM {role}" for table in (*_KEPT, *_HEADS, "audit_gone", "audit_checkpoint")),
            *(f"GRANT SELECT, INSERT ON {table} TO {role}" for table in _KEPT),
            *(f"GRANT SELECT, INSERT, UPDATE ON {table} TO {role}" for table in _HEADS),
            f"GRANT SELECT ON audit_gone TO {role}",
            f"GRANT SELECT, INSERT, DELETE ON audit_checkpoint TO {role}",
            f"GRANT EXECUTE ON FUNCTION {_FUNCTION} TO {role}",
        ):
            cursor.execute(statement)
        audit(
            ControlEvent(
                event_type="audit.role_granted", action="audit.admin", object_kind="audit", object_id="log", object_label="audit log",
                details={"role": name},
            )
        )  # fmt: skip
