"""Who acts, for which tenant: context variables that every door sets and every query reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from apps.common.errors import TenantRequired


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something, as it is written to the audit log."""

    kind: str
    """`user`, `api_key` or `system`."""
    id: str
    label: str
    is_superuser: bool = False
    origin: str = ""
    """The door: `admin`, `rest`, `mcp`, `cli`, `task` or `start`."""
    address: str = ""
    request_id: str = ""


SYSTEM = Actor(kind="system", id="system", label="system", is_superuser=True, origin="task")


@dataclass(frozen=True, slots=True)
class Scope:
    """What the current unit of work may see: one tenant, or every tenant."""

    tenant_id: str | None = None
    every_tenant: bool = False
    actor: Actor = field(default=SYSTEM)


_scope: ContextVar[Scope | None] = ContextVar("switchyard_scope", default=None)


def current_scope() -> Scope | None:
    """Return the scope in force, or None."""
    return _scope.get()


def current_actor() -> Actor:
    """Return who acts; raises TenantRequired when nobody has been named."""
    scope = _scope.get()
    if scope is None:
        raise TenantRequired("Nobody acts here: open a scope first (apps.common.context).")
    return scope.actor


def current_tenant_id() -> str:
    """Return the tenant in force; raises TenantRequired when there is none."""
    scope = _scope.get()
    if scope is None or scope.tenant_id is None:
        raise TenantRequired("A tenant is needed here: open a tenant scope first.")
    return scope.tenant_id


@contextmanager
def tenant_scope(tenant_id: object, actor: Actor | None = None) -> Iterator[Scope]:
    """Let the block see the rows of one tenant; `actor` defaults to the one in force, else the system."""
    before = _scope.get()
    scope = Scope(tenant_id=str(tenant_id), actor=actor or (before.actor if before else SYSTEM))
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


@contextmanager
def every_tenant(actor: Actor | None = None) -> Iterator[Scope]:
    """Let the block see the rows of all tenants: start-up, tasks, and superusers who chose no tenant."""
    before = _scope.get()
    scope = Scope(every_tenant=True, actor=actor or (before.actor if before else SYSTEM))
    token = _scope.set(scope)
    try:
        yield scope
    finally:
        _scope.reset(token)


def set_scope(scope: Scope | None) -> object:
    """Set the scope for the rest of this context; returns the token for `reset_scope`."""
    return _scope.set(scope)


def reset_scope(token: object) -> None:
    """Undo `set_scope`."""
    _scope.reset(token)  # type: ignore[arg-type]
