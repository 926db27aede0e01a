"""Connections of the queue's own, outside Django's thread-local ones and outside its pool."""

from typing import Any

from django.db import connections
from django.db.utils import load_backend

ALIAS = "default"
CHANNEL = "switchyard_queue"
"""The PostgreSQL channel on which a committed message is announced."""


def private_connection(name: str) -> Any:
    """Return a new, unopened connection to the default database that may be used from any thread, one at a time.

    `name` is what PostgreSQL shows of it in `pg_stat_activity`.
    """
    settings = dict(connections.settings[ALIAS])
    settings["OPTIONS"] = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
    if settings["ENGINE"].endswith("postgresql"):
        settings["OPTIONS"]["application_name"] = f"switchyard {name}"
    settings["CONN_MAX_AGE"] = None
    settings["CONN_HEALTH_CHECKS"] = False
    connection = load_backend(settings["ENGINE"]).DatabaseWrapper(settings, ALIAS)
    connection.inc_thread_sharing()
    return connection
