"""The difference of two definitions, as facts and as lines to read side by side."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apps.tools.domain.safety import visible

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One place at which two definitions differ."""

    path: str
    """JSON Pointer (RFC 6901)."""
    kind: str
    """`added`, `removed` or `changed`."""
    before: Any = None
    after: Any = None


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the side-by-side view; a side that has no line is None. Hidden characters stand as escapes."""

    kind: str
    """`same`, `added`, `removed` or `changed`."""
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Difference:
    """What changed between the definition in force and the one that waits."""

    changes: tuple[Change, ...]
    lines: tuple[Line, ...]
    unified: str
    """The same as a unified diff."""


def difference(before: dict[str, Any] | None, after: dict[str, Any] | None) -> Difference:
    """Compare two definitions; None stands for none (new, or gone)."""
    old, new = _text(before), _text(after)
    unified = "\n".join(difflib.unified_diff(old, new, "in force", "offered now", lineterm=""))
    start = _MISSING if before is None else before
    end = _MISSING if after is None else after
    return Difference(tuple(_changes(start, end, "")), tuple(_lines(old, new)), unified)


def _text(definition: dict[str, Any] | None) -> list[str]:
    """Lay out JSON in lines; texts of several lines keep them, so that a change in one of them shows as one line."""
    if definition is None:
        return []
    lines: list[str] = []
    for line in json.dumps(definition, indent=2, ensure_ascii=False, sort_keys=True).split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        first, *rest = line.split("\\n")
        lines.append(visible(first))
        lines.extend(visible(indent + part) for part in rest)
    return lines


def _same(before: Any, after: Any) -> bool:
    """Compare as JSON does: true is not 1."""
    return type(before) is type(after) and bool(before == after)


def _changes(before: Any, after: Any, path: str) -> Iterator[Change]:
    if before is _MISSING and after is _MISSING:
        return
    if before is _MISSING:
        yield Change(path, "added", after=after)
    elif after is _MISSING:
        yield Change(path, "removed", before=before)
    elif isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            below = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            yield from _changes(before.get(key, _MISSING), after.get(key, _MISSING), below)
    elif isinstance(before, list) and isinstance(after, list):
        for index in range(max(len(before), len(after))):
            first = before[index] if index < len(before) else _MISSING
            second = after[index] if index < len(after) else _MISSING
            yield from _changes(first, second, f"{path}/{index}")
    elif not _same(before, after):
        yield Change(path, "changed", before=before, after=after)


def _lines(old: list[str], new: list[str]) -> Iterator[Line]:
    for tag, start, end, other, until in difflib.SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from (Line("same", line, line) for line in old[start:end])
            continue
        for index in range(max(end - start, until - other)):
            before = old[start + index] if start + index < end else None
            after = new[other + index] if other + index < until else None
            kind = "added" if before is None else "removed" if after is None else "changed"
            yield Line(kind, before, after)
