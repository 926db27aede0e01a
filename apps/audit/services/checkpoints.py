"""Checkpoints: made once per interval across all processes, delivered in order to each place, for as long as it takes.

Nothing here touches the log's write lock: heads are read, everything else stands in `default`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from apps.audit.checkpoints.document import FIRST, Checkpoint, read, sign
from apps.audit.checkpoints.keys import CheckpointKeys
from apps.audit.checkpoints.target import Target, TargetFailed
from apps.audit.checkpoints.targets import parse_targets
from apps.audit.models import AuditCheckpoint, AuditHead, CheckpointState, CheckpointTarget
from apps.common.clock import monotonic, now
from apps.common.context import SYSTEM, every_tenant
from apps.common.events import ControlEvent
from apps.common.ids import new_id
from apps.common.outbox import audit, unit_of_work

_log = logging.getLogger(__name__)
KEPT = timedelta(days=30)
"""For so long checkpoints are kept here, delivered or not."""
_HELD = timedelta(seconds=60)
_ROUND = 200
_LONGEST_PAUSE = 60
_LATE = timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class TargetState:
    """How one place stands."""

    name: str
    delivered: int
    delivered_at: datetime | None
    waiting: int
    """Checkpoints that it has not got yet."""
    failing_since: datetime | None
    error: str


@dataclass(frozen=True, slots=True)
class CheckpointOverview:
    """How the checkpoints stand."""

    number: int
    made_at: datetime | None
    key: str
    targets: tuple[TargetState, ...]

    @property
    def degraded(self) -> str:
        """Return what is wrong, for people, or an empty text."""
        for target in self.targets:
            if target.failing_since is not None:
                return f"{target.name} has not taken {target.waiting} checkpoints: {target.error}"
        if self.made_at is not None and now() - self.made_at > _LATE:
            return f"the last checkpoint is of {self.made_at:%Y-%m-%d %H:%M:%S} UTC"
        return ""


def configured_keys() -> CheckpointKeys:
    """Return the keys of this installation."""
    return CheckpointKeys.parse(settings.SWITCHYARD.checkpoint_keys)


def configured_targets() -> tuple[Target, ...]:
    """Return the places of this installation."""
    return parse_targets(settings.SWITCHYARD.checkpoints, settings.SWITCHYARD.aws)


def make_checkpoint(keys: CheckpointKeys, *, older_than: float = 0.0) -> Checkpoint | None:
    """Sign the heads as they are now, unless there is a checkpoint younger than `older_than` seconds; None then.

    Also None when another process made one in the meantime: the state is read before the heads and moved on the condition that it is
    still the one read, so that heads never go back from one number to the next.
    """
    state = CheckpointState.objects.filter(pk=1).first()
    if state is None:
        fresh = {"installation": str(new_id()), "digest": FIRST}
        state, _ = CheckpointState.objects.get_or_create(pk=1, defaults=fresh)
    at = now()
    if older_than and state.made_at is not None and timedelta(0) <= at - state.made_at < timedelta(seconds=older_than):
        return None
    heads = [
        (writer, seq, bytes(digest).hex())
        for writer, seq, digest in AuditHead.objects.order_by("writer").values_list("writer", "seq", "digest")
    ]
    made = sign(
        keys, installation=state.installation, number=state.number + 1, previous=state.digest, heads=heads,
        time=at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    )  # fmt: skip
    with transaction.atomic():
        moved = CheckpointState.objects.filter(pk=1, number=state.number, digest=state.digest)
        if not moved.update(number=made.number, digest=made.digest, made_at=at):
            return None
        AuditCheckpoint.objects.create(number=made.number, time=at, key=made.key, line=made.line.decode())
    return made


def deliver(targets: Sequence[Target], holder: str, *, seconds: float = 20.0, at_once: bool = False) -> int:
    """Deliver what each place has not got, in order; return how many deliveries were made.

    One process delivers to a place at a time. A place that fails is tried again after 1, 2, 4 … 60 s (`at_once` does not wait).
    """
    deadline = monotonic() + seconds
    return sum(_deliver_to(target, holder, deadline, at_once) for target in targets)


def _deliver_to(target: Target, holder: str, deadline: float, at_once: bool) -> int:
    newest = CheckpointState.objects.filter(pk=1).values_list("number", flat=True).first() or 0
    row = CheckpointTarget.objects.filter(pk=target.name).first()
    if row is None:  # a new place begins with the newest
        row, _ = CheckpointTarget.objects.get_or_create(pk=target.name, defaults={"delivered": max(newest - 1, 0)})
    at = now()
    if row.delivered >= newest or (not at_once and row.next_try is not None and row.next_try > at):
        return 0
    free = Q(held_until__isnull=True) | Q(held_until__lt=at) | Q(holder=holder)
    mine = CheckpointTarget.objects.filter(pk=target.name)
    if not mine.filter(free).update(holder=holder, held_until=at + _HELD):
        return 0
    done = 0
    try:
        row.refresh_from_db(fields=["delivered"])
        waiting = AuditCheckpoint.objects.filter(number__gt=row.delivered).order_by("number")
        for checkpoint in waiting.values_list("number", "line")[:_ROUND]:
            if monotonic() > deadline:
                break
            target.send(read(checkpoint[1]))
            mine.filter(holder=holder).update(
                delivered=checkpoint[0], delivered_at=now(), failures=0, failing_since=None, error="", next_try=None
            )
            done += 1
    except TargetFailed as failure:
        pause = timedelta(seconds=min(2 ** min(row.failures if not done else 0, 6), _LONGEST_PAUSE))
        if row.failing_since is None or done:
            _log.warning("checkpoints wait for %s: %s", target.name, failure)
        mine.update(
            failures=F("failures") + 1,
            failing_since=now() if done or row.failing_since is None else row.failing_since,
            error=str(failure)[:300],
            next_try=now() + pause,
        )
    finally:
        mine.filter(holder=holder).update(holder="", held_until=None)
    return done


def prune_checkpoints() -> int:
    """Remove checkpoints of more than 30 days, with an event where a place has not got them; return how many went."""
    old = AuditCheckpoint.objects.filter(time__lt=now() - KEPT)
    last = old.order_by("-number").values_list("number", flat=True).first()
    if last is None:
        return 0
    names = [target.name for target in configured_targets()]
    lost = list(CheckpointTarget.objects.filter(name__in=names, delivered__lt=last).values_list("name", "delivered"))
    with every_tenant(SYSTEM), unit_of_work():
        removed, _ = old.filter(number__lte=last).delete()
        for name, delivered in lost:
            audit(
                ControlEvent(
                    event_type="audit.checkpoints_dropped", action="audit.admin", object_kind="audit", object_id="log",
                    object_label="audit log", outcome="failed", details={"target": name, "from": delivered + 1, "to": last},
                )
            )  # fmt: skip
        CheckpointTarget.objects.filter(name__in=names, delivered__lt=last).update(delivered=last)
    return removed


def overview() -> CheckpointOverview:
    """Return how the checkpoints stand."""
    state = CheckpointState.objects.filter(pk=1).first()
    number = state.number if state else 0
    rows = CheckpointTarget.objects.in_bulk([target.name for target in configured_targets()])
    states = []
    for target in configured_targets():
        row = rows.get(target.name)
        delivered = row.delivered if row else number
        states.append(
            TargetState(
                target.name, delivered, row.delivered_at if row else None, number - delivered,
                row.failing_since if row else None, row.error if row else "",
            )
        )  # fmt: skip
    return CheckpointOverview(number, state.made_at if state else None, configured_keys().newest, tuple(states))
