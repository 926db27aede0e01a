"""Lays what a server offers now over what the catalogue has of it, in a constant number of queries however much that is."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from apps.common.clock import now
from apps.tools.domain import LOOSE, Checked, Known, check, claimed_effects, verdict, visible
from apps.tools.models import Definition, Instructions, Tool

MAX_DEFINITIONS = 20_000
"""Of one kind and server; what comes after is refused with a note."""
KEPT_REMOVED = 5_000
"""Rows of one kind and server that are kept although the server offers them no more, for what an operator decided on them."""
_BATCH = 1000

_TOO_MANY_NAMES = (
    f"the server has offered more than {MAX_DEFINITIONS + KEPT_REMOVED:,} different names; new ones are not taken under this "
    "review rule. Register it anew if that is meant."
)

_OFFERED: tuple[str, ...] = ("flags", "position", "state", "seen_at", "updated_at")
_LET_THROUGH: tuple[str, ...] = (*_OFFERED, "title", "description", "definition", "digest", "pending", "pending_digest")
_LET_THROUGH_TOOL: tuple[str, ...] = (*_LET_THROUGH, "effects", "effects_by", "claimed")
_WAITING: tuple[str, ...] = (*_OFFERED, "pending", "pending_digest", "held_at")
_WAITING_UNSEEN: tuple[str, ...] = (*_WAITING, "title", "description")


@dataclass(slots=True)
class Changes:
    """What one kind of a server's definitions went through, by name."""

    added: list[str] = field(default_factory=list)
    """New, and in force at once."""
    changed: list[str] = field(default_factory=list)
    """Different from before, or offered again, and in force at once."""
    held: list[str] = field(default_factory=list)
    """Waiting for review since this discovery."""
    removed: list[str] = field(default_factory=list)
    """No longer offered."""
    waiting: int = 0
    """Waiting for review or rejected, as before."""
    unchanged: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    """Name and reason."""
    unruled: list[str] = field(default_factory=list)
    """Tools whose ruling on effects ended, because the definition it was made for is no longer in force."""

    @property
    def any(self) -> bool:
        """Tell whether callers may see another list than before, or an operator has something new to review."""
        return bool(self.added or self.changed or self.held or self.removed)


@dataclass(slots=True)
class _Row:
    """A stored definition without its JSON."""

    id: Any
    known: Known
    position: int
    effects: str = "unknown"
    effects_by: str = ""


def reconcile(model: type[Definition], server: Any, offered: list[Any], *, review: str) -> Changes:
    """Bring the rows of one kind up to date with what the server offers. Needs a transaction; `review` is the server's rule."""
    at = now()
    changes = Changes()
    rows = _load(model, server)
    creates: list[Definition] = []
    writes: dict[tuple[str, ...], list[Definition]] = {}
    moves: list[Definition] = []
    present: set[str] = set()
    for position, (definition, checked) in enumerate(_take(model.kind, offered, changes)):
        present.add(checked.name)
        row = rows.get(checked.name)
        digest = hashlib.sha256(checked.canonical).hexdigest()
        state = verdict(row.known if row else None, digest, review=review, suspicious=checked.holds)
        if row is not None and _same(row.known, digest, state):
            changes.waiting += state != "active"
            changes.unchanged += state == "active"
            if row.position != position:
                moves.append(model(id=row.id, position=position))
            continue
        made = _make(model, server, definition, checked, digest, state, position, at)
        if row is None and review != "accept" and len(rows) + len(creates) >= MAX_DEFINITIONS + KEPT_REMOVED:
            # forgetting the oldest would let it come back unseen
            changes.refused.append((checked.name, _TOO_MANY_NAMES))
            continue
        if row is None:
            (changes.held if state == "held" else changes.added).append(checked.name)
            creates.append(made)
            continue
        made.id = row.id
        fields = _WAITING if row.known.digest else _WAITING_UNSEEN
        if state == "active":
            changes.changed.append(checked.name)
            fields = _LET_THROUGH
            if isinstance(made, Tool):
                fields = _LET_THROUGH_TOOL
                _keep_ruling(made, row, digest, changes)
        elif state == "held":
            changes.held.append(checked.name)
        else:
            changes.waiting += 1
        writes.setdefault(fields, []).append(made)
    gone = [row.id for name, row in rows.items() if name not in present and row.known.state != "removed"]
    changes.removed = [name for name, row in rows.items() if name not in present and row.known.state != "removed"]
    _write(model, server, creates, writes, moves, gone, at)
    if review == "accept":
        _forget(model, server)
    return changes


