"""`manage.py export_servers [FILE]`: write the servers as a client's file, without any secret."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.servers.management.scope import command_scope
from apps.servers.services.transfer import export_servers


class Command(BaseCommand):
    """Exports the servers of a tenant; values of credentials stand as `${NAME}`, to be given when it is imported."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "file", metavar="FILE", nargs="?", default="-", help="path to write; the standard output without it"
        )
        parser.add_argument("--tenant", help="slug or id of the tenant; the default tenant without it")

    def handle(self, *args: Any, file: str, tenant: str | None, **options: Any) -> None:
        """Export."""
        with command_scope(tenant):
            text = json.dumps(export_servers(), indent=2, ensure_ascii=False)
        if file == "-":
            self.stdout.write(text)
            return
        try:
            Path(file).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from error
