"""The protocol inspector: recordings of messages on both sides of the gateway, switched on for a time, looked at under record."""

from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from apps.accounts.models import APIKey
from apps.accounts.selectors import as_uuid
from apps.audit.admin.history import history_panel
from apps.common.admin import Ask, TenantAdmin, verb
from apps.common.admin.base import model_url
from apps.common.admin.format import ago, compact, count, plural
from apps.common.admin.panels import Link, Panel
from apps.common.admin.states import state_badge
from apps.common.context import current_scope, tenant_scope
from apps.gateway.models import ClientSeen, Recording
from apps.gateway.services import recordings as services
from apps.servers.models import Server
from apps.tools.models import Toolset
from config.console.compatibility import client_words
from config.console.messages import messages_context, token_of

CHOICES = 300


class StartForm(forms.Form):
    """What to record, and for how long."""

    use_required_attribute = False
    kind = forms.ChoiceField(choices=Recording.Kind.choices, label="Record", widget=forms.Select(attrs={"class": "sy-input"}))
    server = forms.ChoiceField(required=False, widget=forms.Select(attrs={"class": "sy-input"}))
    toolset = forms.ChoiceField(required=False, widget=forms.Select(attrs={"class": "sy-input"}))
    api_key = forms.ChoiceField(required=False, label="API key", widget=forms.Select(attrs={"class": "sy-input"}))
    session = forms.ChoiceField(
        required=False, help_text="The last session of each client seen.", widget=forms.Select(attrs={"class": "sy-input"})
    )
    minutes = forms.IntegerField(
        min_value=services.SHORTEST,
        max_value=services.LONGEST,
        initial=15,
        help_text="It ends by itself.",
        widget=forms.NumberInput(attrs={"class": "sy-input"}),
    )

    def prepare(self, request: HttpRequest, obj: Any) -> None:
        """Offer what is in view, and start from what the address names."""
        sessions = ClientSeen.objects.exclude(session="").select_related("api_key").order_by("-last_seen_at")[:CHOICES]
        offered: dict[str, list[tuple[str, str]]] = {
            "server": [(str(pk), slug) for pk, slug in Server.objects.order_by("slug").values_list("pk", "slug")[:CHOICES]],
            "toolset": [
                (str(pk), f"/mcp/{slug}") for pk, slug in Toolset.objects.order_by("slug").values_list("pk", "slug")[:CHOICES]
            ],
            "api_key": [
                (str(row.pk), str(row))
                for row in APIKey.objects.filter(revoked_at__isnull=True).select_related("owner").order_by("name")[:CHOICES]
            ],
            "session": [(row.session, f"{row.session[:8]}… · {client_words(row)}") for row in sessions],
        }
        kind, ref = request.GET.get("kind", ""), request.GET.get("ref", "")
        if self.is_bound:
            kind = str(self.data.get("kind", ""))
            ref = str(self.data.get(kind, ""))
        for name, choices in offered.items():
            chosen: Any = self.fields[name]
            if name == kind and all(value != ref for value, _ in choices):
                choices += _beyond(kind, ref)
            chosen.choices = choices
            chosen.when = f"kind={name}"
            chosen.required = self.data.get("kind", name) == name
        if kind in offered:
            self.fields["kind"].initial = kind
            self.fields[kind].initial = ref

    @property
    def ref(self) -> str:
        """Return what is to be recorded."""
        return str(self.cleaned_data.get(self.cleaned_data["kind"], ""))


def _beyond(kind: str, ref: str) -> list[tuple[str, str]]:
    """Return the choice of something that stands behind the first 300."""
    found = {"server": Server, "toolset": Toolset, "api_key": APIKey}.get(kind)
    key = as_uuid(ref)
    row = found.objects.filter(pk=key).first() if found is not None and key is not None else None
    return [(ref, str(row))] if row is not None else []


def _ask_start(self: Any, request: HttpRequest, obj: Any) -> Ask:
    return Ask(
        title="Record messages",
        submit="Start recording",
        icon="radio_button_checked",
        consequence=[
            "Every message on both sides of the gateway is kept, without credentials and headers, cut at 8 kB, and deleted a day after the end.",
            "What people type into forms may be among them.",
            f"A recording holds at most {services.MOST_MESSAGES:,} messages. That it was switched on, and every look at it, stands in the audit log.",
        ],
    )


def _ask_stop(self: Any, request: HttpRequest, obj: Any) -> Ask:
    return Ask(
        title=f"Stop recording {obj.label}?",
        submit="Stop",
        consequence=[f"{plural(obj.messages, 'message')} so far can be looked at for a day."],
    )


def _ask_delete(self: Any, request: HttpRequest, obj: Any) -> Ask:
    return Ask(
        title=f"Delete the recording of {obj.label}?",
        submit="Delete recording",
        consequence=[
            f"{plural(obj.messages, 'message')} cannot be brought back. That they were recorded stays in the audit log."
        ],
        danger=True,
    )


