"""System checks: what would fail only when the first server is reached is said at the start."""

from collections.abc import Sequence
from typing import Any

from django.apps.config import AppConfig
from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error, Tags, register
from django.db import DatabaseError

from apps.common.crypto.keyring import Keyring
from apps.common.http.addresses import NetworkPolicy

SAMPLE = 2000
"""Credentials that are looked at."""


@register(Tags.security)
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Say when keys, networks or the stdio mode cannot be read."""
    found: list[CheckMessage] = []
    try:
        Keyring.parse(settings.SWITCHYARD.encryption_keys)
    except ValueError as error:
        found.append(Error(f"SWITCHYARD_ENCRYPTION_KEYS: {error}", id="servers.E001"))
    for network in settings.SWITCHYARD.allowed_networks:
        try:
            NetworkPolicy.parse([network])
        except ValueError as error:
            hint = "Use networks such as 10.1.0.0/16, single addresses, loopback or private."
            found.append(Error(f"SWITCHYARD_ALLOWED_NETWORKS: {error}", hint=hint, id="servers.E002"))
    if settings.SWITCHYARD.stdio not in ("on", "files", "off"):
        found.append(Error("SWITCHYARD_STDIO: use on, files or off", id="servers.E003"))
    return found


@register(Tags.database)
def check_keys_of_credentials(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Say when credentials are sealed with a key that this installation does not have."""
    if not databases or "default" not in databases:
        return []
    from apps.servers.models import Credential

    try:
        ring = Keyring.parse(settings.SWITCHYARD.encryption_keys)
        known = set(ring.key_ids)
        used = {ring.key_id(bytes(sealed)) for sealed in Credential.unscoped.values_list("sealed", flat=True)[:SAMPLE]}
    except (DatabaseError, ValueError):
        # No tables yet, or keys that check_settings reports.
        return []
    lost = sorted(used - known)
    if not lost:
        return []
    hint = "Add them to SWITCHYARD_ENCRYPTION_KEYS behind the newest, then run manage.py reencrypt."
    return [
        checks.Warning(f"Credentials are sealed with keys that are missing: {', '.join(lost)}.", hint=hint, id="servers.W001")
    ]
