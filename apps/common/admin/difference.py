"""Lines of a side-by-side difference, ready to read: what is alike is folded, what changed inside a line is marked."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

CONTEXT = 3
"""Lines that are alike and stay, before and after a change."""
LONGEST = 20_000
"""Characters of a line in which single words are still compared."""
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of text; `marked` where it differs from the other side."""

    text: str
    marked: bool = False


@dataclass(slots=True)
class Row:
    """One row of the table, or a fold of `skipped` rows."""

    before: list[Piece] = field(default_factory=list)
    after: list[Piece] = field(default_factory=list)
    before_changed: bool = False
    after_changed: bool = False
    skipped: int = 0


def fold(lines: Iterable[Any]) -> list[Row]:
    """Return rows for lines with `kind` (`same`, `added`, `removed`, `changed`), `before` and `after`."""
    given = list(lines)
    changed = [index for index, line in enumerate(given) if line.kind != "same"]
    near = {index + step for index in changed for step in range(-CONTEXT, CONTEXT + 1)}
    rows: list[Row] = []
    for index, line in enumerate(given):
        if changed and line.kind == "same" and index not in near:
            if rows and rows[-1].skipped:
                rows[-1].skipped += 1
            else:
                rows.append(Row(skipped=1))
            continue
        rows.append(_row(line))
    return rows


def _row(line: Any) -> Row:
    before, after = line.before or "", line.after or ""
    if line.kind == "changed" and len(before) + len(after) <= LONGEST:
        old, new = _WORDS.findall(before), _WORDS.findall(after)
        matcher = difflib.SequenceMatcher(a=old, b=new, autojunk=False)
        if matcher.ratio() > 0.4:
            row = Row(before_changed=True, after_changed=True)
            for tag, start, end, other, until in matcher.get_opcodes():
                if end > start:
                    row.before.append(Piece("".join(old[start:end]), tag != "equal"))
                if until > other:
                    row.after.append(Piece("".join(new[other:until]), tag != "equal"))
            return row
    return Row(
        [Piece(before)] if before else [],
        [Piece(after)] if after else [],
        line.kind in ("changed", "removed") and line.before is not None,
        line.kind in ("changed", "added") and line.after is not None,
    )
