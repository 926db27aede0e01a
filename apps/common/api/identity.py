"""The port through which accounts tells the API who calls."""

from dataclasses import dataclass
from typing import Any, Protocol

from django.http import HttpRequest

from apps.common.context import Actor


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the API needs it."""

    user: Any
    """The Django user: the one signed in, or the key's owner."""
    actor: Actor
    tenant_id: str | None
    """The tenant that is meant where none is named: a key's own, a session's chosen one; None = every tenant (superusers)."""


class Identity(Protocol):
    """What accounts answers."""

    def of_key(self, text: str, *, address: str, request_id: str) -> Caller:
        """Return who a key is; raises AuthenticationRequired."""
        ...

    def of_session(self, request: HttpRequest, *, address: str, request_id: str) -> Caller:
        """Return who the signed-in user of a request is; raises PermissionDenied for one without any tenant."""
        ...

    def tenant_for(self, caller: Caller, slug: str) -> str:
        """Return the id of a tenant that the caller names and may work in; raises NotFound, the same whether it exists or not."""
        ...


_identity: Identity | None = None


def register_identity(identity: Identity) -> None:
    """Tell who answers; accounts does, at start-up."""
    global _identity
    _identity = identity


def identity() -> Identity:
    """Return who answers."""
    if _identity is None:
        raise RuntimeError("No identity is registered.")
    return _identity
