"""What recordings hold before it is written: messages redacted and cut, bounded in number and size, handed on twice a second."""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any

from apps.common.clock import now_us
from apps.common.redaction import sample
from apps.gateway.plane.ports import Facts, RecordedMessage, RecordingFacts

CUT = 8_000
"""Bytes kept of a message."""
FLUSH_SECONDS = 0.5
BUFFERED, BUFFERED_BYTES = 2_000, 8 * 1024 * 1024
"""Messages that wait to be written; what comes on top is counted and dropped."""
_STATE = re.compile(r'("requestState"\s*:\s*")(?:[^"\\]|\\.)*')


class Tapped:
    """The recordings in force in this process, and what they have taken since it was last handed on."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.recordings: dict[str, RecordingFacts] = {}
        self._left: dict[str, int] = {}
        self._bytes_left: dict[str, int] = {}
        self._buffer: list[RecordedMessage] = []
        self._buffered = 0
        self._dropped: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.on_full: Callable[[], None] | None = None
        """Is called when all that is on is full, after the last of it was handed on."""

    def update(self, recordings: Iterable[RecordingFacts]) -> None:
        """Put other recordings in force; what goes on keeps its count."""
        known = self.recordings
        self.recordings = {one.id: one for one in recordings}
        for one in self.recordings.values():
            if one.id not in known:
                self._left[one.id], self._bytes_left[one.id] = one.messages_left, one.bytes_left
        self._left = {id: left for id, left in self._left.items() if id in self.recordings}

    def takes(self, id: str) -> bool:
        """Tell whether a recording is on and not full."""
        return self._left.get(id, 0) > 0

    @property
    def full(self) -> bool:
        """Tell whether nothing more is taken by any of them."""
        return not any(self.takes(id) for id in self.recordings)

    def wanting(self, chosen: Iterable[str]) -> set[str]:
        """Return those of some recordings that take a message; it is not looked at for those that are full, which count it."""
        found = {id for id in chosen if self.takes(id)}
        for id in chosen:
            if id not in found and id in self.recordings:
                self._drop(id)
        return found

    def _drop(self, id: str) -> None:
        self._dropped[id] = self._dropped.get(id, 0) + 1
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self._flush_in_time)

    def keep(self, message: RecordedMessage, chosen: Iterable[str]) -> None:
        """Give a message to recordings; those that have ended take none, those that are full count it."""
        size = len(message.text)
        for id in chosen:
            if id not in self.recordings:
                continue
            if self._bytes_left[id] < size:
                self._left[id] = 0  # it is full for smaller ones too
            if self._left[id] <= 0 or len(self._buffer) >= BUFFERED or self._buffered + size > BUFFERED_BYTES:
                self._drop(id)
            else:
                self._left[id] -= 1
                self._bytes_left[id] -= size
                if not message.recordings:
                    self._buffer.append(message)
                    self._buffered += size
                message.recordings.append(id)
                self._flush_soon()

    def _flush_in_time(self) -> None:
        self.flush()
        if self.full and self.on_full is not None:
            self.on_full()

    def flush(self) -> None:
        """Hand on what was recorded."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._buffer or self._dropped:
            buffer, self._buffer, self._buffered = self._buffer, [], 0
            dropped, self._dropped = self._dropped, {}
            self._facts.messages_recorded(buffer, dropped)


def message_of(
    side: str,
    direction: str,
    kind: str,
    body: Any,
    *,
    method: Any = "",
    id: Any = None,
    size: int = 0,
    revision: str = "",
    client: str = "",
    call_id: str = "",
    server: str = "",
) -> RecordedMessage:
    """Return a message as it is kept: without secrets and without the state that servers have clients carry, cut at 8 kB."""
    text = _STATE.sub(r"\1[sealed]", sample(body, CUT))
    return RecordedMessage(
        at_us=now_us(),
        side=side,
        direction=direction,
        kind=kind,
        method=_word(method, 60),
        rpc_id=_word(id if isinstance(id, str) else "" if id is None else str(id), 80),
        size=size or len(text),
        revision=revision,
        client=client,
        text=text,
        cut=text.endswith("…") or size > CUT,
        call_id=call_id,
        server=server,
    )


def _word(value: Any, most: int) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in value[:most]) if isinstance(value, str) else ""
