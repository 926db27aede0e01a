"""The console's admin site: its pages, its order, its security policy."""

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from unfold.sites import UnfoldAdminSite


class SwitchyardAdminSite(UnfoldAdminSite):
    """The operations console."""

    site_title = "Switchyard"
    site_header = "Switchyard"
    index_title = "Overview"
    enable_nav_sidebar = True

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:
        """Give every page of the console its policy."""
        from config.console.csp import console_policy

        inner = super().admin_view(view, cacheable)

        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return console_policy(request, inner(request, *args, **kwargs))

        guarded.csrf_exempt = getattr(inner, "csrf_exempt", False)  # type: ignore[attr-defined]
        return guarded

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the sign-in page, under the same policy."""
        from config.console.csp import console_policy

        return console_policy(request, super().login(request, extra_context))  # type: ignore[return-value]

    def extra_urls(self) -> list[URLPattern]:
        """Return the screens that belong to no single model."""
        from config.console import pages

        return [path(route, self.admin_view(view), name=name) for route, view, name in pages.screens()]

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Show the overview."""
        from config.console.overview import overview

        return overview(self, request, extra_context)

    def search(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Answer the palette. unfold keeps results for five minutes for a person, also across tenants and lost rights; we keep none."""
        from config.console.palette import answer

        return answer(request)

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """Add the tenant in view."""
        from config.console.scope import tenant_choice

        context: dict[str, Any] = super().each_context(request)
        context["tenant_choice"] = tenant_choice(request) if self.has_permission(request) else {}
        return context
