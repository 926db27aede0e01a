"""JSON-RPC as it stands on the wire in both eras: bodies, headers, `_meta`, and strict reading of answers."""

import base64
import re
from collections.abc import Mapping
from typing import Any

import orjson
from multidict import CIMultiDict

from apps.common.errors import UpstreamBusy, UpstreamProtocolError
from apps.common.http import RequestHeaders
from apps.common.jsontext import dumps
from apps.servers.domain import LEGACY_REVISIONS, MODERN_REVISIONS
from apps.servers.transports.base import LISTEN, Json, UpstreamAnswer, UpstreamRequest
from apps.servers.transports.memory import SMALL, Hold, load, weigh

CLIENT_INFO: Json = {"name": "switchyard", "title": "Switchyard", "version": "0.1.0"}
LATEST_MODERN, LATEST_LEGACY = MODERN_REVISIONS[0], LEGACY_REVISIONS[0]
UNSUPPORTED_VERSION, HEADER_MISMATCH, MISSING_CAPABILITY = -32022, -32020, -32021
METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32601, -32602, -32603

META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META_LOG_LEVEL = "io.modelcontextprotocol/logLevel"
META_SERVER_INFO = "io.modelcontextprotocol/serverInfo"
META_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

NAME_MEMBER = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Method → the member of its params that `Mcp-Name` repeats."""
SAFE_METHODS = frozenset(
    {
        "server/discover",
        "ping",
        "tools/list",
        "prompts/list",
        "prompts/get",
        "resources/list",
        "resources/templates/list",
        "resources/read",
        "resources/subscribe",
        "resources/unsubscribe",
        "completion/complete",
        "tasks/get",
    }
)
"""Requests without effect: sent again once when a kept connection turned out to be closed."""
LIST_KINDS = {
    "notifications/tools/list_changed": "tools",
    "notifications/prompts/list_changed": "prompts",
    "notifications/resources/list_changed": "resources",
}
BESIDE_CALLS = frozenset(
    {
        *LIST_KINDS,
        "notifications/resources/updated",
        "notifications/subscriptions/acknowledged",
        "notifications/cancelled",
    }
)
"""Notifications that are about no call, wherever they come; others, also those that MCP does not know, belong to theirs."""
LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")

BATCH = 1000
"""Messages in one JSON array (2025-03-26)."""
ENDS = 1024
"""Where in a message that is not parsed its id is looked for, from both ends."""

_ID = re.compile(rb'"id"\s*:\s*(\d{1,15})\s*[,}]')
_PLAIN = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?|")
_SENTINEL = re.compile(r"=\?base64\?.*\?=")
_OURS = re.compile(
    r"(?i)host|content-.*|accept|accept-encoding|connection|transfer-encoding|te|trailer|upgrade|expect|keep-alive"
    r"|proxy-.*|mcp-(?:method|name|session-id|protocol-version|param-.*)|last-event-id"
)


def header_value(value: str) -> str:
    """Return `value` as a header carries it: as it is, or `=?base64?…?=` where a header would not keep it (§2)."""
    if _PLAIN.fullmatch(value) and not _SENTINEL.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


def base_headers(secrets: Mapping[str, str]) -> RequestHeaders:
    """Return the headers of every POST: the server's credentials and ours, nothing of any caller's.

    Credentials cannot replace what the protocol or the connection needs.
    """
    headers: CIMultiDict[str] = CIMultiDict({"User-Agent": f"switchyard/{CLIENT_INFO['version']}"})
    for name, value in secrets.items():
        if not _OURS.fullmatch(name):
            headers[name] = value
    headers["Content-Type"] = "application/json"
    headers["Accept"] = "application/json, text/event-stream"
    headers["Accept-Encoding"] = "identity"
    return RequestHeaders(headers)


def modern_params(request: UpstreamRequest, token: int) -> Json:
    """Return the params of a 2026-07-28 request: the caller's, with the members that this revision requires."""
    params = request.params
    meta = dict(params.get("_meta") or ())
    meta[META_VERSION] = LATEST_MODERN
    meta[META_CLIENT_INFO] = request.client_info or CLIENT_INFO
    meta[META_CAPABILITIES] = request.client_capabilities
    if request.log_level is not None:
        meta[META_LOG_LEVEL] = request.log_level
    if request.on_message is not None and request.method != LISTEN:
        meta["progressToken"] = token
    return {**params, "_meta": meta}


def legacy_params(request: UpstreamRequest, token: int) -> Json:
    """Return the params of a request in the initialize era: the caller's, with a progress token of our own if wanted."""
    params = request.params
    meta = params.get("_meta")
    if request.on_message is not None:
        return {**params, "_meta": {**(meta or {}), "progressToken": token}}
    if meta is not None and not meta:
        return {key: value for key, value in params.items() if key != "_meta"}
    return params


