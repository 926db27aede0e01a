"""API keys, as far as accounts know them; the console adds their making (with grants) and what they may use."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.accounts.domain import parse_networks
from apps.accounts.models import APIKey
from apps.accounts.services.api_keys import revoke_api_key, update_api_key
from apps.common.admin import Ask, TenantAdmin, bulk_verb, verb
from apps.common.admin.format import ago, plural
from apps.common.admin.states import look_of, state_badge
from apps.common.clock import now

STATES = ("active", "expired", "revoked")


class KeyStateFilter(admin.SimpleListFilter):
    """Keys by their state."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Return the states."""
        return [(state, look_of(state).word) for state in STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Keep the keys in a state."""
        return queryset.filter(in_state(self.value())) if self.value() in STATES else queryset


def in_state(state: str | None) -> Q:
    """Return the condition of a state."""
    if state == "revoked":
        return Q(revoked_at__isnull=False)
    expired = Q(expires_at__isnull=False, expires_at__lte=now())
    return Q(revoked_at__isnull=True) & (expired if state == "expired" else ~expired)


def ask_revoke(self: Any, request: HttpRequest, key: APIKey) -> Ask:
    """Say who is shut out, and how lately it was used."""
    return Ask(
        title=f"Revoke {key.name}?",
        consequence=[
            *self.consequences(request, "revoke", key),
            "In force within a second; a revoked key cannot be brought back.",
        ],
        submit="Revoke key",
        danger=True,
    )


def ask_revoke_chosen(self: Any, request: HttpRequest, keys: list[APIKey]) -> Ask:
    """Say how many."""
    live = sum(1 for key in keys if key.state == "active")
    return Ask(
        title=f"Revoke {plural(len(keys), 'key')}?",
        consequence=[f"{plural(live, 'live key stops', 'live keys stop')} working within a second and cannot be brought back."],
        submit="Revoke keys",
        danger=True,
    )


class NetworksField(forms.CharField):
    """Networks, one in each line."""

    def __init__(self) -> None:
        super().__init__(
            required=False,
            label="Accepted from",
            widget=forms.Textarea(
                attrs={
                    "class": "sy-input sy-mono",
                    "rows": 3,
                    "spellcheck": "false",
                    "placeholder": "192.0.2.0/24\n2001:db8::/32",
                }
            ),
            help_text="Networks or addresses, one in each line; empty = from anywhere.",
        )

    def to_python(self, value: Any) -> Any:
        """Return them as the service takes them."""
        try:
            return [str(network) for network in parse_networks((value or "").split())]
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None

    def prepare_value(self, value: Any) -> Any:
        """Return the text that a person edits."""
        return "\n".join(value) if isinstance(value, list) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare the networks, not their spelling."""
        try:
            return bool(self.to_python(data) != (initial or []))
        except forms.ValidationError:
            return True


class APIKeyForm(forms.ModelForm[APIKey]):
    """What of a key may change."""

    allowed_networks = NetworksField()

    class Meta:
        model = APIKey
        fields = ("name", "inherits_owner", "expires_at", "loopback_only", "allowed_networks")
        labels = {
            "inherits_owner": "Acts with its owner's rights",
            "loopback_only": "This machine alone",
            "expires_at": "Valid until",
        }
        help_texts = {"expires_at": "Empty = until it is revoked."}


class APIKeyAdmin(TenantAdmin):
    """API keys; completed by the console."""

    kind = "api_key"
    form = APIKeyForm
    add_words = "Make key"
    list_display: Sequence[Any] = ("shown_name", "shown_state", "shown_owner", "shown_used", "shown_expiry")
    list_filter = (KeyStateFilter,)
    list_select_related = ("owner", "tenant")
    search_fields = ("name", "prefix", "owner__username")
    search_help_text = "Name, prefix or owner"
    ordering = ("revoked_at", "-created_at")
    intro = "A key is what a client program shows to be let in. It is kept as a digest and appears once, when it is made."
    empty_title = "Make the first key"
    empty_text = "Clients need a key to call tools through the gateway. Choose what it may use and until when."
    empty_action = ("Make key", "admin:accounts_apikey_add")
    fieldsets = ((None, {"fields": ("name", "inherits_owner", "expires_at", "loopback_only", "allowed_networks")}),)
    actions = ("revoke_chosen",)
    actions_detail: Sequence[str] = ("revoke",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the keys in view; those who administer none see their own."""
        rows = super().get_queryset(request).select_related("owner", "tenant")
        return (
            rows
            if self.policy_allows(request, "admin") or self.policy_allows(request, "read")
            else rows.filter(owner=request.user)
        )

    def get_ordering(self, request: HttpRequest) -> tuple[Any, ...]:
        """Put live keys on top, the newest first."""
        from django.db.models import F

        return (F("revoked_at").asc(nulls_first=True), "-created_at")

    def tabs(self, request: HttpRequest) -> list[dict[str, Any]]:
        """Return a tab for each state."""
        chosen = request.GET.get("state", "")
        rows = APIKey.objects.all()
        counts = {state: rows.filter(in_state(state)).count() for state in STATES}
        tabs = [{"title": "All", "href": "?", "count": sum(counts.values()), "active": not chosen, "tone": ""}]
        tabs += [
            {
                "title": look_of(state).word,
                "href": f"?state={state}",
                "count": counts[state],
                "active": chosen == state,
                "tone": "",
            }
            for state in STATES
        ]
        return tabs

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A key is revoked, not deleted: its use stays on record."""
        return False

    def shows_form(self, request: HttpRequest, obj: APIKey) -> bool:
        """A revoked key is not changed."""
        return self.has_change_permission(request, obj) and obj.revoked_at is None

    def update(self, request: HttpRequest, obj: Any, form: Any) -> None:
        """Change what was changed."""
        update_api_key(obj, **{name: form.cleaned_data[name] for name in form.changed_data})

    def consequences(self, request: HttpRequest, verb: str, obj: Any) -> list[str]:
        """Say when and by what it was used last."""
        if obj.last_used_at is None:
            return ["It has never been used."]
        where = f" by {obj.last_used_client}" if obj.last_used_client else ""
        return [
            f"It was last used at {obj.last_used_at:%Y-%m-%d %H:%M} UTC{where}{f' from {obj.last_used_from}' if obj.last_used_from else ''}."
        ]

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return name, state, owner and last use."""
        return {
            "title": obj.name,
            "badges": [state_badge(obj.state)],
            "facts": [
                ("key", format_html("<code class='sy-code'>sy_{}_…</code>", obj.prefix)),
                ("owner", obj.owner.username),
                ("tenant", obj.tenant.name),
                ("made", ago(obj.created_at)),
                ("last used", ago(obj.last_used_at)),
                ("from", obj.last_used_from or "–"),
                ("client", obj.last_used_client or "–"),
                ("valid until", ago(obj.expires_at, never="no end")),
                *self._of_rotation(obj),
            ],
        }

    @staticmethod
    def _of_rotation(obj: APIKey) -> list[tuple[str, Any]]:
        if obj.former_until is None or obj.former_until <= now():
            return [("rotated", ago(obj.rotated_at))] if obj.rotated_at is not None else []
        former = format_html("<code class='sy-code'>sy_{}_…</code>", obj.former_prefix)
        return [("rotated", ago(obj.rotated_at)), ("also accepted", former), ("until", ago(obj.former_until))]

    @verb(
        description="Revoke",
        ask=ask_revoke,
        icon="block",
        variant=ActionVariant.DANGER,
        applies=lambda key: key.revoked_at is None,
    )
    def revoke(self, request: HttpRequest, obj: APIKey, form: Any) -> HttpResponse:
        """End it for good."""
        revoke_api_key(obj)
        self.message_user(request, f"{obj.name} is revoked.")
        return HttpResponseRedirect(self.page_url(obj))

    @bulk_verb(description="Revoke keys", done="Revoked", ask=ask_revoke_chosen)
    def revoke_chosen(self, request: HttpRequest, obj: APIKey) -> None:
        """Revoke each."""
        revoke_api_key(obj)

    @display(description="Key", ordering="name")
    def shown_name(self, obj: APIKey) -> SafeString:
        """Name it by its name and public prefix."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line sy-mono">sy_{}_…</span></span>',
            obj.name,
            obj.prefix,
        )

    @display(description="State")
    def shown_state(self, obj: APIKey) -> SafeString:
        """Show its state."""
        since = f"Revoked at {obj.revoked_at:%Y-%m-%d %H:%M} UTC" if obj.revoked_at else ""
        return state_badge(obj.state, title=since)

    @display(description="Owner", ordering="owner__username")
    def shown_owner(self, obj: APIKey) -> str:
        """Name its owner."""
        return obj.owner.username

    @display(description="Last used", ordering="last_used_at")
    def shown_used(self, obj: APIKey) -> SafeString:
        """Show when, from where and by what."""
        where = " · ".join(str(part) for part in (obj.last_used_client, obj.last_used_from) if part)
        return format_html('<span class="sy-name">{}<span class="sy-name-line">{}</span></span>', ago(obj.last_used_at), where)

    @display(description="Valid until", ordering="expires_at")
    def shown_expiry(self, obj: APIKey) -> SafeString | str:
        """Show until when."""
        return format_html('<span class="sy-card-hide">{}</span>', ago(obj.expires_at, never="no end"))
