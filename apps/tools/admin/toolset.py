"""Toolsets: virtual servers of chosen tools, with the exact list a client gets and what it costs a model."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant
from unfold.widgets import UnfoldAdminTextareaWidget

from apps.audit.admin.history import history_panel
from apps.common.admin import Ask, TenantAdmin, bulk_verb, verb
from apps.common.admin.format import ago, count, plural
from apps.common.admin.panels import Panel
from apps.common.admin.states import state_badge
from apps.common.errors import SwitchyardError, ValidationFailed
from apps.common.policy import matches
from apps.tools.admin.entries import EntriesField, EntriesWidget, entries_of, entry_errors, search_offered
from apps.tools.domain import visible
from apps.tools.models import Grant, Tool, Toolset
from apps.tools.services.toolsets import create_toolset, delete_toolset, pause_toolset, preview, resume_toolset, update_toolset


class OriginFilter(admin.SimpleListFilter):
    """Toolsets by where they come from."""

    title = "kind"
    parameter_name = "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the two kinds."""
        return [("composed", "Composed"), ("server", "Came with a server")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep one kind."""
        if self.value() == "composed":
            return queryset.filter(server__isnull=True)
        return queryset.filter(server__isnull=False) if self.value() == "server" else queryset


class ToolsetForm(forms.ModelForm[Toolset]):
    """A toolset and, where it is composed, its entries."""

    entries = EntriesField(
        label="What it has", help_text="Search over every server; names stay server__tool unless you rename them."
    )

    class Meta:
        model = Toolset
        fields = ("slug", "name", "description", "instructions")
        widgets = {"instructions": UnfoldAdminTextareaWidget(attrs={"rows": 3})}
        help_texts = {
            "slug": "Its address is /mcp/ and this.",
            "name": "As people call it; empty = the slug.",
            "instructions": "What every client is told at the start.",
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "name" in self.fields:
            self.fields["name"].required = False
        if "entries" in self.fields and not self.instance._state.adding:
            self.initial["entries"] = entries_of(self.instance)


def _ask(name: str, title: str, submit: str, *, danger: bool = False) -> Any:
    def asker(self: Any, request: HttpRequest, obj: Any) -> Ask:
        return Ask(title=title.format(obj), submit=submit, consequence=self.consequences(request, name, obj), danger=danger)

    return asker


def _ask_bulk(name: str, title: str, submit: str) -> Any:
    def asker(self: Any, request: HttpRequest, rows: list[Any]) -> Ask:
        said = [f"{row}: {' '.join(self.consequences(request, name, row))}" for row in rows[:20]]
        return Ask(title=title.format(plural(len(rows), "toolset")), submit=submit, consequence=said)

    return asker


class ToolsetAdmin(TenantAdmin):
    """Toolsets; completed by the console."""

    kind = "toolset"
    form = ToolsetForm
    add_words = "New toolset"
    list_display: Sequence[Any] = ("shown_name", "shown_state", "shown_servers", "shown_tools", "shown_grants", "shown_changed")
    list_display_links = ("shown_name",)
    list_filter = (OriginFilter,)
    search_fields = ("slug", "name", "description")
    ordering = ("slug",)
    intro = "A toolset is a virtual server at an address of its own: chosen tools of one or more servers, so that a client gets what it needs and no more."
    empty_title = "Compose the first toolset"
    empty_text = "Every server comes with a toolset of its own. Compose others when a client should get tools of several servers, or fewer."
    empty_action = ("New toolset", "admin:tools_toolset_add")
    fieldsets: Sequence[Any] = ((None, {"fields": ("slug", "name", "description", "instructions", "entries")}),)
    actions = ("pause_chosen", "resume_chosen")
    actions_detail: Sequence[Any] = ("pause", "resume", "delete_it")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the toolsets in view."""
        return super().get_queryset(request).select_related("server", "tenant").prefetch_related("entries__server")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Leave slug and entries of a server's own toolset to the server."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None and obj.server_id:
            return ((None, {"fields": ("name", "description", "instructions")}),)
        return fieldsets

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        """Drop the editor where there are no entries to edit."""
        made = super().get_form(request, obj, change=change, **kwargs)
        if obj is not None and obj.server_id:
            made.base_fields.pop("entries", None)
        return made

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A server's own toolset goes with its server."""
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.server_id)

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """Show the form to those who may change it."""
        return self.has_change_permission(request, obj)

    def create(self, request: HttpRequest, form: Any) -> Toolset:
        """Create it."""
        data = form.cleaned_data
        with _entries_named():
            return create_toolset(
                slug=data["slug"],
                name=data["name"],
                description=data["description"],
                instructions=data["instructions"],
                entries=data["entries"],
            )

    def update(self, request: HttpRequest, obj: Any, form: Any) -> None:
        """Change what was changed."""
        with _entries_named():
            update_toolset(obj, **{name: form.cleaned_data[name] for name in form.changed_data})

    def remove(self, request: HttpRequest, obj: Any) -> None:
        """Delete it."""
        delete_toolset(obj)

    def consequences(self, request: HttpRequest, verb: str, obj: Any) -> list[str]:
        """Say how many tools and grants it concerns."""
        self.decorate(request, [obj])
        tools, grants = plural(obj.tools_here, "tool"), plural(obj.grants_here, "grant")
        if verb == "pause":
            return [
                f"/mcp/{obj.slug} refuses calls until it is resumed: {tools}, {grants}. The same tools stay reachable through other toolsets."
            ]
        if verb == "resume":
            return [f"/mcp/{obj.slug} serves its {tools} again."]
        return [
            f"/mcp/{obj.slug} with {tools} is gone; {grants} on it {'is' if obj.grants_here == 1 else 'are'} deleted as well."
        ]

    # --- verbs ----------------------------------------------------------------------------------------------------------
    @verb(
        description="Pause",
        ask=_ask("pause", "Pause the toolset {}?", "Pause toolset"),
        icon="pause",
        applies=lambda toolset: toolset.paused_at is None,
    )
    def pause(self, request: HttpRequest, obj: Toolset, form: Any) -> str:
        """Refuse calls through it."""
        pause_toolset(obj)
        return f"{obj.slug} is paused."

    @verb(
        description="Resume",
        ask=_ask("resume", "Resume the toolset {}?", "Resume toolset"),
        icon="play_arrow",
        variant=ActionVariant.PRIMARY,
        applies=lambda toolset: toolset.paused_at is not None,
    )
    def resume(self, request: HttpRequest, obj: Toolset, form: Any) -> str:
        """Serve it again."""
        resume_toolset(obj)
        return f"{obj.slug} is in use again."

    @verb(
        description="Delete",
        permission="delete",
        ask=_ask("delete", "Delete the toolset {}?", "Delete toolset", danger=True),
        icon="delete",
        variant=ActionVariant.DANGER,
        applies=lambda toolset: not toolset.server_id,
    )
    def delete_it(self, request: HttpRequest, obj: Toolset, form: Any) -> HttpResponse:
        """Delete it and go to the list."""
        delete_toolset(obj)
        self.message_user(request, f"{obj.slug} is deleted.")
        return HttpResponseRedirect(self.list_url())

    @bulk_verb(description="Pause toolsets", done="Paused", ask=_ask_bulk("pause", "Pause {}?", "Pause toolsets"))
    def pause_chosen(self, request: HttpRequest, obj: Toolset) -> None:
        """Pause each."""
        pause_toolset(obj)

    @bulk_verb(description="Resume toolsets", done="Resumed", ask=_ask_bulk("resume", "Resume {}?", "Resume toolsets"))
    def resume_chosen(self, request: HttpRequest, obj: Toolset) -> None:
        """Resume each."""
        resume_toolset(obj)

    # --- the editor's helpers -------------------------------------------------------------------------------------------
    def get_custom_urls(self) -> tuple[tuple[str, str, Any], ...]:
        """Add the search and the preview of the editor."""
        return (
            *super().get_custom_urls(),
            ("offered/", "tools_toolset_offered", _offered_view),
            ("preview-entries/", "tools_toolset_preview", _preview_view),
        )

    def offered(self, request: HttpRequest) -> HttpResponse:
        """Answer a search of the editor."""
        if not self.has_write_permission(request):
            return HttpResponse(status=403)
        return render(request, "console/parts/offered.html", {"found": search_offered(request.GET.get("q", "")[:200])})

    def preview_entries(self, request: HttpRequest) -> HttpResponse:
        """Show what a client would get with the entries as they stand in the form; nothing is saved. POST alone."""
        if request.method != "POST" or not self.policy_allows(request, "read"):
            return HttpResponse(status=405 if request.method != "POST" else 403)
        toolset = self.get_object(request, request.GET["toolset"]) if request.GET.get("toolset") else None
        entries = EntriesWidget().value_from_datadict(request.POST, request.FILES, "entries")
        context: dict[str, Any] = {}
        tenant_id = getattr(toolset, "tenant_id", None) or request.POST.get("tenant") or None
        if tenant_id:
            request.console_tenant_id = tenant_id  # type: ignore[attr-defined]
        try:
            with self.writing(request, toolset):
                context = preview_context(preview(toolset, entries=entries))
        except SwitchyardError as error:
            context["error"] = error
        return render(request, "console/parts/preview.html", {"panel": context})

    # --- the page -------------------------------------------------------------------------------------------------------
    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return name, state and origin."""
        return {
            "title": obj.name if obj.name != obj.slug else obj.slug,
            "badges": [state_badge("paused" if obj.paused_at else "active", word="Paused" if obj.paused_at else "In use")],
            "lead": obj.description,
            "facts": [
                ("address", format_html('<code class="sy-code">/mcp/{}</code>', obj.slug)),
                ("kind", f"came with the server {obj.server.slug}" if obj.server_id else "composed"),
                ("tenant", obj.tenant.name),
                ("changed", ago(obj.updated_at)),
            ],
        }

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return the exact list a client gets, and the history."""
        composition = preview(obj)
        return [
            Panel(
                "list",
                "What a client gets",
                "console/panels/preview.html",
                preview_context(composition),
                20,
                count(len(composition.items)),
            ),
            history_panel("toolset", obj.pk),
        ]

    # --- columns --------------------------------------------------------------------------------------------------------
    def decorate(self, request: HttpRequest, rows: list[Any]) -> None:
        """Count tools and grants of the toolsets on a page, in three queries."""
        servers = {row.server_id for row in rows if row.server_id} | {
            entry.server_id for row in rows for entry in row.entries.all()
        }
        names: dict[Any, list[str]] = defaultdict(list)
        for server_id, name in (
            Tool.objects.filter(state="active", server_id__in=servers).order_by().values_list("server_id", "name")
        ):
            names[server_id].append(name)
        granted = dict(
            Grant.objects.filter(toolset_id__in=[row.pk for row in rows])
            .order_by()
            .values_list("toolset_id")
            .annotate(n=Count("pk"))
        )
        for row in rows:
            row.tools_here = _tools_of(row, names)
            row.grants_here = granted.get(row.pk, 0)

    @display(description="Toolset", ordering="slug")
    def shown_name(self, obj: Any) -> SafeString:
        """Name it, and say what it is for."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            obj.name,
            obj.description or f"/mcp/{obj.slug}",
        )

    @display(description="State", ordering="paused_at")
    def shown_state(self, obj: Any) -> SafeString:
        """Show whether it is in use."""
        return state_badge("paused" if obj.paused_at else "active", word="Paused" if obj.paused_at else "In use")

    @display(description="Servers")
    def shown_servers(self, obj: Any) -> SafeString:
        """Name its servers."""
        slugs = [obj.server.slug] if obj.server_id else list(dict.fromkeys(entry.server.slug for entry in obj.entries.all()))
        more = f" +{len(slugs) - 3}" if len(slugs) > 3 else ""
        return format_html(
            '<span class="sy-card-hide" title="{}">{}{}</span>', ", ".join(slugs), ", ".join(slugs[:3]) or "none yet", more
        )

    @display(description="Tools")
    def shown_tools(self, obj: Any) -> SafeString:
        """Count its tools."""
        return format_html('<span class="sy-num">{}</span>', count(obj.tools_here))

    @display(description="Grants")
    def shown_grants(self, obj: Any) -> SafeString:
        """Count the grants on it."""
        return format_html('<span class="sy-num sy-card-hide">{}</span>', count(obj.grants_here))

    @display(description="Changed", ordering="updated_at")
    def shown_changed(self, obj: Any) -> SafeString:
        """Show when it was changed."""
        return format_html('<span class="sy-card-hide">{}</span>', ago(obj.updated_at))


def _tools_of(row: Any, names: dict[Any, list[str]]) -> int:
    if row.server_id:
        return len(names.get(row.server_id, ()))
    found = set()
    for entry in row.entries.all():
        if entry.kind in ("all", "tool"):
            found |= {(entry.server_id, name) for name in names.get(entry.server_id, ()) if matches(entry.pattern, name)}
    return len(found)


def preview_context(composition: Any) -> dict[str, Any]:
    """Return what a client gets, laid out."""
    shown = [
        {
            "kind": item.kind,
            "name": visible(item.name),
            "own": visible(item.own_name) if item.own_name != item.name else "",
            "description": visible(str(item.definition.get("description") or item.definition.get("title") or "")),
        }
        for item in composition.items
    ]
    kinds: dict[str, int] = defaultdict(int)
    for item in composition.items:
        kinds[item.kind] += 1
    words = {"tool": "tool", "resource": "resource", "template": "template", "prompt": "prompt"}
    return {
        "items": shown,
        "problems": [problem.detail for problem in composition.problems],
        "tokens": composition.tokens,
        "characters": composition.characters,
        "summary": ", ".join(plural(number, words.get(kind, kind)) for kind, number in kinds.items()) or "nothing",
    }


class _entries_named:  # noqa: N801 - used as a function
    """Turns messages about numbered entries into messages of the form's one field."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, ValidationFailed):
            error.extra["errors"] = entry_errors(error)


def _offered_view(request: HttpRequest, model_admin: Any) -> HttpResponse:
    answer: HttpResponse = model_admin.offered(request)
    return answer


def _preview_view(request: HttpRequest, model_admin: Any) -> HttpResponse:
    answer: HttpResponse = model_admin.preview_entries(request)
    return answer
