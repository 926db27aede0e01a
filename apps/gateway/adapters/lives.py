"""The file in which one life of the only process leaves to the next which sessions cannot go on."""

import os
from pathlib import Path

from apps.gateway.plane.mcp.lives import LeftBehind, read

FILE = "sessions.json"


def take(home: Path) -> LeftBehind:
    """Return what the life before left behind, and remove it: after a crash of this one it would no longer be true."""
    path = home / FILE
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return LeftBehind()
    path.unlink()
    return read(stored)


def leave(home: Path, left: LeftBehind) -> None:
    """Write it down, whole or not at all."""
    path = home / FILE
    beside = path.with_suffix(".new")
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(left.encode())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
