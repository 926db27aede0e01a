"""How large a regular expression becomes when it is compiled, and what it costs on a text, told from its characters.

The engine (the Rust crate `regex`) never backtracks, but unrolls counted repetitions (`(a{1,300}){1,300}` has 90,000 states) and may
in the worst case visit every state for every byte of the text. The numbers here are upper bounds of both; a pattern that the engine
does not know (look-around, back references) is counted like any other and fails when it is compiled.
"""

import re

_DOT = 8
"""States of a class with characters beyond ASCII, read byte by byte in UTF-8."""
_CATEGORY = 300
"""States of a class of Unicode (`\\p{L}`), hundreds of ranges."""
_FOLDED = 4
_FEW = 12
"""Positions up to which all combinations fit the engine's cache: then each byte is one look-up."""
_LOOKUP = 0.25
_VISITED = 0.5
"""Units of 10 ns for a byte: in the cache, and for each state otherwise."""
_CLASS_STEPS = 4.0
_MOST = 1 << 40
_COUNTED = re.compile(r"\{(\d+)(,(\d*))?\}", re.ASCII)
_GROUP = re.compile(r"\(\?(?:P?<[^>=!]*>|<?[=!]|([A-Za-z-]*)[:)]|)")
_ESCAPED = re.compile(r"\\(?:[pPux]\{[^}]*\}|.)", re.DOTALL)
_CLASS = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)
_ONE_CLASS = re.compile(r"\^(?:\[\^?(?:[^\[\]\\]|\\.)+\]|\.|\\[dDsSwW])(?:\{\d{1,5}(?:,\d{0,5})?\}|[*+?])\$", re.DOTALL)


def pattern_cost(pattern: str) -> tuple[int, float]:
    """Return the number of states after compiling, and units of 10 ns for each byte of a text."""
    states, positions = _count(pattern)
    if _ONE_CLASS.fullmatch(pattern):
        # At most two states are alive at any byte: the next repetition and the end.
        return states, _CLASS_STEPS
    return states, _LOOKUP if positions <= _FEW and pattern.isascii() else states * _VISITED


def _count(pattern: str) -> tuple[int, int]:
    """Return states, and positions that read a character."""
    groups: list[tuple[int, int]] = []
    total, atom = (1, 0), (0, 0)
    at, folded, odd, spaced = 0, False, False, False
    while at < len(pattern):
        character = pattern[at]
        counted = _COUNTED.match(pattern, at)
        if counted is not None or character in "*+?":
            times = _times(counted) if counted is not None else 1
            atom = min((atom[0] + 1) * times, _MOST), min(atom[1] * times, _MOST)
            at = counted.end() if counted is not None else at + 1
            continue
        total, atom = (total[0] + atom[0], total[1] + atom[1]), (0, 0)
        if character == "(":
            opened = _GROUP.match(pattern, at)
            flags = (opened[1] or "") if opened is not None else ""
            folded, spaced = folded or "i" in flags, spaced or "x" in flags
            at = opened.end() if opened is not None else at + 1
            if opened is None or not opened[0].endswith(")"):
                groups.append(total)
                total = (1, 0)
        elif character == ")":
            atom = (total[0] + 1, total[1])
            total = groups.pop() if groups else (1, 0)
            at += 1
        elif character == "[":
            found = _CLASS.match(pattern, at)
            text = found[0] if found is not None else pattern[at:]
            odd = odd or "[" in _ESCAPED.sub("", text[1:]) or "&&" in text
            atom = _class(text)
            at += len(text)
        elif character == "\\":
            found = _ESCAPED.match(pattern, at)
            text = found[0] if found is not None else character
            atom = _class(text)
            at += len(text)
        else:
            wide = character == "." or not character.isascii()
            atom = (1, 0) if character in "^$|" else (_DOT, _DOT) if wide else (1, 1)
            at += 1
    total = (total[0] + atom[0], total[1] + atom[1])
    for outer in groups:
        total = (total[0] + outer[0], total[1] + outer[1])
    if spaced:
        # Spaces and comments may stand inside of a repetition; JavaScript does not have it, so nobody needs it.
        return _MOST, _MOST
    if odd:
        total = _at_most(pattern)
    return (total[0] * _FOLDED, total[1] * _FOLDED) if folded else total


def _class(text: str) -> tuple[int, int]:
    """Return states and positions of a class or an escaped character."""
    plain = _ESCAPED.sub("", text)
    escaped = [one[1:2] for one in _ESCAPED.findall(text)]
    categories = sum(one in "pP" for one in escaped)
    wide = sum(one in "sSDWuUx" for one in escaped) + sum(not character.isascii() for character in plain)
    if categories:
        return _CATEGORY * categories + _DOT * wide, _CATEGORY
    return (_DOT + 2 * wide, _DOT) if wide or plain.startswith("[^") else (1, 1)


def _times(counted: re.Match[str]) -> int:
    """Return how many copies a counted repetition makes; an open end is one more, in a loop."""
    digits = (counted[3] or counted[1]).lstrip("0")
    return (int(digits or "1") if len(digits) < 10 else _MOST) + (counted[2] is not None and not counted[3])


def _at_most(pattern: str) -> tuple[int, int]:
    """Bound a pattern whose structure is not followed here (classes in classes): everything, in every repetition."""
    product = 1
    for counted in _COUNTED.finditer(pattern):
        product = min(product * _times(counted), _MOST)
    states = min((_CATEGORY + 2 * len(pattern)) * product, _MOST)
    return states, states
