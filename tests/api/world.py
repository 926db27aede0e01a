"""One of everything in a tenant, with secrets that can be looked for."""

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from apps.accounts.models import APIKey, Membership, Role, Tenant, User
from apps.audit.domain import event_name
from apps.audit.models import AuditEvent
from apps.audit.sink.record import AuditRecord, encode
from apps.common.clock import now
from apps.common.context import SYSTEM, tenant_scope
from apps.common.ids import new_id
from apps.gateway.models import ClientSeen, Limit, Recording
from apps.gateway.services.limits import set_limit
from apps.servers.models import Endpoint, OAuthConnection, Server, UpstreamProcess
from apps.servers.services.registry import register_server
from apps.servers.services.secrets import keyring
from apps.tools.models import Grant, Instructions, Prompt, Resource, ResourceTemplate, Tool, Toolset
from apps.tools.services.grants import grant
from apps.tools.services.toolsets import create_toolset
from tests.factories import make_key, make_role, make_tenant, make_user, unique
from tests.tools.support import offer, prompt, resource, template, tool

NOWHERE = "http://127.0.0.1:1/mcp"
"""Nobody listens there, which is known at once; the tests allow loopback."""


@dataclass
class World:
    """What there is in one tenant."""

    tenant: Tenant
    server: Server
    member: User
    role: Role
    spare_role: Role
    membership: Membership
    key: APIKey
    toolset: Toolset
    grant: Grant
    process: UpstreamProcess
    client: ClientSeen
    recording: Recording
    limit: Limit
    connection: OAuthConnection
    event: str
    call_id: str
    secrets: list[str] = field(default_factory=list)
    definitions: dict[str, Any] = field(default_factory=dict)

    def named(self, route: Any) -> list[str]:
        """The ways in which the object of a route can be named: by id, and by slug where it has one."""
        kind = route.template.split("/")[0]
        rows: dict[str, tuple[Any, str | None]] = {
            "tenants": (self.tenant, self.tenant.slug),
            "users": (self.member, self.member.username),
            "memberships": (self.membership, None),
            "roles": (self.spare_role, self.spare_role.slug),
            "api-keys": (self.key, self.key.prefix),
            "servers": (self.server, self.server.slug),
            "processes": (self.process, None),
            "clients": (self.client, None),
            "recordings": (self.recording, None),
            "limits": (self.limit, None),
            "upstream-connections": (self.connection, None),
            "toolsets": (self.toolset, self.toolset.slug),
            "grants": (self.grant, None),
        }
        if kind == "audit-events":
            return [self.call_id if route.parameter == "call_id" else self.event]
        if kind in self.definitions:
            row = self.definitions[kind]
            name = f"{self.server.slug}__{row.name}"
            return [str(row.pk)] if "/" in name else [str(row.pk), name]
        row, slug = rows[kind]
        return [str(row.pk)] if slug is None else [str(row.pk), slug]


def make_world(tenant: Tenant | None = None) -> World:
    """Make one of everything; the tool, resource, template, prompt and instructions wait for review."""
    tenant = tenant or make_tenant()
    canary = secrets.token_urlsafe(24)
    with tenant_scope(tenant.pk, SYSTEM):
        server = register_server(
            slug=unique("server")[:40],
            transport="http",
            url=NOWHERE,
            headers={"Authorization": f"Bearer {canary}"},
            review="hold-all",
        )
    offer(
        server, tool("search", "Finds things."), tool("read", "Reads."), resources=[resource("docs://readme")],
        templates=[template("docs://{page}")], prompts=[prompt("triage")], instructions="Be kind.",
    )  # fmt: skip
    role, spare = make_role(tenant, "server.read"), make_role(tenant, "tool.read")
    member = make_user(tenant, role)
    key, text = make_key(member, tenant)
    process = UpstreamProcess.objects.create(
        id=new_id(), endpoint=Endpoint.unscoped.get(server=server), worker="host:1", pid=7, started_at=now(), seen_at=now()
    )
    with tenant_scope(tenant.pk, SYSTEM):
        entries = [{"server": server.slug, "kind": "tool", "pattern": "read"}]
        toolset = create_toolset(slug=unique("desk")[:40], entries=entries)
        granted = grant(kind="server", role=role, server=server)
        limited = set_limit(subject="role", role=role, amount=100, window="minute")
        found = {
            "tools": Tool.objects.get(server=server, name="search"),
            "resources": Resource.objects.get(server=server),
            "resource-templates": ResourceTemplate.objects.get(server=server),
            "prompts": Prompt.objects.get(server=server),
            "instructions": Instructions.objects.get(server=server),
        }
    client = make_client(key)
    token = secrets.token_urlsafe(24)
    connection = make_connection(server, token)
    call_id = str(new_id())
    return World(
        tenant=tenant, server=server, member=member, role=role, spare_role=spare, membership=Membership.unscoped.get(user=member),
        key=key, toolset=toolset, grant=granted, process=process, client=client, recording=make_recording(tenant), limit=limited, connection=connection, event=make_event(tenant, call_id), call_id=call_id,
        secrets=[canary, token, text, text.split("_", 2)[2], member.password, key.digest.hex()], definitions=found,
    )  # fmt: skip


def make_connection(server: Server, token: str, **fields: Any) -> OAuthConnection:
    """A server's connection with this access token."""
    row = OAuthConnection(
        tenant_id=server.tenant_id, server=server, issuer="https://auth.example.com", connected_at=now(), generation=1, **fields
    )
    row.access = keyring().seal(token.encode(), associated=row.associated("access"))
    row.save()
    return row


def make_client(key: APIKey, **fields: Any) -> ClientSeen:
    """A client that spoke at `/mcp` with a key."""
    moment = now()
    facts = {
        "name": "agent",
        "version": "1.0",
        "revision": "2025-11-25",
        "declared": ["roots"],
        "first_seen_at": moment,
        "last_seen_at": moment,
    }
    return ClientSeen.unscoped.create(tenant_id=key.tenant_id, api_key=key, **{**facts, **fields})


def make_recording(tenant: Tenant, **fields: Any) -> Recording:
    """A recording of a server that is on."""
    facts = {
        "kind": "server",
        "object_id": str(new_id()),
        "label": "server",
        "started_by": "somebody",
        "until": now() + timedelta(minutes=15),
    }
    return Recording.unscoped.create(tenant=tenant, **{**facts, **fields})


def make_event(tenant: Tenant, call_id: str, **fields: Any) -> str:
    """Write an event as the log holds it (without its place in a chain); returns its id."""
    number = (1 << 40) + secrets.randbelow(1 << 39)
    moment = now()
    record = AuditRecord(
        "call.outcome", int(moment.timestamp() * 1_000_000), tenant=str(tenant.pk), call_id=call_id, outcome="ok", actor="somebody",
        server="server", tool="search", details={"n": 1}, **fields,
    )  # fmt: skip
    shown = SimpleNamespace(
        **{name: getattr(record, name) for name in ("tenant", "call_id", "outcome", "actor", "server", "tool")}
    )
    AuditEvent.objects.create(id=number, event_type=record.event_type, time=moment, body=encode(record)[1], **vars(shown))
    return event_name(number)
