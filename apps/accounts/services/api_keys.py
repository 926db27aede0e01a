"""API keys: made, changed, revoked, and their use noted."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet

from apps.accounts import selectors
from apps.accounts.domain import parse_networks
from apps.accounts.models import APIKey, User
from apps.accounts.services.rights import (
    acting_user_id,
    apply_fields,
    checked_permissions,
    locked,
    refuse,
    require_covered,
    validated,
)
from apps.common.authorise import current_principal, decide, require
from apps.common.clock import now
from apps.common.context import current_tenant_id
from apps.common.crypto.tokens import NewKey, digest_key, new_api_key, parse_prefix
from apps.common.errors import Conflict, ValidationFailed
from apps.common.events import ControlEvent
from apps.common.http_address import normalise
from apps.common.outbox import audit, changed, unit_of_work

CHANGEABLE = ("name", "inherits_owner", "scopes", "expires_at", "loopback_only", "allowed_networks")
"""What `update_api_key` takes."""
OVERLAP_SECONDS, LONGEST_OVERLAP = 86_400, 7 * 86_400
"""How long a text that was replaced is accepted beside the new one: unless said otherwise, and at most."""
MOST_NETWORKS = 64


def create_api_key(
    *,
    name: str,
    owner: User,
    inherits_owner: bool = False,
    scopes: Iterable[str] | None = None,
    expires_at: datetime | None = None,
    loopback_only: bool = False,
    allowed_networks: Iterable[str] = (),
    text: str | None = None,
) -> tuple[APIKey, str]:
    """Make a key in the tenant in force; returns the row and the text, which is never shown again.

    `text` brings a key of one's own (`sy_<8>_<43 or more>`). Raises PermissionDenied (a key for another without
    `api_key.admin`, more rights than one's own), ValidationFailed (owner not active or not of this tenant, form, scopes,
    an expiry in the past) and Conflict (a given key exists).
    """
    with unit_of_work():
        tenant_id = current_tenant_id()
        key = APIKey(
            tenant_id=tenant_id,
            name=name,
            owner=owner,
            inherits_owner=inherits_owner,
            scopes=None if scopes is None else checked_permissions(list(scopes), "scopes"),
            expires_at=expires_at,
            loopback_only=loopback_only,
            allowed_networks=_networks(allowed_networks),
        )
        _require_for_owner(key)
        _require_no_more_than_own(key)
        _check(key)
        secret = _given(text) if text is not None else new_api_key()
        secret = _insert(key, secret, given=text is not None)
        audit(_event("api_key.created", key, details={"after": _picture(key)}))
        changed("api_key", key.pk, tenant_id=tenant_id)
    return key, secret.text


def update_api_key(key: APIKey, **fields: Any) -> APIKey:
    """Change a key's name, scopes, expiry, loopback rule or inheritance. Raises as `create_api_key` does; Conflict when revoked."""
    with unit_of_work():
        key = locked(key)
        _require_for_owner(key)
        _require_within_scopes(key)
        if key.revoked_at is not None:
            raise Conflict("The key has been revoked; make a new one.")
        if fields.get("scopes") is not None:
            fields["scopes"] = checked_permissions(fields["scopes"], "scopes")
        if "allowed_networks" in fields:
            fields["allowed_networks"] = _networks(fields["allowed_networks"])
        before, after = apply_fields(key, fields, CHANGEABLE)
        if not after:
            return key
        if {"inherits_owner", "scopes"} & after.keys():
            _require_no_more_than_own(key)
        _check(key, expiry="expires_at" in after)
        key.save(update_fields=[*after, "updated_at"])
        audit(_event("api_key.updated", key, details={"before": before, "after": after}))
        changed("api_key", key.pk, tenant_id=key.tenant_id)
    return key


def rename_api_key(key: APIKey, name: str) -> APIKey:
    """Change a key's name."""
    return update_api_key(key, name=name)


