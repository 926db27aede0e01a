"""Toolsets with what stands above them: how each client connects, and who may."""

from typing import Any

from django.conf import settings
from django.http import HttpRequest

from apps.common.admin.panels import Panel
from apps.tools import selectors
from apps.tools.admin import ToolsetAdmin
from apps.tools.admin.grant import in_words
from config.console import compatibility
from config.console.snippets import client_snippets, endpoint


class ConsoleToolsetAdmin(ToolsetAdmin):
    """The toolsets' pages, complete."""

    def panels(self, request: HttpRequest, obj: Any) -> list[Panel]:
        """Add the snippets and the grants."""
        url = endpoint(settings.SWITCHYARD.public_url, obj.slug)
        grants = selectors.grants(toolset=obj).order_by("-created_at")[:50]
        return [
            Panel(
                "connect",
                "Connect",
                "console/panels/connect.html",
                {"url": url, "snippets": client_snippets(url, obj.slug), "box": "connect"},
                10,
            ),
            Panel(
                "access",
                "Access",
                "console/panels/access.html",
                {"grants": [{"row": row, "words": in_words(row)} for row in grants], "toolset": obj},
                25,
            ),
            *compatibility.toolset_panel(request, obj),
            *super().panels(request, obj),
        ]
