"""`manage.py create_key NAME --owner USER`: makes an API key and prints it, once."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand

from apps.accounts import selectors
from apps.accounts.domain import DEFAULT_TENANT
from apps.accounts.management.base import command_line
from apps.accounts.services.api_keys import create_api_key
from apps.common.clock import now
from apps.common.context import tenant_scope


class Command(BaseCommand):
    """Makes an API key."""

    help = "Make an API key and print it on standard output. It is shown once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("name", help="what the key is for")
        parser.add_argument("--owner", required=True, help="username or id")
        parser.add_argument("--tenant", default=DEFAULT_TENANT, help="slug or id (default: %(default)s)")
        parser.add_argument("--inherits-owner", action="store_true", help="act with everything the owner may do")
        parser.add_argument("--scope", action="append", dest="scopes", metavar="KIND.VERB", help="narrow it; repeatable")
        parser.add_argument("--loopback-only", action="store_true", help="accept it only from this machine")
        parser.add_argument("--days", type=float, help="days until it expires (default: never)")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the key; raises CommandError."""
        days = options["days"]
        with command_line(), tenant_scope(selectors.tenant(options["tenant"]).pk):
            _, text = create_api_key(
                name=options["name"],
                owner=selectors.user(options["owner"]),
                inherits_owner=options["inherits_owner"],
                scopes=options["scopes"],
                loopback_only=options["loopback_only"],
                expires_at=None if days is None else now() + timedelta(days=days),
            )
        self.stdout.write(text)
