"""Django configuration of the gateway app."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """Registers apps.gateway."""

    name = "apps.gateway"
    label = "gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Have the data planes told of limits that went with what they were on."""
        from apps.gateway.services.limits import connect

        connect()
