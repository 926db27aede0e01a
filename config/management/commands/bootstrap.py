"""Prepares an installation without serving: for images and deployments that migrate before they start."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from config.processes import checks
from config.processes.banner import once
from config.processes.preparation import Prepared, prepare


class Command(BaseCommand):
    """`manage.py bootstrap`: tables, first operator, built-in and listed servers; a repeat changes nothing."""

    help = "Prepares the installation (tables, first operator, built-in servers) without serving."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Prepare, and print what was made."""
        environment = settings.SWITCHYARD
        checks.check_home(environment.home)
        checks.check_database(environment)
        prepare(environment, self.stdout.write, self._show)
        self.stdout.write("Prepared.")

    def _show(self, prepared: Prepared) -> None:
        for line in once(settings.SWITCHYARD, prepared, serves=frozenset()):
            self.stdout.write(line)
