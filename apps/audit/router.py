"""Sends the audit log to its own database on SQLite."""

from typing import Any

from django.conf import settings

APART = frozenset({"auditchain", "auditevent", "auditgone", "audithead", "auditrelay"})
"""Models of the log itself. The roll-ups stand in `default`, so that making them never holds the log's write lock."""


class AuditRouter:
    """Routes the log to `settings.AUDIT_DATABASE`, everything else to `default`."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        """Return the alias for a model."""
        meta = model._meta
        return settings.AUDIT_DATABASE if meta.app_label == "audit" and meta.model_name in APART else None

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, model_name: str | None = None, **hints: Any) -> bool | None:
        """Keep each table in its own database; an operation without a model says `target="log"` if it concerns the log."""
        if app_label == "audit" and (model_name in APART or hints.get("target") == "log"):
            return db == settings.AUDIT_DATABASE
        return db == "default"
