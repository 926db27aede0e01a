"""Reads `matrix.yaml`: one line for each feature, pair of eras, transport and number of gateways, with what must become of it."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).with_name("matrix.yaml")
ERAS = ("legacy", "modern")
WORKERS = ("one", "two")
CARRIED = "carried"
_REFUSED = re.compile(r"refused: (-?\d+|[a-z]+(-[a-z]+)*)")
_SELECTOR = ("features", "clients", "servers", "transports", "workers")


class MatrixError(Exception):
    """The table is not one: the message says where."""


@dataclass(frozen=True, slots=True)
class Line:
    """One cell of the table."""

    feature: str
    client: str
    server: str
    transport: str
    workers: str = WORKERS[0]
    """`one`, or `two`: each request may go to another gateway."""
    verdict: str = CARRIED
    because: str = ""

    def __str__(self) -> str:
        return f"{self.feature}-{self.client}-{self.server}-{self.transport}"

    @property
    def refusal(self) -> str:
        """Return the problem type or the code of a line that is refused; empty for one that is carried."""
        return self.verdict.partition(": ")[2]


@dataclass(frozen=True, slots=True)
class Matrix:
    """The whole table."""

    features: dict[str, str]
    """Name → what it is."""
    lines: tuple[Line, ...]

    def of(self, workers: str) -> list[Line]:
        """Return the lines with one gateway or with two."""
        return [line for line in self.lines if line.workers == workers]


def load(text: str | None = None) -> Matrix:
    """Return the table. Raises MatrixError for one that is incomplete, contradicts itself or names what there is not."""
    source = yaml.safe_load(PATH.read_text() if text is None else text)
    if not isinstance(source, dict):
        raise MatrixError("the table is no mapping")
    unknown = set(source) - {"workers", "transports", "features", "exceptions"}
    if unknown:
        raise MatrixError(f"unknown parts: {sorted(unknown)}")
    if source.get("workers") != list(WORKERS):
        raise MatrixError(f"workers are {list(WORKERS)}")
    transports: dict[str, list[str]] = source["transports"]
    features, keys = {}, []
    for name, entry in source["features"].items():
        features[name], only = _feature(name, entry)
        keys += [key for key in _every([name], transports) if _selected(only, key)]
    exceptions = _named(source.get("exceptions") or [], keys, {"verdict", "because"})
    for entry in exceptions.values():
        if not _REFUSED.fullmatch(str(entry["verdict"])):
            raise MatrixError(f"no verdict: {entry['verdict']!r}")
    return Matrix(features, tuple(_line(key, exceptions) for key in keys))


Key = tuple[str, str, str, str, str]


def _every(names: list[str], transports: dict[str, list[str]]) -> list[Key]:
    """Return every line that there could be of these features."""
    pairs = [(server, transport) for transport, servers in transports.items() for server in servers]
    return [
        (name, client, server, transport, workers)
        for name, client, (server, transport), workers in itertools.product(names, ERAS, pairs, WORKERS)
    ]


def _feature(name: str, entry: Any) -> tuple[str, dict[str, list[str]]]:
    """Return what a feature is, and where alone it is."""
    if isinstance(entry, str):
        return entry, {}
    only = {key: value for key, value in entry.items() if key in _SELECTOR}
    if set(entry) - set(only) != {"what", "because"} or not only:
        raise MatrixError(f"{name}: what it is, where alone, and because of what")
    return entry["what"], only


def _selected(selector: dict[str, Any], key: Key) -> bool:
    values = dict(zip(_SELECTOR, key, strict=True))
    return all(values[name] in chosen for name, chosen in selector.items() if name in _SELECTOR)


def _named(entries: list[dict[str, Any]], keys: list[Key], wanted: set[str]) -> dict[Key, dict[str, Any]]:
    """Return which lines the entries are about. Raises MatrixError for two about one line, and for words without a line."""
    known = {name: {key[place] for key in keys} for place, name in enumerate(_SELECTOR)}
    found: dict[Key, dict[str, Any]] = {}
    for entry in entries:
        if set(entry) - set(_SELECTOR) != wanted or not all(str(entry[name]).strip() for name in wanted):
            raise MatrixError(f"an entry has {_SELECTOR} and {sorted(wanted)}: {entry}")
        for name in set(_SELECTOR) & set(entry):
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


def _line(key: Key, exceptions: dict[Key, dict[str, Any]]) -> Line:
    entry = exceptions.get(key)
    return Line(*key, verdict=entry["verdict"], because=entry["because"]) if entry is not None else Line(*key)
