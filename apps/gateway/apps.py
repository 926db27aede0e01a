"""Django configuration of the gateway app."""

from django.apps import AppConfig


class GatewayConfig(AppConfig):
    """Registers apps.gateway."""

    name = "apps.gateway"
    label = "gateway"
    default_auto_field = "django.db.models.BigAutoField"
