"""What is wrong with a definition: what cannot be served is refused, what may deceive is held for an operator's eyes.

Definitions are text from strangers that a model will read. Characters that a person does not see, or that turn the text round, are
the means of hiding orders in them; they are held whatever the server's review rule says, and the console shows them as escapes.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from apps.tools.domain.canonical import MAX_DEPTH, NotCanonical, canonical
from apps.tools.domain.facts import NAME_MEMBER
from apps.tools.domain.naming import ALLOWED, MAX_OWN_NAME

MAX_BYTES = 1024 * 1024
"""Bytes of the canonical form of one definition."""
MAX_URI = 2000
"""Characters of a resource's URI or a template."""

_CLASSES: tuple[tuple[str, str], ...] = (
    ("bidi", "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"),
    (
        "invisible",
        "\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0",
    ),
    ("invisible", "\ufff0-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e0fff"),
    ("control", "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"),
)
_SUSPECT = re.compile("[" + "".join(characters for _, characters in _CLASSES) + "]")
_SUSPECT_CANONICAL = re.compile(r"\\u00[01]|\\[bf]|" + _SUSPECT.pattern)
"""In canonical JSON the control characters below U+0020 stand as escapes; a false hit only costs the closer look."""
_KINDS_OF = tuple((code, re.compile(f"[{characters}]")) for code, characters in _CLASSES)
_ANSI = re.compile("\x1b[\\[\\]PX^_@-Z\\\\]|\x9b")


@dataclass(frozen=True, slots=True)
class Flag:
    """One thing an operator should know of a definition."""

    code: str
    """`bidi`, `invisible`, `control`, `ansi`, `name`, `network-ref` or `long-name`."""
    path: str
    """JSON Pointer (RFC 6901) of the text."""
    detail: str
    holds: bool
    """Whether it keeps the definition out of force until an operator has approved it."""

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored."""
        return {"code": self.code, "path": self.path, "detail": self.detail, "holds": self.holds}


@dataclass(frozen=True, slots=True)
class Checked:
    """A definition after its checks: either refused, or its name, canonical bytes and flags."""

    name: str
    refused: str = ""
    """Why it cannot be served at all; empty = it can."""
    canonical: bytes = b""
    flags: tuple[Flag, ...] = ()

    @property
    def holds(self) -> bool:
        """Tell whether a flag keeps it out of force until it is approved."""
        return any(flag.holds for flag in self.flags)


def visible(text: str) -> str:
    """Return the text with every character that hides or deceives written as `\\u{…}`; for people to read."""
    return _SUSPECT.sub(lambda found: f"\\u{{{ord(found.group()):04x}}}", text)


def check(kind: str, definition: Any) -> Checked:
    """Check one definition as it came from a server. Never raises; `kind` is one of KINDS or `instructions`."""
    if not isinstance(definition, dict):
        return Checked("", refused="it is not a JSON object")
    member = NAME_MEMBER.get(kind, "name")
    name = definition.get(member)
    if not isinstance(name, str) or not name:
        return Checked("", refused=f"it has no {member}")
    shown = visible(name[:200])
    if problem := _name_refusal(kind, name) or _shape_problem(kind, definition):
        return Checked(shown, refused=problem)
    try:
        form = canonical(definition)
    except NotCanonical as error:
        return Checked(shown, refused=str(error))
    if len(form) > MAX_BYTES:
        return Checked(shown, refused=f"it has {len(form):,} bytes; {MAX_BYTES:,} are allowed")
    flags: list[Flag] = []
    if kind == "tool" and not ALLOWED.fullmatch(name):
        flags.append(Flag("name", "/name", f"MCP allows A-Z, a-z, 0-9, _, - and . in a tool's name, not {shown}", holds=True))
    if _SUSPECT_CANONICAL.search(form.decode()):
        flags.extend(_text_flags(definition))
    if b'"$ref"' in form or b'"$dynamicRef"' in form:
        flags.extend(_reference_flags(definition))
    return Checked(name, canonical=form, flags=tuple(flags))


def _name_refusal(kind: str, name: str) -> str:
    limit = MAX_OWN_NAME if kind in ("tool", "prompt") else MAX_URI
    if len(name) > limit:
        return f"its name has {len(name)} characters; {limit} are allowed"
    if _SUSPECT.search(name) or "\n" in name or "\r" in name or "\t" in name:
        return "its name contains control, invisible or text-direction characters"
    if kind in ("resource", "template") and " " in name:
        return "its URI contains a space"
    if name != name.strip():
        return "its name begins or ends with a space"
    return ""


_SHAPES: dict[str, tuple[tuple[str, type, str], ...]] = {
    "tool": (("inputSchema", dict, "an object"), ("outputSchema", dict, "an object")),
    "resource": (("name", str, "a text"), ("mimeType", str, "a text")),
    "template": (("name", str, "a text"), ("mimeType", str, "a text")),
    "prompt": (("arguments", list, "a list"),),
}
_SHAPES_OF_ALL: tuple[tuple[str, type, str], ...] = (
    ("title", str, "a text"),
    ("description", str, "a text"),
    ("annotations", dict, "an object"),
    ("_meta", dict, "an object"),
    ("icons", list, "a list"),
)


def _shape_problem(kind: str, definition: dict[str, Any]) -> str:
    """Say what breaks MCP's shape: one definition of a wrong shape makes clients refuse the whole list it stands in."""
    for member, form, words in _SHAPES_OF_ALL + _SHAPES.get(kind, ()):
        if member in definition and not isinstance(definition[member], form):
            return f"its {member} is not {words}"
    if kind == "tool":
        schema = definition.get("inputSchema")
        if schema is None:
            return "it has no inputSchema"
        if schema.get("type") != "object":
            return 'its inputSchema is not of type "object"'
    if kind in ("resource", "template") and "name" not in definition:
        return "it has no name"
    if kind == "prompt":
        for argument in definition.get("arguments", ()):
            if not isinstance(argument, dict) or not isinstance(argument.get("name"), str):
                return "one of its arguments has no name"
    return ""


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Give every text with its JSON Pointer, names of members as well."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            below = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            yield below, key
            yield from _texts(item, below)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}/{index}")


