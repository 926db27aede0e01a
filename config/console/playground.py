"""The playground: a form from the tool's JSON Schema, a call through the real gateway, and its result, which is never trusted.

What a tool answers is tainted: texts are escaped, links are not clickable, of images only known raster types are drawn, and
everything is cut at a size.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from apps.common.context import tenant_scope
from apps.common.errors import SwitchyardError
from apps.gateway.services.calls import CallReport, call_tool
from apps.tools.admin.definition import visible_json
from apps.tools.admin.review import EFFECT_STATES
from apps.tools.domain import visible
from apps.tools.models import Tool, Toolset
from apps.tools.selectors import not_in_force
from config.console.snippets import call_snippets, endpoint

MAX_ARGUMENTS = 256_000
MAX_TEXT = 100_000
MAX_IMAGE = 4_000_000
MAX_BLOCKS = 50
IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})


@dataclass(frozen=True, slots=True)
class Block:
    """One content block of a result, ready to show."""

    kind: str
    text: str = ""
    source: str = ""
    note: str = ""


def panel(tool: Any, public_url: str) -> dict[str, Any]:
    """Return what the playground of a tool needs."""
    schema = tool.shown.get("inputSchema")
    toolsets = (
        Toolset.objects.filter(entries__server=tool.server, entries__kind__in=("all", "tool")).distinct().order_by("slug")[:20]
    )
    said = tool.effective_effects
    return {
        "tool": tool,
        "schema": schema if isinstance(schema, dict) else {},
        "action": reverse("admin:playground_call", args=(tool.pk,)),
        "toolsets": toolsets,
        "effects": EFFECT_STATES.get(said.value, said.value),
        "reason": said.reason,
        "careful": said.value == "destructive",
        "has_effects": said.has_effects,
        "snippets": call_snippets(endpoint(public_url, tool.server.slug), tool.name, {}),
    }


def call(request: HttpRequest, tool_id: Any) -> HttpResponse:
    """Call the tool with the arguments given and show what came of it (POST alone)."""
    if request.method != "POST":
        return HttpResponse(status=405)
    page: Any = admin.site._registry[Tool]
    tool = page.get_object(request, str(tool_id))
    if tool is None:
        raise Http404
    if not page.policy_allows(request, "call", tool):
        raise PermissionDenied
    toolset = request.POST.get("toolset") or None
    context: dict[str, Any] = {"tool": tool, "request_id": getattr(request, "request_id", "")}
    try:
        arguments = read_arguments(request.POST.get("arguments", ""))
    except ValueError as error:
        return render(request, "console/parts/played.html", {**context, "problem": str(error)})
    url = endpoint(settings.SWITCHYARD.public_url, toolset or tool.server.slug)
    context["snippets"] = call_snippets(
        url, tool.name if toolset in (None, tool.server.slug) else f"{tool.server.slug}__{tool.name}", arguments
    )
    if "only-code" in request.POST:
        return render(request, "console/parts/played_code.html", context)
    if why := not_in_force(tool):
        return render(request, "console/parts/played.html", {**context, "problem": why})
    try:
        with tenant_scope(tool.tenant_id):
            report = call_tool(tool_id=tool.pk, arguments=arguments, toolset=toolset)
    except SwitchyardError as error:
        return render(request, "console/parts/played.html", {**context, "error": error})
    return render(request, "console/parts/played.html", {**context, **report_context(report)})


def read_arguments(text: str) -> dict[str, Any]:
    """Parse the arguments; raises ValueError with a sentence."""
    if len(text) > MAX_ARGUMENTS:
        raise ValueError("The arguments are longer than 256,000 characters.")
    try:
        value = json.loads(text or "{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"The arguments are not JSON: {str(error)[:200]}.") from error
    if not isinstance(value, dict):
        raise ValueError("The arguments must be a JSON object.")  # noqa: TRY004 - a sentence for a person
    return value


def report_context(report: CallReport) -> dict[str, Any]:
    """Return a call's report, laid out."""
    result = report.result or {}
    steps, last = [], 0.0
    for name, done in report.steps:
        steps.append((name, max(0.0, (done - last) * 1000)))
        last = done
    total = sum(length for _, length in steps) or 1.0
    at = 0.0
    drawn = []
    for number, (name, length) in enumerate(steps):
        drawn.append(
            {
                "name": name,
                "ms": length,
                "x": round(100 * at / total, 2),
                "width": round(100 * length / total, 2),
                "shade": number % 5,
            }
        )
        at += length
    content = result.get("content")
    return {
        "report": report,
        "outcome": "ok" if report.ok and not result.get("isError") else "error" if report.result is not None else "failed",
        "blocks": [block_of(one) for one in content[:MAX_BLOCKS]] if isinstance(content, list) else [],
        "more_blocks": max(0, len(content) - MAX_BLOCKS) if isinstance(content, list) else 0,
        "structured": _cut(visible_json(result["structuredContent"])) if "structuredContent" in result else "",
        "raw": _cut(visible_json(report.result if report.result is not None else {"error": report.error})),
        "steps": drawn,
        "events": [(name, reverse("admin:audit_auditevent_change", args=(name,))) for name in report.events],
    }


def block_of(block: Any) -> Block:
    """Lay out one content block; what is not known is shown as JSON."""
    if not isinstance(block, dict):
        return Block("json", text=_cut(visible_json(block)))
    kind = block.get("type")
    if kind == "text":
        return Block("text", text=_cut(_readable(str(block.get("text", "")))))
    if kind == "image":
        return _image(block)
    if kind == "audio":
        return Block(
            "note",
            note=f"Sound, {visible(str(block.get('mimeType', 'unknown type')))}, {len(str(block.get('data', '')))} characters of base64",
        )
    if kind == "resource_link":
        return Block(
            "link", text=visible(str(block.get("uri", ""))), note=visible(str(block.get("title") or block.get("name") or ""))
        )
    if kind == "resource" and isinstance(block.get("resource"), dict):
        inner = block["resource"]
        text = inner.get("text")
        return Block(
            "resource", text=_cut(_readable(str(text))) if text is not None else "", note=visible(str(inner.get("uri", "")))
        )
    return Block("json", text=_cut(visible_json(block)))


def _image(block: dict[str, Any]) -> Block:
    mime, data = str(block.get("mimeType", "")), str(block.get("data", ""))
    if mime not in IMAGES:
        return Block("note", note=f"An image of type {visible(mime) or 'unknown'}, which is not shown")
    if len(data) > MAX_IMAGE:
        return Block("note", note="An image larger than 3 MB, which is not shown")
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        return Block("note", note="An image that is not base64")
    return Block(
        "image", source=f"data:{mime};base64,{base64.b64encode(decoded).decode()}", note=f"{mime}, {len(decoded):,} bytes"
    )


def _readable(text: str) -> str:
    return "\n".join(visible(line) for line in text.split("\n"))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n… {len(text) - MAX_TEXT:,} more characters"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
