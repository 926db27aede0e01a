"""Compatibility: which clients speak to the gateway, what works between each and the servers it reaches, what one sees now."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from apps.common.admin.base import model_url
from apps.common.admin.panels import Panel
from apps.common.admin.states import Look, look_of
from apps.common.clock import now
from apps.common.context import current_scope
from apps.common.errors import NotFound
from apps.gateway import selectors
from apps.gateway.models import ClientSeen, Recording
from apps.gateway.plane.mcp.compat import (
    APPS,
    FEATURES,
    LOST,
    NOT_ASKED,
    NOT_OFFERED,
    STATES,
    TASKS,
    TRANSLATED,
    UNKNOWN,
    WORKS,
)
from apps.gateway.services.recordings import may_record
from apps.servers.domain import MODERN_REVISIONS
from apps.servers.selectors import get_server, servers
from config.console import figures
from config.console.scope import may

CLIENTS_SHOWN, SERVERS_SHOWN = 25, 100
"""Clients of a page; servers looked at where none is chosen."""
CHOICES = 200
CLIENTS_OF_SERVER = 10
"""On its own page."""
CHIPS = 8
ORDER = (LOST, TRANSLATED, WORKS, NOT_OFFERED, NOT_ASKED, UNKNOWN)
"""States as pages show them: what one has to know comes first."""


@dataclass(slots=True)
class ClientRow:
    """A client with what is lost between it and the servers that it reaches."""

    row: ClientSeen
    href: str
    pairs: list[selectors.Pair] = field(default_factory=list)

    @property
    def modern(self) -> bool:
        """Tell whether it speaks without sessions."""
        return self.row.revision in MODERN_REVISIONS

    @property
    def declared(self) -> tuple[list[str], int]:
        """Return the first things it declares, and how many more."""
        return words_of(self.row.declared[:CHIPS]), max(0, len(self.row.declared) - CHIPS)

    @property
    def declares(self) -> list[str]:
        """Return everything it declares."""
        return words_of(self.row.declared)

    @property
    def lost(self) -> list[tuple[str, list[str]]]:
        """Return what is lost, each with the servers it is lost with."""
        return lost_with(self.pairs)

    @property
    def unknown(self) -> int:
        """Return with how many servers nothing is known."""
        return sum(1 for pair in self.pairs if pair.counts[UNKNOWN])


def lost_with(pairs: Sequence[selectors.Pair]) -> list[tuple[str, list[str]]]:
    """Return each feature that is lost in some pair, with the servers of those pairs."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        for one in pair.in_state(LOST):
            found.setdefault(FEATURES[one.feature], []).append(pair.server.slug)
    return list(found.items())


def allowed(request: HttpRequest) -> bool:
    """Tell whether a person may see who speaks to the gateway, and the servers."""
    return may(request, "audit.read") and may(request, "server.read")


def page_url(**chosen: Any) -> str:
    """Return the address of the page with something chosen."""
    return _url("admin:compatibility", chosen)


def now_url(**chosen: Any) -> str:
    """Return the address of "what this client sees now"."""
    return _url("admin:compatibility_now", chosen)


def _url(name: str, chosen: dict[str, Any]) -> str:
    query = urlencode({name: value for name, value in chosen.items() if value not in (None, "")})
    return f"{reverse(name)}?{query}" if query else reverse(name)


def page(request: HttpRequest) -> HttpResponse:
    """Show clients and servers; one client with each server, one server with each client, or one pair feature by feature."""
    context = begin(request, "Compatibility")
    if context.get("no_tenant"):
        return TemplateResponse(request, "console/compatibility.html", context)
    client = chosen_client(request.GET.get("client", ""))
    server = _chosen_server(request.GET.get("server", ""))
    if server is not None and client is not None and server.tenant_id != client.tenant_id:
        server = None
    text = request.GET.get("q", "").strip()[:100].replace("\x00", "")
    number = _number(request.GET.get("page", ""))
    rows = [client] if client is not None else _page_of_clients(text, number, server)
    shown, more = rows[:CLIENTS_SHOWN], len(rows) > CLIENTS_SHOWN
    ids = [server.pk] if server is not None else _server_ids(client)
    sides = selectors.server_sides(ids[:SERVERS_SHOWN])
    pairs = selectors.pairs_of(shown, sides, selectors.reach())
    pairs.sort(key=lambda pair: -pair.counts[LOST])
    context |= {
        "client": ClientRow(client, "", pairs) if client is not None else None,
        "record": _record_url(client) if client is not None else "",
        "server": sides.get(str(server.pk)) if server is not None else None,
        "server_row": server,
        "clients": _rows(shown, pairs),
        "sides": [_side(side, pairs) for side in sides.values()] if server is None and client is None else [],
        "servers_left_out": max(0, len(ids) - SERVERS_SHOWN),
        "pairs": [laid_out(pair) for pair in pairs] if client is not None or server is not None else [],
        "text": text,
        "previous": page_url(q=text, server=_pk(server), page=number - 1) if number > 1 else "",
        "next": page_url(q=text, server=_pk(server), page=number + 1) if more else "",
        "choices": _choices(client, server),
        "now_url": now_url(client=client.pk) if client is not None else now_url(),
        "happened": _happened(client, server),
    }
    return TemplateResponse(request, "console/compatibility.html", context)


