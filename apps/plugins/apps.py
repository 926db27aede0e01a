"""Django configuration of the plugins app."""

from django.apps import AppConfig


class PluginsConfig(AppConfig):
    """Registers apps.plugins."""

    name = "apps.plugins"
    label = "plugins"
    default_auto_field = "django.db.models.BigAutoField"
