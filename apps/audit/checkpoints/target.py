"""What a place for checkpoints is."""

from dataclasses import dataclass
from typing import Protocol

from apps.audit.checkpoints.document import Checkpoint

SEND_SECONDS = 8.0
"""Limit of one delivery."""


class TargetFailed(Exception):
    """A checkpoint was not (or not provably) taken; the text says why, without secrets."""


class Target(Protocol):
    """A place for checkpoints. It may get one twice, never one before another of a lower number."""

    @property
    def name(self) -> str:
        """Return what people see: no credentials, no query."""
        ...

    def send(self, checkpoint: Checkpoint) -> None:
        """Deliver, within about 8 s. Raises TargetFailed."""
        ...


@dataclass(frozen=True, slots=True)
class AwsCredentials:
    """What signs requests to S3."""

    access_key: str
    secret_key: str
    session_token: str = ""
