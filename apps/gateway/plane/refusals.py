"""Refused credentials and origins in the audit log: each one, until somebody floods; then how many were left out."""

import time
from typing import Any

from apps.common.errors import SwitchyardError
from apps.gateway.plane.recorder import Recorder
from apps.gateway.plane.snapshot import Caller

PER_ADDRESS = 20
"""Rows per address and window."""
WINDOW = 10.0
ADDRESSES = 4096


class Refusals:
    """Notes refusals at the door, bounded per address."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._seen: dict[str, tuple[float, int, int]] = {}

    def note(self, error: SwitchyardError, address: str, path: str, caller: Caller | None = None) -> None:
        """Record that somebody was turned away; `caller` where the credential was good."""
        now = time.monotonic()
        since, count, left_out = self._seen.get(address, (now, 0, 0))
        if now - since > WINDOW:
            since, count = now, 0
        if count >= PER_ADDRESS:
            self._seen[address] = (since, count, left_out + 1)
            return
        if len(self._seen) >= ADDRESSES:
            self._seen.clear()
        self._seen[address] = (since, count + 1, 0)
        details: dict[str, Any] = {"address": address, "path": path[:200], "reason": error.detail[:300]}
        if left_out:
            details["left_out_before"] = left_out
        who: dict[str, Any] = {}
        if caller is not None:
            principal = caller.principal
            who = {
                "tenant": principal.tenant_id,
                "actor_kind": principal.kind,
                "actor_id": principal.id,
                "actor": principal.label,
            }
        self._recorder.note(
            "access.refused", outcome="refused", error_type=error.slug, action="mcp.connect", details=details, **who
        )
