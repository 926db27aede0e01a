"""Reads `matrix.yaml`: one line for each feature, pair of eras and transport, with what must become of it."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).with_name("matrix.yaml")
ERAS = ("legacy", "modern")
CARRIED = "carried"
_REFUSED = re.compile(r"refused: (-?\d+|[a-z]+(-[a-z]+)*)")
_SELECTOR = {"features", "clients", "servers", "transports"}


class MatrixError(Exception):
    """The table is not one: the message says where."""


@dataclass(frozen=True, slots=True)
class Line:
    """One cell of the table."""

    feature: str
    client: str
    server: str
    transport: str
    verdict: str = CARRIED
    because: str = ""
    pending: str = ""
    """Why the verdict does not hold yet; empty when it does."""

    def __str__(self) -> str:
        return f"{self.feature}-{self.client}-{self.server}-{self.transport}"

    @property
    def refusal(self) -> str:
        """Return the problem type or the code of a line that is refused; empty for one that is carried."""
        return self.verdict.partition(": ")[2]


@dataclass(frozen=True, slots=True)
class Matrix:
    """The whole table, for one worker and for two."""

    features: dict[str, str]
    """Name → what it is."""
    lines: tuple[Line, ...]
    apart: tuple[Line, ...]
    """The lines where each request may go to another gateway."""


def load(text: str | None = None) -> Matrix:
    """Return the table. Raises MatrixError for one that is incomplete, contradicts itself or names what there is not."""
    source = yaml.safe_load(PATH.read_text() if text is None else text)
    if not isinstance(source, dict):
        raise MatrixError("the table is no mapping")
    unknown = set(source) - {"transports", "features", "exceptions", "pending", "two_workers"}
    if unknown:
        raise MatrixError(f"unknown parts: {sorted(unknown)}")
    transports: dict[str, list[str]] = source["transports"]
    features, keys = {}, []
    for name, entry in source["features"].items():
        features[name], only = _feature(name, entry)
        keys += [key for key in _every([name], transports) if _selected(only, key)]
    exceptions = _named(source.get("exceptions") or [], keys, {"verdict", "because"})
    for entry in exceptions.values():
        if not _REFUSED.fullmatch(str(entry["verdict"])):
            raise MatrixError(f"no verdict: {entry['verdict']!r}")
    pending = _named(source.get("pending") or [], keys, {"because"})
    lines = tuple(_line(key, exceptions, pending) for key in keys)
    two = source.get("two_workers") or {}
    if two and not two.get("because"):
        raise MatrixError("two_workers leaves transports out and does not say why")
    apart_keys = [key for key in keys if key[3] in two.get("transports", [])]
    # what does not hold with one does not hold with two
    both = {key: entry for key, entry in pending.items() if key in set(apart_keys)}
    own = _named(two.get("pending") or [], apart_keys, {"because"})
    if set(own) & set(both):
        raise MatrixError(f"pending anyway: {sorted(set(own) & set(both))[:3]}")
    return Matrix(features, lines, tuple(_line(key, exceptions, both | own) for key in apart_keys))


Key = tuple[str, str, str, str]


def _every(names: list[str], transports: dict[str, list[str]]) -> list[Key]:
    """Return every line that there could be of these features."""
    pairs = [(server, transport) for transport, servers in transports.items() for server in servers]
    return [(name, client, server, transport) for name, client, (server, transport) in itertools.product(names, ERAS, pairs)]


def _feature(name: str, entry: Any) -> tuple[str, dict[str, list[str]]]:
    """Return what a feature is, and where alone it is."""
    if isinstance(entry, str):
        return entry, {}
    only = {key: value for key, value in entry.items() if key in _SELECTOR}
    if set(entry) - set(only) != {"what", "because"} or not only:
        raise MatrixError(f"{name}: what it is, where alone, and because of what")
    return entry["what"], only


def _selected(selector: dict[str, Any], key: Key) -> bool:
    values = dict(zip(("features", "clients", "servers", "transports"), key, strict=True))
    return all(values[name] in chosen for name, chosen in selector.items() if name in _SELECTOR)


def _named(entries: list[dict[str, Any]], keys: list[Key], wanted: set[str]) -> dict[Key, dict[str, Any]]:
    """Return which lines the entries are about. Raises MatrixError for two about one line, and for words without a line."""
    known = {"features": {key[0] for key in keys}, "clients": set(ERAS), "servers": set(ERAS),
             "transports": {key[3] for key in keys}}  # fmt: skip
    found: dict[Key, dict[str, Any]] = {}
    for entry in entries:
        if set(entry) - _SELECTOR != wanted or not all(str(entry[name]).strip() for name in wanted):
            raise MatrixError(f"an entry has {sorted(_SELECTOR)} and {sorted(wanted)}: {entry}")
        for name in _SELECTOR & set(entry):
            strange = set(entry[name]) - known[name]
            if strange:
                raise MatrixError(f"{name} that there are not here: {sorted(strange)}")
        about = [key for key in keys if _selected(entry, key)]
        if not about:
            raise MatrixError(f"no line is meant by {entry}")
        for key in about:
            if key in found:
                raise MatrixError(f"said twice: {key}")
            found[key] = entry
    return found


def _line(key: Key, exceptions: dict[Key, dict[str, Any]], pending: dict[Key, dict[str, Any]]) -> Line:
    entry, later = exceptions.get(key), pending.get(key)
    return Line(
        *key,
        verdict=entry["verdict"] if entry is not None else CARRIED,
        because=entry["because"] if entry is not None else "",
        pending=later["because"] if later is not None else "",
    )
