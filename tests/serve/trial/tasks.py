"""Tasks that leave a trace: a line in a file of the home."""

import time

from apps.common.tasks import system_task


def _note(file: str, text: str) -> None:
    from django.conf import settings

    with (settings.SWITCHYARD.home / file).open("a") as notes:
        notes.write(f"{text}\n")


@system_task(name="trial.note")
def note(number: int, seconds: float = 0.0) -> None:
    """May run again: acknowledged when it is done."""
    _note("begun", str(number))
    time.sleep(seconds)
    _note("notes", str(number))


@system_task(name="trial.once", idempotent=False)
def once(number: int) -> None:
    """Must not run again: acknowledged before it begins."""
    _note("once", str(number))
    time.sleep(0.02)
