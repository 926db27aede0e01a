"""Recordings: switched on and off by those who may, written by the data plane, looked at under record, deleted after a day.

Who switches one on or looks at one needs `audit.read` and `server.write`, and must administer the tenant's log (`audit.admin`): what
people typed stands in messages.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import F

from apps.accounts.selectors import api_key as find_key
from apps.common import authorise
from apps.common.clock import now
from apps.common.context import SYSTEM, current_actor, every_tenant
from apps.common.errors import Conflict, NotFound, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, order, unit_of_work
from apps.gateway.models import RecordedMessage, Recording
from apps.gateway.plane.ports import RecordedMessage as Message
from apps.gateway.plane.ports import RecordingFacts
from apps.gateway.selectors import session_seen
from apps.servers.selectors import get_server
from apps.tools.selectors import get_toolset

RECORDINGS_CHANGED = "recordings-changed"
"""Name of the order that tells every data plane to look which recordings are on."""
RIGHTS = ("audit.read", "server.write", "audit.admin")
SHORTEST, LONGEST = 5, 60
"""Minutes."""
MOST_MESSAGES, MOST_BYTES = 5_000, 20 * 1024 * 1024
"""That one recording keeps."""
AT_ONCE, AT_ONCE_IN_ALL = 3, 20
"""Recordings that are on: in one tenant, and in all."""
KEPT = timedelta(hours=24)
"""After its end."""
_ROWS = 200
_DELETED_AT_ONCE = 500


def start_recording(*, kind: str, ref: str, minutes: int) -> Recording:
    """Begin to record a server, toolset or key of the tenant in force (by id, slug or prefix), or a session (by its name in the log).

    Raises NotFound, PermissionDenied, ValidationFailed for a kind or time that there is not, Conflict when too many are on.
    """
    if kind not in Recording.Kind.values:
        raise ValidationFailed("There is no such kind.", errors={"kind": [f"One of {', '.join(Recording.Kind.values)}."]})
    if not SHORTEST <= minutes <= LONGEST:
        raise ValidationFailed("The time is not valid.", errors={"minutes": [f"From {SHORTEST} to {LONGEST} minutes."]})
    with unit_of_work():
        tenant_id, object_id, label = _meant(kind, ref)
        _require(tenant_id, object_id=object_id, label=label)
        _check_room(tenant_id)
        row = Recording(
            tenant_id=tenant_id,
            kind=kind,
            object_id=object_id,
            label=label[:200],
            started_by=current_actor().label[:200],
            until=now() + timedelta(minutes=minutes),
        )
        row.save(force_insert=True)
        audit(_event("recording.started", row, {"minutes": minutes, "until": row.until.isoformat()}))
        order(RECORDINGS_CHANGED)
    return row


def stop_recording(recording: Recording) -> Recording:
    """End a recording now; what it holds stays for a day. One that has ended already is left as it is."""
    with unit_of_work():
        row: Recording = Recording.objects.select_for_update().get(pk=recording.pk)
        _require(row.tenant_id, object_id=row.pk, label=str(row))
        if row.on:
            row.stopped_at, row.stopped_by = now(), current_actor().label[:200]
            row.save(update_fields=["stopped_at", "stopped_by", "updated_at"])
            audit(_event("recording.stopped", row, {"messages": row.messages, "dropped": row.dropped}))
            order(RECORDINGS_CHANGED)
    return row


def delete_recording(recording: Recording) -> None:
    """Delete a recording and what it holds, also while it is on."""
    with unit_of_work():
        _require(recording.tenant_id, object_id=recording.pk, label=str(recording))
        audit(_event("recording.deleted", recording, {"messages": recording.messages}))
        Recording.objects.filter(pk=recording.pk).delete()
        order(RECORDINGS_CHANGED)


def note_look(recording: Recording, how: str) -> None:
    """Ask whether the actor in force may look at what a recording holds, and record that they do; `how` says at what."""
    with unit_of_work():
        _require(recording.tenant_id, object_id=recording.pk, label=str(recording))
        audit(_event("recording.read", recording, {"how": how, "messages": recording.messages}))


def may_record(tenant_id: object) -> bool:
    """Tell whether the actor in force may switch recordings on, and look at them."""
    return all(authorise.decide(right, tenant_id=tenant_id).allowed for right in RIGHTS)


def recordings_on() -> list[RecordingFacts]:
    """Return what every data plane records now; the caller opens the scope (`every_tenant()`)."""
    rows = Recording.objects.filter(stopped_at__isnull=True, until__gt=now()).order_by("created_at")[:AT_ONCE_IN_ALL]
    return [
        RecordingFacts(
            id=str(row.pk),
            tenant_id=str(row.tenant_id),
            kind=row.kind,
            object_id=row.object_id,
            label=row.label,
            until_us=int(row.until.timestamp() * 1_000_000),
            messages_left=max(0, MOST_MESSAGES - row.messages),
            bytes_left=max(0, MOST_BYTES - row.bytes),
        )
        for row in rows
    ]


def record_messages(messages: Sequence[Message], dropped: Mapping[str, int]) -> int:
    """Write what a data plane recorded; returns how many rows. What a recording has no room for, or came late, is counted as dropped."""
    wanted = {id for message in messages for id in message.recordings} | set(dropped)
    written = 0
    with every_tenant(actor=SYSTEM):
        for id in sorted(wanted):
            mine = [message for message in messages if id in message.recordings]
            with transaction.atomic():
                row = Recording.objects.select_for_update().filter(pk=id).first()
                if row is None:
                    continue
                kept, size = _fitting(row, mine)
                RecordedMessage.objects.bulk_create([_row(row, message) for message in kept], batch_size=_ROWS)
                Recording.objects.filter(pk=id).update(
                    messages=F("messages") + len(kept),
                    bytes=F("bytes") + size,
                    dropped=F("dropped") + len(mine) - len(kept) + dropped.get(id, 0),
                )
            written += len(kept)
    return written


def prune_recordings() -> int:
    """Delete recordings that ended a day ago, with what they hold, in pieces; returns how many."""
    over = now() - KEPT
    done = 0
    for row in Recording.objects.filter(until__lt=over + timedelta(minutes=LONGEST)):
        ended = row.stopped_at or row.until
        if ended >= over:
            continue
        while ids := list(RecordedMessage.objects.filter(recording=row).values_list("pk", flat=True)[:_DELETED_AT_ONCE]):
            RecordedMessage.objects.filter(pk__in=ids).delete()
        row.delete()
        done += 1
    return done


def _meant(kind: str, ref: str) -> tuple[str, str, str]:
    """Return tenant, id and name of what is to be recorded. Raises NotFound."""
    if not ref or "\x00" in ref:
        raise NotFound("Say what is to be recorded: an id or slug, the prefix of a key, the name of a session.")
    if kind == Recording.Kind.SESSION:
        seen = session_seen(ref)
        return str(seen.tenant_id), seen.session, f"{seen.session} of {seen}"
    if kind == Recording.Kind.API_KEY:
        key = find_key(ref)
        return str(key.tenant_id), str(key.pk), str(key)
    found: Any = get_server(ref) if kind == Recording.Kind.SERVER else get_toolset(ref)
    return str(found.tenant_id), str(found.pk), found.slug


def _check_room(tenant_id: str) -> None:
    on = Recording.unscoped.filter(stopped_at__isnull=True, until__gt=now())
    if on.filter(tenant_id=tenant_id).count() >= AT_ONCE:
        raise Conflict(f"{AT_ONCE} recordings are on in this tenant, the most there may be. Stop one first.")
    if on.count() >= AT_ONCE_IN_ALL:
        raise Conflict(f"{AT_ONCE_IN_ALL} recordings are on in this installation, the most there may be. Try again later.")


def _fitting(row: Recording, messages: Sequence[Message]) -> tuple[list[Message], int]:
    kept: list[Message] = []
    size = 0
    for message in messages:
        if row.messages + len(kept) >= MOST_MESSAGES or row.bytes + size + len(message.text) > MOST_BYTES:
            break
        kept.append(message)
        size += len(message.text)
    return kept, size


def _row(recording: Recording, message: Message) -> RecordedMessage:
    return RecordedMessage(
        recording=recording,
        at=datetime.fromtimestamp(message.at_us / 1e6, UTC),
        side=message.side,
        direction=message.direction,
        kind=message.kind,
        method=message.method[:60],
        rpc_id=message.rpc_id[:80],
        call_id=message.call_id[:36],
        server=message.server[:40],
        client=message.client[:120],
        revision=message.revision[:12],
        size=message.size,
        text=message.text.replace("\x00", "\ufffd"),
        cut=message.cut,
    )


def _require(tenant_id: object, *, object_id: object, label: str) -> None:
    for right in RIGHTS:
        authorise.require(right, tenant_id=tenant_id, kind="recording", object_id=object_id, label=label)


def _event(event_type: str, row: Recording, details: dict[str, Any]) -> ControlEvent:
    return ControlEvent(
        event_type=event_type,
        action="audit.read" if event_type == "recording.read" else "audit.admin",
        object_kind="recording",
        object_id=str(row.pk),
        object_label=str(row)[:200],
        tenant_id=str(row.tenant_id),
        server=row.label if row.kind == Recording.Kind.SERVER else "",
        details={"kind": row.kind, "object": row.object_id, **details},
    )
