"""What the rest of the product sees of the sink."""

from typing import Protocol

from apps.audit.sink.record import AuditRecord


class AuditSink(Protocol):
    """Appends events durably. Lives in one process as one writer with one chain; used from one event loop.

    Event types of a call: `call.intent`, `call.attempt`, `call.outcome`, `call.refused`. An intent is open from its append until
    an outcome with the same `call_id` is appended; open intents of a dead writer are closed as `unknown` by the sweep.

    An intent whose append raised AuditUnavailable is withdrawn: it is not written, or the sink itself closes it as `refused`.
    Any other row tells of something that happened and is written later if it cannot be now, also after its append raised.
    A caller that is cancelled while it waits for an intent must post the outcome itself: the intent will be in the log.
    """

    async def append(self, record: AuditRecord) -> int:
        """Return the row's id (`writer << 40 | seq`) once it is committed and would survive power loss.

        Raises AuditUnavailable when it cannot be: the log cannot be written, the queue is full (20,000 rows), or the commit
        takes longer than 2 s. Cancelling the caller never cancels the row. The record must not be changed afterwards.
        """
        ...

    def post(self, record: AuditRecord) -> None:
        """Append without waiting (what nobody's answer depends on). Raises AuditUnavailable when the queue is full."""
        ...

    async def healthy(self) -> bool:
        """Tell whether the last commit succeeded and the log can be written now."""
        ...
