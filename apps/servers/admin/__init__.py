"""Admin pages of servers and their processes. `ServerAdmin` is completed and registered by the console, which sees every app."""

from apps.servers.admin import connections, process
from apps.servers.admin.server import ServerAdmin

__all__ = ("ServerAdmin", "connections", "process")
