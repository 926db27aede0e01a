"""API keys with what stands above them: one page makes a key with its grants, the key appears once, rights are told in words."""

import secrets
from datetime import timedelta
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from apps.accounts import selectors as accounts
from apps.accounts.admin import APIKeyAdmin, NetworksField
from apps.accounts.domain import CATALOGUE
from apps.accounts.models import APIKey, Membership, Tenant, User
from apps.accounts.services.api_keys import OVERLAP_SECONDS, create_api_key, rotate_api_key
from apps.audit.admin.history import history_panel, told
from apps.common.admin import Ask, verb
from apps.common.admin.format import plural
from apps.common.admin.panels import Panel
from apps.common.admin.verbs import put_errors
from apps.common.clock import now
from apps.common.context import current_scope, tenant_scope
from apps.common.errors import SwitchyardError
from apps.common.outbox import unit_of_work
from apps.servers import selectors as servers
from apps.tools import selectors as tools
from apps.tools.admin.grant import in_words
from apps.tools.models import Grant, Toolset
from apps.tools.services.grants import grant
from config.console.figures import audit_url
from config.console.snippets import client_snippets, endpoint

CHOICES_SHOWN = 1000
USABLE_SHOWN = 200
NONCES = "console_key_forms"
CALLS_ONLY = tuple(f"{kind}.{verb}" for kind in CATALOGUE for verb in ("read", "call"))
"""Scopes of a key that calls with its owner's rights and manages nothing."""
OVERLAPS = [(86_400, "1 day"), (3_600, "1 hour"), (604_800, "7 days"), (0, "no time: it ends now")]
LIFETIMES = [("30", "30 days"), ("7", "7 days"), ("90", "90 days"), ("365", "1 year"), ("", "until it is revoked")]


