"""Checkpoints in a file, one a line, each on the disk before it counts as delivered."""

import os
from pathlib import Path

from apps.audit.checkpoints.document import Checkpoint
from apps.audit.checkpoints.target import TargetFailed


class FileTarget:
    """Appends to a file, which another machine collects or holds (a mount)."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    @property
    def name(self) -> str:
        """See `target.Target`."""
        return f"file://{self._path}"[:300]

    def send(self, checkpoint: Checkpoint) -> None:
        """See `target.Target`; a line that was cut short by a crash is ended first."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                text = (b"\n" if torn else b"") + checkpoint.line + b"\n"
                if os.write(descriptor, text) != len(text):
                    raise TargetFailed("the disk is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise TargetFailed(error.strerror or type(error).__name__) from error
