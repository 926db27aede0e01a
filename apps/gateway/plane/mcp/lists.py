"""Lists and self-description: answered from the snapshot alone, so they also work with the database down."""

from typing import Any

import orjson

from apps.common.crypto.keyring import Keyring
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Json
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.mcp.cursors import Cursors
from apps.gateway.plane.mcp.missing import META_MISSING, missing, why_empty
from apps.gateway.plane.mcp.revisions import LEGACY, META_SERVER, MODERN
from apps.gateway.plane.mcp.tasks import EXTENSION as TASKS
from apps.gateway.plane.snapshot import Caller, Item, Snapshot
from apps.gateway.plane.views import Target, page, remember, visible
from apps.tools.domain.facts import KINDS

LISTS = {
    "tools/list": ("tool", b"tools"),
    "resources/list": ("resource", b"resources"),
    "resources/templates/list": ("template", b"resourceTemplates"),
    "prompts/list": ("prompt", b"prompts"),
}


class Lists:
    """Answers what a toolset is and what is in it, for one caller."""

    def __init__(self, config: PlaneConfig, keyring: Keyring) -> None:
        self._config = config
        self._cursors = Cursors(keyring)

    def server_info(self, snapshot: Snapshot, caller: Caller, target: Target) -> Json:
        """Return `serverInfo`: the server's own words where a toolset is one server, else ours; the name alone for a stranger."""
        if not anything(snapshot, caller, target):
            return {"name": target.slug or "switchyard", "version": self._config.version}
        if target.server is not None and target.server.facts.server_info.get("name"):
            return target.server.facts.server_info
        return {"name": target.slug or "switchyard", "title": target.title or "Switchyard", "version": self._config.version}

    def capabilities(self, snapshot: Snapshot, target: Target, *, modern: bool) -> Json:
        """Return what can be asked for here: the union of what the servers behind it offer, as far as it is carried."""
        found: Json = {}
        for server in target.servers(snapshot):
            offered = server.facts.capabilities
            for name in ("tools", "resources", "prompts"):
                if target.toolset is not None:
                    has = any(target.toolset.items[kind] for kind in _KINDS_OF[name])
                else:
                    has = name in offered or any(server.own[kind] for kind in _KINDS_OF[name])
                if has:
                    found.setdefault(name, {"listChanged": True})
            resources = offered.get("resources")
            if "resources" in found and isinstance(resources, dict) and resources.get("subscribe") is True:
                found["resources"]["subscribe"] = True
            if "logging" in offered:
                found.setdefault("logging", {})
            if "completions" in offered and (target.toolset is None or "prompts" in found or "resources" in found):
                found.setdefault("completions", {})
            if target.server is not None and isinstance(offered.get("experimental"), dict):
                found["experimental"] = offered["experimental"]
        if not found or (target.server is None and "tools" not in found):
            found["tools"] = {"listChanged": True}
        extensions = _extensions(snapshot, target, modern=modern)
        if extensions:
            found["extensions"] = extensions
        return found

    def initialize(self, snapshot: Snapshot, caller: Caller, target: Target, revision: str) -> bytes:
        """Return the result of `initialize`."""
        result: Json = {
            "protocolVersion": revision,
            "capabilities": self.capabilities(snapshot, target, modern=False),
            "serverInfo": self.server_info(snapshot, caller, target),
        }
        if target.instructions and anything(snapshot, caller, target):
            result["instructions"] = target.instructions
        return dumps(result)

    def discover(self, snapshot: Snapshot, caller: Caller, target: Target) -> bytes:
        """Return the result of `server/discover`."""
        result: Json = {
            "resultType": "complete",
            "supportedVersions": [MODERN, *LEGACY],
            "capabilities": self.capabilities(snapshot, target, modern=True),
            "ttlMs": self._config.list_ttl_ms,
            "cacheScope": "private",
            "_meta": {META_SERVER: self.server_info(snapshot, caller, target)},
        }
        if target.instructions and anything(snapshot, caller, target):
            result["instructions"] = target.instructions
        return dumps(result)

    def list(
        self, snapshot: Snapshot, caller: Caller, target: Target, method: str, params: Any, *, modern: bool
    ) -> tuple[bytes, int, int]:
        """Return (the result, items on this page, items in all). Raises ValidationFailed for a foreign cursor.

        Where the list is not whole, `_meta` says what is missing (see `missing`).
        """
        kind, member = LISTS[method]
        items = visible(snapshot, caller, target, kind)
        cursor = params.get("cursor") if isinstance(params, dict) else None
        taken, following = page(items, self._cursors.read(cursor, caller, target, method))
        parts = [b'{"', member, b'":[', b",".join(item.listing if modern else in_legacy(item) for item in taken), b"]"]
        if following is not None:
            parts += [b',"nextCursor":', dumps(self._cursors.write(following, caller, target, method))]
        meta: Json = {}
        if modern:
            parts.append(b',"resultType":"complete","ttlMs":%d,"cacheScope":"private"' % self._config.list_ttl_ms)
            meta[META_SERVER] = self.server_info(snapshot, caller, target)
        if lacking := missing(snapshot, caller, target):
            meta[META_MISSING] = lacking
        if meta:
            parts += [b',"_meta":', dumps(meta)]
        parts.append(b"}")
        return b"".join(parts), len(taken), len(items)

    def why_empty(self, snapshot: Snapshot, caller: Caller, target: Target, method: str) -> str:
        """Say why a list has nothing in it for a caller; computed once for each picture."""
        cache_key = ("empty", target.tenant_id, caller.principal.id, target.slug, method)
        found: str | None = snapshot.cache.get(cache_key)
        if found is None:
            found = why_empty(snapshot, caller, target, LISTS[method][0])
            remember(snapshot, cache_key, found)
        return found


