"""Addresses of the control plane. `/mcp` and `/v1` never come here: `config.asgi` hands them to the data plane."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [path("admin/", admin.site.urls), path("api/", include("config.api"))]
