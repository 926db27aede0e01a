"""The messages of a recording, laid out: both sides side by side, by call, page by page, and the file of them all."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.core import signing
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from apps.common import errors
from apps.common.context import tenant_scope
from apps.gateway import selectors
from apps.gateway.models import RecordedMessage, Recording
from apps.gateway.services import recordings as services
from apps.tools.admin.definition import visible_json
from apps.tools.domain import visible

PAGE = 200
"""Messages of a page."""
LOOK_SECONDS = 2 * 3600
"""A page that is open may go on to ask for what comes, so long."""
_SALT = "recording-look"
KINDS = (("request", "requests"), ("notification", "notifications"), ("result", "results"), ("error", "errors"))
ARROWS = {
    ("client", "in"): ("arrow_forward", "from the client"),
    ("client", "out"): ("arrow_back", "to the client"),
    ("server", "out"): ("arrow_forward", "to the server"),
    ("server", "in"): ("arrow_back", "from the server"),
}


@dataclass(slots=True)
class Shown:
    """One message as a line."""

    row: Any
    icon: str
    towards: str
    href: str
    after_ms: float
    """Milliseconds since the first of its group."""


@dataclass(slots=True)
class Group:
    """What belongs to one call, or one message by itself."""

    key: str
    at: datetime
    title: str
    server: str
    call_id: str
    client: str
    lines: list[Shown] = field(default_factory=list)

    @property
    def took_ms(self) -> float:
        """Return the milliseconds from the first to the last message."""
        return self.lines[-1].after_ms if self.lines else 0.0

    @property
    def failed(self) -> bool:
        """Tell whether an error is among them."""
        return any(line.row.kind == "error" for line in self.lines)


def messages_context(request: HttpRequest, obj: Any, look: str) -> dict[str, Any]:
    """Return a page of messages, laid out by call."""
    wanted = {
        "side": _one_of(request.GET.get("side"), ("client", "server")),
        "method": request.GET.get("method", "")[:60].replace("\x00", ""),
        "kind": _one_of(request.GET.get("kind"), [name for name, _ in KINDS]),
        "call_id": request.GET.get("call", "")[:36].replace("\x00", ""),
        "text": request.GET.get("find", "").strip()[:100].replace("\x00", ""),
    }
    rows = selectors.messages_of(obj, **wanted).defer("text")
    total = rows.count() if any(wanted.values()) else obj.messages
    pages = max(1, -(-total // PAGE))
    asked = request.GET.get("page", "")
    number = int(asked[:6]) if asked.isascii() and asked.isdigit() else 0
    number = min(number, pages) if number else pages if obj.on else 1
    shown = list(rows[(number - 1) * PAGE : number * PAGE])
    kept = {
        "side": wanted["side"],
        "method": wanted["method"],
        "kind": wanted["kind"],
        "call": wanted["call_id"],
        "find": wanted["text"],
    }
    query = {name: value for name, value in kept.items() if value}
    return {
        "recording": obj,
        "groups": grouped(obj, shown, look),
        "total": total,
        "shown": len(shown),
        "page": number,
        "pages": pages,
        "earlier": f"?{urlencode({**query, 'page': number - 1})}#messages" if number > 1 else "",
        "later": f"?{urlencode({**query, 'page': number + 1})}#messages" if number < pages else "",
        "full": number < pages and obj.on,
        "given": kept,
        "filtered": bool(query),
        "methods": selectors.methods_of(obj),
        "kinds": KINDS,
        "live": f"{reverse('admin:recording_live', args=(obj.pk,))}?{urlencode({**query, 'page': number, 'look': look})}"
        if obj.on
        else "",
        "left": services.MOST_MESSAGES - obj.messages,
        "most": services.MOST_MESSAGES,
    }


def grouped(obj: Any, rows: list[Any], look: str) -> list[Group]:
    """Put messages of one call together, groups in the order in which they began."""
    groups: dict[str, Group] = {}
    for row in rows:
        key = row.call_id or f"m{row.pk}"
        group = groups.get(key)
        if group is None:
            group = groups[key] = Group(key, row.at, row.method, row.server, row.call_id, row.client)
        icon, towards = ARROWS.get((row.side, row.direction), ("help", ""))
        href = f"{reverse('admin:recording_message', args=(obj.pk, row.pk))}?look={look}"
        group.lines.append(Shown(row, icon, towards, href, (row.at - group.at).total_seconds() * 1000))
        group.server = group.server or row.server
        group.client = group.client or row.client
    return list(groups.values())


def live(request: HttpRequest, id: Any) -> HttpResponse:
    """Answer the messages of a page that is open, as they are now."""
    obj = _looked_at(request, id)
    return render(
        request, "console/parts/messages.html", {"panel": messages_context(request, obj, request.GET.get("look", ""))}
    )


def message(request: HttpRequest, id: Any, pk: int) -> HttpResponse:
    """Answer one message in full, as far as it was kept."""
    obj = _looked_at(request, id)
    row = RecordedMessage.objects.filter(recording=obj, pk=pk).first()
    if row is None:
        raise Http404
    try:
        text = visible_json(json.loads(row.text))
    except (ValueError, RecursionError):
        text = "\n".join(visible(line) for line in row.text.split("\n"))
    return render(request, "console/parts/message.html", {"row": row, "text": text})


def file(request: HttpRequest, id: Any) -> HttpResponse:
    """Answer a recording as JSON lines; that somebody took it is noted."""
    obj = _recording(id)
    try:
        with tenant_scope(obj.tenant_id):
            services.note_look(obj, "download")
    except errors.PermissionDenied:
        raise PermissionDenied from None
    answer = HttpResponse(b"".join(selectors.json_lines(obj)), content_type="application/x-ndjson")
    answer["Content-Disposition"] = f'attachment; filename="recording-{obj.pk}.jsonl"'
    return answer


def token_of(request: HttpRequest, obj: Any) -> str:
    """Return what lets the page that was just noted go on asking for its messages."""
    return signing.dumps([str(obj.pk), str(request.user.pk)], salt=_SALT)


def _looked_at(request: HttpRequest, id: Any) -> Recording:
    """Return a recording for a page on which a look at it was noted. Raises PermissionDenied, Http404."""
    obj = _recording(id)
    if not services.may_record(obj.tenant_id):
        raise PermissionDenied
    try:
        noted = signing.loads(request.GET.get("look", ""), salt=_SALT, max_age=LOOK_SECONDS)
    except signing.BadSignature:
        raise PermissionDenied from None
    if noted != [str(obj.pk), str(request.user.pk)]:
        raise PermissionDenied
    return obj


def _recording(id: Any) -> Recording:
    try:
        return selectors.get_recording(id)
    except errors.NotFound as error:
        raise Http404 from error


def _one_of(given: str | None, known: Any) -> str:
    return given if given and given in known else ""
