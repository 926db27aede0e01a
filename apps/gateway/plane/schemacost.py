"""What a check against a JSON Schema may cost at most, told from the schema alone, before anything of it is compiled.

A schema comes from the server, so it may be hostile, and the engine that checks cannot be interrupted: two kilobytes of `$ref`s that
double at each level keep it busy for years. So the work is counted first, in units of about 10 ns:

* Keywords that apply to the same value (`allOf`, `anyOf`, `oneOf`, `not`, `if`, `dependentSchemas`, references) add up, each definition
  counted once and used as often as it is referred to. `unevaluated*` runs what stands beside it again at every level.
* Keywords that go down to members and items are followed only where the arguments go down, so recursive schemas are welcome: for a
  schema without recursion one rate per value bounds every call, for the others the arguments are walked with the subschemas that
  apply to each value and how often.
* A pattern costs its number of states for every byte of the text: what the engine (`regex`, without backtracking) needs in the worst
  case.

All numbers are upper bounds; what is not known to be cheap counts as dear. JSON Schema 2020-12, core sections 8, 10 and 11, and the
drafts before it.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.gateway.plane.schemadocument import Document, TooCostly
from apps.gateway.plane.schemapattern import pattern_cost

MAX_COPIED = 300_000
"""Values of all that stands below a `not`: the compiler keeps a copy for each."""
MAX_PATTERNS = 256
MAX_STATES = 100_000
"""States of all patterns together, counted repetitions unrolled: about 40 ms to compile and 25 MB."""
MAX_AT_ONE_VALUE = 200_000
"""Units for one value at one place of the schema, 2 ms."""
MAX_CHAIN = 100
"""Subschemas that apply to one value, each because of the one before."""
MAX_STACK = 2_000
"""The same along a path from the arguments' root to their deepest value: the engine works on the stack and ends the process if
that overflows (8 MB, 2 MB at worst)."""
MAX_STEPS = 20_000_000
"""Units for one call, at most 0.2 s."""

_CAP = 4 * MAX_STEPS
_UNIQUE = 5
"""Units for each value below `uniqueItems`, which are all hashed."""
_COMPARED = 100
"""Units to compare with an array or object of an `enum` or `const`."""
_WALKED = 100
"""Units for each value that is walked here."""
_KEPT = 5_000
"""Counts that a plan keeps from one call to the next, half a megabyte."""
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_BRANCHES = ("allOf", "anyOf", "oneOf")
_Sum = tuple[float, float, float]
"""Units for a value, units for a byte of its text, number of `uniqueItems`."""
_NOTHING: _Sum = (0, 0, 0)
_MEMBER, _ITEM, _NAME = object(), object(), object()
"""Ways down: a member whose name stands nowhere in the schema, an item after the prefix, the name of a member."""


@dataclass(slots=True)
class _Place:
    """One subschema: what it asks of a value itself, and the places it hands the value, its members and items to."""

    own: int = 2
    states: float = 0
    """Of its pattern: units for each byte of the text."""
    unique: int = 0
    again: bool = False
    """`unevaluated*` stands here: what applies to the same value runs once more, at each level below as well."""
    same: list[int] = field(default_factory=list)
    members: dict[str, int] = field(default_factory=dict)
    patterns: list[int] = field(default_factory=list)
    others: list[int] = field(default_factory=list)
    """`additionalProperties`: members that `members` does not have."""
    every: list[int] = field(default_factory=list)
    """`unevaluatedProperties`: any member."""
    names: list[int] = field(default_factory=list)
    prefix: list[int] = field(default_factory=list)
    rest: list[int] = field(default_factory=list)
    items: list[int] = field(default_factory=list)
    """`contains`, `unevaluatedItems`: any item."""

    def down(self) -> Iterator[int]:
        """Give every place that a member, an item or a name goes to."""
        yield from self.members.values()
        for places in (self.patterns, self.others, self.every, self.names, self.prefix, self.rest, self.items):
            yield from places

    def way(self, way: object) -> Iterator[int]:
        """Give the places for one way down; patterns of names count as matching."""
        if way is _NAME:
            yield from self.names
        elif way is _ITEM or isinstance(way, int):
            if isinstance(way, int) and way < len(self.prefix):
                yield self.prefix[way]
            else:
                yield from self.rest
            yield from self.items
        else:
            if isinstance(way, str) and way in self.members:
                yield self.members[way]
            else:
                yield from self.others
            yield from self.patterns
            yield from self.every


@dataclass(slots=True)
class _State:
    """The places that apply to one value, with how often each does, and what that costs."""

    places: dict[int, int]
    steps: float
    states: float
    unique: float
    chain: int
    ways: dict[object, "_State"] = field(default_factory=dict)


class Plan:
    """The cost of a schema, ready to be asked for arguments."""

    def __init__(self, schema: dict[str, Any]) -> None:
        """Count a schema. Raises TooCostly, Unusable."""
        document = Document(schema)
        self._places: list[_Place] = []
        self._names: set[str] = set()
        self._prefix = 0
        self._patterns: dict[str, tuple[int, float]] = {}
        self._steps: dict[tuple[int, bool, object], dict[int, int]] = {}
        self._states: dict[frozenset[tuple[int, int]], _State] = {}
        self._work = self._kept = 0
        self.branches = False
        """Whether a failed check makes errors within errors (`anyOf`, `oneOf`)."""
        self._read(document)
        states = sum(compiled for compiled, _ in self._patterns.values())
        if len(self._patterns) > MAX_PATTERNS or states > MAX_STATES:
            raise TooCostly(
                f"its {len(self._patterns):,} patterns have {states:,} states; {MAX_PATTERNS} and {MAX_STATES:,} are allowed"
            )
        self._sum_up()
        rate, text_rate = self._rates()
        # A value takes at least two bytes of JSON, with what separates it from the next.
        self._byte = rate / 2 + text_rate
        self._first = rate
        # In a recursive schema the engine looks, at each reference, through those that it is within.
        self._guard = 0.0 if rate < _CAP else 0.01
        self.small = max((MAX_STEPS - rate) / self._byte, 0) if self._byte < _CAP else 0
        """Bytes of JSON below which any arguments can be checked."""
        self.weight = (
            (500_000 if self._guard else 4096)
            + 20 * document.size
            + 2 * document.paths
            + 300 * states
            + 40_000 * len(self._patterns)
        )
        """Bytes of memory that the compiled schema takes, roughly."""

    def _read(self, document: Document) -> None:
        """Make the places that can be reached from the root."""
        places, numbers = self._places, {id(document.root): 0}
        waiting: list[dict[str, Any]] = [document.root]
        places.append(_Place())

        def number(schema: Any) -> list[int]:
            if not isinstance(schema, dict):
                return []
            if id(schema) not in numbers:
                numbers[id(schema)] = len(places)
                places.append(_Place())
                waiting.append(schema)
            return [numbers[id(schema)]]

        copied = 0
        for schema in waiting:
            place = places[numbers[id(schema)]]
            self._read_own(place, schema)
            for keyword in _REFERENCES:
                reference = schema.get(keyword)
                if not isinstance(reference, str) or not reference:
                    continue
                for target in document.targets(reference, keyword):
                    if target is not schema:
                        place.same += number(target)
            for keyword in _BRANCHES:
                for one in _list(schema.get(keyword)):
                    place.same += number(one)
            for keyword in ("not", "if", "then", "else"):
                place.same += number(schema.get(keyword))
            for keyword in ("dependentSchemas", "dependencies"):
                for one in _dict(schema.get(keyword)).values():
                    place.same += number(one)
                    place.own += 1 + len(_list(one))
            if isinstance(schema.get("not"), dict):
                # Kept whole, for the error.
                size = document.sizes[id(schema["not"])]
                place.own += size
                copied += size
            if "anyOf" in schema or "oneOf" in schema:
                self.branches = True
            for name, one in _dict(schema.get("properties")).items():
                self._names.add(name)
                for at in number(one):
                    place.members[name] = at
            for one in _dict(schema.get("patternProperties")).values():
                place.patterns += number(one)
            place.others += number(schema.get("additionalProperties"))
            place.every += number(schema.get("unevaluatedProperties"))
            place.names += number(schema.get("propertyNames"))
            rest = schema.get("items")
            for one in _list(schema.get("prefixItems")) or _list(rest):
                # A place of its own for a boolean as well, because the order counts.
                place.prefix += number(one if isinstance(one, dict) else {"$comment": one})
            if isinstance(rest, list):
                rest = schema.get("additionalItems")
            place.rest += number(rest)
            self._prefix = max(self._prefix, len(place.prefix))
            for keyword in ("contains", "unevaluatedItems"):
                place.items += number(schema.get(keyword))
            place.again = "unevaluatedProperties" in schema or "unevaluatedItems" in schema
            if names := _dict(schema.get("patternProperties")):
                place.names.append(len(places))
                places.append(_Place(own=len(names), states=sum(self._pattern(name) for name in names)))
        if copied > MAX_COPIED:
            raise TooCostly("its `not` are nested too deep in each other")

    def _read_own(self, place: _Place, schema: dict[str, Any]) -> None:
        place.own += len(schema) + len(_dict(schema.get("properties")))
        for keyword in ("required", "enum"):
            place.own += sum(map(_compared, _list(schema.get(keyword))))
        for one in _dict(schema.get("dependentRequired")).values():
            place.own += 1 + len(_list(one))
        if "const" in schema:
            place.own += _compared(schema["const"])
        place.unique = int(schema.get("uniqueItems") is True)
        pattern = schema.get("pattern")
        if isinstance(pattern, str):
            place.states = self._pattern(pattern)
            place.own += 1 + len(pattern) // 64

    def _pattern(self, pattern: str) -> float:
        """Note a pattern; return its units for each byte of a text. Raises TooCostly."""
        if pattern not in self._patterns:
            if len(self._patterns) > MAX_PATTERNS:
                raise TooCostly(f"it has more than {MAX_PATTERNS} patterns")
            self._patterns[pattern] = pattern_cost(pattern)
        return self._patterns[pattern][1]

    def _sum_up(self) -> None:
        """Add up, for each place, all that applies to the same value. Raises TooCostly."""
        order = _order([place.same for place in self._places])
        if order is None:
            raise TooCostly("it refers to itself without going down to a member or an item")
        count = len(order)
        # Checked, and gone through once more for what it has evaluated.
        self._cost, self._again = [_NOTHING] * count, [_NOTHING] * count
        self._chain = [1] * count
        for at in reversed(order):
            place = self._places[at]
            once: _Sum = (place.own, place.states, place.unique)
            twice: _Sum = (place.own, 0, 0)
            for one in place.same:
                once, twice = _plus(once, self._cost[one]), _plus(_plus(twice, self._cost[one]), self._again[one])
                self._chain[at] = max(self._chain[at], 1 + self._chain[one])
            self._again[at] = twice
            self._cost[at] = _plus(once, twice) if place.again else once
            if self._cost[at][0] > MAX_AT_ONE_VALUE:
                raise TooCostly(f"one value would be checked in more than {MAX_AT_ONE_VALUE:,} steps")
            if self._chain[at] > MAX_CHAIN:
                raise TooCostly(f"more than {MAX_CHAIN} subschemas lead from one to the next at one value")

    def _rates(self) -> tuple[float, float]:
        """Return units for each value and each byte that hold for all arguments; infinite for recursive schemas."""
        edges = [[*place.same, *place.down()] for place in self._places]
        order = _order(edges)
        if order is None:
            return float("inf"), float("inf")
        cost, again, path = [_NOTHING] * len(order), [_NOTHING] * len(order), [0] * len(order)

        def most(places: Iterable[int]) -> _Sum:
            return functools.reduce(_greater, (cost[one] for one in places), _NOTHING)

        def total(*groups: Iterable[int]) -> _Sum:
            return functools.reduce(_plus, (cost[one] for group in groups for one in group), _NOTHING)

        for at in reversed(order):
            place = self._places[at]
            path[at] = 1
            if not edges[at]:
                cost[at], again[at] = self._cost[at], self._again[at]
                continue
            named, other = most(place.members.values()), total(place.others)
            ahead, after = most(place.prefix), total(place.rest)
            member = _plus(_greater(named, other), total(place.patterns, place.every, place.names))
            item = _plus(_greater(ahead, after), total(place.items))
            down = _greater(member, item)
            once: _Sum = (max(place.own, down[0]), max(place.states, down[1]), place.unique + down[2])
            twice = once
            for one in place.same:
                once, twice = _plus(once, cost[one]), _plus(_plus(twice, cost[one]), again[one])
            again[at] = twice
            cost[at] = _plus(once, twice) if place.again else once
            path[at] = 1 + max(path[one] for one in edges[at])
        if path[0] > MAX_STACK:
            return float("inf"), float("inf")
        steps, states, unique = cost[0]
        return steps + _UNIQUE * unique, states

    def at_most(self, size: int) -> float:
        """Return the units for any arguments of `size` bytes of JSON; infinite where only a walk can tell."""
        return self._first + self._byte * size

    def steps(self, arguments: Any) -> int:
        """Walk the arguments and return the units that checking them takes at most. Raises TooCostly over MAX_STEPS."""
        self._work = 0
        try:
            return self._walk(arguments)
        finally:
            self._kept += self._work
            if self._kept > _KEPT or not self._guard:
                self._kept = 0
                self._states.clear()
                self._steps.clear()

    def _walk(self, arguments: Any) -> int:
        steps, walked = 0.0, 0
        waiting: list[tuple[Any, _State, float, int]] = [(arguments, self._state({0: 1}), 0, 0)]
        while waiting:
            value, state, unique, chain = waiting.pop()
            unique, chain = unique + state.unique, chain + state.chain
            steps += state.steps * (1 + chain * self._guard) + _UNIQUE * unique
            if isinstance(value, (dict, list)):
                walked += _WALKED * len(value)
            if steps > MAX_STEPS or walked > MAX_STEPS:
                raise TooCostly(f"checking them takes more than {MAX_STEPS:,} steps")
            if isinstance(value, str):
                steps += _length(value) * state.states
            elif isinstance(value, dict):
                name = self._down(state, _NAME)
                for key, item in value.items():
                    if name.places:
                        steps += name.steps + _length(key) * name.states
                    waiting.append((item, self._down(state, key if key in self._names else _MEMBER), unique, chain))
            elif isinstance(value, list):
                for index, item in enumerate(value):
                    waiting.append((item, self._down(state, index if index < self._prefix else _ITEM), unique, chain))
            if chain > MAX_STACK:
                raise TooCostly(f"more than {MAX_STACK:,} subschemas lead from one to the next down to their deepest value")
        if steps > MAX_STEPS:
            raise TooCostly(f"checking them takes more than {MAX_STEPS:,} steps")
        return int(steps)

    def _down(self, state: _State, way: object) -> _State:
        found = state.ways.get(way)
        if found is None:
            places: dict[int, int] = {}
            for at, times in state.places.items():
                self._add(places, self._step(at, way, again=False), times)
            found = state.ways[way] = self._state(places)
        return found

    def _state(self, places: dict[int, int]) -> _State:
        key = frozenset(places.items())
        found = self._states.get(key)
        if found is None:
            self._work += len(places)
            steps, states, unique, chain = 0.0, 0.0, 0.0, 1
            for at, times in places.items():
                cost = self._cost[at]
                steps, states, unique = steps + times * cost[0], states + times * cost[1], unique + times * cost[2]
                chain = max(chain, self._chain[at])
            found = self._states[key] = _State(places, min(steps, _CAP), min(states, _CAP), min(unique, _CAP), chain)
        return found

    def _step(self, at: int, way: object, *, again: bool) -> dict[int, int]:
        """Return the places below one, for one way down, with how often each applies."""
        found = self._steps.get((at, again, way))
        if found is None:
            found = {}
            place = self._places[at]
            self._work += 10
            for one in place.way(way):
                self._add(found, {one: 1}, 1)
            for one in place.same:
                self._add(found, self._step(one, way, again=False), 1)
                if again:
                    self._add(found, self._step(one, way, again=True), 1)
            if place.again and not again:
                self._add(found, self._step(at, way, again=True), 1)
            self._steps[at, again, way] = found
        return found

    def _add(self, places: dict[int, int], more: Mapping[int, int], times: int) -> None:
        self._work += 1 + len(more)
        if self._work > MAX_STEPS // _WALKED:
            raise TooCostly(f"counting the steps of checking them takes more than {MAX_STEPS:,} steps")
        for at, number in more.items():
            places[at] = min(places.get(at, 0) + number * times, _CAP)


def _plus(one: _Sum, other: _Sum) -> _Sum:
    return min(one[0] + other[0], _CAP), min(one[1] + other[1], _CAP), min(one[2] + other[2], _CAP)


def _greater(one: _Sum, other: _Sum) -> _Sum:
    return max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2])


def _order(edges: list[list[int]]) -> list[int] | None:
    """Return the numbers so that each stands before those it leads to; None if there is a circle (Kahn's algorithm)."""
    waiting = [0] * len(edges)
    for targets in edges:
        for target in targets:
            waiting[target] += 1
    order = [at for at, number in enumerate(waiting) if not number]
    for at in order:
        for target in edges[at]:
            waiting[target] -= 1
            if not waiting[target]:
                order.append(target)
    return order if len(order) == len(edges) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _length(text: str) -> int:
    """Return at least the number of bytes in UTF-8, without writing them."""
    return len(text) + 1 if text.isascii() else 4 * len(text) + 1


def _compared(value: Any) -> int:
    """Return the units to compare something with a value."""
    if isinstance(value, str):
        return 1 + len(value) // 64
    if isinstance(value, dict):
        return _COMPARED + sum(_compared(name) + _compared(item) for name, item in value.items())
    if isinstance(value, list):
        return _COMPARED + sum(map(_compared, value))
    return 1