def request_body(id: int, method: str, params: Json) -> bytes:
    """Return a JSON-RPC request; UpstreamProtocolError for params that are no JSON (or over 250 levels deep)."""
    try:
        return dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    except (TypeError, ValueError, RecursionError):
        raise UpstreamProtocolError("The request cannot be written as JSON.") from None


def notification_body(method: str, params: Json | None = None) -> bytes:
    """Return a JSON-RPC notification."""
    return orjson.dumps({"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})})


def reply_body(id: Any, outcome: Json) -> bytes:
    """Return the answer to a server's request; `outcome` holds `result` or `error`."""
    return orjson.dumps({"jsonrpc": "2.0", "id": id, **outcome})


def unasked(request: UpstreamRequest, message: Json) -> Json:
    """Return the refusal of a server's request that its call's caller would take, and cannot be brought to it; note it in the call."""
    request.refused.append(str(message.get("method"))[:40])
    return {"error": {"code": INTERNAL_ERROR, "message": request.unasked, "data": {"type": UpstreamBusy(request.unasked).type}}}


def refuse_request(message: Json) -> Json:
    """Return the outcome for a server's request that nobody here answers: pong, or method not found."""
    if message.get("method") == "ping":
        return {"result": {}}
    return {"error": {"code": METHOD_NOT_FOUND, "message": "This client does not take such requests."}}


def parse(raw: bytes | bytearray) -> Any:
    """Return the JSON value; raise UpstreamProtocolError for what is not strict JSON (NaN, bad UTF-8, > 1,024 levels),
    UpstreamTooLarge for one that holds too many values.

    Of a repeated key the last counts here; integers beyond 64 bits are read as floats (a result goes on in its own bytes).
    """
    if len(raw) > SMALL:
        weigh(raw)
    return load(raw)


def batch_of(value: list[Any]) -> list[Any]:
    """Return the messages of a batch; UpstreamProtocolError for too many."""
    if len(value) > BATCH:
        raise UpstreamProtocolError(f"The server sent more than {BATCH} messages in one batch.")
    return value


def ids_at(*parts: bytes | bytearray) -> list[int]:
    """Return the last id that each piece of a message shows: whose answer it may be, where it cannot be parsed."""
    return [int(found[-1]) for part in parts if (found := _ID.findall(part))]


def answer_of(
    message: Any, id: int | None, revision: str, size: int, raw: bytes = b"", hold: Hold | None = None
) -> UpstreamAnswer:
    """Return the answer in a JSON-RPC response; raise UpstreamProtocolError when it is none, or not to request `id`."""
    if type(message) is not dict or ("result" not in message and "error" not in message):
        raise UpstreamProtocolError("The server's answer is not a JSON-RPC response.")
    error, result = message.get("error"), message.get("result")
    if id is not None and message.get("id") != id and not (error is not None and message.get("id") is None):
        raise UpstreamProtocolError("The server answered with the id of another request.")
    if error is not None:
        if result is not None or not is_error(error):
            raise UpstreamProtocolError("The server's error is not a JSON-RPC error.")
        return UpstreamAnswer(None, error, revision, size, hold=hold)
    if type(result) is not dict:
        raise UpstreamProtocolError("The server's result is not an object.")
    return UpstreamAnswer(result, None, revision, size, raw, hold)


def is_error(value: Any) -> bool:
    """Return whether `value` is a JSON-RPC error object."""
    return type(value) is dict and type(value.get("code")) is int and type(value.get("message")) is str


def error_in(message: Any) -> Json | None:
    """Return the JSON-RPC error that `message` carries, None when it carries none."""
    error = message.get("error") if type(message) is dict else None
    return error if is_error(error) else None


def of_a_call(message: Json) -> bool:
    """Tell whether a notification belongs to the call during which it comes: it announces nothing, and names no subscription."""
    method, params = message["method"], message.get("params")
    if type(method) is not str or method in BESIDE_CALLS:
        return False
    meta = params.get("_meta") if type(params) is dict else None
    return type(meta) is not dict or META_SUBSCRIPTION not in meta


def says_more(wanted: str | None, now: str) -> bool:
    """Tell whether the log level `wanted` lets through what `now`, the lowest that a session was set to (or ""), does not.

    Several share a session, so that its level only ever falls.
    """
    if wanted not in LOG_LEVELS:
        return False
    return now not in LOG_LEVELS or LOG_LEVELS.index(wanted) < LOG_LEVELS.index(now)


def own_progress(message: Json) -> Json:
    """Replace our own progress token by null; the gateway puts the caller's there."""
    if message.get("method") == "notifications/progress" and type(message.get("params")) is dict:
        message["params"]["progressToken"] = None
    return message
