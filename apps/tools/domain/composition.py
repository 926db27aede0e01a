"""What a toolset consists of: its entries laid over what its servers offer. One rule for the preview, the checks and the gateway."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.common.policy import matches
from apps.tools.domain.facts import KINDS, NAME_MEMBER, DefinitionFacts, EntryFacts
from apps.tools.domain.naming import MAX_FULL_NAME, full_name, is_exact, name_problem


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of a toolset as its callers see it."""

    kind: str
    server_id: str
    own_name: str
    """The server's own name (or URI), by which it is called there."""
    name: str
    """The name (or URI) that callers see."""
    definition: dict[str, Any]
    """What lists show: the server's own, less what the toolset renames and re-describes."""
    effects: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is left out of a toolset, and why."""

    code: str
    """`name-too-long`, `name-not-allowed` or `name-collision`."""
    kind: str
    server_id: str
    own_name: str
    name: str
    detail: str


@dataclass(slots=True)
class Composition:
    """The exact content of a toolset, in the order of its lists."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def characters(self) -> int:
        """Return the length of the lists as compact JSON."""
        return sum(len(json.dumps(item.definition, ensure_ascii=False, separators=(",", ":"))) + 1 for item in self.items)

    @property
    def tokens(self) -> int:
        """Return roughly how many tokens the lists cost a model: four characters count as one, rounded up."""
        return -(-self.characters // 4)


def shown(definition: Mapping[str, Any], kind: str, name: str, description: str = "") -> dict[str, Any]:
    """Return a definition under another name and description, all else untouched and in its order."""
    result = dict(definition)
    member = NAME_MEMBER[kind]
    if result.get(member) != name:
        result[member] = name
    if description:
        result["description"] = description
    return result


def in_force_order(entries: Iterable[EntryFacts]) -> tuple[EntryFacts, ...]:
    """Put entries that name one thing before patterns, so that they decide its name; else the order stays."""
    return tuple(sorted(entries, key=lambda entry: not is_exact(entry.pattern)))


def compose(
    entries: Iterable[EntryFacts], offered: Mapping[str, Iterable[DefinitionFacts]], slugs: Mapping[str, str]
) -> Composition:
    """Lay the entries over the definitions in force.

    `offered` maps server ids to what they offer, `slugs` to their slugs. The first entry that fits a definition brings it in; entries
    that name one thing come before patterns. What cannot be named (too long, not allowed) is left out, and of two things with one
    name the later one is; each stands in `problems`. Lists are ordered by kind, then name.
    """
    result = Composition()
    taken: dict[tuple[str, str], Item] = {}
    seen: set[tuple[str, str, str]] = set()
    by_server = {server_id: sorted(rows, key=lambda row: row.position) for server_id, rows in offered.items()}
    for entry in in_force_order(entries):
        kinds = KINDS if entry.kind == "all" else (entry.kind,)
        for row in by_server.get(entry.server_id, ()):
            key = (row.server_id, row.kind, row.name)
            if row.kind in kinds and key not in seen and matches(entry.pattern, row.name):
                seen.add(key)
                _add(result, taken, row, entry, slugs)
    result.items.sort(key=_list_order)
    return result


def whole_server(rows: Iterable[DefinitionFacts]) -> Composition:
    """Return the content of the toolset that came with a server: everything, under its own names."""
    items = [Item(row.kind, row.server_id, row.name, row.name, row.definition, row.effects, row.position) for row in rows]
    return Composition(sorted(items, key=_list_order))


def _list_order(item: Item) -> tuple[int, str]:
    return KINDS.index(item.kind), item.name


def _add(
    result: Composition,
    taken: dict[tuple[str, str], Item],
    row: DefinitionFacts,
    entry: EntryFacts,
    slugs: Mapping[str, str],
) -> None:
    slug = slugs.get(row.server_id, "")
    name = row.name
    if row.kind in ("tool", "prompt"):
        name = entry.rename or full_name(slug, row.name)
        if reason := name_problem(name):
            code = "name-too-long" if len(name) > MAX_FULL_NAME else "name-not-allowed"
            detail = f"The {row.kind} {row.name} of {slug} would be named {name}: {reason}. Give it another name."
            result.problems.append(Problem(code, row.kind, row.server_id, row.name, name, detail))
            return
    # Tools and prompts are two namespaces; a resource and a template never meet, because one has braces.
    other = taken.get((row.kind, name))
    if other is not None:
        theirs = f"{other.own_name} of {slugs.get(other.server_id, '')}"
        detail = f"The {row.kind} {row.name} of {slug} and {theirs} would both be named {name}."
        result.problems.append(Problem("name-collision", row.kind, row.server_id, row.name, name, detail))
        return
    definition = shown(row.definition, row.kind, name, entry.description)
    item = Item(row.kind, row.server_id, row.name, name, definition, row.effects, row.position)
    taken[row.kind, name] = item
    result.items.append(item)
