"""Review: an operator lets a held definition through, or keeps it out, having seen the difference."""

from typing import Any, cast

from apps.common import authorise
from apps.common.clock import now
from apps.common.context import current_actor
from apps.common.errors import Conflict, NotFound, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work
from apps.servers.selectors import get_server
from apps.servers.services.discovery_facts import store_instructions
from apps.tools.domain import claimed_effects, difference, visible
from apps.tools.models import REVIEWED, Definition, Instructions, Tool

RIGHTS = {"tool": "tool", "resource": "resource", "template": "resource", "prompt": "prompt", "instructions": "server"}
"""Kind of definition to the kind that permissions speak of."""
CHANGES_LOGGED = 20
EVENTS_EACH = 100
"""Definitions approved at once that have an event of their own; of more, so many share one:"""
NAMES_PER_EVENT = 200
_LET_THROUGH = [
    "definition", "digest", "pending", "pending_digest", "rejected_digest", "held_at", "state", "title", "description",
    "reviewed_at", "reviewed_by", "updated_at",
]  # fmt: skip


def approve(definition: Definition, *, expected_digest: str | None = None) -> Definition:
    """Put the definition that waits (or was rejected) in force; returns the row as it is then.

    `expected_digest` is the digest of what the operator looked at; left out, it is that of the row given. Raises NotFound,
    PermissionDenied, and Conflict when the server has offered something else meanwhile or nothing waits.
    """
    with unit_of_work():
        row = _lock(definition)
        _require_seen(row, definition.pending_digest if expected_digest is None else expected_digest)
        before = row.definition
        _let_through(row)
        row.save()
        _record(row, "approved", {"digest": row.digest, "changes": _changes(before, row.definition)})
        _publish(row)
    return row


def reject(definition: Definition, *, expected_digest: str | None = None) -> Definition:
    """Keep a definition out: the one that waits, or the one in force, which is withdrawn. It stays out while the server offers this
    very definition, also under a server that accepts everything; another one is held for review.

    Raises NotFound, PermissionDenied, and Conflict when the server has offered something else meanwhile or there is nothing to reject.
    """
    with unit_of_work():
        row = _lock(definition)
        if row.state == Definition.State.ACTIVE:
            seen = definition.digest if expected_digest is None else expected_digest
            if seen != row.digest:
                raise Conflict(_moved(row))
            row.pending, row.pending_digest = row.definition, row.digest
            row.definition, row.digest = None, ""
        elif row.state == Definition.State.HELD:
            _require_seen(row, definition.pending_digest if expected_digest is None else expected_digest)
        else:
            raise Conflict(f"{visible(row.name)} is {row.get_state_display().lower()}: there is nothing to reject.")
        row.state = Definition.State.REJECTED
        row.rejected_digest = row.pending_digest
        _sign(row)
        row.save()
        _record(row, "rejected", {"digest": row.rejected_digest})
        _publish(row)
    return row


def approve_all(server: Any, *, expected_digests: dict[str, str] | None = None) -> tuple[int, int]:
    """Put everything of a server that waits in force, in one unit of work; returns (how many, how many are left).

    What the checks found suspicious is left: it wants an operator's eyes one by one. So is, with `expected_digests` (row id →
    digest that the operator saw), whatever is not in there or has changed since. Raises NotFound, PermissionDenied.
    """
    done = left = 0
    with unit_of_work():
        home = get_server(getattr(server, "pk", server))
        for model in REVIEWED:
            rows = (
                model.objects.select_for_update(of=("self",)).select_related("server").filter(server_id=home.pk, state="held")
            )
            through: list[Definition] = []
            for number, row in enumerate(rows):
                if number == 0:
                    _require(row)  # one right covers the kind
                unseen = expected_digests is not None and expected_digests.get(str(row.pk)) != row.pending_digest
                if unseen or any(flag["holds"] for flag in row.flags):
                    left += 1
                else:
                    through.append(row)
            _approve_many(model, through)
            done += len(through)
        if done:
            changed("server", home.pk, tenant_id=home.tenant_id)
    return done, left


