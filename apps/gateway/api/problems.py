"""From the JSON-RPC error of a call to the problem (RFC 9457) that says the same over HTTP."""

from collections.abc import Iterator

from apps.common.errors import PROBLEM_BASE, SwitchyardError, UpstreamError
from apps.gateway.services.calls import CallReport


def problem_of_call(report: CallReport) -> SwitchyardError:
    """Return the typed error of a call that has no result: ours by its `type`, else the server's own error as `upstream-error`."""
    error = report.error or {}
    data = error.get("data")
    message = str(error.get("message", ""))
    known = {"call_id": report.call_id, "events": report.events}
    if isinstance(data, dict) and data.get("call_id") == report.call_id:  # else a server's words that only look like ours
        kinds: list[type[SwitchyardError]] = [SwitchyardError, *_below(SwitchyardError)]
        for kind in kinds:
            # a class that is made in another way has the type of one above it, which comes first
            if data.get("type") == PROBLEM_BASE + kind.slug:
                extra = {name: value for name, value in data.items() if name not in ("type", "title")}
                return kind(message, **{**extra, **known})
    said = {"code": error.get("code"), "message": message, "data": data}
    return UpstreamError("The server answered the call with an error of its own.", error=said, **known)


def _below(kind: type[SwitchyardError]) -> Iterator[type[SwitchyardError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