def laid_out(pair: selectors.Pair) -> dict[str, Any]:
    """Return a pair as pages show it: what one has to know first."""
    counts = pair.counts
    return {
        "pair": pair,
        "client_href": page_url(client=pair.client.pk),
        "server_href": page_url(server=pair.server.id),
        "href": page_url(client=pair.client.pk, server=pair.server.id),
        "counts": [(state, counts[state], _counted(state, counts[state])) for state in ORDER if counts[state]],
        "lost": [FEATURES[one.feature] for one in pair.in_state(LOST)],
        "unknown": bool(counts[UNKNOWN]),
        "features": [(FEATURES[one.feature], one) for state in ORDER for one in pair.in_state(state)],
    }


def _counted(state: str, number: int) -> Look:
    look = look_of(state)
    return replace(look, word="work" if state == WORKS and number != 1 else look.word.lower())


def words_of(declared: Sequence[str]) -> list[str]:
    """Return what a client declares as pages show it."""
    known = {f"extensions.{APPS}": "MCP Apps", f"extensions.{TASKS}": "tasks (extension)"}
    return [known.get(one, one.removeprefix("extensions.")) for one in declared]


# --- parts of other pages --------------------------------------------------------------------------------------------------
def server_panel(request: HttpRequest, server: Any) -> list[Panel]:
    """Return the part of a server's page that says what works with the clients that were seen; nothing for who may not see them."""
    if not allowed(request):
        return []
    sides = selectors.server_sides([server.pk])
    rows = list(selectors.clients(tenant=server.tenant_id)[: 4 * CLIENTS_SHOWN])
    pairs = selectors.pairs_of(rows, sides, selectors.reach())[:CLIENTS_OF_SERVER]
    found = {
        "pairs": [laid_out(pair) for pair in pairs],
        "by_client": True,
        "all": page_url(server=server.pk),
        "happened": selectors.happened(server=server.slug, tenant=server.tenant_id),
        "empty": "No client that reaches this server has spoken to the gateway yet.",
    }
    return [Panel("clients", "Clients seen", "console/panels/clients.html", found, 52, str(len(pairs)) if pairs else "")]


def toolset_panel(request: HttpRequest, toolset: Any) -> list[Panel]:
    """Return the part of a toolset's page that says which clients speak there, and what works with its servers."""
    if not allowed(request):
        return []
    rows = list(selectors.clients(toolset=toolset.slug, tenant=toolset.tenant_id)[:CLIENTS_SHOWN])
    within = selectors.reach()
    ids = sorted(within.get((str(toolset.tenant_id), toolset.slug), ()))[:SERVERS_SHOWN]
    pairs = selectors.pairs_of(rows, selectors.server_sides(ids), within)
    found = {
        "clients": _rows(rows, pairs),
        "now": [now_url(client=row.pk) for row in rows],
        "empty": f"No client has spoken at /mcp/{toolset.slug} yet. Those that do appear here with what works and what is lost.",
        "look": now_url(toolset=toolset.slug),
    }
    return [Panel("clients", "Clients seen", "console/panels/clients_there.html", found, 30, str(len(rows)) if rows else "")]


# --- the pieces ------------------------------------------------------------------------------------------------------------
def begin(request: HttpRequest, title: str) -> dict[str, Any]:
    """Return what every page of these has. Raises PermissionDenied."""
    if not allowed(request):
        raise PermissionDenied
    scope = current_scope()
    context: dict[str, Any] = {**admin.site.each_context(request), "title": title, "states": STATES}
    if scope is None or not (scope.every_tenant or scope.tenant_id):
        context["no_tenant"] = True
    return context


