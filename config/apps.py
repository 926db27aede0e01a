"""Django configuration of the composition root: it owns the commands that start the product."""

from django.apps import AppConfig


class RootConfig(AppConfig):
    """Registers the `serve` and `bootstrap` commands and the console."""

    name = "config"
    label = "switchyard"

    def ready(self) -> None:
        """Make the Celery application the one that tasks belong to."""
        from config.celery import app

        app.set_default()