def _approve_many(model: type[Definition], rows: list[Definition]) -> None:
    for number, row in enumerate(rows):
        before = row.definition
        _let_through(row)
        if number < EVENTS_EACH:
            _record(row, "approved", {"digest": row.digest, "changes": _changes(before, row.definition), "bulk": True})
    for start in range(EVENTS_EACH, len(rows), NAMES_PER_EVENT):
        batch = rows[start : start + NAMES_PER_EVENT]
        digests = {visible(row.name): row.digest for row in batch}
        _record(batch[0], "approved", {"digests": digests, "bulk": True}, label=f"{len(batch)} definitions")
    if rows:
        fields = [*_LET_THROUGH, "claimed"] if model is Tool else _LET_THROUGH
        model.objects.bulk_create(rows, batch_size=1000, update_conflicts=True, unique_fields=["id"], update_fields=fields)
    if model is Instructions:
        for row in rows:
            store_instructions(row.server_id, cast("Instructions", row).text)


def set_effects(tool: Tool, effects: str) -> Tool:
    """Say what a call of a tool may do (one of `domain.EFFECTS`; `unknown` takes a ruling back). The ruling ends when a changed
    definition comes into force unseen. Raises NotFound, PermissionDenied, ValidationFailed.
    """
    with unit_of_work():
        row = cast("Tool", _lock(tool))
        if effects not in Tool.Effects.values:
            raise ValidationFailed(
                f"{str(effects)[:40]} is no such effect.", errors={"effects": [f"One of {', '.join(Tool.Effects.values)}."]}
            )
        if row.effects == effects:
            return row
        before = row.effects
        row.effects = effects
        row.effects_by = "" if effects == Tool.Effects.UNKNOWN else current_actor().label[:150]
        row.save(update_fields=["effects", "effects_by", "updated_at"])
        _record(row, "effects_set", {"before": before, "after": effects})
        changed("server", row.server_id, tenant_id=row.tenant_id)
    return row


def _lock(definition: Definition) -> Definition:
    """Return the row of the tenant in force, fresh and locked, after asking the policy."""
    model = type(definition)
    row = model.objects.select_for_update(of=("self",)).select_related("server").filter(pk=definition.pk).first()
    if row is None:
        raise NotFound(f"There is no such {model._meta.verbose_name}.")
    _require(row)
    return cast("Definition", row)


def _require(row: Definition) -> None:
    authorise.require(
        f"{RIGHTS[row.kind]}.write", tenant_id=row.tenant_id, kind=row.kind, object_id=row.pk, label=visible(row.name)
    )


def _require_seen(row: Definition, seen: str) -> None:
    if row.state not in (Definition.State.HELD, Definition.State.REJECTED):
        raise Conflict(f"{visible(row.name)} is {row.get_state_display().lower()}: nothing waits for review.")
    if seen != row.pending_digest:
        raise Conflict(_moved(row))


def _moved(row: Definition) -> str:
    return f"{row.server.slug} has offered {visible(row.name)} differently since you looked: look at the difference again."


def _let_through(row: Definition) -> None:
    row.definition, row.digest = row.pending, row.pending_digest
    row.pending, row.pending_digest, row.rejected_digest, row.held_at = None, "", "", None
    row.state = Definition.State.ACTIVE
    member = "instructions" if isinstance(row, Instructions) else "description"
    shown = row.definition or {}
    row.title, row.description = visible(str(shown.get("title") or ""))[:500], visible(str(shown.get(member) or ""))
    if isinstance(row, Tool):
        row.claimed = claimed_effects(shown.get("annotations"))
    _sign(row)


def _sign(row: Definition) -> None:
    row.reviewed_at = now()
    row.reviewed_by = current_actor().label[:150]


def _publish(row: Definition) -> None:
    if isinstance(row, Instructions):
        store_instructions(row.server_id, row.text)
    changed("server", row.server_id, tenant_id=row.tenant_id)


def _changes(before: dict[str, Any] | None, after: dict[str, Any] | None) -> list[dict[str, Any]]:
    if before is None:
        return []
    found = difference(before, after).changes[:CHANGES_LOGGED]
    return [
        {"path": visible(one.path), "kind": one.kind, "before": _short(one.before), "after": _short(one.after)} for one in found
    ]


def _short(value: Any) -> Any:
    return (
        visible(value[:500])
        if isinstance(value, str)
        else value
        if isinstance(value, bool | int | float)
        else visible(str(value)[:500])
    )


def _record(row: Definition, verb: str, details: dict[str, Any], *, label: str = "") -> None:
    audit(
        ControlEvent(
            event_type=f"{row.kind}.{verb}",
            action=f"{RIGHTS[row.kind]}.write",
            object_kind=row.kind,
            object_id="" if label else str(row.pk),
            object_label=label or visible(row.name),
            tenant_id=str(row.tenant_id),
            server=row.server.slug,
            tool=row.name if row.kind == "tool" and not label else "",
            details=details,
        )
    )
