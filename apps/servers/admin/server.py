"""The registry's pages, as far as servers themselves go; the console adds what stands above (tools, toolsets, their callers)."""

from collections.abc import Sequence
from typing import Any

from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.db.models.functions import Lower
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import ChoicesDropdownFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.common.admin import Shown, TenantAdmin, bulk_verb, verb
from apps.common.admin.format import ago
from apps.common.admin.panels import Panel
from apps.common.admin.states import look_of, state_badge
from apps.common.errors import SwitchyardError
from apps.servers import selectors
from apps.servers.admin.connecting import (
    CONNECTING,
    OAuthClientForm,
    ask_client,
    ask_connect,
    ask_disconnect,
    connect_server,
    connected,
    connection_context,
    disconnect_server,
    enter_client,
)
from apps.servers.admin.forms import CloneForm, CredentialForm, RemoveCredentialForm, ServerForm
from apps.servers.admin.parts import (
    ATTENTION,
    CapabilityFilter,
    StateFilter,
    ask,
    ask_bulk,
    ask_credential,
    ask_forget_credential,
    compatibility_context,
    endpoints_context,
    state_title,
)
from apps.servers.models import Server
from apps.servers.services.connection import test_connection
from apps.servers.services.credentials import delete_credential, set_credential
from apps.servers.services.lifecycle import delete_server, pause_server, resume_server
from apps.servers.services.registry import clone_server, register_server, update_server

WHY_NOT = (
    "What is stored here goes into the environment of a command on this machine: superusers alone add, replace and delete it."
)


