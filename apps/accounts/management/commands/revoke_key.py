"""`manage.py revoke_key PREFIX`: ends an API key for good."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.accounts import selectors
from apps.accounts.management.base import command_line
from apps.accounts.services.api_keys import revoke_api_key
from apps.common.crypto.tokens import parse_prefix


class Command(BaseCommand):
    """Revokes an API key."""

    help = "Revoke an API key, within a second on every process. A repeat changes nothing."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("key", help="its prefix (the 8 characters after sy_), its id, or the key itself")

    def handle(self, *args: Any, **options: Any) -> None:
        """Revoke the key; raises CommandError."""
        named = options["key"]
        with command_line():
            key = revoke_api_key(selectors.api_key(parse_prefix(named) or named))
        self.stdout.write(f"{key} is revoked.")
