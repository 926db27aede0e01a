"""Builds the snapshot from the database and patches it with what changed; in threads, never on the loop."""

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import close_old_connections

from apps.accounts import selectors as accounts
from apps.accounts.domain import KeyFacts
from apps.common.context import every_tenant
from apps.common.events import CHANGED
from apps.common.follower import OutboxNotice
from apps.common.policy import Grant
from apps.gateway.plane.snapshot import (
    ServerEntry,
    Snapshot,
    ToolsetEntry,
    build_server,
    build_toolset,
    index_slugs,
    membership,
    with_changes,
)
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.selectors import plane_limits
from apps.servers import selectors as servers
from apps.tools import selectors as tools
from apps.tools.domain.facts import DefinitionFacts

logger = logging.getLogger(__name__)


class SnapshotBuilder:
    """The one writer of a store."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._lock = threading.Lock()

    def build(self) -> None:
        """Read everything and put it in force."""
        with self._lock, every_tenant():
            try:
                self._store.swap(self.read_all())
            finally:
                close_old_connections()

    def apply(self, notices: Sequence[OutboxNotice]) -> None:
        """Put what a batch of outbox events names in force (a handler of the follower)."""
        changed: dict[str, set[str]] = {}
        for notice in notices:
            if notice.topic == CHANGED:
                changed.setdefault(notice.payload["kind"], set()).add(notice.payload["id"])
        if not changed:
            return
        with self._lock, every_tenant():
            try:
                self._store.swap(self._patched(self._store.current, changed))
            finally:
                close_old_connections()

    def read_all(self) -> Snapshot:
        """Return the picture of all that is committed, without putting it in force; the caller opens the scope (`every_tenant()`)."""
        by_server: dict[str, list[DefinitionFacts]] = {}
        for row in tools.plane_definitions(None):
            by_server.setdefault(row.server_id, []).append(row)
        withheld = tools.plane_withheld(None)
        entries = {
            facts.id: build_server(facts, by_server.get(facts.id, ()), withheld=withheld.get(facts.id, ()))
            for facts in servers.plane_servers(None)
        }
        toolsets = {facts.id: build_toolset(facts, entries) for facts in tools.plane_toolsets(None)}
        keys = {facts.digest: facts for facts in accounts.plane_keys(None)}
        return with_changes(
            self._store.current,
            tenants={facts.id: facts for facts in accounts.plane_tenants(None)},
            users={facts.id: facts for facts in accounts.plane_users(None)},
            keys=keys,
            key_digests=_digests(keys.values()),
            grants=_by_subject(tools.plane_grants(None)),
            limits=plane_limits(),
            **_layout(entries, toolsets),
        )

    def _patched(self, before: Snapshot, changed: dict[str, set[str]]) -> Snapshot:
        parts: dict[str, Any] = {}
        if ids := changed.get("tenant"):
            parts["tenants"] = _replaced(before.tenants, ids, {one.id: one for one in accounts.plane_tenants(ids)})
        if ids := changed.get("user"):
            parts["users"] = _replaced(before.users, ids, {one.id: one for one in accounts.plane_users(ids)})
        if ids := changed.get("api_key"):
            found = accounts.plane_keys(ids)
            gone = {digest for id in ids for digest in before.key_digests.get(id, ())}
            parts["keys"] = _replaced(before.keys, gone, {one.digest: one for one in found})
            parts["key_digests"] = _replaced(before.key_digests, ids, _digests(found))
        if ids := changed.get("grants"):
            parts["grants"] = _replaced(before.grants, ids, _by_subject(tools.plane_grants(ids)))
        if ids := changed.get("limits"):
            parts["limits"] = _replaced(before.limits, ids, plane_limits(ids))
        if changed.get("server") or changed.get("toolset"):
            parts |= self._catalogue(before, changed.get("server", set()), changed.get("toolset", set()))
        return with_changes(before, **parts)

    def _catalogue(self, before: Snapshot, server_ids: set[str], toolset_ids: set[str]) -> dict[str, Any]:
        by_server: dict[str, list[DefinitionFacts]] = {}
        fresh: dict[str, ServerEntry] = {}
        if server_ids:
            for row in tools.plane_definitions(server_ids):
                by_server.setdefault(row.server_id, []).append(row)
            withheld = tools.plane_withheld(server_ids)
            for facts in servers.plane_servers(server_ids):
                fresh[facts.id] = build_server(
                    facts, by_server.get(facts.id, ()), before.servers.get(facts.id), withheld.get(facts.id, ())
                )
        entries = _replaced(before.servers, server_ids, fresh)
        read = {facts.id: facts for facts in tools.plane_toolsets(toolset_ids)} if toolset_ids else {}
        affected = {id for server in server_ids for id in before.member_toolsets.get(server, ())} - toolset_ids
        rebuilt = {id: before.toolsets[id].facts for id in affected if id in before.toolsets} | read
        toolsets = _replaced(before.toolsets, toolset_ids, {id: build_toolset(facts, entries) for id, facts in rebuilt.items()})
        return _layout(entries, toolsets)


def _layout(entries: dict[str, ServerEntry], toolsets: dict[str, ToolsetEntry]) -> dict[str, Any]:
    return {
        "servers": entries,
        "server_slugs": index_slugs((one.facts.tenant_id, one.facts.slug, id) for id, one in entries.items()),
        "toolsets": toolsets,
        "toolset_slugs": index_slugs((one.facts.tenant_id, one.facts.slug, id) for id, one in toolsets.items()),
        "member_toolsets": membership(toolsets),
    }


def _replaced(before: Any, gone: Iterable[Any], fresh: dict[Any, Any]) -> dict[Any, Any]:
    after = dict(before)
    for key in gone:
        if key not in fresh:
            after.pop(key, None)
    after.update(fresh)
    return after


def _digests(keys: Iterable[KeyFacts]) -> dict[str, tuple[bytes, ...]]:
    found: dict[str, tuple[bytes, ...]] = {}
    for key in keys:
        found[key.id] = (*found.get(key.id, ()), key.digest)
    return found


def _by_subject(rows: Iterable[tuple[str, str, Grant]]) -> dict[str, tuple[Grant, ...]]:
    found: dict[str, list[Grant]] = {}
    for subject, _tenant, grant in rows:
        found.setdefault(subject, []).append(grant)
    return {subject: tuple(grants) for subject, grants in found.items()}
