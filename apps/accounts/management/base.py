"""What the commands of accounts share: the command line acts as the system, and errors are one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError

from apps.common.context import every_tenant
from apps.common.errors import SwitchyardError
from apps.common.shell import operator


@contextmanager
def command_line() -> Iterator[None]:
    """Act as the system for every tenant; a typed error becomes a CommandError with its messages."""
    try:
        with every_tenant(operator()):
            yield
    except SwitchyardError as error:
        messages = [str(message) for messages in error.extra.get("errors", {}).values() for message in messages]
        raise CommandError(" ".join([error.detail, *messages])) from error
