"""Refused credentials and origins in the audit log: each one, until somebody floods; then one row says how many were left out."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from apps.common.errors import SwitchyardError
from apps.gateway.plane.recorder import Recorder
from apps.gateway.plane.snapshot import Caller

PER_ADDRESS = 20
"""Rows per address and window."""
WINDOW = 10.0
"""Seconds; the row that sums a window up comes at its end."""
ADDRESSES = 4096


@dataclass(slots=True)
class _Window:
    since: float
    noted: int = 0
    left_out: int = 0


class Refusals:
    """Notes refusals at the door, bounded per address."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._windows: dict[str, _Window] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, error: SwitchyardError, address: str, path: str, caller: Caller | None = None) -> None:
        """Record that somebody was turned away; `caller` where the credential was good."""
        window = self._window(address)
        if window.noted >= PER_ADDRESS:
            window.left_out += 1
            return
        window.noted += 1
        details: dict[str, Any] = {"address": address, "path": path[:200], "reason": error.detail[:300]}
        who: dict[str, Any] = {}
        if caller is not None:
            principal = caller.principal
            who = {
                "tenant": principal.tenant_id,
                "actor_kind": principal.kind,
                "actor_id": principal.id,
                "actor": principal.label,
            }
        self._write(error.slug, details, **who)

    def close(self) -> None:
        """Record what was left out so far."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for address in list(self._windows):
            self._sum_up(address)

    def _window(self, address: str) -> _Window:
        now = time.monotonic()
        window = self._windows.get(address)
        if window is not None and now - window.since <= WINDOW:
            return window
        if window is not None:
            self._sum_up(address)
        elif len(self._windows) >= ADDRESSES:
            self._sum_up(next(iter(self._windows)))
        window = self._windows[address] = _Window(now)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WINDOW, self._look)
        return window

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        for address, window in list(self._windows.items()):
            if now - window.since >= WINDOW:
                self._sum_up(address)
        if self._windows:
            self._timer = asyncio.get_running_loop().call_later(WINDOW, self._look)

    def _sum_up(self, address: str) -> None:
        window = self._windows.pop(address)
        if window.left_out:
            reason = f"{window.left_out} more refusals from this address within {WINDOW:.0f} s."
            self._write("refused-often", {"address": address, "left_out": window.left_out, "reason": reason})

    def _write(self, error_type: str, details: dict[str, Any], **who: Any) -> None:
        self._recorder.note(
            "access.refused", outcome="refused", error_type=error_type, action="mcp.connect", details=details, **who
        )