class ServerAdmin(TenantAdmin):
    """Servers; completed by the console."""

    kind = "server"
    client_revisions: Sequence[str] = ()
    """The revisions in which the gateway serves clients."""
    form = ServerForm
    add_words = "Register server"
    list_display: Sequence[Any] = ("shown_name", "shown_state", "shown_revisions", "shown_seen")
    list_display_links = ("shown_name",)
    list_filter = (StateFilter, ("transport", ChoicesDropdownFilter), CapabilityFilter)
    ordering = (Lower("slug"),)
    search_fields = ("slug", "name", "description", "endpoints__url", "endpoints__command")
    search_help_text = "Name, description or address"
    intro = (
        "The MCP servers behind the gateway. Each is called through /mcp and through an address of its own, /mcp/ and its slug."
    )
    empty_title = "Bring the first server"
    empty_text = "An MCP server offers tools to your agents. Register one by its address, or import the mcpServers file you already have."
    empty_action = ("Register server", "admin:servers_server_add")
    actions: Sequence[Any] = ("pause_chosen", "resume_chosen", "delete_chosen")
    actions_detail: Sequence[Any] = (
        "test",
        "pause",
        "resume",
        {
            "title": "More",
            "icon": "more_horiz",
            "items": ["clone", "set_credential", "remove_credential", *CONNECTING, "delete_it"],
        },
    )
    change_form_after_template = "console/server_test.html"
    conditional_fields = {
        "url": "transport != 'stdio'",
        "headers": "transport != 'stdio'",
        "command": "transport == 'stdio'",
        "args": "transport == 'stdio'",
        "cwd": "transport == 'stdio'",
        "env": "transport == 'stdio'",
        "auth": "transport != 'stdio'",
        "oauth_scope": "transport != 'stdio' && auth != 'headers'",
    }
    add_fieldsets = (
        (
            None,
            {
                "fields": (
                    "slug",
                    "name",
                    "description",
                    "transport",
                    "url",
                    "auth",
                    "oauth_scope",
                    "headers",
                    "command",
                    "args",
                    "cwd",
                    "env",
                )
            },
        ),
        ("Review of what it offers", {"fields": ("review", "trust_annotations")}),
        ("Limits", {"fields": ("timeout_seconds", "max_concurrency", "idle_seconds"), "classes": ("collapse",)}),
    )
    fieldsets = (
        ("Connection", {"fields": ("transport", "url", "auth", "oauth_scope", "command", "args", "cwd")}),
        ("Description", {"fields": ("name", "description")}),
        ("Review of what it offers", {"fields": ("review", "trust_annotations")}),
        ("Limits", {"fields": ("timeout_seconds", "max_concurrency", "idle_seconds"), "classes": ("collapse",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the servers in view with their state, those that need attention first."""
        rows = selectors.servers().select_related("tenant").prefetch_related("endpoints")
        place = Case(
            *(When(state=state, then=Value(number)) for number, state in enumerate(ATTENTION)), output_field=IntegerField()
        )
        ordered: QuerySet[Any] = rows.annotate(attention=place).order_by("attention", "slug")
        return ordered

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        """Put what needs attention on top."""
        return ("attention", Lower("slug"))

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> tuple[QuerySet[Any], bool]:
        """Search names, descriptions and addresses without joining rows twice."""
        found: Any = queryset
        for word in search_term.split():
            found = found.matching(word)
        return found, False

    def tabs(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return a tab for every state that a server is in."""
        by_state = dict(selectors.servers().order_by().values_list("state").annotate(n=_count()))
        chosen = request.GET.get("state", "")
        tabs = [{"title": "All", "href": "?", "count": sum(by_state.values()), "active": not chosen, "tone": ""}]
        for state in ATTENTION:
            if by_state.get(state) or chosen == state:
                look = look_of(state)
                tabs.append({
                    "title": look.word, "href": f"?state={state}", "count": by_state.get(state, 0), "active": chosen == state,
                    "tone": look.tone,
                })  # fmt: skip
        return tabs

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A built-in server is not deleted."""
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.builtin)

    def shows_form(self, request: HttpRequest, obj: Server) -> bool:
        """Show the configuration to those who may change it; the command of a stdio server is a superuser's."""
        if not self.has_change_permission(request, obj) or obj.builtin:
            return False
        return _may_command(request, obj)

    def hides_verb(self, request: HttpRequest, name: str, obj: Any) -> bool:
        """Leave out what puts something into the command or the environment of a stdio server for all but superusers."""
        return name in ("clone", "set_credential", "remove_credential") and not _may_command(request, obj)

    # --- writes ---------------------------------------------------------------------------------------------------------
    def create(self, request: HttpRequest, form: Any) -> Any:
        """Register it."""
        return register_server(**form.settings_given(all_of_them=True))

    def update(self, request: HttpRequest, obj: Any, form: Any) -> None:
        """Change what was changed in the form."""
        update_server(obj, **form.settings_given(all_of_them=False))

    def remove(self, request: HttpRequest, obj: Any) -> None:
        """Delete it."""
        delete_server(obj)

    # --- verbs ----------------------------------------------------------------------------------------------------------
    @verb(description="Test connection", ask=ask("test", "Test the connection to {}?", "Test now"), icon="network_check")
    def test(self, request: HttpRequest, obj: Server, form: Any) -> Shown:
        """Connect, shake hands, ask for the first page of tools."""
        return Shown(f"Connection to {obj.slug}", "console/parts/connection.html", {"report": test_connection(obj)})

    @verb(
        description="Pause",
        ask=ask("pause", "Pause {}?", "Pause server"),
        icon="pause",
        applies=lambda server: not server.paused,
    )
    def pause(self, request: HttpRequest, obj: Server, form: Any) -> str:
        """Stop every use of it."""
        pause_server(obj)
        return f"{obj.slug} is paused."

    @verb(
        description="Resume",
        ask=ask("resume", "Resume {}?", "Resume server"),
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        applies=lambda server: server.paused,
    )
    def resume(self, request: HttpRequest, obj: Server, form: Any) -> str:
        """Allow its use again."""
        resume_server(obj)
        return f"{obj.slug} is in use again."

    @verb(
        description="Clone",
        ask=ask("clone", "Clone {}", "Register copy"),
        icon="content_copy",
        form=CloneForm,
        applies=lambda server: not server.builtin,
    )
    def clone(self, request: HttpRequest, obj: Server, form: Any) -> HttpResponse:
        """Register a copy and open it."""
        copy = clone_server(obj, form.cleaned_data["slug"], name=form.cleaned_data["name"])
        return HttpResponseRedirect(self.page_url(copy))

    @verb(
        description="Add credential",
        ask=ask_credential,
        icon="key",
        form=CredentialForm,
        applies=lambda server: not server.builtin,
    )
    def set_credential(self, request: HttpRequest, obj: Server, form: Any) -> str:
        """Store a header or a variable."""
        name = form.cleaned_data["name"]
        set_credential(obj, "env" if obj.transport == Server.Transport.STDIO else "header", name, form.cleaned_data["value"])
        return f"{name} of {obj.slug} is stored."

    @verb(
        description="Delete credential",
        ask=ask_forget_credential,
        icon="key_off",
        form=RemoveCredentialForm,
        variant=ActionVariant.DANGER,
        applies=lambda server: False,
    )
    def remove_credential(self, request: HttpRequest, obj: Server, form: Any) -> str:
        """Delete a header or a variable; reached from the list of credentials."""
        name = form.cleaned_data["name"]
        delete_credential(obj, "env" if obj.transport == Server.Transport.STDIO else "header", name)
        return f"{name} of {obj.slug} is deleted."

    @verb(
        description="Connect",
        ask=ask_connect,
        icon="link",
        variant=ActionVariant.PRIMARY,
        applies=lambda server: server.by_oauth,
    )
    def connect(self, request: HttpRequest, obj: Server, form: Any) -> Shown | str:
        """Lead to the authorization server."""
        return connect_server(request, obj)

    @verb(description="Disconnect", ask=ask_disconnect, icon="link_off", variant=ActionVariant.DANGER, applies=connected)
    def disconnect(self, request: HttpRequest, obj: Server, form: Any) -> str:
        """Forget and revoke its tokens."""
        return disconnect_server(obj)

    @verb(
        description="Enter OAuth client",
        ask=ask_client,
        icon="id_card",
        form=OAuthClientForm,
        applies=lambda server: server.by_oauth,
    )
    def set_oauth_client(self, request: HttpRequest, obj: Server, form: Any) -> str:
        """Store the client that Switchyard is registered as."""
        return enter_client(obj, form)

    @verb(
        description="Delete server",
        permission="delete",
        ask=ask("delete", "Delete {}?", "Delete server", danger=True),
        icon="delete",
        variant=ActionVariant.DANGER,
        applies=lambda server: not server.builtin,
    )
    def delete_it(self, request: HttpRequest, obj: Server, form: Any) -> HttpResponse:
        """Delete it and go back to the list."""
        delete_server(obj)
        self.message_user(request, f"{obj.slug} is deleted.")
        return HttpResponseRedirect(self.list_url())

    @bulk_verb(description="Pause servers", done="Paused", ask=ask_bulk("pause", "Pause {}?", "Pause servers"))
    def pause_chosen(self, request: HttpRequest, obj: Server) -> None:
        """Pause each."""
        pause_server(obj)

    @bulk_verb(description="Resume servers", done="Resumed", ask=ask_bulk("resume", "Resume {}?", "Resume servers"))
    def resume_chosen(self, request: HttpRequest, obj: Server) -> None:
        """Resume each."""
        resume_server(obj)

    @bulk_verb(
        description="Delete servers",
        done="Deleted",
        permission="delete",
        ask=ask_bulk("delete", "Delete {}?", "Delete servers", danger=True),
    )
    def delete_chosen(self, request: HttpRequest, obj: Server) -> None:
        """Delete each."""
        delete_server(obj)

    # --- testing before saving --------------------------------------------------------------------------------------------
    def get_custom_urls(self) -> tuple[tuple[str, str, Any], ...]:
        """Add the test of settings that are not saved."""
        return (*super().get_custom_urls(), ("test-settings/", "servers_server_test_settings", _test_settings_view))

    def test_settings(self, request: HttpRequest) -> HttpResponse:
        """Connect with the settings of the form; nothing is kept but the event. POST alone."""
        if request.method != "POST" or not self.has_add_permission(request):
            return HttpResponse(status=405 if request.method != "POST" else 403)
        form = self.get_form(request)(request.POST)
        context: dict[str, Any] = {"dialog_title": "Connection with these settings", "whole": False, "back": self.list_url()}
        form.is_valid()
        given = form.settings_given(all_of_them=True)
        problems = {
            name: texts
            for name, texts in form.errors.items()
            if name in ("transport", "url", "command", "args", "cwd", "headers", "env")
        }
        if problems:
            context["shown"] = Shown("", "console/parts/problems.html", {"problems": problems})
        else:
            known = ("transport", "url", "command", "args", "cwd", "headers", "env", "timeout_seconds")
            try:
                with self.writing(request, None):
                    report = test_connection(**{name: value for name, value in given.items() if name in known})
                context["shown"] = Shown("", "console/parts/connection.html", {"report": report})
            except SwitchyardError as error:
                context["shown"] = Shown(
                    "", "console/parts/problems.html", {"error": error, "problems": error.extra.get("errors", {})}
                )
        return render(request, "console/dialog.html", context)

    # --- the page ---------------------------------------------------------------------------------------------------------
    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return name, state and the facts one looks for first."""
        endpoints = list(obj.endpoints.all())
        notices = []
        if obj.discovery_error:
            notices.append({"tone": "bad", "icon": "error", "text": f"The last discovery failed: {obj.discovery_error}"})
        return {
            "title": obj.slug,
            "badges": [state_badge(obj.state, title=state_title(obj, endpoints), href="#endpoints")]
            + ([format_html('<span class="sy-chip">Built in</span>')] if obj.builtin else []),
            "lead": obj.description,
            "facts": [
                ("transport", obj.get_transport_display()),
                ("address", endpoints[0] if endpoints else "–"),
                ("calls itself", _called(obj)),
                ("tenant", obj.tenant.name),
                ("discovered", ago(obj.discovered_at)),
            ],
            "notices": notices,
        }

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return endpoints with processes, credentials, compatibility."""
        may_write = self.has_change_permission(request, obj)
        may_store = may_write and not obj.builtin and _may_command(request, obj)
        return [
            Panel(
                "endpoints",
                "Endpoints",
                "console/panels/endpoints.html",
                endpoints_context(obj, self.policy_allows(request, "write", obj)),
                30,
            ),
            *(
                [
                    Panel(
                        "connection",
                        "Connection",
                        "console/panels/connection.html",
                        connection_context(self, obj, may_write),
                        20,
                    )
                ]
                if obj.by_oauth
                else []
            ),
            Panel(
                "credentials",
                "Credentials",
                "console/panels/credentials.html",
                {
                    "credentials": obj.credentials.all(),
                    "noun": "environment variables" if obj.transport == Server.Transport.STDIO else "headers",
                    "set_url": self.verb_url("set_credential", obj) if may_store else "",
                    "remove_url": self.verb_url("remove_credential", obj) if may_store else "",
                    "why_not": WHY_NOT if may_write and not obj.builtin and not may_store else "",
                },
                40,
            ),
            Panel(
                "compatibility",
                "Compatibility",
                "console/panels/compatibility.html",
                compatibility_context(obj, list(obj.endpoints.all()), self.client_revisions),
                50,
            ),
        ]

    # --- columns ------------------------------------------------------------------------------------------------------------
    @display(description="Server", ordering="slug")
    def shown_name(self, obj: Any) -> SafeString:
        """Name it, and say how it is reached."""
        endpoints = list(obj.endpoints.all())
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{} · {}</span></span>',
            obj.slug,
            obj.get_transport_display(),
            endpoints[0] if endpoints else "no endpoint",
        )

    @display(description="State", ordering="attention")
    def shown_state(self, obj: Any) -> SafeString:
        """Show its state, since when and why."""
        return state_badge(obj.state, title=state_title(obj, list(obj.endpoints.all())))

    @display(description="Revisions")
    def shown_revisions(self, obj: Any) -> SafeString | str:
        """Show the newest revision it speaks and how many more."""
        if not obj.revisions:
            return format_html('<span class="sy-quiet sy-card-hide">–</span>')
        more = f" +{len(obj.revisions) - 1}" if len(obj.revisions) > 1 else ""
        return format_html(
            '<span class="sy-nowrap sy-card-hide" title="{}">{}{}</span>', ", ".join(obj.revisions), obj.revisions[0], more
        )

    @display(description="Last seen")
    def shown_seen(self, obj: Any) -> SafeString | str:
        """Show when it last answered."""
        seen = [place.last_seen_at for place in obj.endpoints.all() if place.last_seen_at]
        return format_html('<span class="sy-card-hide">{}</span>', ago(max(seen) if seen else None))


def _may_command(request: HttpRequest, obj: Any) -> bool:
    return obj.transport != Server.Transport.STDIO or bool(request.user.is_superuser)


def _called(obj: Any) -> str:
    name, version = obj.server_info.get("name"), obj.server_info.get("version")
    return f"{name} {version}".strip() if name and version else str(name or "–")


def _count() -> Any:
    from django.db.models import Count

    return Count("pk")


def _test_settings_view(request: HttpRequest, model_admin: Any) -> HttpResponse:
    answer: HttpResponse = model_admin.test_settings(request)
    return answer
