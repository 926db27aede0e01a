"""Reads of the registry that others may use: servers by id or slug, rows for lists, figures, and the data plane's facts."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet

from apps.common.clock import now
from apps.common.errors import NotFound
from apps.servers import domain
from apps.servers.domain import EndpointFacts, ServerFacts
from apps.servers.models import Endpoint, OAuthClient, OAuthConnection, Server, UpstreamProcess
from apps.servers.querysets import ServerQuerySet

TRANSPORTS: tuple[str, ...] = tuple(Server.Transport.values)
"""How a server may be reached."""
_CHUNK = 5000
"""Ids per query: below the 32,766 variables of a SQLite statement."""

_SERVER_FIELDS = (
    "id", "tenant_id", "slug", "name", "transport", "version", "paused_at", "builtin", "auth", "trust_annotations", "timeout_seconds",
    "max_concurrency", "idle_seconds", "server_info", "capabilities", "instructions", "revisions",
)  # fmt: skip


def plane_servers(ids: Iterable[object] | None = None) -> list[ServerFacts]:
    """Return servers as the data plane needs them, of the ids given or all; the caller opens the scope (`every_tenant()`).

    Two queries whatever the number. An id that is not in the answer is gone.
    """
    wanted = None if ids is None else list(ids)
    places: dict[UUID, list[EndpointFacts]] = defaultdict(list)
    endpoint_fields = ("server_id", "id", "url", "command", "args", "cwd", "state", "era")
    for server_id, id, url, command, args, cwd, state, era in _values(
        Endpoint.objects.order_by("created_at"), "server_id", wanted, endpoint_fields
    ):
        places[server_id].append(EndpointFacts(str(id), url, command, tuple(args), cwd, state, era))
    facts = []
    for row in _values(Server.objects.order_by(), "id", wanted, _SERVER_FIELDS):
        known = dict(zip(_SERVER_FIELDS, row, strict=True))
        paused_at, revisions = known.pop("paused_at"), known.pop("revisions")
        id, tenant_id = known.pop("id"), known.pop("tenant_id")
        facts.append(
            ServerFacts(
                id=str(id),
                tenant_id=str(tenant_id),
                paused=paused_at is not None,
                revisions=tuple(revisions),
                endpoints=tuple(places.get(id, ())),
                **known,
            )
        )
    return facts


def never_discovered(*, endpoint_id: object = None, without: Any = None, most: int = 1) -> list[tuple[UUID, UUID, datetime]]:
    """Return id, tenant and time of registration of up to `most` servers that run and have never said what they offer, oldest first.

    Of all, of one endpoint, or of those whose id is not in the query `without`; the caller opens the scope (`every_tenant()`).
    """
    rows = Server.objects.filter(discovered_at=None, paused_at=None)
    if endpoint_id is not None:
        rows = rows.filter(endpoints__pk=endpoint_id)
    if without is not None:
        rows = rows.exclude(pk__in=without)
    return list(rows.order_by("created_at").values_list("pk", "tenant_id", "created_at")[:most])


def server_of_endpoint(endpoint_id: object) -> str:
    """Return the id of an endpoint's server, nothing where it is gone; the caller opens the scope (`every_tenant()`)."""
    found = Endpoint.objects.filter(pk=endpoint_id).values_list("server_id", flat=True).first()
    return str(found) if found is not None else ""


def facts_of(server_id: object) -> ServerFacts:
    """Return one server as the data plane needs it. Raises NotFound."""
    found = plane_servers([server_id])
    if not found:
        raise NotFound("No such server.")
    return found[0]


def get_server(ref: object) -> Server:
    """Return the server with this id, or this slug in the tenant in force. Raises NotFound."""
    rows = Server.objects.all()
    try:
        found = rows.filter(pk=UUID(str(ref))).first()
    except ValueError:
        # With every tenant in view a slug may stand for several servers; the oldest is the one meant.
        found = rows.filter(slug=str(ref)).order_by("created_at").first()
    if found is None:
        raise NotFound(f"No such server: {str(ref)[:80]}.")
    return cast("Server", found)


def servers(
    *,
    capability: str | None = None,
    tenant: object = None,
    transport: str | None = None,
    state: str | None = None,
    search: str | None = None,
) -> ServerQuerySet:
    """Return the servers in view that match every filter given, with their `state` (see `ServerQuerySet.with_state`)."""
    rows: ServerQuerySet = Server.objects.all().with_state()
    if capability:
        rows = rows.offering(capability)
    if tenant:
        rows = rows.of_tenant(tenant)
    if transport:
        rows = rows.speaking(transport)
    if state:
        rows = rows.filter(state=state)
    if search:
        rows = rows.matching(search)
    return rows


@dataclass(frozen=True, slots=True)
class ServerRow:
    """A server as lists show it."""

    id: str
    tenant_id: str
    tenant: str
    slug: str
    name: str
    description: str
    transport: str
    state: str
    state_reason: str
    address: str
    """The URL, or the command with its arguments."""
    eras: tuple[str, ...]
    revisions: tuple[str, ...]
    capabilities: tuple[str, ...]
    credentials: tuple[str, ...]
    """Names alone."""
    builtin: bool
    paused_at: datetime | None
    discovered_at: datetime | None
    discovery_error: str


