"""Django configuration of the tools app."""

from django.apps import AppConfig


class ToolsConfig(AppConfig):
    """Registers apps.tools and subscribes it to what happens in the registry of servers."""

    name = "apps.tools"
    label = "tools"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Connect the catalogue to the registry below it."""
        from apps.tools.services import dependents

        dependents.connect()