class NewKeyForm(forms.Form):
    """Who owns it, what it may use, until when."""

    name = forms.CharField(
        max_length=120, widget=forms.TextInput(attrs={"class": "sy-input", "placeholder": "Claude Code on my laptop"})
    )
    owner = forms.ModelChoiceField(
        queryset=User.objects.none(),
        empty_label=None,
        widget=forms.Select(attrs={"class": "sy-input"}),
        help_text="Calls are recorded under the key and its owner.",
    )
    access = forms.ChoiceField(
        choices=[("chosen", "Only what I choose here"), ("inherit", "Everything its owner may use, now and later")],
        initial="chosen",
        label="What it may use",
        widget=forms.RadioSelect,
    )
    wide = forms.BooleanField(
        required=False,
        label="Make it all the same",
        error_messages={"required": "Tick this, or choose what the key may use."},
    )
    manage = forms.BooleanField(
        required=False,
        label="May also manage through the REST API",
        help_text="With its owner's rights. Leave it off for clients that only call tools.",
    )
    servers: Any = forms.ModelMultipleChoiceField(
        queryset=Toolset.unscoped.none(), required=False, widget=forms.CheckboxSelectMultiple
    )
    toolsets: Any = forms.ModelMultipleChoiceField(
        queryset=Toolset.unscoped.none(), required=False, widget=forms.CheckboxSelectMultiple
    )
    patterns = forms.CharField(
        required=False,
        label="Tools by name",
        widget=forms.Textarea(
            attrs={
                "class": "sy-input sy-mono",
                "rows": 3,
                "spellcheck": "false",
                "placeholder": "github__list_*\ntime__convert",
            }
        ),
        help_text="One in each line: full names, server__tool; * matches any characters.",
    )
    lifetime = forms.ChoiceField(
        choices=LIFETIMES, required=False, initial="30", label="Valid for", widget=forms.Select(attrs={"class": "sy-input"})
    )
    loopback_only = forms.BooleanField(
        required=False, label="This machine alone", help_text="Accepted only from the machine that Switchyard runs on."
    )
    allowed_networks = NetworksField()
    nonce = forms.CharField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, request: HttpRequest, tenant: Tenant, others: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["owner"].queryset = possible_owners(request.user, tenant, others=others)  # type: ignore[attr-defined]
        self.fields["owner"].initial = request.user.pk
        self.fields["servers"].queryset = servers.servers().order_by("slug")  # type: ignore[attr-defined]
        self.fields["toolsets"].queryset = Toolset.objects.filter(server__isnull=True).order_by("slug")  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Ask for at least one thing to use."""
        cleaned: dict[str, Any] = super().clean() or {}
        cleaned["patterns"] = (cleaned.get("patterns") or "").split()
        if cleaned.get("access") == "chosen" and not (cleaned.get("servers") or cleaned.get("toolsets") or cleaned["patterns"]):
            self.add_error("access", "Choose at least one server, toolset or tool; without a grant a key may use nothing.")
        if cleaned.get("access") == "inherit" and not cleaned.get("wide"):
            self.add_error("wide", self.fields["wide"].error_messages["required"])
        return cleaned


class RotationForm(forms.Form):
    """How long the clients that have the present text may go on with it."""

    overlap = forms.TypedChoiceField(
        choices=OVERLAPS,
        coerce=int,
        initial=OVERLAP_SECONDS,
        label="The present text stays good for",
        widget=forms.Select(attrs={"class": "sy-input"}),
    )


def _ask_rotate(self: Any, request: HttpRequest, key: APIKey) -> Ask:
    return Ask(
        title=f"Rotate {key.name}?",
        consequence=[
            "A new text is made and shown once. Rights, grants, limits and history stay.",
            *self.consequences(request, "rotate", key),
        ],
        submit="Make the new text",
    )


def possible_owners(user: Any, tenant: Tenant, *, others: bool) -> QuerySet[User]:
    """Return the users who may own a key here: oneself, and for key administrators every member."""
    mine = Q(pk=user.pk)
    members = Q(pk__in=Membership.unscoped.filter(tenant=tenant).values("user_id")) | Q(is_superuser=True)
    return User.objects.filter(mine | members if others else mine, is_active=True).order_by("username")


class ConsoleAPIKeyAdmin(APIKeyAdmin):
    """The keys' pages, complete."""

    list_display = ("shown_name", "shown_state", "shown_owner", "shown_rights", "shown_used", "shown_expiry")
    actions_detail = ("rotate", "revoke")

    def decorate(self, request: HttpRequest, rows: list[Any]) -> None:
        """Fetch the grants of the keys on a page in one query."""
        grants: dict[Any, list[Grant]] = {}
        found = (
            Grant.objects.filter(api_key_id__in=[row.pk for row in rows])
            .select_related("server", "toolset")
            .order_by("created_at")
        )
        for row in found:
            grants.setdefault(row.api_key_id, []).append(row)
        for row in rows:
            row.grants_here = grants.get(row.pk, [])

    @display(description="May use")
    def shown_rights(self, obj: Any) -> SafeString:
        """Tell its rights in words."""
        words = rights_in_words(obj, obj.grants_here)
        return format_html(
            '<span class="sy-name sy-card-hide" title="{}">{}</span>',
            "; ".join(words),
            "; ".join(words[:2]) + (f" and {len(words) - 2} more" if len(words) > 2 else ""),
        )

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Tell what it may use, what it did, and how to connect with it."""
        grants = list(tools.grants(api_key=obj))
        usable = tools.usable_by(obj.tenant_id, api_key=obj, kind="tool") if obj.state == "active" else []
        url = endpoint(settings.SWITCHYARD.public_url, only_slug(grants) if not obj.inherits_owner else "")
        return [
            Panel(
                "rights",
                "What it may use",
                "console/panels/rights.html",
                {
                    "words": rights_in_words(obj, grants),
                    "grants": [{"row": row, "words": in_words(row)} for row in grants],
                    "usable": usable[:USABLE_SHOWN],
                    "total": len(usable),
                    "state": obj.state,
                },
                10,
            ),
            Panel(
                "calls",
                "Last calls",
                "console/panels/timeline.html",
                {
                    "events": told(
                        10,
                        with_details=False,
                        actor_kind="api_key",
                        actor_id=str(obj.pk),
                        event_type=["call.outcome", "call.refused"],
                    ),
                    "more": audit_url(actor_id=str(obj.pk)),
                    "empty": "It has made no calls yet.",
                },
                20,
            ),
            Panel(
                "connect",
                "Connect",
                "console/panels/connect.html",
                {"url": url, "snippets": client_snippets(url, "switchyard"), "box": "connect"},
                30,
            ),
            history_panel("api_key", obj.pk),
        ]

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Make a key: the form, and after it the key, once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        tenant, tenants = self._tenant(request)
        if tenant is None:
            return TemplateResponse(
                request, "console/key_tenant.html", {**self._page(request, "Make API key"), "tenants": tenants}
            )
        with tenant_scope(tenant.pk):
            return self._make(request, tenant, several=len(tenants) > 1)

    def _make(self, request: HttpRequest, tenant: Tenant, *, several: bool) -> HttpResponse:
        request.__dict__.pop("console_answers", None)
        others = self.policy_allows(request, "admin")
        given = request.POST if request.method == "POST" and "name" in request.POST else None
        form = NewKeyForm(given, request=request, tenant=tenant, others=others)
        if given is not None and form.is_valid() and self._fresh(request, form):
            try:
                key, text, slug = make_key(form.cleaned_data)
            except SwitchyardError as error:
                put_errors(form, error)
            else:
                return self._made(request, "Your new key", key, text, slug)
        if given is None:
            form.initial["nonce"] = self._new_nonce(request)
        context = {
            **self._page(request, "Make API key"), "form": form, "tenant": tenant, "several": several,
            "servers": [(str(row.pk), row.slug, row.name if row.name != row.slug else "") for row in form.fields["servers"].queryset[:CHOICES_SHOWN]],  # type: ignore[attr-defined]
            "toolsets": [(str(row.pk), row.slug, row.description) for row in form.fields["toolsets"].queryset[:CHOICES_SHOWN]],  # type: ignore[attr-defined]
            "chosen_servers": given.getlist("servers") if given is not None else [],
            "chosen_toolsets": given.getlist("toolsets") if given is not None else [],
        }  # fmt: skip
        # Rendered here, while the tenant's scope is open.
        return TemplateResponse(request, "console/key_form.html", context).render()

    def _made(self, request: HttpRequest, title: str, key: APIKey, text: str, slug: str) -> HttpResponse:
        """Show a key's text, once."""
        url = endpoint(settings.SWITCHYARD.public_url, slug)
        context = {
            **self._page(request, title), "key": key, "text": text, "url": url,
            "snippets": client_snippets(url, slug or "switchyard", text), "page": self.page_url(key),
        }  # fmt: skip
        response = TemplateResponse(request, "console/key_made.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @verb(description="Rotate", ask=_ask_rotate, icon="autorenew", form=RotationForm, applies=lambda key: key.state == "active")
    def rotate(self, request: HttpRequest, obj: APIKey, form: Any) -> HttpResponse:
        """Give it a new text."""
        key, text = rotate_api_key(obj, overlap_seconds=form.cleaned_data["overlap"])
        grants = list(tools.grants(api_key=key))
        return self._made(request, "Its new text", key, text, only_slug(grants) if not key.inherits_owner else "")

    def _page(self, request: HttpRequest, title: str) -> dict[str, Any]:
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "list_url": self.list_url(),
            "media": self.media,
        }

    def _tenant(self, request: HttpRequest) -> tuple[Tenant | None, list[Tenant]]:
        scope = current_scope()
        if scope is not None and scope.tenant_id:
            return accounts.tenant(scope.tenant_id), []
        tenants = [tenant for tenant in accounts.tenants_of(request.user) if tenant.active]
        wanted = request.POST.get("tenant") or request.GET.get("tenant", "")
        chosen = next((tenant for tenant in tenants if str(tenant.pk) == wanted), None)
        return (tenants[0] if len(tenants) == 1 else chosen), tenants

    def _new_nonce(self, request: HttpRequest) -> str:
        nonce = secrets.token_urlsafe(12)
        request.session[NONCES] = [*request.session.get(NONCES, [])[-9:], nonce]
        return nonce

    def _fresh(self, request: HttpRequest, form: NewKeyForm) -> bool:
        """Use up the form: a reload of the answer must not make a second key."""
        waiting = list(request.session.get(NONCES, []))
        nonce = form.cleaned_data["nonce"]
        if nonce not in waiting:
            form.add_error(None, "This form has made a key already. Open it again to make another.")
            messages.warning(request, "No second key was made.")
            return False
        waiting.remove(nonce)
        request.session[NONCES] = waiting
        return True


