"""Reads the outbox on a connection of one's own, outside Django's pool and transactions."""

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler, Error

logger = logging.getLogger(__name__)

_READ = "SELECT id, topic, tenant_id, payload, created_at FROM common_outboxevent WHERE id >= %s ORDER BY id LIMIT %s"
_HEAD = "SELECT COALESCE(MAX(id), 0) FROM common_outboxevent"


@dataclass(frozen=True, slots=True)
class OutboxNotice:
    """One row of the outbox."""

    id: int
    topic: str
    tenant_id: str | None
    payload: dict[str, Any]
    created_at: datetime | str


def head_id() -> int:
    """Return the id of the newest row of the outbox, 0 when it is empty; on the caller's own connection."""
    return head(connections["default"])


def own_settings() -> dict[str, Any]:
    """Return the settings of a connection outside Django's pool, which notices a dead server within seconds."""
    settings = dict(connections["default"].settings_dict)
    options = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    if settings["ENGINE"].endswith("postgresql"):
        dead = {"connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
        options = {**dead, "tcp_user_timeout": 10_000, "application_name": "switchyard outbox", **options}
    settings.update(OPTIONS=options, CONN_MAX_AGE=None, CONN_HEALTH_CHECKS=False)
    return settings


def connect(settings: dict[str, Any]) -> BaseDatabaseWrapper:
    """Open a connection that belongs to the thread which uses it. Raises django.db.Error."""
    connection: BaseDatabaseWrapper = ConnectionHandler({"default": settings})["default"]
    connection.ensure_connection()
    return connection


def close(connection: BaseDatabaseWrapper | None) -> None:
    """Close a connection, whole or broken."""
    if connection is not None:
        try:
            connection.close()
        except Error:
            logger.debug("a lost connection could not be closed")


def head(connection: BaseDatabaseWrapper) -> int:
    """Return the id of the newest row, 0 when there is none."""
    with connection.cursor() as cursor:
        cursor.execute(_HEAD)
        return int(cursor.fetchone()[0])


def read(connection: BaseDatabaseWrapper, start: int, limit: int) -> list[OutboxNotice]:
    """Return at most `limit` rows from the id `start` on, oldest first. Raises django.db.Error."""
    with connection.cursor() as cursor:
        cursor.execute(_READ, [start, limit])
        return [
            OutboxNotice(
                id=int(id),
                topic=topic,
                tenant_id=_dashed(tenant),
                payload=json.loads(payload) if isinstance(payload, str | bytes) else payload,
                created_at=created,
            )
            for id, topic, tenant, payload, created in cursor.fetchall()
        ]


def _dashed(tenant: Any) -> str | None:
    """SQLite keeps UUIDs as 32 hexadecimal digits."""
    if tenant is None:
        return None
    text = str(tenant)
    return text if "-" in text else f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