def server_rows(rows: ServerQuerySet | None = None) -> list[ServerRow]:
    """Return rows for a list or an overview: three queries whatever the number of servers."""
    found = servers() if rows is None else rows.with_state()
    return [_row(row) for row in found.select_related("tenant").prefetch_related("endpoints", "credentials")]


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """Figures of the servers in view."""

    total: int
    active: int
    """Not paused."""
    by_transport: dict[str, int]
    by_state: dict[str, int]
    processes: int
    """stdio processes that run now."""


def server_statistics(tenant: object = None) -> ServerStatistics:
    """Count the servers in view, or of one tenant among them; every transport and state is named, also with 0."""
    rows = servers(tenant=tenant).order_by()
    counts = rows.aggregate(total=Count("pk"), active=Count("pk", filter=Q(paused_at__isnull=True)))
    transports = dict(rows.values_list("transport").annotate(n=Count("pk")))
    states = dict(rows.values_list("state").annotate(n=Count("pk")))
    endpoints = Endpoint.objects.filter(server__in=rows.values("pk"))
    return ServerStatistics(
        total=counts["total"],
        active=counts["active"],
        by_transport={value: transports.get(value, 0) for value in Server.Transport.values},
        by_state={value: states.get(value, 0) for value in Endpoint.State.values},
        processes=UpstreamProcess.objects.filter(endpoint__in=endpoints.values("pk")).count(),
    )


def processes() -> QuerySet[UpstreamProcess]:
    """Return the stdio processes of the servers in view, with endpoint and server."""
    return UpstreamProcess.objects.filter(endpoint__in=Endpoint.objects.values("pk")).select_related("endpoint__server__tenant")


def get_process(process_id: object) -> UpstreamProcess:
    """Return one process of a server in view. Raises NotFound."""
    try:
        found = processes().filter(pk=UUID(str(process_id))).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("No such process.")
    return found


EXPIRING_SECONDS = 3600
"""A connection that ends within so long, and does not renew itself, is about to expire."""


def connections(*, state: str | None = None, search: str | None = None) -> QuerySet[OAuthConnection]:
    """Return the OAuth connections in view: those that failed first, then by when they expire.

    `state` is `connected`, `failed`, `expiring` (they end within an hour and need a person) or `wanting` (the server wants more scope).
    """
    rows = OAuthConnection.objects.select_related("server", "server__tenant", "user", "client")
    if state in OAuthConnection.State.values:
        rows = rows.filter(state=state)
    elif state == "expiring":
        by_hand = Q(refresh__isnull=True) & ~Q(server__auth=domain.CLIENT_CREDENTIALS)
        rows = rows.filter(
            by_hand, state=OAuthConnection.State.CONNECTED, expires_at__lt=now() + timedelta(seconds=EXPIRING_SECONDS)
        )
    elif state == "wanting":
        rows = rows.exclude(wanted_scope="")
    if search:
        rows = rows.filter(
            Q(server__slug__icontains=search) | Q(issuer__icontains=search) | Q(user__username__icontains=search)
        )
    found: QuerySet[OAuthConnection] = rows.order_by(F("state").desc(), F("expires_at").asc(nulls_last=True), "id")
    return found


def connection_of(server_id: UUID | str, user_id: UUID | str | None = None) -> OAuthConnection | None:
    """Return the connection of a server in view, or a user's own with it."""
    whose = Q(user_id=user_id) if user_id is not None else Q(user__isnull=True)
    return connections().filter(whose, server_id=server_id).first()


def get_connection(connection_id: object) -> OAuthConnection:
    """Return one connection in view. Raises NotFound."""
    try:
        found = connections().filter(pk=UUID(str(connection_id))).first()
    except ValueError:
        found = None
    if found is None:
        raise NotFound("No such connection.")
    return found


def renews_itself(row: OAuthConnection) -> bool:
    """Tell whether a connection gets fresh tokens without a person."""
    return row.expires_at is None or row.refresh is not None or row.server.auth == domain.CLIENT_CREDENTIALS


def entered_client(server_id: object) -> OAuthClient | None:
    """Return the OAuth client that an operator entered for a server."""
    return OAuthClient.objects.filter(server_id=server_id).first()


def _row(row: Any) -> ServerRow:
    endpoints = list(row.endpoints.all())
    reason = row.discovery_error
    if not row.paused_at:
        reason = next((place.state_reason for place in endpoints if place.state == row.state and place.state_reason), reason)
    return ServerRow(
        id=str(row.pk),
        tenant_id=str(row.tenant_id),
        tenant=row.tenant.slug,
        slug=row.slug,
        name=row.name,
        description=row.description,
        transport=row.transport,
        state=row.state,
        state_reason=reason,
        address=str(endpoints[0]) if endpoints else "",
        eras=tuple(sorted({place.era for place in endpoints if place.era})),
        revisions=tuple(row.revisions),
        capabilities=tuple(sorted(row.capabilities)),
        credentials=tuple(str(credential) for credential in row.credentials.all()),
        builtin=row.builtin,
        paused_at=row.paused_at,
        discovered_at=row.discovered_at,
        discovery_error=row.discovery_error,
    )


def _values(rows: QuerySet[Any], column: str, ids: list[object] | None, fields: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    if ids is None:
        yield from rows.values_list(*fields).iterator(chunk_size=_CHUNK)
        return
    for start in range(0, len(ids), _CHUNK):
        yield from rows.filter(**{f"{column}__in": ids[start : start + _CHUNK]}).values_list(*fields)