def rotate_api_key(key: APIKey, *, overlap_seconds: int = OVERLAP_SECONDS) -> tuple[APIKey, str]:
    """Give a key a new text; returns the row and the text, which is never shown again.

    The text before it is accepted for `overlap_seconds` more (0 to 7 days), so that its clients can be changed one by one; one that
    an earlier rotation replaced ends now. Rights, grants, limits and history stay. Raises as `update_api_key` does.
    """
    if not 0 <= overlap_seconds <= LONGEST_OVERLAP:
        message = f"From 0 to {LONGEST_OVERLAP:,} seconds (7 days)."
        raise ValidationFailed("The overlap is not valid.", errors={"overlap_seconds": [message]})
    with unit_of_work():
        key = locked(key)
        _require_for_owner(key)
        _require_within_scopes(key)
        if key.revoked_at is not None:
            raise Conflict("The key has been revoked; make a new one.")
        _check(key)
        moment = now()
        former = key.prefix, key.digest
        secret = new_api_key()
        while APIKey.unscoped.filter(Q(prefix=secret.prefix) | Q(former_prefix=secret.prefix)).exists():
            secret = new_api_key()
        key.prefix, key.digest, key.rotated_at = secret.prefix, secret.digest, moment
        key.former_prefix, key.former_digest, key.former_until = "", None, None
        if overlap_seconds:
            (key.former_prefix, key.former_digest), key.former_until = former, moment + timedelta(seconds=overlap_seconds)
        key.save(
            update_fields=["prefix", "digest", "rotated_at", "former_prefix", "former_digest", "former_until", "updated_at"]
        )
        details = {"before": {"prefix": former[0]}, "after": {"prefix": key.prefix}, "overlap_seconds": overlap_seconds}
        audit(_event("api_key.rotated", key, details=details))
        changed("api_key", key.pk, tenant_id=key.tenant_id)
    return key, secret.text


def revoke_api_key(key: APIKey) -> APIKey:
    """End a key for good; a second call changes nothing and records nothing."""
    with unit_of_work():
        key = locked(key)
        _require_for_owner(key)
        moment = now()
        if APIKey.unscoped.filter(pk=key.pk, revoked_at__isnull=True).update(revoked_at=moment, updated_at=moment):
            key.revoked_at = moment
            audit(_event("api_key.revoked", key, details={"prefix": key.prefix}))
            changed("api_key", key.pk, tenant_id=key.tenant_id)
    return key


def revoke_with_owner(keys: QuerySet[APIKey]) -> int:
    """Revoke the live keys among `keys` because their owner goes; part of a verb that has been authorised. Returns how many."""
    moment = now()
    live = list(keys.filter(revoked_at__isnull=True))
    for key in live:
        key.revoked_at = moment
        key.save(update_fields=["revoked_at", "updated_at"])
        audit(_event("api_key.revoked", key, details={"prefix": key.prefix, "because": "the owner left"}))
        changed("api_key", key.pk, tenant_id=key.tenant_id)
    return len(live)


def record_key_use(uses: Sequence[tuple[object, datetime, str, str]]) -> None:
    """Note when, from where and by which client keys were used: (key id, time, address, client). Older than known = ignored."""
    latest: dict[str, tuple[datetime, str, str]] = {}
    for key_id, at, address, client in uses:
        known = latest.get(str(key_id))
        if known is None or at >= known[0]:
            latest[str(key_id)] = (at, address, client)
    if not latest:
        return
    with transaction.atomic():
        for key_id, (at, address, client) in sorted(latest.items()):
            APIKey.unscoped.filter(Q(last_used_at__isnull=True) | Q(last_used_at__lt=at), pk=key_id).update(
                last_used_at=at, last_used_from=normalise(address) or None, last_used_client=client[:120]
            )