@admin.register(Recording)
class RecordingAdmin(TenantAdmin):
    """Recordings of messages."""

    kind = "audit"
    list_words = "inspector"
    list_display = ("shown_name", "shown_state", "shown_messages", "shown_by", "shown_since")
    list_filter = ("kind",)
    ordering = ("-created_at",)
    show_add_link = False
    intro = "What passes between clients, the gateway and servers, message by message, for a time that you choose."
    empty_title = "Nothing is recorded"
    empty_text = "Record a server, a toolset, a key or one session for 5 to 60 minutes, and see its messages on both sides, as they come and for a day after."
    actions_list = ("start",)
    actions_detail = ("stop", "delete_it")

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Recordings begin by a verb."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Recordings are not changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Recordings are deleted by a verb."""
        return False

    def shows_form(self, request: HttpRequest, obj: Any) -> bool:
        """Changes are verbs."""
        return False

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return no fields."""
        return ((None, {"fields": ()}),)

    def hides_verb(self, request: HttpRequest, name: str, obj: Any) -> bool:
        """Leave out what only those may who may look at messages."""
        return not services.may_record(self.tenant_of(obj))

    def links(self, request: HttpRequest, obj: Any) -> list[Link]:
        """Lead to the file."""
        if not obj.messages or not services.may_record(obj.tenant_id):
            return []
        return [Link("Download", reverse("admin:recording_file", args=(obj.pk,)), "download")]

    def header(self, request: HttpRequest, obj: Any) -> dict[str, Any]:
        """Return name, state and what it holds."""
        return {
            "title": obj.label,
            "badges": [self.shown_state(obj)],
            "lead": f"Messages of the {obj.get_kind_display() if obj.kind == 'api_key' else obj.get_kind_display().lower()} on both sides of the gateway",
            "facts": [
                ("begun", ago(obj.created_at)),
                ("by", obj.started_by),
                ("ends" if obj.on else "ended", ago(obj.until if obj.on else obj.ended_at)),
                ("deleted", "a day after its end" if obj.on else ago(obj.ended_at + services.KEPT)),
            ],
        }

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Return the messages, for those who may look at them, and the history; that one looks is noted."""
        panels = [history_panel("recording", obj.pk)]
        if services.may_record(obj.tenant_id):
            with tenant_scope(obj.tenant_id):
                services.note_look(obj, "page")
            found = messages_context(request, obj, token_of(request, obj))
            panels.append(Panel("messages", "Messages", "console/panels/messages.html", found, 10, compact(obj.messages)))
        else:
            panels.append(Panel("messages", "Messages", "console/panels/messages_hidden.html", {}, 10))
        return panels

    @verb(
        description="Record messages",
        ask=_ask_start,
        icon="radio_button_checked",
        form=StartForm,
        permission="admin",
        variant=ActionVariant.PRIMARY,
    )
    def start(self, request: HttpRequest, obj: Any, form: Any) -> HttpResponse:
        """Switch a recording on."""
        row = services.start_recording(kind=form.cleaned_data["kind"], ref=form.ref, minutes=form.cleaned_data["minutes"])
        return HttpResponseRedirect(self.page_url(row))

    @verb(description="Stop", ask=_ask_stop, icon="stop_circle", permission="admin", applies=lambda row: row.on)
    def stop(self, request: HttpRequest, obj: Any, form: Any) -> str:
        """Switch it off."""
        services.stop_recording(obj)
        return f"{obj.label} is recorded no more."

    @verb(
        description="Delete",
        ask=_ask_delete,
        icon="delete",
        permission="admin",
        variant=ActionVariant.DANGER,
        url_path="delete-it",
    )
    def delete_it(self, request: HttpRequest, obj: Any, form: Any) -> HttpResponse:
        """Delete it and what it holds."""
        services.delete_recording(obj)
        messages.success(request, f"The recording of {obj.label} is deleted.")
        return HttpResponseRedirect(self.list_url())

    @display(description="Recording")
    def shown_name(self, obj: Any) -> SafeString:
        """Name what is recorded."""
        return format_html(
            '<span class="sy-name"><span class="sy-name-first">{}</span><span class="sy-name-line">{}</span></span>',
            obj.label,
            obj.get_kind_display(),
        )

    @display(description="State")
    def shown_state(self, obj: Any) -> SafeString:
        """Show whether it records."""
        if obj.on:
            return state_badge("running", word="Recording", title=f"Until {obj.until:%H:%M:%S} UTC")
        return state_badge("inactive", word="Stopped" if obj.stopped_at else "Ended")

    @display(description="Messages", ordering="messages")
    def shown_messages(self, obj: Any) -> SafeString:
        """Count what it holds, and what there was no room for."""
        dropped = format_html(' <span class="sy-quiet">{} dropped</span>', count(obj.dropped)) if obj.dropped else ""
        return format_html('<span class="sy-num">{}</span>{}', count(obj.messages), dropped)

    @display(description="By", ordering="started_by")
    def shown_by(self, obj: Any) -> SafeString:
        """Name who switched it on."""
        return format_html('<span class="sy-card-hide">{}</span>', obj.started_by)

    @display(description="Begun", ordering="created_at")
    def shown_since(self, obj: Any) -> SafeString | str:
        """Show when it began."""
        return ago(obj.created_at)


def start_url(kind: str = "", ref: object = "") -> str:
    """Return the address that asks what to record, with something chosen."""
    chosen = f"?{urlencode({'kind': kind, 'ref': ref})}" if kind else ""
    return f"{model_url(Recording, 'start')}{chosen}"


def may_start(tenant_id: object = None) -> bool:
    """Tell whether the person may record in a tenant, or in the one in force."""
    scope = current_scope()
    return services.may_record(tenant_id or (scope.tenant_id if scope else None))