def chosen_client(text: str) -> ClientSeen | None:
    """Return the client in view that an address names, if it names one. Raises Http404."""
    if not text:
        return None
    try:
        return selectors.get_client(text)
    except NotFound as error:
        raise Http404(error.detail) from error


def _chosen_server(text: str) -> Any:
    if not text:
        return None
    if "\x00" in text:
        raise Http404  # no database takes NUL
    try:
        return get_server(text[:80])
    except NotFound as error:
        raise Http404(error.detail) from error


def _page_of_clients(text: str, number: int, server: Any) -> list[ClientSeen]:
    rows = selectors.clients(text=text or None, tenant=server.tenant_id if server is not None else None)
    start = (number - 1) * CLIENTS_SHOWN
    return list(rows[start : start + CLIENTS_SHOWN + 1])


def _server_ids(client: ClientSeen | None) -> list[Any]:
    rows = servers().order_by("slug")
    if client is not None:
        rows = rows.filter(tenant_id=client.tenant_id)
        if client.toolset:
            rows = rows.filter(pk__in=selectors.reach().get((str(client.tenant_id), client.toolset), ()))
    return list(rows.values_list("pk", flat=True)[: SERVERS_SHOWN * 10])


def _rows(rows: Sequence[ClientSeen], pairs: Sequence[selectors.Pair]) -> list[ClientRow]:
    found = {row.pk: ClientRow(row, page_url(client=row.pk)) for row in rows}
    for pair in pairs:
        found[pair.client.pk].pairs.append(pair)
    return list(found.values())


def _side(side: selectors.ServerSide, pairs: Sequence[selectors.Pair]) -> dict[str, Any]:
    mine = [pair for pair in pairs if pair.server.id == side.id]
    return {
        "side": side,
        "href": page_url(server=side.id),
        "declares": words_of([f"extensions.{one}" if "/" in one else one for one in side.declares[:CHIPS]]),
        "more": max(0, len(side.declares) - CHIPS),
        "clients": len(mine),
        "losing": sum(1 for pair in mine if pair.counts[LOST]),
    }


def _choices(client: ClientSeen | None, server: Any) -> dict[str, Any]:
    rows = list(selectors.clients()[:CHOICES])
    if client is not None and all(row.pk != client.pk for row in rows):
        rows.insert(0, client)
    listed = [(str(pk), slug) for pk, slug in servers().order_by("slug").values_list("pk", "slug")[:CHOICES]]
    if server is not None and all(pk != str(server.pk) for pk, _ in listed):
        listed.insert(0, (str(server.pk), server.slug))
    return {
        "clients": [(str(row.pk), client_words(row)) for row in rows],
        "servers": listed,
        "client": str(client.pk) if client is not None else "",
        "server": str(server.pk) if server is not None else "",
    }


def client_words(row: ClientSeen) -> str:
    """Return what a client is called in a choice: its name, where it speaks, with which key."""
    return f"{row} · {row.revision} · {row.path} · {row.api_key.name}"


def _happened(client: ClientSeen | None, server: Any) -> dict[str, Any]:
    found = selectors.happened(
        client=client, server=server.slug if server is not None else "", tenant=server.tenant_id if server is not None else None
    )
    about = {"server": server.slug if server is not None else ""}
    if client is not None:
        about["actor_id"] = str(client.api_key_id)
    return {
        "found": found,
        "asked": [
            (method, number, figures.audit_url(event_type="call.asked", view="rows", **about))
            for method, number in found.asked.items()
        ],
        "problems": [
            (kind, number, figures.audit_url(view="problems", text="", **about)) for kind, number in found.problems.items()
        ],
        "seen_today": selectors.clients().filter(last_seen_at__gte=now() - figures.DAY).count(),
    }


def _record_url(client: ClientSeen) -> str:
    """Return where its messages can be recorded, for those who may."""
    if not may_record(client.tenant_id):
        return ""
    kind, ref = ("session", client.session) if client.session else ("api_key", str(client.api_key_id))
    return f"{model_url(Recording, 'start')}?{urlencode({'kind': kind, 'ref': ref})}"


def _number(text: str) -> int:
    return min(max(int(text), 1), 1000) if text.isascii() and text.isdigit() and len(text) <= 5 else 1


def _pk(row: Any) -> str:
    return str(row.pk) if row is not None else ""