def _require_for_owner(key: APIKey) -> None:
    require("api_key.write", **_about(key))
    if acting_user_id() == str(key.owner_id) or decide("api_key.admin", tenant_id=key.tenant_id).allowed:
        return
    refuse(
        "api_key.admin",
        "the key belongs to somebody else",
        rule="others-key",
        **_about(key),
    )


def _require_no_more_than_own(key: APIKey) -> None:
    """Scopes within one's own rights; another person's rights only from a superuser's hand; no way out of one's own scopes."""
    if key.scopes is not None:
        require_covered(key.scopes, "api_key.write", **_about(key))
    _require_within_scopes(key)
    if key.inherits_owner and not current_principal().is_superuser and acting_user_id() != str(key.owner_id):
        refuse("api_key.admin", "only the owner can let a key act with the owner's rights", rule="others-rights", **_about(key))


def _require_within_scopes(key: APIKey) -> None:
    """A narrowed key makes and changes only keys that are narrowed to no more than it."""
    if current_principal().scopes is None:
        return
    if key.scopes is None:
        refuse("api_key.write", "a narrowed key manages narrowed keys only", rule="more-than-own", **_about(key))
    else:
        require_covered(key.scopes, "api_key.write", **_about(key))


def _about(key: APIKey) -> dict[str, Any]:
    return {"tenant_id": key.tenant_id, "kind": "api_key", "object_id": key.pk, "label": key.name}


def _check(key: APIKey, *, expiry: bool = True) -> None:
    validated(key, exclude={"prefix", "digest"})
    if expiry and key.expires_at is not None and key.expires_at <= now():
        raise ValidationFailed("The key would have expired already.", errors={"expires_at": ["Choose a time to come."]})
    owner = User.objects.filter(pk=key.owner_id, is_active=True).first()
    if owner is None or not (owner.is_superuser or selectors.is_member(owner.pk, key.tenant_id)):
        raise ValidationFailed(
            "The owner cannot hold keys here.", errors={"owner": ["Choose an active member of this tenant, or a superuser."]}
        )


def _networks(given: Iterable[object]) -> list[str]:
    try:
        found = parse_networks(given)
        if len(found) > MOST_NETWORKS:
            raise ValueError(f"At most {MOST_NETWORKS} networks.")
    except ValueError as error:
        raise ValidationFailed("The networks are not valid.", errors={"allowed_networks": [str(error)]}) from None
    return [str(network) for network in found]


def _given(text: str) -> NewKey:
    prefix = parse_prefix(text)
    if prefix is None:
        raise ValidationFailed(
            "The text is not in the form of a key.",
            errors={"text": ["Use sy_<8 letters or digits>_<43 to 128 letters, digits, - or _>."]},
        )
    return NewKey(text, prefix, digest_key(text))


def _insert(key: APIKey, secret: NewKey, *, given: bool) -> NewKey:
    """Store the row; a random prefix that is taken is drawn again, a given one that is taken is a Conflict."""
    while True:
        key.prefix, key.digest = secret.prefix, secret.digest
        try:
            with transaction.atomic():
                key.save(force_insert=True)
            return secret
        except IntegrityError:
            if given:
                raise Conflict("A key with this prefix exists already; choose other characters.") from None
            if not APIKey.unscoped.filter(prefix=secret.prefix).exists():
                raise
            secret = new_api_key()


def _picture(key: APIKey) -> dict[str, Any]:
    return {
        "name": key.name,
        "owner": str(key.owner),
        "prefix": key.prefix,
        "inherits_owner": key.inherits_owner,
        "scopes": key.scopes,
        "loopback_only": key.loopback_only,
        "allowed_networks": key.allowed_networks,
        "expires_at": key.expires_at.isoformat() if key.expires_at else None,
    }


def _event(event_type: str, key: APIKey, *, details: dict[str, Any]) -> ControlEvent:
    return ControlEvent(
        event_type=event_type,
        action="api_key.write",
        object_kind="api_key",
        object_id=str(key.pk),
        object_label=str(key),
        tenant_id=str(key.tenant_id),
        details=details,
    )
