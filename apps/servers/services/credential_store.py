"""Rows of credentials: checked, compared, written. The verbs that others use stand in `credentials` and `registry`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any

from apps.common.crypto.keyring import DecryptionFailed
from apps.servers import rules
from apps.servers.models import Credential, Server
from apps.servers.services import secrets
from apps.servers.services.validation import Problems

KINDS = {"header": "headers", "env": "env"}
"""Kind of a credential, and the argument of the services that carries all of that kind."""


@dataclass(slots=True)
class CredentialChange:
    """What is to be done to a server's credentials of one kind."""

    set: dict[str, str] = field(default_factory=dict)
    delete: list[Credential] = field(default_factory=list)
    kept: list[Credential] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.set or self.delete)

    def names(self) -> dict[str, list[str]]:
        """Return what is set and what is deleted, by name, for the audit log."""
        return {"set": sorted(self.set), "deleted": sorted(row.name for row in self.delete)}


def check_values(kind: str, values: Mapping[str, Any] | None, problems: Problems) -> None:
    """Check names and values; None as a value means: keep what is stored."""
    name_of_argument = KINDS[kind]
    if values is None:
        return
    if not isinstance(values, Mapping):
        problems.add(name_of_argument, "Give an object of names and values.")
        return
    if len(values) > rules.MAX_CREDENTIALS:
        problems.add(name_of_argument, f"At most {rules.MAX_CREDENTIALS}.")
        return
    check_name = rules.check_header_name if kind == "header" else rules.check_env_name
    check_value = rules.check_header_value if kind == "header" else rules.check_env_value
    seen: set[str] = set()
    for name, value in values.items():
        problems.check(name_of_argument, check_name, str(name))
        if _fold(kind, str(name)) in seen:
            problems.add(name_of_argument, f"{name} is given twice.")
        seen.add(_fold(kind, str(name)))
        if value is None:
            continue
        if not isinstance(value, str):
            problems.add(name_of_argument, f"The value of {name} is not a text.")
        else:
            try:
                check_value(value)
            except ValueError as error:
                problems.add(name_of_argument, f"{name}: {error}")


def plan(server: Server, kind: str, values: Mapping[str, str | None] | None, problems: Problems) -> CredentialChange:
    """Find out what differs from what is stored; `values` is the whole set of this kind, or None to leave it as it is.

    A value equal to the stored one is no change, so that writing the same again leaves no event.
    """
    stored = {_fold(kind, row.name): row for row in Credential.unscoped.filter(server=server, kind=kind)}
    if values is None:
        return CredentialChange(kept=list(stored.values()))
    change = CredentialChange()
    for name, value in values.items():
        row = stored.pop(_fold(kind, name), None)
        if value is None and row is None:
            problems.add(KINDS[kind], f"{name} has no stored value to keep.")
        elif row is not None and (value is None or holds(row, name, value)):
            change.kept.append(row)
        elif value is not None:
            change.set[name] = value
    change.delete = list(stored.values())
    return change


def apply(server: Server, kind: str, change: CredentialChange) -> None:
    """Write the change; the caller has checked it, and records it."""
    for name, value in change.set.items():
        store(server, kind, name, value)
    for row in change.delete:
        row.delete()


def store(server: Server, kind: str, name: str, value: str) -> Credential:
    """Write one credential: a new row, or a new value in the row that it has."""
    row = find(server, kind, name) or Credential(tenant_id=server.tenant_id, server=server, kind=kind)
    row.name = name
    secrets.seal(row, value)
    row.full_clean()
    row.save()
    return row


def find(server: Server, kind: str, name: str) -> Credential | None:
    """Return the row of this name, if there is one; header names do not differ by case."""
    rows = Credential.unscoped.filter(server=server, kind=kind)
    return (rows.filter(name__iexact=name) if kind == "header" else rows.filter(name=name)).first()


def holds(row: Credential, name: str, value: str) -> bool:
    """Tell whether a row already has this name and value."""
    try:
        return row.name == name and compare_digest(secrets.unseal(row).encode(), value.encode())
    except DecryptionFailed:
        return False


def names(server: Server) -> dict[str, list[str]]:
    """Return the names of what is stored, by kind: all that is ever shown of credentials."""
    found: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind, name in Credential.unscoped.filter(server=server).order_by("kind", "name").values_list("kind", "name"):
        found[kind].append(name)
    return found


def _fold(kind: str, name: str) -> str:
    return name.lower() if kind == "header" else name
