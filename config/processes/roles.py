"""Roles of processes: what each serves, and what several of them need."""

import os
from collections.abc import Mapping

from config.processes.errors import CannotStart

ALL = "all"
ROLES = (ALL, "web", "gateway", "worker", "beat")
SERVING = frozenset({"web", "gateway"})
VARIABLE = "SWITCHYARD_ROLES"
"""Set by the supervisor for the processes it starts; not for people."""


def parse_roles(text: str) -> frozenset[str]:
    """Read `--role`: one role, or several with commas between. Raises CannotStart."""
    roles = frozenset(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted(roles - set(ROLES))
    if unknown or not roles:
        raise CannotStart(f"--role: {', '.join(unknown) or 'nothing'} is not a role; use {', '.join(ROLES)}")
    if ALL in roles and len(roles) > 1:
        raise CannotStart("--role: all already has every role; use it alone")
    return roles


def check_scale(roles: frozenset[str], workers: int, *, postgres: bool, redis: bool) -> None:
    """Raise CannotStart unless the installation has what several processes share state through."""
    if workers < 1 or workers > 64:
        raise CannotStart("--workers: use a number from 1 to 64")
    if roles == {ALL} and workers == 1:
        return
    missing = [name for name, there in (("PostgreSQL (DATABASE_URL)", postgres), ("Redis (REDIS_URL)", redis)) if not there]
    if missing:
        asked = f"--role {','.join(sorted(roles))}" if roles != {ALL} else f"--workers {workers}"
        raise CannotStart(f"{asked}: several processes need PostgreSQL and Redis; missing: {' and '.join(missing)}")


def current_roles(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Return the roles of this process; outside `serve` (a test client, another ASGI server) it serves web and gateway."""
    named = environment.get(VARIABLE, "")
    return frozenset(named.split(",")) if named else SERVING


def serves_web() -> bool:
    """Tell whether this process answers the console and the REST API."""
    return bool(current_roles() & {ALL, "web"})


def serves_gateway() -> bool:
    """Tell whether this process answers /mcp and /v1."""
    return bool(current_roles() & {ALL, "gateway"})


def embeds_tasks() -> bool:
    """Tell whether this process also runs the tasks and the clock."""
    return ALL in current_roles()
