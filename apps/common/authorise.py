"""The control plane's question to the one policy, and the port through which accounts answers who asks."""

from collections.abc import Callable

from apps.common.context import current_actor
from apps.common.errors import PermissionDenied, StepUpRequired
from apps.common.events import ControlEvent
from apps.common.outbox import audit_apart
from apps.common.policy import Decision, Principal, may_manage

PrincipalSource = Callable[[], Principal]
_source: PrincipalSource | None = None


def register_principal_source(source: PrincipalSource) -> None:
    """Tell how the actor in force becomes a principal; accounts does, at start-up."""
    global _source
    _source = source


def current_principal() -> Principal:
    """Return the actor in force with the rights they have now."""
    actor = current_actor()
    if actor.kind == "system":
        return Principal(kind="system", id=actor.id, label=actor.label, tenant_id=None, is_superuser=True)
    if _source is None:
        raise RuntimeError("No principal source is registered.")
    return _source()


def has_everything() -> bool:
    """Tell whether the actor in force may do everything: a superuser, by no credential that is narrowed."""
    principal = current_principal()
    return principal.is_superuser and (principal.scopes is None or "*.*" in principal.scopes)


def decide(action: str, *, tenant_id: object) -> Decision:
    """Ask without consequence: may the actor in force do `action` to objects of this tenant?"""
    return may_manage(current_principal(), action, tenant_id=None if tenant_id is None else str(tenant_id))


def require(action: str, *, tenant_id: object, kind: str = "", object_id: object = "", label: str = "") -> None:
    """Raise PermissionDenied, and record the refusal, unless the policy allows the actor in force to do `action`."""
    decision = decide(action, tenant_id=tenant_id)
    if decision.allowed:
        return
    _record(action, tenant_id, kind, object_id, label, decision.rule)
    raise PermissionDenied(f"You may not do this ({action}): {decision.reason}.", rule=decision.rule)


def require_superuser(
    action: str, *, tenant_id: object, kind: str = "", object_id: object = "", label: str = "", why: str = ""
) -> None:
    """Raise StepUpRequired, and record the refusal, unless the actor in force is a superuser (with no narrowing scope)."""
    if has_everything():
        return
    _record(action, tenant_id, kind, object_id, label, "superuser-only")
    raise StepUpRequired(why or f"Only a superuser may do this ({action}).", rule="superuser-only")


def _record(action: str, tenant_id: object, kind: str, object_id: object, label: str, rule: str) -> None:
    audit_apart(
        ControlEvent(
            event_type="access.refused",
            action=action,
            object_kind=kind,
            object_id=str(object_id),
            object_label=label,
            outcome="refused",
            tenant_id=None if tenant_id is None else str(tenant_id),
            details={"rule": rule},
        )
    )
