"""`manage.py create_operator USERNAME`: makes a superuser, for when nobody can sign in any more."""

import secrets
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.accounts.management.base import command_line
from apps.accounts.services.users import create_user


class Command(BaseCommand):
    """Makes a superuser."""

    help = "Make a superuser. Prints a generated password, or reads one from standard input."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments; a password is never one, as every user of the machine could read it."""
        parser.add_argument("username")
        parser.add_argument("--email", default="")
        parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")

    def handle(self, *args: Any, **options: Any) -> None:
        """Make the user; raises CommandError."""
        given = options["password_stdin"]
        password = sys.stdin.readline().rstrip("\r\n") if given else secrets.token_urlsafe(18)
        with command_line():
            create_user(username=options["username"], password=password, email=options["email"], is_superuser=True)
        self.stdout.write(f"{options['username']} can sign in." if given else password)
