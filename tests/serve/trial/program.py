"""Enqueues tasks from a process of its own: `program <task> <first> <count> [seconds]`."""

import sys

import django

django.setup()

from django.db import transaction  # noqa: E402

from tests.serve.trial import tasks  # noqa: E402

if __name__ == "__main__":
    task, first, count = getattr(tasks, sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    more = [float(text) for text in sys.argv[4:]]
    with transaction.atomic():
        for number in range(first, first + count):
            task.delay(number, *more)
