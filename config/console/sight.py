"""What this client sees now: the very lists that the gateway gives it, and what is missing from them and why."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from apps.accounts.api.people import visible_user, visible_users
from apps.accounts.models import APIKey
from apps.accounts.selectors import api_key
from apps.common.admin.base import model_url
from apps.common.admin.format import plural
from apps.common.errors import NotFound, SwitchyardError
from apps.gateway import selectors
from apps.gateway.models import ClientSeen
from apps.gateway.services.sight import Sight, seen_now
from apps.servers.models import Server
from apps.tools.domain.facts import KINDS
from apps.tools.models import Toolset
from config.console.compatibility import CHOICES, begin, chosen_client, client_words, page_url
from config.console.scope import may

LIST_NAMES = {"tool": "Tools", "resource": "Resources", "template": "Resource templates", "prompt": "Prompts"}


def now_page(request: HttpRequest) -> HttpResponse:
    """Show the very lists that a client, whoever shows a key, or a person gets now, by which rules, and what they do not get and why."""
    context = begin(request, "What a client sees now")
    if context.get("no_tenant"):
        return TemplateResponse(request, "console/compatibility_now.html", context)
    who = request.GET.get("who", "").replace("\x00", "")
    for name in ("client", "key", "user"):
        if not who and request.GET.get(name):
            who = f"{name}:{request.GET[name]}".replace("\x00", "")
    keys = may(request, "api_key.read")
    users = may(request, "user.read")
    client, key, user = _looking(who, keys=keys, users=users)
    toolset = request.GET.get("toolset")
    if toolset is None:
        toolset = client.toolset if client is not None else ""
    error: SwitchyardError | None = None
    sight: Sight | None = None
    if key is not None or user is not None:
        try:
            sight = seen_now(api_key=key, user=user, toolset=toolset)
        except SwitchyardError as raised:
            error = raised
    context |= {
        "who": who,
        "client": client,
        "key": key,
        "user_seen": user,
        "toolset": toolset,
        "error": error,
        "sight": sight,
        "lists": _lists(sight) if sight is not None else [],
        "missing": _missing(sight) if sight is not None else [],
        "trouble": _trouble(sight) if sight is not None else [],
        "refused": [(one, sight.rules.get(one.rule, "")) for one in sight.refused] if sight is not None else [],
        "not_granted": [
            plural(number, kind.replace("template", "resource template")) for kind, number in sight.not_granted.items()
        ]
        if sight is not None
        else [],
        "key_url": model_url(APIKey, "change", key.pk) if key is not None and keys else "",
        "choices": _lookers(keys=keys, users=users),
        "toolsets": list(_of_tenant(Toolset.objects.order_by("slug"), key).values_list("slug", "name")[:CHOICES]),
        "back": page_url(client=client.pk) if client is not None else page_url(),
    }
    return TemplateResponse(request, "console/compatibility_now.html", context)


def _looking(who: str, *, keys: bool, users: bool) -> tuple[ClientSeen | None, Any, Any]:
    kind, _, id = who.partition(":")
    try:
        if kind == "client" and id:
            client = chosen_client(id)
            return client, client.api_key if client is not None else None, None
        if kind == "key" and id and keys:
            return None, api_key(id), None
        if kind == "user" and id and users:
            return None, None, visible_user(id)
    except NotFound as error:
        raise Http404(error.detail) from error
    return None, None, None


def _lookers(*, keys: bool, users: bool) -> dict[str, Any]:
    live = APIKey.objects.filter(revoked_at__isnull=True).select_related("owner").order_by("name")[:CHOICES] if keys else []
    people = visible_users().filter(is_active=True).order_by("username")[:CHOICES] if users else []
    return {
        "clients": [(f"client:{row.pk}", client_words(row)) for row in selectors.clients()[:CHOICES]],
        "keys": [(f"key:{row.pk}", str(row)) for row in live],
        "users": [(f"user:{row.pk}", row.username) for row in people],
    }


def _of_tenant(rows: Any, key: Any) -> Any:
    return rows.filter(tenant_id=key.tenant_id) if key is not None else rows


def _lists(sight: Sight) -> list[dict[str, Any]]:
    return [
        {
            "kind": kind,
            "name": LIST_NAMES[kind],
            "noun": LIST_NAMES[kind][:-1].lower(),
            "count": sight.counts[kind],
            "pages": sight.pages[kind],
            "items": [(one, sight.rules.get(one.rule, one.rule)) for one in sight.listed if one.kind == kind],
        }
        for kind in KINDS
    ]


def _missing(sight: Sight) -> list[dict[str, Any]]:
    words = {
        "paused": ("paused", "Its server is paused"),
        "held": ("held", "Held for review"),
        "toolset-paused": ("paused", "The toolset is paused"),
        "name": ("unknown", "server__name is longer than 64 characters"),
    }
    return [{"one": one, "state": words[one.why][0], "why": words[one.why][1]} for one in sight.missing]


def _trouble(sight: Sight) -> list[tuple[str, str, str]]:
    """Return slug, state and page of each server that does not answer well."""
    slugs = [one.server for one in sight.trouble]
    ids = dict(Server.objects.filter(slug__in=slugs).values_list("slug", "pk"))
    return [(one.server, one.state, model_url(Server, "change", ids[one.server])) for one in sight.trouble if one.server in ids]