def in_legacy(item: Item) -> bytes:
    """Return a definition as clients of the initialize era can read it.

    There an output schema is of the type `object`, and SDKs refuse the whole list for one that is not. A result that is something else is
    wrapped as `{"result": …}` for them (see `Bridge.answer`), and so is its schema; one that leaves the type open is left out.
    """
    if item.facts.kind != "tool" or b'"outputSchema"' not in item.listing:
        return item.listing
    listed = orjson.loads(item.listing)
    schema = listed.get("outputSchema")
    kind = schema.get("type") if isinstance(schema, dict) else None
    if kind == "object":
        return item.listing
    if (
        isinstance(schema, dict)
        and kind in _PLAIN
        and not (b'"$ref":"#"' in item.listing or b'"$ref":"#/properties' in item.listing)
    ):
        shared = {name: schema[name] for name in ("$schema", "$defs", "definitions") if name in schema}
        own = {name: value for name, value in schema.items() if name not in shared}
        listed["outputSchema"] = {"type": "object", **shared, "properties": {"result": own}, "required": ["result"]}
    else:
        del listed["outputSchema"]
    return orjson.dumps(listed)


_PLAIN = ("array", "string", "number", "integer", "boolean", "null")
"""Types of results that are never an object."""


def anything(snapshot: Snapshot, caller: Caller, target: Target) -> bool:
    """Tell whether a caller may use anything here; instructions and a server's own words are for nobody else."""
    return any(visible(snapshot, caller, target, kind) for kind in KINDS)


_KINDS_OF = {"tools": ("tool",), "resources": ("resource", "template"), "prompts": ("prompt",)}


def _extensions(snapshot: Snapshot, target: Target, *, modern: bool) -> Json:
    """Return the extensions that are carried here: a server's own in its toolset, tasks wherever one has them.

    Tasks are not for clients of the initialize era, which have no words for them, nor from a server of that era alone.
    """
    found: Json = {}
    for server in target.servers(snapshot):
        offered = server.facts.capabilities.get("extensions")
        if not isinstance(offered, dict):
            continue
        if target.server is not None:
            found |= {name: value for name, value in offered.items() if name != TASKS}
        if modern and TASKS in offered and MODERN in server.facts.revisions:
            found[TASKS] = offered[TASKS] if target.server is not None else {}
    return found