def _text_flags(definition: dict[str, Any]) -> Iterator[Flag]:
    for path, text in _texts(definition):
        found = [hit for hit in _SUSPECT.finditer(text) if not _harmless(text, hit.start())]
        if not found:
            continue
        if _ANSI.search(text):
            yield Flag("ansi", visible(path), "terminal control sequence", holds=True)
        codes: dict[str, list[str]] = {}
        for hit in found:
            code = next(code for code, pattern in _KINDS_OF if pattern.match(hit.group()))
            codes.setdefault(code, []).append(f"U+{ord(hit.group()):04X}")
        for code, characters in codes.items():
            names = ", ".join(dict.fromkeys(characters[:8]))
            yield Flag(code, visible(path), f"{len(characters)} × {names}", holds=True)


def _harmless(text: str, at: int) -> bool:
    """Tell whether a joiner or selector is part of an emoji: U+FE0F once after a symbol, U+200D between two of them."""
    character = text[at]
    before = text[at - 1] if at else ""
    if character == "\ufe0f":
        return bool(before) and (unicodedata.category(before) in ("So", "Sm", "Po", "Nd") or _pictograph(before))
    if character == "\u200d":
        after = text[at + 1] if at + 1 < len(text) else ""
        return (before == "\ufe0f" or _pictograph(before)) and _pictograph(after)
    return False


def _pictograph(character: str) -> bool:
    return bool(character) and (unicodedata.category(character) == "So" or "\U0001f3fb" <= character <= "\U0001f3ff")


def _reference_flags(value: Any, path: str = "") -> Iterator[Flag]:
    """Give schema references that lead out of the document: they are passed on as they are and never fetched."""
    if isinstance(value, dict):
        for key, item in value.items():
            below = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            if key in ("$ref", "$dynamicRef") and isinstance(item, str) and not item.startswith("#"):
                yield Flag("network-ref", visible(below), f"refers to {visible(item[:200])}; it is not fetched", holds=False)
            yield from _reference_flags(item, below)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _reference_flags(item, f"{path}/{index}")


__all__ = ("MAX_BYTES", "MAX_DEPTH", "Checked", "Flag", "check", "visible")
