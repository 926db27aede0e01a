"""Addresses of the control plane. `/mcp` and `/v1` never come here: `config.asgi` hands them to the data plane."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import include, path
from django.views.decorators.http import require_safe

from config.console import connecting


@require_safe
def root(request: HttpRequest) -> HttpResponse:
    """Lead to the console."""
    return redirect("admin:index")


handler403, handler404, handler500 = (f"config.console.errors.{name}" for name in ("refused", "not_found", "broken"))
admin.autodiscover()  # where the start has left it for now; the addresses below are made from what is registered
urlpatterns = [
    path("", root),
    path("admin/", admin.site.urls),
    path("api/", include("config.api")),
    path("oauth/callback", connecting.callback, name="oauth_callback"),
    path("oauth/client-metadata.json", connecting.client_metadata, name="oauth_client_metadata"),
    path("oauth/connect/<uuid:server_id>", connecting.connect, name="oauth_connect"),
]
