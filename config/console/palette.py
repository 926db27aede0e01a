"""The palette's search: a few rows of the few kinds one jumps to. Never calls, never the log."""

from typing import Any

from django.core.paginator import Paginator
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.dataclasses import SearchResult

from apps.accounts.models import APIKey
from apps.common.admin.base import model_url
from apps.servers import selectors as server_selectors
from apps.tools import selectors as tool_selectors
from apps.tools.models import Tool, Toolset
from config.console.scope import may
from config.console.unfold import UNFOLD

EACH = 6
"""Results of each kind."""


LONGEST = 100
"""Characters of a search that are looked at."""


def answer(request: HttpRequest) -> HttpResponse:
    """Answer a search of the palette, or of the navigation."""
    text = request.GET.get("s", "").strip()[:LONGEST]
    if not text:
        return HttpResponse()
    found = search(request, text)
    template = "command_results" if "extended" in request.GET else "search_results"
    pages = Paginator(found, max(1, len(found)))
    context = {
        "page_obj": pages,
        "results": pages.page(1),
        "page_counter": 0,
        "execution_time": 0,
        "command_show_history": False,
    }
    return TemplateResponse(request, f"unfold/helpers/{template}.html", context, headers={"HX-Trigger": "search"})


def search(request: HttpRequest, text: str) -> list[SearchResult]:
    """Return servers, tools, toolsets and keys in view whose names fit."""
    found: list[SearchResult] = _pages(request, text.lower())
    if may(request, "server.read"):
        found += [
            _result(server.slug, "Server", model_url(type(server), "change", server.pk), "dns")
            for server in server_selectors.servers(search=text)[:EACH]
        ]
    if may(request, "tool.read"):
        found += [
            _result(tool.name, f"Tool of {tool.server.slug}", model_url(Tool, "change", tool.pk), "construction")
            for tool in tool_selectors.catalogue("tool", text=text).defer("definition", "pending")[:EACH]
        ]
    if may(request, "toolset.read"):
        found += [
            _result(toolset.name, "Toolset", model_url(Toolset, "change", toolset.pk), "inventory_2")
            for toolset in tool_selectors.toolsets(text=text).prefetch_related(None)[:EACH]
        ]
    if may(request, "api_key.read"):
        found += [
            _result(key.name, f"API key sy_{key.prefix}_…", model_url(APIKey, "change", key.pk), "key")
            for key in APIKey.objects.filter(Q(name__icontains=text) | Q(prefix__icontains=text), revoked_at__isnull=True)[
                :EACH
            ]
        ]
    return found


def _pages(request: HttpRequest, text: str) -> list[SearchResult]:
    """Return the places of the navigation whose names fit."""
    found = []
    for group in UNFOLD["SIDEBAR"]["navigation"]:
        for item in group["items"]:
            allowed = item.get("permission")
            if text in item["title"].lower() and (allowed is None or allowed(request)):
                found.append(_result(item["title"], "Page", str(item["link"]), item["icon"]))
    return found


def _result(title: Any, description: str, link: str, icon: str) -> SearchResult:
    return SearchResult(title=str(title), description=description, link=link, icon=icon)
