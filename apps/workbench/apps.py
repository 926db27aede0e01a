"""Django configuration of the workbench app."""

from django.apps import AppConfig


class WorkbenchConfig(AppConfig):
    """Registers apps.workbench."""

    name = "apps.workbench"
    label = "workbench"
    default_auto_field = "django.db.models.BigAutoField"
