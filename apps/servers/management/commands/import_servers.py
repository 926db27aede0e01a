"""`manage.py import_servers FILE`: register the servers of a client's file."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.common.errors import SwitchyardError
from apps.servers.management.scope import command_scope
from apps.servers.mcp_files import MAX_BYTES, parse_document
from apps.servers.services.transfer import import_servers


class Command(BaseCommand):
    """Imports `{"mcpServers": {…}}` files as Claude Desktop, Cursor and VS Code write them; may be repeated."""

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("file", metavar="FILE", help="path of the file, or - for the standard input")
        parser.add_argument("--tenant", help="slug or id of the tenant; the default tenant without it")
        parser.add_argument("--dry-run", action="store_true", help="check everything, keep nothing")

    def handle(self, *args: Any, file: str, tenant: str | None, dry_run: bool, **options: Any) -> None:
        """Import, print a line for each server, and fail when one of them failed."""
        try:
            if file == "-":
                content = sys.stdin.buffer.read(MAX_BYTES + 1)
            else:
                with Path(file).open("rb") as stream:
                    content = stream.read(MAX_BYTES + 1)
            document = parse_document(content)
            with command_scope(tenant):
                results = import_servers(document, from_file=True, dry_run=dry_run)
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from error
        except SwitchyardError as error:
            raise CommandError(f"{file}: {error.detail}") from error
        for result in results:
            self.stdout.write(f"{result.action:8} {result.slug or result.name}" + (f": {result.error}" if result.error else ""))
            for warning in result.warnings:
                self.stdout.write(f"         {result.slug or result.name}: {warning}")
        failed = sum(result.action == "failed" for result in results)
        if dry_run:
            self.stdout.write("Nothing was kept (--dry-run).")
        if failed:
            raise CommandError(f"{failed} of {len(results)} servers could not be imported.")
