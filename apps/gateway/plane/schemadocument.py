"""A JSON Schema as a document: how large it is, and where its references lead (JSON Schema 2020-12, core sections 8 and 9)."""

from typing import Any
from urllib.parse import unquote

from apps.common.jsontext import dumps

MAX_SCHEMA = 256 * 1024
"""Bytes of a schema, as compact JSON."""
MAX_VALUES = 30_000
"""Values and names in a schema: counting them costs as much as compiling them."""
MAX_DEPTH = 128
"""Levels of nesting in a schema: the compiler works on the stack."""
MAX_PATHS = 16 * 1024 * 1024
"""Sum of the lengths of all paths in a schema: the compiler keeps the path of every keyword."""


class TooCostly(Exception):
    """The check is over a limit; the message says which, as the end of a sentence."""


class Unusable(Exception):
    """The schema cannot be used here for another reason, for example a reference that leads out of it."""


class Document:
    """The schema as JSON: its size, and where its references lead."""

    def __init__(self, root: dict[str, Any]) -> None:
        """Measure a schema. Raises TooCostly over a limit."""
        try:
            self.size = len(dumps(root))
        except (TypeError, ValueError, RecursionError):
            raise TooCostly("it is nested too deep or has values that are not JSON") from None
        if self.size > MAX_SCHEMA:
            raise TooCostly(f"it has {self.size:,} bytes; {MAX_SCHEMA:,} are checked here")
        self.root = root
        self.values = 0
        self.paths = 0
        self.sizes: dict[int, int] = {}
        self.resources: list[tuple[str, dict[str, Any]]] = []
        self.anchors: dict[str, list[dict[str, Any]]] = {}
        self.recursive: list[dict[str, Any]] = []
        self._measure(root, 1, 0)
        if not any(resource is root for _, resource in self.resources):
            self.resources.append(("", root))

    def _measure(self, value: Any, depth: int, path: int) -> int:
        """Count what stands below `value`, itself included. Raises TooCostly."""
        if depth > MAX_DEPTH:
            raise TooCostly(f"it is nested more than {MAX_DEPTH} levels deep")
        size = 1
        members = value.items() if isinstance(value, dict) else enumerate(value)
        for name, item in members:
            below = path + 1 + (len(name) if isinstance(name, str) else 5)
            self.paths += below
            size += 1
            if isinstance(item, (dict, list)):
                size += self._measure(item, depth + 1, below)
        self.values += len(value)
        if self.values > MAX_VALUES:
            raise TooCostly(f"it has more than {MAX_VALUES:,} values")
        if self.paths > MAX_PATHS:
            raise TooCostly(f"its paths have more than {MAX_PATHS:,} characters together")
        self.sizes[id(value)] = size
        if isinstance(value, dict):
            self._note(value)
        return size

    def _note(self, schema: dict[str, Any]) -> None:
        for keyword in ("$id", "id"):
            name = schema.get(keyword)
            if isinstance(name, str):
                uri, _, fragment = name.partition("#")
                if uri or schema is self.root:
                    self.resources.append((uri, schema))
                if fragment:
                    self.anchors.setdefault(fragment, []).append(schema)
        for keyword in ("$anchor", "$dynamicAnchor"):
            name = schema.get(keyword)
            if isinstance(name, str):
                self.anchors.setdefault(name, []).append(schema)
        if schema.get("$recursiveAnchor") is True:
            self.recursive.append(schema)

    def targets(self, reference: str, keyword: str) -> list[Any]:
        """Return everything a reference may lead to; several where the base URI decides, which is not followed. Raises Unusable."""
        uri, _, fragment = reference.partition("#")
        fragment = unquote(fragment)
        resources = [schema for _, schema in self.resources]
        if uri:
            named = [schema for name, schema in self.resources if name == uri]
            known = len(self.resources) > 1 or self.resources[0][0]
            resources = named if named and ":" in uri else resources if known else []
        found: list[Any] = []
        if not fragment:
            found += resources
        elif fragment.startswith("/"):
            found += [target for target in (_pointed(one, fragment) for one in resources) if isinstance(target, (dict, bool))]
        elif resources:
            found += self.anchors.get(fragment, ())
        if keyword == "$recursiveRef":
            found += self.recursive
        if not found:
            raise Unusable(f"it refers to {reference[:200]!r}, which is not in it")
        return list({id(one): one for one in found}.values())


def _pointed(value: Any, pointer: str) -> Any:
    """Follow a JSON Pointer (RFC 6901); None where it leads nowhere."""
    for token in pointer.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(token)
        elif isinstance(value, list) and token.isdigit() and len(token) < 6 and int(token) < len(value):
            value = value[int(token)]
        else:
            return None
    return value
