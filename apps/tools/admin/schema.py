"""JSON Schema (2020-12) as rows to read. What a server wrote is shown as text, never followed and never trusted."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apps.tools.domain import visible

MAX_DEPTH = 6
MAX_ROWS = 200


@dataclass(frozen=True, slots=True)
class SchemaRow:
    """One property, wherever it stands."""

    path: str
    depth: int
    type: str
    required: bool
    description: str
    limits: str


def schema_rows(schema: Any) -> list[SchemaRow]:
    """Return the properties of an object schema, required ones first, to a depth of 6; `$ref` within the document is followed."""
    rows: list[SchemaRow] = []
    if isinstance(schema, dict):
        for row in _rows(schema, schema, "", 0):
            if len(rows) == MAX_ROWS:
                break
            rows.append(row)
    return rows


def _rows(schema: dict[str, Any], root: dict[str, Any], prefix: str, depth: int) -> Iterator[SchemaRow]:
    properties = schema.get("properties")
    if not isinstance(properties, dict) or depth >= MAX_DEPTH:
        return
    said = schema.get("required")
    required: list[Any] = said if isinstance(said, list) else []
    for name, given in sorted(properties.items(), key=lambda item: item[0] not in required):
        sub = _resolve(given, root)
        path = f"{prefix}{name}"
        yield SchemaRow(
            path=visible(path),
            depth=depth,
            type=type_words(sub, root),
            required=name in required,
            description=visible(str(sub.get("description") or sub.get("title") or "")),
            limits=", ".join(_limits(sub)),
        )
        yield from _rows(sub, root, f"{path}.", depth + 1)
        items = _resolve(sub.get("items"), root)
        if items.get("properties"):
            yield from _rows(items, root, f"{path}[].", depth + 1)


def _resolve(schema: Any, root: dict[str, Any]) -> dict[str, Any]:
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict):
            return {}
        ref = schema.get("$ref")
        if not isinstance(ref, str) or not ref.startswith("#/"):
            return schema
        target: Any = root
        for part in ref[2:].split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            target = target.get(part) if isinstance(target, dict) else None
        schema = (
            {**target, **{key: value for key, value in schema.items() if key != "$ref"}} if isinstance(target, dict) else {}
        )
    return {}


def type_words(schema: dict[str, Any], root: dict[str, Any] | None = None) -> str:
    """Return a schema's type as people say it: `text`, `list of numbers`, `one of 3 values`."""
    root = root if root is not None else schema
    if isinstance(schema.get("enum"), list):
        return f"one of {len(schema['enum'])}"
    if "const" in schema:
        return "constant"
    for choice in ("oneOf", "anyOf"):
        if isinstance(schema.get(choice), list):
            words = dict.fromkeys(type_words(_resolve(option, root), root) for option in schema[choice])
            return " or ".join(words)
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(map(str, kind))
    if kind == "array":
        inner = type_words(_resolve(schema.get("items"), root), root)
        return f"list of {inner}" if inner != "anything" else "list"
    return visible(str(kind)) if kind else ("object" if "properties" in schema else "anything")


def _limits(schema: dict[str, Any]) -> Iterator[str]:
    if isinstance(schema.get("enum"), list):
        values = [visible(str(value)) for value in schema["enum"][:12]]
        yield " | ".join(values) + (" …" if len(schema["enum"]) > 12 else "")
    if "const" in schema:
        yield f"always {visible(str(schema['const']))}"
    if "default" in schema:
        yield f"default {visible(str(schema['default']))[:80]}"
    for name, words in (
        ("minimum", "at least"), ("exclusiveMinimum", "more than"), ("maximum", "at most"), ("exclusiveMaximum", "less than"),
        ("multipleOf", "multiple of"), ("format", "format"), ("pattern", "pattern"),
    ):  # fmt: skip
        if name in schema:
            yield f"{words} {visible(str(schema[name]))[:120]}"
    for name, unit in (("Length", "characters"), ("Items", "items"), ("Properties", "properties")):
        low, high = schema.get(f"min{name}"), schema.get(f"max{name}")
        if low is not None or high is not None:
            yield f"{low if low is not None else 0}–{high if high is not None else '∞'} {unit}"
