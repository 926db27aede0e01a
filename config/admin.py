"""Registers the pages that need to see every app; Django imports this when it collects the admin."""

from django.contrib import admin

from apps.accounts.models import APIKey
from apps.servers.models import Server
from apps.tools.models import Tool, Toolset
from config.console import audit_log, inspector, schedules
from config.console.keys import ConsoleAPIKeyAdmin
from config.console.servers import ConsoleServerAdmin
from config.console.tools import ConsoleToolAdmin
from config.console.toolsets import ConsoleToolsetAdmin

OURS = ("accounts", "audit", "servers", "tools", "gateway", "django_celery_beat")
"""Apps whose pages stand in the console; those of libraries would write past services, policy and audit."""

for model in list(admin.site._registry):
    if model._meta.app_label not in OURS:
        admin.site.unregister(model)

admin.site.register(Server, ConsoleServerAdmin)
admin.site.register(Tool, ConsoleToolAdmin)
admin.site.register(Toolset, ConsoleToolsetAdmin)
admin.site.register(APIKey, ConsoleAPIKeyAdmin)

__all__ = ("audit_log", "inspector", "schedules")
