"""Facts about tenants, people and keys that cross floors and planes, and the rules on permissions. No models, no Django."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

KINDS = (
    "tenant", "user", "role", "membership", "api_key", "server", "tool", "resource", "prompt", "toolset", "grant", "limit",
    "audit", "process",
)  # fmt: skip
"""What a permission may speak of, before the dot."""
VERBS = ("read", "write", "delete", "admin", "call")
"""What a permission may allow, after the dot."""
CATALOGUE = ("server", "tool", "resource", "prompt", "toolset")
"""The kinds that a caller of tools sees."""
DEFAULT_TENANT = "default"
"""Slug of the tenant that the first start makes."""
_PERMISSION = re.compile(rf"({'|'.join(KINDS)}|\*)\.({'|'.join(VERBS)}|\*)")


Network = IPv4Network | IPv6Network


def parse_networks(given: Iterable[object]) -> tuple[Network, ...]:
    """Read networks and single addresses, each once, in their order. Raises ValueError, which names what is none."""
    found: dict[Network, None] = {}
    for text in given:
        try:
            found[ip_network(text.strip() if isinstance(text, str) else "")] = None
        except ValueError:
            raise ValueError(f"{str(text)[:60]} is no network; write 192.0.2.0/24, 2001:db8::/32 or an address.") from None
    return tuple(found)


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Tell whether an address is in one of the networks; an IPv4 address in its IPv6 form counts as itself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed
    return any(parsed in network for network in networks)


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """A tenant as the data plane needs it."""

    id: str
    slug: str
    active: bool
    sample_payloads: bool


@dataclass(frozen=True, slots=True)
class UserFacts:
    """A user as the data plane needs it; `roles` are pairs of tenant id and role id."""

    id: str
    username: str
    active: bool
    is_superuser: bool
    roles: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key that has not been revoked. `expires_us` counts microseconds since the epoch, None = never."""

    id: str
    tenant_id: str
    owner_id: str
    name: str
    prefix: str
    digest: bytes
    inherits_owner: bool
    scopes: frozenset[str] | None
    loopback_only: bool
    expires_us: int | None
    networks: tuple[Network, ...] = ()
    """From where it is accepted; empty = from anywhere."""


def key_label(name: str, prefix: str, owner: str) -> str:
    """Return what a key is called wherever it is named: its name, its public prefix and its owner; at most 200 characters."""
    return f"{name} (sy_{prefix}_…) of {owner}"[:200]


@dataclass(frozen=True, slots=True)
class BuiltinRole:
    """A role that every tenant has."""

    slug: str
    name: str
    permissions: tuple[str, ...]


def _each(kinds: Iterable[str], verbs: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{kind}.{verb}" for kind in kinds for verb in verbs)


BUILTIN_ROLES = (
    BuiltinRole("admin", "Administrator", ("*.*",)),
    BuiltinRole(
        "operator",
        "Operator",
        (
            *_each((*CATALOGUE, "process"), ("read", "write", "call")),
            "grant.read",
            "grant.write",
            "limit.read",
            "limit.write",
            "audit.read",
        ),
    ),
    BuiltinRole("user", "User", _each(CATALOGUE, ("read", "call"))),
    BuiltinRole("guest", "Guest", _each(CATALOGUE, ("read",))),
    BuiltinRole("auditor", "Auditor", ("audit.read",)),
    BuiltinRole("service", "Service account", _each(CATALOGUE, ("read", "call"))),
)


def invalid_permissions(permissions: Iterable[object]) -> list[str]:
    """Return those that are not `<kind>.<verb>` of known words (`*` as either part)."""
    return [str(given)[:80] for given in permissions if not (isinstance(given, str) and _PERMISSION.fullmatch(given))]


def not_covered(wanted: Iterable[str], owned: Iterable[str]) -> list[str]:
    """Return the permissions of `wanted` that no single one of `owned` includes; only `*` includes `*`."""
    have = [permission.partition(".")[::2] for permission in owned]
    missing = []
    for permission in wanted:
        kind, _, verb = permission.partition(".")
        if not any(k in ("*", kind) and v in ("*", verb) for k, v in have):
            missing.append(permission)
    return missing