def make_key(data: dict[str, Any]) -> tuple[APIKey, str, str]:
    """Make a key and its grants in one unit of work; returns the row, the text, and the slug if it may use one thing alone."""
    inherits = data["access"] == "inherit"
    expires = now() + timedelta(days=int(data["lifetime"])) if data["lifetime"] else None
    with unit_of_work():
        key, text = create_api_key(
            name=data["name"],
            owner=data["owner"],
            inherits_owner=inherits,
            scopes=CALLS_ONLY if inherits and not data["manage"] else None,
            expires_at=expires,
            loopback_only=data["loopback_only"],
            allowed_networks=data["allowed_networks"],
        )
        slugs = []
        if not inherits:
            for server in data["servers"]:
                grant(kind="server", api_key=key, server=server)
                slugs.append(server.slug)
            for toolset in data["toolsets"]:
                grant(kind="toolset", api_key=key, toolset=toolset)
                slugs.append(toolset.slug)
            for pattern in data["patterns"]:
                grant(kind="tool", api_key=key, pattern=pattern)
                slugs.append("")
    return key, text, slugs[0] if len(slugs) == 1 else ""


def only_slug(grants: list[Grant]) -> str:
    """Return the one toolset or server that grants name, or nothing."""
    named = [
        row.server.slug if row.server else row.toolset.slug if row.toolset else ""
        for row in grants
        if row.effect == Grant.Effect.ALLOW
    ]
    return named[0] if len(named) == 1 else ""


def rights_in_words(key: Any, grants: list[Grant]) -> list[str]:
    """Say what a key may use and manage."""
    words = []
    if key.inherits_owner:
        words.append(f"everything {key.owner.username} may use")
    words += [f"{'not ' if row.effect == Grant.Effect.DENY else ''}{in_words(row)}" for row in grants]
    if not words:
        words.append("nothing: it has no grant")
    if key.inherits_owner:
        if key.scopes is None:
            words.append(f"manages what {key.owner.username} manages")
        elif set(key.scopes) - set(CALLS_ONLY):
            words.append(f"narrowed to {plural(len(key.scopes), 'permission')}")
        else:
            words.append("manages nothing")
    if key.loopback_only:
        words.append("from this machine alone")
    if key.allowed_networks:
        words.append(f"from {plural(len(key.allowed_networks), 'network')} alone")
    return words
