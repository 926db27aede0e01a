"""The catalogue: what servers offer, what waits for review, and what a call may do."""

import json
from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.db.models import Case, Count, IntegerField, QuerySet, Value, When
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.contrib.filters.admin import AutocompleteSelectFilter
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.audit.admin.history import history_panel
from apps.common.admin import TenantAdmin, bulk_verb, verb
from apps.common.admin.format import ago
from apps.common.admin.panels import Panel
from apps.common.admin.states import look_of, state_badge
from apps.tools.admin.review import (
    EFFECT_STATES,
    STATES,
    DefinitionStateFilter,
    EffectsFilter,
    EffectsForm,
    SeenForm,
    ask_approve,
    ask_bulk,
    ask_effects,
    ask_reject,
    can_reject,
    waits,
)
from apps.tools.admin.schema import schema_rows
from apps.tools.admin.standing import difference_context, standing
from apps.tools.domain import claimed_effects, full_name, visible
from apps.tools.models import Definition, Instructions, Prompt, Resource, ResourceTemplate, Tool
from apps.tools.services.review import approve, reject, set_effects


class DefinitionAdmin(TenantAdmin):
    """Definitions of one kind."""

    show_add_link = False
    list_display: Sequence[Any] = ("shown_name", "shown_server", "shown_state", "shown_seen")
    list_display_links = ("shown_name",)
    list_filter: Sequence[Any] = (DefinitionStateFilter, ("server", AutocompleteSelectFilter))
    list_filter_submit = True
    search_fields = ("name", "title", "description", "server__slug")
    search_help_text = "Name, words of the description, or server"
    empty_title = "Nothing has been discovered"
    empty_text = "What a server offers appears here when it has been discovered."
    actions: Sequence[Any] = ("approve_chosen", "reject_chosen")
    actions_detail: Sequence[Any] = ("approve", "reject")
    fieldsets = ()

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Definitions are discovered, not made."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Definitions go when their server no longer offers them."""
        return False

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """There is nothing to configure."""
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return no fields: a definition is the server's own word."""
        return ((None, {"fields": ()}),)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the definitions in view, held ones first; the bulky columns are left out of lists."""
        place = Case(
            *(When(state=state, then=Value(number)) for number, state in enumerate(STATES)), output_field=IntegerField()
        )
        rows: QuerySet[Any] = self.model.objects.select_related("server").annotate(place=place)
        return rows.order_by(*self.get_ordering(request))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Put what waits on top."""
        return ("place", "server__slug", "position")

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> tuple[QuerySet[Any], bool]:
        """Search names, descriptions and servers."""
        found: Any = queryset
        for word in search_term.split():
            found = found.matching(word)
        return found, False

    def tabs(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return a tab for each state there is."""
        rows: QuerySet[Any] = self.model.objects.order_by()
        counts = dict(rows.values_list("state").annotate(n=Count("pk")))
        chosen = request.GET.get("state", "")
        tabs = [{"title": "All", "href": "?", "count": sum(counts.values()), "active": not chosen, "tone": ""}]
        for state in STATES:
            if counts.get(state) or chosen == state:
                tone = "info" if state == "held" else ""
                tabs.append(
                    {
                        "title": look_of(state).word,
                        "href": f"?state={state}",
                        "count": counts.get(state, 0),
                        "active": chosen == state,
                        "tone": tone,
                    }
                )
        return tabs

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return name, state and server."""
        notices = [
            {
                "tone": "warn" if flag.get("holds") else "info",
                "icon": "warning",
                "text": f"{flag.get('detail', flag.get('code'))} (at {flag.get('path') or 'the name'})",
            }
            for flag in obj.flags[:10]
        ]
        if said := standing(obj):
            held = obj.state == Definition.State.HELD
            notices.insert(0, {"tone": "info" if held else "muted", "icon": "back_hand" if held else "block", "text": said})
        return {
            "title": visible(obj.name),
            "badges": [state_badge(obj.state, title=self._state_title(obj))],
            "lead": obj.title if obj.title and obj.title != obj.name else "",
            "facts": [
                ("server", obj.server.slug),
                ("first seen", ago(obj.created_at)),
                ("last offered", ago(obj.seen_at)),
                *self._reviewed(obj),
            ],
            "notices": notices,
        }

    def _reviewed(self, obj: Any) -> list[tuple[str, Any]]:
        if obj.reviewed_at is None:
            return []
        return [("reviewed", format_html("{} by {}", ago(obj.reviewed_at), obj.reviewed_by or "–"))]

    def _state_title(self, obj: Any) -> str:
        if obj.state == Definition.State.HELD and obj.held_at:
            return f"Held since {obj.held_at:%Y-%m-%d %H:%M} UTC"
        return f"Reviewed by {obj.reviewed_by}" if obj.reviewed_by else ""

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return difference, definition and history."""
        panels = []
        if waits(obj) or obj.state == Definition.State.HELD:
            context = {
                **difference_context(obj),
                "rejected": obj.state == Definition.State.REJECTED,
                "approve": self.verb_url("approve", obj) if self.has_write_permission(request, obj) else "",
                "reject": self.verb_url("reject", obj) if self.has_write_permission(request, obj) and can_reject(obj) else "",
            }
            panels.append(Panel("review", "Review", "console/panels/review.html", context, 5))
        panels.append(Panel("definition", "Definition", "console/panels/definition.html", definition_context(obj), 30))
        panels.append(history_panel(self.kind if self.kind not in ("resource", "server") else obj.kind, obj.pk))
        return panels

    def consequences(self, request: HttpRequest, verb: str, obj: Any) -> list[str]:
        """Say nothing more; tools do."""
        return []

    @verb(description="Approve", ask=ask_approve, icon="check", variant=ActionVariant.PRIMARY, form=SeenForm, applies=waits)
    def approve(self, request: HttpRequest, obj: Any, form: Any) -> str:
        """Put it in force, if it still is what was looked at."""
        approve(obj, expected_digest=form.cleaned_data["digest"] or None)
        return f"{visible(obj.name)} is approved."

    @verb(description="Reject", ask=ask_reject, icon="block", variant=ActionVariant.DANGER, form=SeenForm, applies=can_reject)
    def reject(self, request: HttpRequest, obj: Any, form: Any) -> str:
        """Keep it out."""
        reject(obj, expected_digest=form.cleaned_data["digest"] or None)
        return f"{visible(obj.name)} is rejected."

    @bulk_verb(description="Approve", done="Approved", ask=ask_bulk("Approve {} definitions?", "Approve {} changes"))
    def approve_chosen(self, request: HttpRequest, obj: Any) -> None:
        """Approve each."""
        approve(obj)

    @bulk_verb(description="Reject", done="Rejected", ask=ask_bulk("Reject {} definitions?", "Reject {}", danger=True))
    def reject_chosen(self, request: HttpRequest, obj: Any) -> None:
        """Reject each."""
        reject(obj)

    @display(description="Name", ordering="name")
    def shown_name(self, obj: Any) -> SafeString:
        """Name it and say what it does in a line."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            visible(obj.name),
            obj.description or obj.title,
        )

    @display(description="Server", ordering="server__slug")
    def shown_server(self, obj: Any) -> SafeString:
        """Name its server."""
        return format_html('<span class="sy-nowrap">{}</span>', obj.server.slug)

    @display(description="State", ordering="place")
    def shown_state(self, obj: Any) -> SafeString:
        """Show its state."""
        return state_badge(obj.state, title=self._state_title(obj))

    @display(description="Last offered", ordering="seen_at")
    def shown_seen(self, obj: Any) -> SafeString | str:
        """Show when the server last offered it."""
        return format_html('<span class="sy-card-hide">{}</span>', ago(obj.seen_at))


