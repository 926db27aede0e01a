"""Filters and questions of the catalogue's pages: what waits for review and what a call may do."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from apps.common.admin import Ask
from apps.common.admin.format import plural
from apps.common.admin.states import look_of
from apps.tools.admin.standing import against, difference_context, out_of_reach
from apps.tools.domain import EFFECTS, difference, visible
from apps.tools.models import Definition

STATES = ("held", "active", "rejected", "removed")
"""States in the order in which lists show them."""
EFFECT_STATES = {"unknown": "not-ruled"}
"""Effects that are shown under another name than their own."""


class DefinitionStateFilter(admin.SimpleListFilter):
    """Definitions by their state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return [(state, look_of(state).word) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the definitions in a state."""
        return queryset.filter(state=self.value()) if self.value() in STATES else queryset


class EffectsFilter(admin.SimpleListFilter):
    """Tools by what a call may do, as it is in force."""

    title = "risk"
    parameter_name = "risk"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the effects."""
        return [(effects, look_of(EFFECT_STATES.get(effects, effects)).word) for effects in EFFECTS]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the tools with these effects in force; the rows carry them already."""
        return queryset.filter(effects_in_force=self.value()) if self.value() in EFFECTS else queryset


class EffectsForm(forms.Form):
    """What a call of the tool may do, as the operator sees it."""

    effects = forms.ChoiceField(
        label="A call of it",
        choices=[
            ("unknown", "Not ruled: counts as having effects"),
            ("read-only", "Read-only: changes nothing"),
            ("idempotent", "Idempotent: repeating it changes nothing more"),
            ("writes", "Writes: adds or changes"),
            ("destructive", "Destructive: may overwrite or delete"),
        ],
        widget=forms.RadioSelect(attrs={"class": "sy-radio"}),
    )

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Start from what is in force."""
        self.fields["effects"].initial = obj.effects


class SeenForm(forms.Form):
    """The digest of what the operator looked at, so that nothing else is approved."""

    digest = forms.CharField(widget=forms.HiddenInput, required=False)

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Remember what is shown."""
        self.fields["digest"].initial = obj.pending_digest or obj.digest


def ask_effects(self: Any, request: HttpRequest, obj: Any) -> Ask:
    """Ask what a call may do, from what is in force."""
    said = obj.effective_effects
    return Ask(
        title=f"What may a call of {obj.name} do?",
        submit="Set",
        consequence=[f"In force now: {look_of(EFFECT_STATES.get(said.value, said.value)).word.lower()}. {said.reason}"],
    )


def ask_approve(self: Any, request: HttpRequest, obj: Any) -> Ask:
    """Show the difference before it comes into force."""
    new = obj.definition is None
    changes = difference(obj.definition, obj.pending).changes
    return Ask(
        title=f"Approve {visible(obj.name)} of {obj.server.slug}?",
        submit="Approve" if new else f"Approve {plural(len(changes), 'change')}",
        consequence=[against(obj), *self.consequences(request, "approve", obj)],
        template="console/parts/difference.html",
        context=difference_context(obj),
    )


def ask_reject(self: Any, request: HttpRequest, obj: Any) -> Ask:
    """Say what is withdrawn."""
    active = obj.state == Definition.State.ACTIVE
    return Ask(
        title=f"Reject {visible(obj.name)} of {obj.server.slug}?",
        submit="Reject",
        consequence=[
            f"It is withdrawn: {out_of_reach(obj)} any more."
            if active
            else f"It stays {out_of_reach(obj)} while the server offers this definition.",
            *self.consequences(request, "reject", obj),
            "Another definition of the same name would be held for review.",
        ],
        danger=True,
    )


def ask_bulk(title: str, submit: str, *, danger: bool = False) -> Any:
    """Make the question of a verb on several definitions."""

    def asker(self: Any, request: HttpRequest, rows: list[Any]) -> Ask:
        by_server: dict[str, int] = {}
        for row in rows:
            by_server[row.server.slug] = by_server.get(row.server.slug, 0) + 1
        flagged = sum(1 for row in rows if any(flag.get("holds") for flag in row.flags))
        said = [f"{slug}: {number}" for slug, number in by_server.items()]
        if flagged:
            said.append(
                f"{plural(flagged, 'definition has', 'definitions have')} suspicious characters or references; look at them one by one."
            )
        return Ask(title=title.format(len(rows)), submit=submit.format(len(rows)), consequence=said, danger=danger)

    return asker


def waits(obj: Any) -> bool:
    """Tell whether there is something to approve."""
    return obj.state in (Definition.State.HELD, Definition.State.REJECTED) and obj.pending is not None


def can_reject(obj: Any) -> bool:
    """Tell whether there is something to reject."""
    return obj.state in (Definition.State.HELD, Definition.State.ACTIVE)
