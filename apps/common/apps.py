"""Django configuration of the common app."""

from django.apps import AppConfig


class CommonConfig(AppConfig):
    """Registers apps.common."""

    name = "apps.common"
    label = "common"
    default_auto_field = "django.db.models.BigAutoField"
