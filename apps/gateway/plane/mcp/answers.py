"""What a client gets of a call's answer, in its era."""

from typing import Any

from apps.common.errors import AuditUnavailable, NotFound, NotReady, Overloaded, RateLimited, SwitchyardError
from apps.gateway.plane.call import Answer, Call
from apps.gateway.plane.http import Header
from apps.gateway.plane.jsonrpc import RESOURCE_NOT_FOUND_LEGACY, error_bytes, error_of, result_bytes
from apps.gateway.plane.mcp.revisions import STATUS_OF_CODE

RESOURCES = frozenset(("resources/read", "resources/subscribe"))
"""Methods that name a resource by its URI."""


def failure(error: SwitchyardError, call: Call) -> Answer:
    """Return one of our errors as the answer, in the caller's era."""
    server = {"server": call.server.facts.slug} if call.server is not None and "server" not in error.extra else {}
    code, message, data = error_of(error, call_id=call.call_id, **server)
    if isinstance(error, NotFound) and call.method in RESOURCES and not call.modern:
        code = RESOURCE_NOT_FOUND_LEGACY
    status = error.status if isinstance(error, (AuditUnavailable, NotReady, Overloaded, RateLimited)) else 200
    after = error.extra.get("retry_after")
    headers = ((b"retry-after", b"%d" % max(1, after)),) if isinstance(after, int) else ()
    return Answer(code=code, message=message, data=data, status=status, headers=headers)


def cut_short(call: Call) -> Answer:
    """Return the answer to a call that this process could not bring to its end before it had to stop."""
    unknown = "Switchyard stops. Whether the call took effect is not known: look before you make it again."
    return failure(NotReady(unknown, retry_after=1), call)


def modern_answer(id: Any, answer: Answer) -> tuple[int, bytes, tuple[Header, ...]]:
    """Return status, body and headers of a call's answer."""
    if answer.result is not None:
        return 200, result_bytes(id, answer.raw), answer.headers
    status = answer.status if answer.status != 200 else STATUS_OF_CODE.get(answer.code, 200)
    return status, error_bytes(id, answer.code, answer.message, answer.data), answer.headers


def legacy_answer(id: Any, answer: Answer) -> tuple[int, bytes, tuple[Header, ...]]:
    """Return status, body and headers of a call's answer."""
    if answer.result is not None:
        return 200, result_bytes(id, answer.raw), answer.headers
    return answer.status, error_bytes(id, answer.code, answer.message, answer.data), answer.headers
