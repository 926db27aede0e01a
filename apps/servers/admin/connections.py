"""The connections with servers by OAuth: what expires when, what failed to refresh, what it stops, and the way to connect again."""

from typing import Any, cast
from uuid import UUID

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.audit.admin.history import history_panel
from apps.common.admin import Shown, TenantAdmin, verb
from apps.common.admin.base import site_url
from apps.common.admin.format import ago, plural
from apps.common.admin.panels import Link, Panel
from apps.common.admin.states import state_badge
from apps.servers import selectors
from apps.servers.admin.connecting import NO_END, ask_connect, ask_disconnect, connect_server, ended, look_of_connection
from apps.servers.domain import OAUTH_USER
from apps.servers.models import OAuthConnection

STATES = (
    ("failed", "Failed", "bad"),
    ("expiring", "Expire soon", "warn"),
    ("wanting", "Want more scope", "warn"),
    ("connected", "Connected", ""),
)


class StateFilter(admin.SimpleListFilter):
    """Connections by what is to be done about them."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return [(state, words) for state, words, _ in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the connections in a state."""
        chosen = self.value()
        if chosen not in {state for state, _, _ in STATES}:
            return queryset
        return queryset.filter(pk__in=selectors.connections(state=chosen).order_by().values("pk"))


@admin.register(OAuthConnection)
class OAuthConnectionAdmin(TenantAdmin):
    """Connections with servers."""

    kind = "server"
    list_words = "connections"
    list_display = ("shown_server", "shown_state", "shown_expiry", "shown_refreshed", "shown_stops", "shown_since")
    list_display_links = ("shown_server",)
    list_filter = (StateFilter,)
    search_fields = ("server__slug", "issuer", "user__username")
    search_help_text = "Server, user or authorization server"
    intro = "What Switchyard holds tokens for. Most renew themselves ahead of their end; the others need a person, and so does what failed."
    empty_title = "Nothing is connected by OAuth"
    empty_text = "Register a server whose authentication is OAuth, then press Connect on its page."
    actions_detail = ("reconnect", "disconnect")
    actions_row = ("reconnect", "disconnect")
    show_add_link = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return all connections in view to those who may change servers, their own to others."""
        rows: QuerySet[Any] = self._seen(request).annotate(tools=Count("server__tools", distinct=True))
        return rows

    def _seen(self, request: HttpRequest, state: str | None = None) -> QuerySet[Any]:
        rows = selectors.connections(state=state)
        return rows if self.policy_allows(request, "write") else rows.filter(user_id=cast("UUID", request.user.pk))

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        """Keep what needs somebody on top."""
        return ("-state", "expires_at", "id")

    def tabs(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return a tab for every state."""
        chosen = request.GET.get("state", "")
        tabs = [{"title": "All", "href": "?", "count": self._seen(request).count(), "active": not chosen, "tone": ""}]
        for state, words, tone in STATES:
            number = self._seen(request, state).count()
            if number or chosen == state:
                tabs.append(
                    {"title": words, "href": f"?state={state}", "count": number, "active": chosen == state, "tone": tone}
                )
        return tabs

    def has_add_permission(self, request: HttpRequest) -> bool:
        """A connection is made on the server's page."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nobody edits one."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """One is disconnected, not deleted."""
        return False

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """There is nothing to configure."""
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return no fields."""
        return ((None, {"fields": ()}),)

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return what is known of a connection."""
        notices = []
        if obj.reason:
            notices.append({"tone": "bad", "icon": "error", "text": obj.reason})
        if obj.wanted_scope:
            text = f"The server wants more than was granted: {obj.wanted_scope}. Connect again to agree to it."
            notices.append({"tone": "warn", "icon": "lock_open", "text": text})
        return {
            "title": str(obj),
            "badges": [state_badge(look_of_connection(obj))],
            "lead": obj.issuer,
            "facts": [
                ("expires", ago(obj.expires_at, never=NO_END)),
                ("renews", _renews(obj)),
                ("last token", ago(obj.refreshed_at)),
                ("granted", obj.scope or "nothing in particular"),
                ("stops", _stops(obj) or "nothing"),
                ("connected", ago(obj.connected_at)),
                ("by", obj.connected_by or "–"),
                ("client", obj.client.client_id if obj.client is not None else "–"),
            ],
            "notices": notices,
        }

    def links(self, request: HttpRequest, obj: Any) -> list[Link]:
        """Lead to the server."""
        return [Link("Open server", site_url("servers_server_change", obj.server_id), "dns")]

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return its history."""
        return [history_panel("connection", obj.pk)]

    def hides_verb(self, request: HttpRequest, name: str, obj: Any) -> bool:
        """A user's own account is connected by that user alone."""
        return name == "reconnect" and obj is not None and obj.user_id is not None and obj.user_id != request.user.pk

    @verb(
        description="Connect again",
        ask=ask_connect,
        icon="link",
        variant=ActionVariant.PRIMARY,
        applies=lambda row: row.server.by_oauth,
    )
    def reconnect(self, request: HttpRequest, obj: Any, form: Any) -> Shown | str:
        """Lead to the authorization server."""
        return connect_server(request, obj.server, personal=obj.user_id is not None)

    @verb(description="Disconnect", ask=ask_disconnect, icon="link_off", variant=ActionVariant.DANGER)
    def disconnect(self, request: HttpRequest, obj: Any, form: Any) -> str:
        """Forget and revoke its tokens."""
        return ended(obj)

    @display(description="Server", ordering="server__slug")
    def shown_server(self, obj: Any) -> SafeString:
        """Name the server, whose connection it is and who gives the tokens."""
        whose = obj.user.get_username() if obj.user is not None else "everybody"
        if obj.user is None and obj.server.auth == OAUTH_USER:
            whose = "Switchyard itself"
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">for {} · {}</span></span>',
            obj.server.slug,
            whose,
            obj.issuer,
        )

    @display(description="State", ordering="state")
    def shown_state(self, obj: Any) -> SafeString:
        """Show whether it can be used, and why not."""
        return state_badge(look_of_connection(obj), title=obj.reason or obj.wanted_scope)

    @display(description="Expires", ordering="expires_at")
    def shown_expiry(self, obj: Any) -> SafeString:
        """Show when its token ends and whether it renews itself."""
        if obj.state == OAuthConnection.State.FAILED:
            return format_html('<span class="sy-help">{}</span>', _renews(obj))
        return format_html('{}<br><span class="sy-help">{}</span>', ago(obj.expires_at, never=NO_END), _renews(obj))

    @display(description="Last token", ordering="refreshed_at")
    def shown_refreshed(self, obj: Any) -> SafeString | str:
        """Show when its token was given, and what went wrong since."""
        if not obj.failures:
            return ago(obj.refreshed_at)
        return format_html('{}<br><span class="sy-help" title="{}">{}</span>', ago(obj.refreshed_at), obj.reason, _tried(obj))

    @display(description="Stops")
    def shown_stops(self, obj: Any) -> SafeString | str:
        """Show what does not work for want of it."""
        stops = _stops(obj)
        return stops or format_html('<span class="sy-quiet sy-card-hide">–</span>')

    @display(description="Connected", ordering="connected_at")
    def shown_since(self, obj: Any) -> SafeString | str:
        """Show since when."""
        return format_html('<span class="sy-card-hide">{}</span>', ago(obj.connected_at))


def _renews(obj: Any) -> str:
    if obj.state == OAuthConnection.State.FAILED:
        return "when somebody connects again"
    return "renews itself" if selectors.renews_itself(obj) else "needs a person"


def _tried(obj: Any) -> str:
    return f"{plural(obj.failures, 'attempt')} to refresh came to nothing"


def _stops(obj: Any) -> str:
    """Say which server, or whose calls to it, a connection that cannot be used stops."""
    if look_of_connection(obj) not in ("failed", "expired-connection"):
        return ""
    if obj.user is not None:
        return f"calls of {obj.user.get_username()} to {obj.server.slug}"
    return f"{obj.server.slug} with {plural(obj.tools, 'tool')}"
