"""A checkpoint: the heads of all chains at one moment, numbered, linked to the one before it, signed; one line of JSON."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from apps.audit.checkpoints.keys import CheckpointKeys

KIND = "switchyard-audit-checkpoint"
FORM = 1
FIRST = "0" * 64
"""What the first checkpoint names as the digest before it."""
LONGEST_LINE = 1_048_576
"""Bytes; about 10,000 chains."""

HeadFacts = tuple[int, int, str]
"""Writer, seq and digest (hexadecimal) of a chain's end."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint as it was signed."""

    installation: str
    number: int
    time: str
    """RFC 3339, UTC."""
    previous: str
    """SHA-256 of the line of the checkpoint before it."""
    heads: tuple[HeadFacts, ...]
    key: str
    signature: str

    @property
    def payload(self) -> bytes:
        """Return what is signed: everything but the signature, members sorted, no white space."""
        return _canonical(self._members())

    @property
    def line(self) -> bytes:
        """Return the whole document, without a line's end."""
        return _canonical({**self._members(), "signature": self.signature})

    @property
    def digest(self) -> str:
        """Return what the next checkpoint names as the one before it."""
        return hashlib.sha256(self.line).hexdigest()

    def _members(self) -> dict[str, Any]:
        return {
            "kind": KIND,
            "form": FORM,
            "installation": self.installation,
            "number": self.number,
            "time": self.time,
            "previous": self.previous,
            "heads": [list(head) for head in self.heads],
            "key": self.key,
        }


class NoCheckpoint(ValueError):
    """The text is not a checkpoint."""


def sign(
    keys: CheckpointKeys, *, installation: str, number: int, time: str, previous: str, heads: Iterable[HeadFacts]
) -> Checkpoint:
    """Make a checkpoint with the newest key."""
    bare = Checkpoint(installation, number, time, previous, tuple(sorted(heads)), keys.newest, "")
    return replace(bare, signature=keys.sign(bare.payload))


def read(line: str) -> Checkpoint:
    """Read a line, also one with something before the document (as syslog puts it). Raises NoCheckpoint; checks no signature."""
    start = line.find("{")
    if start < 0 or len(line) > LONGEST_LINE:
        raise NoCheckpoint("not a checkpoint")
    try:
        found = json.loads(line[start:])
        if found.get("kind") != KIND or found.get("form") != FORM:
            raise NoCheckpoint("not a checkpoint of a known form")
        heads = tuple((_whole(writer), _whole(seq), _words(digest)) for writer, seq, digest in found["heads"])
        return Checkpoint(
            _words(found["installation"]), _whole(found["number"]), _words(found["time"]), _words(found["previous"]), heads,
            _words(found["key"]), _words(found["signature"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NoCheckpoint("not a checkpoint") from error


def genuine(checkpoint: Checkpoint, keys: CheckpointKeys) -> bool:
    """Tell whether one of the keys signed it."""
    return keys.verifies(checkpoint.key, checkpoint.payload, checkpoint.signature)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise NoCheckpoint("not a number")
    return value


def _words(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 200:
        raise NoCheckpoint("not a text")
    return value


def _canonical(members: dict[str, Any]) -> bytes:
    return json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