class ToolAdmin(DefinitionAdmin):
    """Tools; completed by the console."""

    kind = "tool"
    intro = "Everything the servers offer to be called. What is held waits for your eyes: it is neither listed nor callable."
    list_display: Sequence[Any] = ("shown_name", "shown_server", "shown_state", "shown_risk", "shown_seen")
    list_filter: Sequence[Any] = (DefinitionStateFilter, EffectsFilter, ("server", AutocompleteSelectFilter))
    actions_detail: Sequence[Any] = ("approve", "rule", "reject")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the tools in view with the effects in force."""
        rows: Any = Tool.objects.select_related("server")
        place = Case(
            *(When(state=state, then=Value(number)) for number, state in enumerate(STATES)), output_field=IntegerField()
        )
        found: QuerySet[Any] = rows.with_effects().annotate(place=place).order_by(*self.get_ordering(request))
        return found

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Add the full name and the risk."""
        head = super().header(request, obj)
        head["badges"].append(risk_badge(obj.effective_effects))
        head["facts"].append(("a call of it", risk_words(obj)))
        head["facts"].insert(
            1, ("full name", format_html('<code class="sy-code">{}</code>', visible(full_name(obj.server.slug, obj.name))))
        )
        return head

    @verb(description="Set risk", ask=ask_effects, icon="gpp_maybe", form=EffectsForm)
    def rule(self, request: HttpRequest, obj: Any, form: Any) -> str:
        """Say what a call may do."""
        row = set_effects(obj, form.cleaned_data["effects"])
        return f"{obj.name}: {look_of(EFFECT_STATES.get(row.effects, row.effects)).word.lower()}."

    @display(description="Risk", ordering="effects_in_force")
    def shown_risk(self, obj: Any) -> SafeString:
        """Show what a call may do and who says so."""
        return format_html('{}<div class="sy-help sy-nowrap">{}</div>', risk_badge(obj.effective_effects), risk_words(obj))


