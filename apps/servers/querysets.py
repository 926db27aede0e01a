"""Sets of servers: by state, by what they offer, by how they are reached."""

from typing import Any
from uuid import UUID

from django.db.models import Case, CharField, Exists, IntegerField, Min, OuterRef, Q, QuerySet, Subquery, Value, When

from apps.common.models import TenantManager
from apps.servers.rules import STATE_ORDER

CAPABILITIES = ("tools", "resources", "prompts", "completions", "logging")
"""Members of a server's capabilities object (both eras) by which servers are filtered."""


class ServerQuerySet(QuerySet[Any]):
    """Servers of the registry."""

    def active(self) -> "ServerQuerySet":
        """Return those that no operator has paused."""
        return self.filter(paused_at__isnull=True)

    def paused(self) -> "ServerQuerySet":
        """Return those that an operator has paused."""
        return self.filter(paused_at__isnull=False)

    def speaking(self, transport: str) -> "ServerQuerySet":
        """Return those reached over `stdio`, `sse` or `http`."""
        return self.filter(transport=transport)

    def offering(self, capability: str) -> "ServerQuerySet":
        """Return those that declared a capability at their last discovery."""
        return self.filter(capabilities__has_key=capability)

    def of_tenant(self, tenant: object) -> "ServerQuerySet":
        """Return those of one tenant, by id or slug."""
        try:
            return self.filter(tenant_id=UUID(str(tenant)))
        except ValueError:
            return self.filter(tenant__slug=str(tenant))

    def with_state(self) -> "ServerQuerySet":
        """Add `state`: paused, else the worst of the endpoints (see `rules.derive_state`)."""
        from apps.servers.models import Endpoint

        rank = Case(
            *(When(state=state, then=Value(rank)) for rank, state in enumerate(STATE_ORDER)), output_field=IntegerField()
        )
        worst = (
            Endpoint.unscoped.filter(server=OuterRef("pk")).order_by().values("server").annotate(rank=Min(rank)).values("rank")
        )
        ranked: ServerQuerySet = self.annotate(_rank=Subquery(worst))
        stated: ServerQuerySet = ranked.annotate(
            state=Case(
                When(paused_at__isnull=False, then=Value("paused")),
                *(When(_rank=rank, then=Value(state)) for rank, state in enumerate(STATE_ORDER)),
                default=Value("unknown"),
                output_field=CharField(),
            )
        )
        return stated

    def in_state(self, state: str) -> "ServerQuerySet":
        """Return those whose derived state is `state`."""
        return self.with_state().filter(state=state)

    def reached_at(self, text: str) -> "ServerQuerySet":
        """Return those whose URL or command contains `text`."""
        from apps.servers.models import Endpoint

        found = Endpoint.unscoped.filter(server=OuterRef("pk")).filter(Q(url__icontains=text) | Q(command__icontains=text))
        return self.filter(Exists(found))

    def matching(self, text: str) -> "ServerQuerySet":
        """Return those whose slug, name, description or address contains `text`."""
        found = self.reached_at(text).order_by().values("pk")
        words = Q(slug__icontains=text) | Q(name__icontains=text) | Q(description__icontains=text)
        return self.filter(words | Q(pk__in=found))


ServerManager = TenantManager.from_queryset(ServerQuerySet)
"""The scoped manager of servers, with the sets above."""
