"""The REST API: `/api/v1/` from the routes of each app, `/api/schema/` and `/api/docs/` from drf-spectacular."""

from importlib import import_module
from importlib.util import find_spec

from django.urls import URLPattern, include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from apps.common.api.routers import ApiRouter
from apps.gateway.api.routes import paths as gateway_paths
from apps.tools.api.routes import paths as tools_paths
from config.connect import ConnectView

APPS = ("accounts", "audit", "servers", "tools", "gateway")
"""Apps whose `api/routes.py` registers routes."""


def _router() -> ApiRouter:
    router = ApiRouter()
    for app in APPS:
        name = f"apps.{app}.api.routes"
        if find_spec(name) is not None:
            import_module(name).register(router)
    return router


def _verbs() -> list[URLPattern]:
    connect = path("toolsets/<str:id>/connect/", ConnectView.as_view(), name="toolset-connect")
    return [*gateway_paths(), *tools_paths(), connect]


urlpatterns = [
    path("schema/", SpectacularAPIView.as_view(), name="schema"),
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api-docs"),
    path("v1/", include([*_verbs(), *_router().urls])),
]
