"""`manage.py reencrypt`: seal every credential with the newest key, while Switchyard runs."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.common.context import every_tenant
from apps.servers.management.scope import operator
from apps.servers.services.secrets import Reencryption, keyring, reencrypt_all


class Command(BaseCommand):
    """Re-encrypts credentials. Put the new key first in SWITCHYARD_ENCRYPTION_KEYS and restart every process before; drop the old one after.

    It may be stopped and started again at any moment: every value stays readable, and what is done is not done again.
    """

    help = __doc__ or ""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("--batch", type=int, default=200, help="rows between two lines of progress (200)")

    def handle(self, *args: Any, batch: int, **options: Any) -> None:
        """Re-encrypt, and fail when a value could not be opened."""
        if batch < 1:
            raise CommandError("--batch: use a number from 1.")

        def progress(state: Reencryption) -> None:
            passed = state.done + state.current + state.replaced + len(state.failed)
            self.stdout.write(f"{passed} of {state.total} credentials")

        with every_tenant(operator()):
            state = reencrypt_all(batch=batch, progress=progress)
        self.stdout.write(f"{state.done} sealed with key {keyring().newest}, {state.current + state.replaced} had it already.")
        for name in state.failed:
            self.stderr.write(f"{name}: no key of this installation opens it; set it again")
        if state.failed:
            raise CommandError(f"{len(state.failed)} credentials could not be opened.")