def _forget(model: type[Definition], server: Any) -> None:
    """Delete the oldest rows that are no longer offered beyond KEPT_REMOVED; those that an operator rejected stay."""
    removed = model.objects.filter(server_id=server.pk, state="removed", rejected_digest="")
    oldest = removed.order_by("-updated_at", "-id").values_list("pk", flat=True)[KEPT_REMOVED:]
    ids = list(oldest)
    for start in range(0, len(ids), 5000):
        model.objects.filter(pk__in=ids[start : start + 5000]).delete()


def _load(model: type[Definition], server: Any) -> dict[str, _Row]:
    columns = ["id", "name", "state", "digest", "pending_digest", "rejected_digest", "position"]
    if model is Tool:
        columns += ["effects", "effects_by"]
    rows = model.objects.filter(server_id=server.pk).order_by().select_for_update(of=("self",)).values_list(*columns)
    return {
        name: _Row(id, Known(state, digest, pending, rejected), position, *ruling)
        for id, name, state, digest, pending, rejected, position, *ruling in rows
    }


def _take(kind: str, offered: list[Any], changes: Changes) -> Iterator[tuple[dict[str, Any], Checked]]:
    """Give what can be served, in order; note what cannot."""
    names: set[str] = set()
    for definition in offered[:MAX_DEFINITIONS]:
        checked = check(kind, definition)
        if checked.refused:
            changes.refused.append((checked.name or "(no name)", checked.refused))
        elif checked.name in names:
            changes.refused.append((checked.name, "the server offers it twice; the first is kept"))
        else:
            names.add(checked.name)
            yield definition, checked
    if len(offered) > MAX_DEFINITIONS:
        reason = f"the server offers {len(offered):,}; {MAX_DEFINITIONS:,} are taken"
        changes.refused.append((f"({len(offered) - MAX_DEFINITIONS:,} more)", reason))


def _same(known: Known, digest: str, state: str) -> bool:
    return state == known.state and digest == (known.digest if state == "active" else known.pending_digest)


def _make(
    model: type[Definition],
    server: Any,
    definition: dict[str, Any],
    checked: Checked,
    digest: str,
    state: str,
    position: int,
    at: datetime,
) -> Definition:
    made = model(
        tenant_id=server.tenant_id,
        server_id=server.pk,
        name=checked.name,
        title=visible(_title(definition))[:500],
        description=visible(_description(model, definition)),
        state=state,
        position=position,
        flags=[flag.as_json() for flag in checked.flags[:50]],
        seen_at=at,
    )
    if isinstance(made, Tool):
        made.claimed = claimed_effects(definition.get("annotations"))
    if state == "active":
        made.definition, made.digest = definition, digest
    else:
        made.pending, made.pending_digest, made.held_at = definition, digest, at
    return made


def _title(definition: dict[str, Any]) -> str:
    annotations = definition.get("annotations")
    title = definition.get("title") or (annotations.get("title") if isinstance(annotations, dict) else "")
    return title if isinstance(title, str) else ""


def _description(model: type[Definition], definition: dict[str, Any]) -> str:
    member = "instructions" if model is Instructions else "description"
    text = definition.get(member, "")
    return text if isinstance(text, str) else ""


def _keep_ruling(made: Tool, row: _Row, digest: str, changes: Changes) -> None:
    """Keep the operator's word on effects, unless it loosens and was given for another definition that nobody compared."""
    if digest != row.known.digest and row.effects in LOOSE:
        made.effects = Tool.Effects.UNKNOWN
        changes.unruled.append(made.name)
        return
    made.effects, made.effects_by = row.effects, row.effects_by


def _write(
    model: type[Definition],
    server: Any,
    creates: list[Definition],
    writes: dict[tuple[str, ...], list[Definition]],
    moves: list[Definition],
    gone: Iterable[Any],
    at: datetime,
) -> None:
    model.objects.bulk_create(creates, batch_size=_BATCH)
    for fields, rows in writes.items():
        model.objects.bulk_create(
            rows, batch_size=_BATCH, update_conflicts=True, unique_fields=["id"], update_fields=list(fields)
        )
    model.objects.bulk_update(moves, ["position"], batch_size=_BATCH)
    ids = list(gone)
    for start in range(0, len(ids), 5000):
        model.objects.filter(pk__in=ids[start : start + 5000]).update(state="removed", updated_at=at)
    model.objects.filter(server_id=server.pk).exclude(state="removed").update(seen_at=at)
