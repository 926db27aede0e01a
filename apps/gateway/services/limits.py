"""Limits are set and taken away here, for every door; the data plane keeps to them (`plane.limits`)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models.signals import post_delete

from apps.accounts.selectors import is_member
from apps.common import authorise
from apps.common.context import SYSTEM, current_tenant_id, every_tenant
from apps.common.errors import Conflict, NotFound, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.outbox import audit, changed, unit_of_work
from apps.gateway.models import Limit, LimitUse
from apps.gateway.models.limit import SUBJECTS
from apps.tools.services.grants import pattern_problem

Uses = Callable[[Sequence[str]], Mapping[str, int]]
_uses: Uses | None = None


def register_uses(uses: Uses | None) -> None:
    """Tell how the counters of limits are read in this process: limit ids → how much is in use; the gateway's runtime does."""
    global _uses
    _uses = uses


def in_use(limits: Sequence[Limit]) -> Mapping[str, int]:
    """Return how much of each limit is in use now, by its id; those that count each user alone are left out, and all are where no
    data plane runs in this process."""
    ids = [str(row.pk) for row in limits if not row.each]
    return _uses(ids) if _uses is not None and ids else {}


def set_limit(
    *,
    subject: str,
    measure: str = "calls",
    amount: int,
    window: str = "",
    user: Any = None,
    role: Any = None,
    api_key: Any = None,
    server: Any = None,
    pattern: str = "",
    each: bool = False,
) -> Limit:
    """Set a limit in the tenant in force, within a second in force on every process.

    Raises PermissionDenied without `limit.write`, ValidationFailed, also for what belongs to another tenant, and Conflict when
    there is one of the same kind already (change its amount).
    """
    tenant_id = current_tenant_id()
    given = {"user": user, "role": role, "api_key": api_key, "server": server}
    ids = {f"{name}_id": getattr(value, "pk", value) for name, value in given.items() if value not in (None, "")}
    with unit_of_work():
        authorise.require("limit.write", tenant_id=tenant_id, kind="limit", label=f"{subject} {pattern}".strip())
        row = Limit(
            tenant_id=tenant_id,
            subject=subject,
            measure=measure,
            amount=amount,
            window=window,
            pattern=pattern,
            each=each,
            **ids,
        )
        _validate(row)
        row.target = _target(row)
        try:
            with transaction.atomic():
                row.save(force_insert=True)
        except IntegrityError:
            raise Conflict(f"{row.whose.capitalize()} has such a limit already; change its amount.") from None
        _record(row, "created", {"after": _facts(row)})
        changed("limits", tenant_id, tenant_id=tenant_id)
    return row


def change_limit(limit: Limit, *, amount: int) -> Limit:
    """Give a limit another amount; what is used of it stays used. Raises PermissionDenied, ValidationFailed."""
    with unit_of_work():
        row: Limit | None = Limit.objects.select_for_update(of=("self",)).filter(pk=limit.pk).first()
        if row is None:
            raise NotFound("There is no such limit.")
        authorise.require("limit.write", tenant_id=row.tenant_id, kind="limit", object_id=row.pk, label=str(row)[:200])
        before = _facts(row)
        if amount != row.amount:
            row.amount = amount
            _validate(row)
            row.save(update_fields=["amount", "updated_at"])
            _record(row, "updated", {"before": before, "after": _facts(row)})
            changed("limits", row.tenant_id, tenant_id=row.tenant_id)
    return row


def remove_limit(limit: Limit) -> None:
    """Take a limit away; one that is gone already is no error. Raises PermissionDenied."""
    with unit_of_work():
        row = Limit.objects.select_for_update(of=("self",)).filter(pk=limit.pk).first()
        if row is None:
            return
        authorise.require("limit.write", tenant_id=row.tenant_id, kind="limit", object_id=row.pk, label=str(row)[:200])
        _record(row, "deleted", {"before": _facts(row)})
        row.delete()  # the notice to the data planes follows the row, see `connect`