def risk_words(obj: Any) -> str:
    """Say in a few words whose word the risk is, and what the server claims (with what waits, if something does) where it does not count."""
    said = obj.effective_effects
    if said.said_by == "operator":
        return f"says {obj.effects_by or 'an operator'}"
    if said.said_by == "server":
        return "says the server, trusted"
    waits_with = obj.pending if obj.state in (Definition.State.HELD, Definition.State.REJECTED) else None
    claimed = claimed_effects(waits_with.get("annotations")) if waits_with else obj.claimed
    return "server claims nothing" if claimed == "unknown" else f"server claims {look_of(claimed).word.lower()}"


def risk_badge(said: Any) -> SafeString:
    """Render effects in force; the title says whose word it is."""
    return state_badge(EFFECT_STATES.get(said.value, said.value), title=said.reason)


def definition_context(obj: Any) -> dict[str, Any]:
    """Return a definition laid out: readable rows and the JSON."""
    shown = obj.shown
    return {
        "obj": obj,
        "description": visible(str(shown.get("description") or shown.get("instructions") or "")),
        "inputs": schema_rows(shown.get("inputSchema")),
        "has_inputs": "inputSchema" in shown,
        "outputs": schema_rows(shown.get("outputSchema")),
        "has_outputs": "outputSchema" in shown,
        "arguments": [
            {
                "name": visible(str(one.get("name", ""))),
                "description": visible(str(one.get("description", ""))),
                "required": bool(one.get("required")),
            }
            for one in shown.get("arguments") or []
            if isinstance(one, dict)
        ],
        "facts": [
            (name, visible(str(shown[name])))
            for name in ("mimeType", "size", "uri", "uriTemplate")
            if shown.get(name) is not None
        ],
        "json": visible_json(shown),
    }


def visible_json(value: Any) -> str:
    """Return JSON to read, with hidden characters as escapes."""
    return "\n".join(visible(line) for line in json.dumps(value, indent=2, ensure_ascii=False).split("\n"))


@admin.register(Resource)
class ResourceAdmin(DefinitionAdmin):
    """Resources."""

    kind = "resource"
    intro = "What servers offer to be read, each under its URI."


@admin.register(ResourceTemplate)
class ResourceTemplateAdmin(DefinitionAdmin):
    """Resource templates."""

    kind = "resource"
    intro = "Families of resources: URIs with parts to fill in."


@admin.register(Prompt)
class PromptAdmin(DefinitionAdmin):
    """Prompts."""

    kind = "prompt"
    intro = "Texts that servers offer to people to start from."


@admin.register(Instructions)
class InstructionsAdmin(DefinitionAdmin):
    """What servers tell every client at the start."""

    kind = "server"
    intro = "What each server tells every client at the start; reviewed like a tool, because models read it."
