"""A program of its own for the queue's tests: makes the table, produces and consumes messages, and tells of each on a line."""

import sys
import time
from pathlib import Path

import django

django.setup()

from django.db import connections, transaction  # noqa: E402
from kombu import Connection, Queue  # noqa: E402

import apps.common.queue  # noqa: E402, F401
from apps.common.models import QueueMessage  # noqa: E402
from apps.common.queue.store import owner, store  # noqa: E402


def setup() -> None:
    with connections["default"].schema_editor() as editor:
        editor.create_model(QueueMessage)


def produce(first: int, count: int) -> None:
    with Connection("switchyard-db://") as broker, broker.Producer() as producer:
        for number in range(first, first + count):
            with transaction.atomic():
                producer.publish({"number": number}, routing_key="work", serializer="json")


def consume(out: Path, seconds: float, hold: bool) -> None:
    """Write each number on a line before it is acknowledged; with `hold`, take messages and never acknowledge."""
    with Connection("switchyard-db://") as broker, out.open("a", buffering=1) as file:

        def take(body, message):
            file.write(f"{body['number']}\n")
            if not hold:
                message.ack()

        deadline = time.monotonic() + seconds
        with broker.Consumer([Queue("work")], callbacks=[take]):
            print("consuming", flush=True)
            while time.monotonic() < deadline:
                try:
                    broker.drain_events(timeout=0.3)
                except TimeoutError:
                    if not hold and not QueueMessage.objects.exists():
                        return


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["setup"]:
            setup()
        case ["produce", first, count]:
            produce(int(first), int(count))
        case ["consume", out]:
            consume(Path(out), 60, hold=False)
        case ["hold", out]:
            consume(Path(out), 60, hold=True)
        case ["recover"]:
            print(store.recover(alone=False), owner())