def connect() -> None:
    """Tell the data planes of limits that go with their user, role, key or server; called once, at start-up."""
    post_delete.connect(_gone, sender=Limit, dispatch_uid="gateway.limit")


def _gone(instance: Limit, **_: Any) -> None:
    with unit_of_work():
        changed("limits", instance.tenant_id, tenant_id=instance.tenant_id)


def keep_uses(uses: Mapping[str, tuple[int, int]]) -> None:
    """Keep what is used of days and months (counter → begin of its window, used); a limit that is gone is passed over."""
    with every_tenant(actor=SYSTEM), transaction.atomic():
        wanted = {counter: counter.partition(":")[0] for counter in uses}
        there = {str(id) for id in Limit.objects.filter(pk__in=set(wanted.values())).values_list("pk", flat=True)}
        rows = [
            LimitUse(limit_id=wanted[counter], counter=counter, begin=begin, used=used)
            for counter, (begin, used) in sorted(uses.items())
            if wanted[counter] in there
        ]
        LimitUse.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["counter"], update_fields=["begin", "used"], batch_size=200
        )


def kept_uses() -> dict[str, tuple[int, int]]:
    """Return what was kept of days and months."""
    return {row.counter: (row.begin, row.used) for row in LimitUse.objects.all()}


def _target(row: Limit) -> str:
    if row.subject == Limit.Subject.TENANT:
        return "tenant"
    return f"tool:{row.pattern}" if row.subject == Limit.Subject.TOOL else f"{row.subject}:{getattr(row, f'{row.subject}_id')}"


def _validate(row: Limit) -> None:
    errors: dict[str, list[str]] = {}
    try:
        row.full_clean(exclude={"tenant", "target"}, validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        errors = error.message_dict
    for name in SUBJECTS:
        if name == row.subject and not getattr(row, f"{name}_id") and name not in errors:
            errors[name] = [f"A limit of this kind needs a {name}."]
        elif name != row.subject and getattr(row, f"{name}_id"):
            errors[name] = [f"A limit of the kind {row.subject} has no {name}."]
    if row.subject == Limit.Subject.TOOL:
        if problem := pattern_problem(row.pattern):
            errors.setdefault("pattern", []).append(problem)
    elif row.pattern:
        errors.setdefault("pattern", []).append(f"A limit of the kind {row.subject} has no pattern.")
    if row.measure == Limit.Measure.CONCURRENT and row.window:
        errors.setdefault("window", []).append("Calls at once have no window.")
    elif row.measure != Limit.Measure.CONCURRENT and not row.window:
        errors.setdefault("window", []).append("Say in what time: second, minute, hour, day or month.")
    if row.each and row.subject in (Limit.Subject.USER, Limit.Subject.API_KEY):
        errors.setdefault("each", []).append("One user's, or a key's, limit has nobody else to count apart.")
    if not errors:
        _validate_tenant(row, errors)
    if errors:
        words = " ".join(message for messages in errors.values() for message in messages)
        raise ValidationFailed(f"The limit is not valid: {words}", errors=errors)


def _validate_tenant(row: Limit, errors: dict[str, list[str]]) -> None:
    tenant_id = str(row.tenant_id)
    for name in ("role", "api_key", "server"):
        target = getattr(row, name)
        if target is not None and str(target.tenant_id) != tenant_id:
            errors[name] = ["There is no such object in this tenant."]
    if row.user is not None and not row.user.is_superuser and not is_member(row.user.pk, tenant_id):
        errors["user"] = ["This user has no role in this tenant."]


def _facts(row: Limit) -> dict[str, Any]:
    return {"target": row.target, "measure": row.measure, "amount": row.amount, "window": row.window, "each": row.each}


def _record(row: Limit, verb: str, details: dict[str, Any]) -> None:
    audit(
        ControlEvent(
            event_type=f"limit.{verb}",
            action="limit.write",
            object_kind="limit",
            object_id=str(row.pk),
            object_label=str(row)[:200],
            tenant_id=str(row.tenant_id),
            server=row.server.slug if row.server is not None else "",
            details=details,
        )
    )
