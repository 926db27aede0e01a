"""Django configuration of the servers app."""

from django.apps import AppConfig


class ServersConfig(AppConfig):
    """Registers apps.servers."""

    name = "apps.servers"
    label = "servers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from apps.servers import checks  # noqa: F401
