"""Limits: how much of what, whose, and how much of it is taken now."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.common.admin import Ask, TenantAdmin, bulk_verb, verb
from apps.common.admin.format import ago, plural
from apps.gateway.models import Limit
from apps.gateway.models.limit import SUBJECTS
from apps.gateway.services.limits import change_limit, in_use, remove_limit, set_limit

_FIELDS = ("subject", *SUBJECTS, "pattern", "measure", "amount", "window", "each")


class LimitForm(forms.ModelForm[Limit]):
    """One subject, one measure."""

    class Meta:
        model = Limit
        fields = _FIELDS
        labels = {
            "subject": "Whose",
            "api_key": "API key",
            "measure": "Of what",
            "window": "In what time",
            "each": "Each user alone",
        }

    def clean(self) -> dict[str, Any]:
        """Keep the subject that was chosen, drop the rest."""
        cleaned: dict[str, Any] = super().clean() or {}
        for name in (*SUBJECTS, "pattern"):
            if cleaned.get("subject") != ("tool" if name == "pattern" else name):
                cleaned[name] = "" if name == "pattern" else None
            elif not cleaned.get(name):
                self.add_error(name, "Say which.")
        if cleaned.get("measure") == Limit.Measure.CONCURRENT:
            cleaned["window"] = ""
        return cleaned

    def _get_validation_exclusions(self) -> set[str]:
        """Leave the rules on rows to the service."""
        return {field.name for field in Limit._meta.get_fields()} - {"amount"}

    def validate_constraints(self) -> None:
        """Leave the constraints to the service, which says them in words."""


def _ask(self: Any, request: HttpRequest, row: Limit) -> Ask:
    return Ask(
        title="Take this limit away?",
        consequence=[
            f"{row.whose.capitalize()} may then go beyond {row.in_words}, unless another limit says so. In force within a second."
        ],
        submit="Take away",
        danger=True,
    )


def _ask_bulk(self: Any, request: HttpRequest, rows: list[Limit]) -> Ask:
    return Ask(
        title=f"Take {plural(len(rows), 'limit')} away?",
        consequence=[f"{row.whose}: {row.in_words}" for row in rows[:20]],
        submit="Take away",
        danger=True,
    )


@admin.register(Limit)
class LimitAdmin(TenantAdmin):
    """Limits of the tenants in view."""

    kind = "limit"
    form = LimitForm
    list_display = ("shown_whose", "shown_words", "shown_use", "shown_since")
    list_display_links = ("shown_whose",)
    list_filter = ("subject", "measure", "window")
    search_fields = ("user__username", "role__name", "api_key__name", "server__slug", "pattern")
    ordering = ("-created_at",)
    add_words = "Set a limit"
    intro = (
        "How many calls in a time, how many at once, how much may be spent. A call must fit in every limit that applies to it; one that does "
        "not is refused with the limit's name and the time to come back, and recorded."
    )
    empty_title = "There are no limits"
    empty_text = "Every caller may call as often as servers take it. Set a limit for a key, a user, a role, a server, tools, or the tenant."
    empty_action = ("Set a limit", "admin:gateway_limit_add")
    add_fieldsets = ((None, {"fields": _FIELDS}),)
    fieldsets = ((None, {"fields": ("amount",)}),)
    conditional_fields = {
        **{name: f"subject == '{name}'" for name in SUBJECTS},
        "pattern": "subject == 'tool'",
        "window": "measure != 'concurrent'",
        "each": "subject != 'user' && subject != 'api_key'",
    }
    actions = ("take_away_chosen",)
    actions_row = ("take_away",)
    actions_detail = ("take_away",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the limits in view with whose they are."""
        return super().get_queryset(request).select_related("user", "role", "api_key__owner", "server", "tenant")

    def decorate(self, request: HttpRequest, rows: list[Any]) -> None:
        """Ask once how much is taken of all limits on a page."""
        uses = in_use(rows)
        for row in rows:
            row.used_now = uses.get(str(row.pk))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A limit is taken away by its own verb."""
        return False

    def create(self, request: HttpRequest, form: Any) -> Limit:
        """Set it."""
        return set_limit(**{name: form.cleaned_data[name] for name in _FIELDS if name in form.cleaned_data})

    def update(self, request: HttpRequest, obj: Any, form: Any) -> None:
        """Give it another amount."""
        change_limit(obj, amount=form.cleaned_data["amount"])

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Say it in words."""
        used = in_use([obj]).get(str(obj.pk))
        facts = [("tenant", obj.tenant.name), ("since", ago(obj.created_at))]
        if used is not None:
            facts.insert(0, ("in use now", _of(obj, used)))
        return {"title": f"{obj.whose.capitalize()}: {obj.in_words}", "badges": [], "facts": facts}

    @verb(description="Take away", ask=_ask, icon="speed", variant=ActionVariant.DANGER)
    def take_away(self, request: HttpRequest, obj: Limit, form: Any) -> HttpResponse:
        """Take it away and go to the list."""
        remove_limit(obj)
        self.message_user(request, "The limit is taken away.")
        return HttpResponseRedirect(self.list_url())

    @bulk_verb(description="Take away", done="Took away", ask=_ask_bulk)
    def take_away_chosen(self, request: HttpRequest, obj: Limit) -> None:
        """Take away each."""
        remove_limit(obj)

    @display(description="Whose", ordering="target")
    def shown_whose(self, obj: Limit) -> SafeString:
        """Name the subject and its kind."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            obj.user or obj.role or obj.api_key or obj.server or obj.pattern or obj.tenant.name,
            f"{obj.get_subject_display()}{', each user alone' if obj.each else ''}",
        )

    @display(description="Allows", ordering="amount")
    def shown_words(self, obj: Limit) -> str:
        """Say what it allows."""
        return obj.in_words

    @display(description="In use now")
    def shown_use(self, obj: Any) -> str:
        """Show what is taken of it."""
        return "–" if obj.used_now is None else _of(obj, obj.used_now)

    @display(description="Since", ordering="created_at")
    def shown_since(self, obj: Limit) -> SafeString:
        """Show since when."""
        return format_html('<span class="sy-card-hide">{}</span>', ago(obj.created_at))


def _of(row: Limit, used: int) -> str:
    if row.measure == Limit.Measure.SPEND:
        return f"{used / 1_000_000:,.2f} of {row.amount / 1_000_000:,.2f}"
    return f"{used:,} of {row.amount:,}"
