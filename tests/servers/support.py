"""Servers for tests, and what was written to the outbox about them."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from apps.accounts.models import Tenant
from apps.common.context import SYSTEM, Actor, tenant_scope
from apps.common.models import OutboxEvent
from apps.servers.models import Server
from apps.servers.services.registry import register_server
from tests.factories import as_user, make_superuser, unique

PUBLIC = "https://93.184.215.14/mcp"
"""A public address that needs no resolver; nothing is ever sent there."""
PRODUCT = replace(SYSTEM, origin="start")


def make_server(tenant: Tenant, slug: str | None = None, *, actor: Actor = SYSTEM, **fields) -> Server:
    """Register a server: an HTTP one, or a stdio one when a command is given."""
    if "command" in fields:
        fields.setdefault("transport", "stdio")
    else:
        fields.setdefault("url", PUBLIC)
        fields.setdefault("transport", "http")
    with tenant_scope(tenant.pk, actor):
        return register_server(slug=slug or unique("server"), **fields)


@contextlib.contextmanager
def superuser_in(tenant: Tenant, **fields) -> Iterator[Actor]:
    """Act as a new superuser, at the admin's door unless told otherwise."""
    actor = as_user(make_superuser(), **fields)
    with tenant_scope(tenant.pk, actor):
        yield actor


def events(topic: str = "audit", *, after: int = 0) -> list[dict]:
    """Return the payloads of a topic, in order of commit."""
    return list(OutboxEvent.objects.filter(topic=topic, pk__gt=after).order_by("pk").values_list("payload", flat=True))


def last_id() -> int:
    """Return where the outbox stands now."""
    return OutboxEvent.objects.order_by("pk").values_list("pk", flat=True).last() or 0


@contextlib.contextmanager
def recorded() -> Iterator[list[dict]]:
    """Collect the audit events that the block makes."""
    before, found = last_id(), []
    yield found
    found.extend(events(after=before))
