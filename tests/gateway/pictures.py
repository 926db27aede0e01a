"""Snapshots made by hand, for the rules that work on them."""

import hashlib
import json
from dataclasses import replace

from apps.accounts.domain import KeyFacts, TenantFacts, UserFacts
from apps.common.context import SYSTEM, every_tenant
from apps.common.crypto.keyring import Keyring
from apps.common.policy import Grant
from apps.gateway.adapters.builder import SnapshotBuilder
from apps.gateway.plane.snapshot import Snapshot, build_server, build_toolset, index_slugs, membership
from apps.gateway.plane.store import SnapshotStore
from apps.servers.domain import EndpointFacts, ServerFacts
from apps.tools.domain.facts import DefinitionFacts, ToolsetFacts

TENANT = "tenant-1"
KEYRING = Keyring.parse("k1:" + "a" * 43 + "=")


def server(slug: str, **changes) -> ServerFacts:
    facts = ServerFacts(
        id=f"id-{slug}",
        tenant_id=TENANT,
        slug=slug,
        name=slug.title(),
        transport="http",
        version=1,
        endpoints=(EndpointFacts(f"ep-{slug}", url="http://127.0.0.1:1/mcp"),),
    )
    return replace(facts, **changes)


def definition(slug: str, name: str, kind: str = "tool", position: int = 0, **members) -> DefinitionFacts:
    key = {"tool": "name", "prompt": "name", "resource": "uri", "template": "uriTemplate"}[kind]
    body = {key: name, **members}
    if kind == "tool":
        body.setdefault("inputSchema", {"type": "object"})
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    return DefinitionFacts(kind, f"id-{slug}", name, body, digest, "unknown" if kind == "tool" else "", position)


def picture(
    servers=(), definitions=(), toolsets=(), grants=None, *, superuser=False, inherits=False, scopes=None, roles=("r1",)
) -> Snapshot:
    by_server: dict = {}
    for row in definitions:
        by_server.setdefault(row.server_id, []).append(row)
    entries = {facts.id: build_server(facts, by_server.get(facts.id, ())) for facts in servers}
    own = [
        ToolsetFacts(f"ts-{facts.id.removeprefix('id-')}", facts.tenant_id, facts.slug, facts.name, server_id=facts.id)
        for facts in servers
    ]
    sets = {facts.id: build_toolset(facts, entries) for facts in (*own, *toolsets)}
    digest = b"d" * 32
    key = KeyFacts("key-1", TENANT, "user-1", "key", "abcd1234", digest, inherits, scopes, False, None)
    return Snapshot(
        tenants={TENANT: TenantFacts(TENANT, "default", True, True)},
        users={"user-1": UserFacts("user-1", "ada", True, superuser, tuple((TENANT, role) for role in roles))},
        keys={digest: key},
        key_digests={"key-1": (digest,)},
        servers=entries,
        server_slugs=index_slugs((one.tenant_id, one.slug, one.id) for one in servers),
        toolsets=sets,
        toolset_slugs=index_slugs((one.facts.tenant_id, one.facts.slug, id) for id, one in sets.items()),
        grants={subject: tuple(rows) for subject, rows in (grants or {}).items()},
        member_toolsets=membership(sets),
    )


def read(store: SnapshotStore) -> None:
    """Put what the database of a test holds in force."""
    with every_tenant(SYSTEM):
        store.swap(SnapshotBuilder(store).read_all())


def caller(snapshot: Snapshot):
    return snapshot.caller_of_key(b"d" * 32)


def grant(kind: str, id: str = "g1", effect: str = "allow", **target) -> Grant:
    return Grant(id=id, kind=kind, effect=effect, **target)
