"""Between the caller's era and the server's: what a request becomes on its way up, and an answer on its way down.

Results are relayed as the server gave them; only what the caller's revision cannot express is taken away or put into its words.
"""

import base64
import binascii
import hashlib
import time
from typing import Any

from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import ConnectionRequired, SwitchyardError, UpstreamProtocolError, ValidationFailed
from apps.common.ids import short_id
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Answer, Call, Json
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.jsonrpc import INVALID_PARAMS, MISSING_CAPABILITY, RESOURCE_NOT_FOUND_LEGACY
from apps.gateway.plane.mcp.asking import AT_ONCE, FORWARDED, lacking
from apps.gateway.plane.mcp.params import param_headers
from apps.gateway.plane.mcp.revisions import META
from apps.gateway.plane.mcp.tasks import ABOUT as ABOUT_TASKS
from apps.gateway.plane.mcp.tasks import TaskHandles, without_tasks
from apps.gateway.plane.mcp.watching import declare
from apps.gateway.plane.snapshot import caller_name
from apps.gateway.plane.upstreams import user_of
from apps.servers.domain import MODERN_REVISIONS, OAUTH_USER
from apps.servers.transports.base import ASKED, UpstreamAnswer, UpstreamRequest

_MODERN_MEMBERS = ("resultType", "ttlMs", "cacheScope")
STATE_SECONDS = 3600
URL_ELICITATION_REQUIRED = -32042
URL_STATE = "u."
"""Stands for nothing but "call again"; states of servers are base64 and have no dot."""


class NotExpressible(SwitchyardError):
    """The server asked for something that the caller's protocol revision has no words for."""

    slug, title, status, jsonrpc_code = "not-expressible", "The caller's protocol revision cannot express this", 501, -32603


def _declared(call: Call) -> Json:
    """Return what a client has declared, less what it cannot be asked for on this request (it reads no stream)."""
    if call.modern or not call.capabilities:
        return call.capabilities
    declared = without_tasks(call.capabilities)
    if call.on_request is not None:
        return declared
    return {name: value for name, value in declared.items() if name not in ASKED}


def _undeclared(call: Call, result: Json) -> str:
    """Return the first capability that a server's `inputRequests` need and the client has not declared; empty = none.

    Raises UpstreamProtocolError for requests that MCP has not.
    """
    asked = result.get("inputRequests", {})
    if not isinstance(asked, dict) or len(asked) > AT_ONCE or not all(isinstance(one, dict) for one in asked.values()):
        raise UpstreamProtocolError(f"The server's inputRequests are not an object of at most {AT_ONCE} requests.")
    if any(request.get("method") not in FORWARDED for request in asked.values()):
        raise UpstreamProtocolError("The server's inputRequests hold a request that MCP has not.")
    return next(filter(None, (lacking(call.capabilities, request) for request in asked.values())), "")


class Bridge:
    """Translates requests and answers."""

    def __init__(self, config: PlaneConfig, keyring: Keyring) -> None:
        self._config = config
        self._states = keyring.for_purpose(b"request-state")
        self.tasks = TaskHandles(keyring)

    def request(self, call: Call) -> UpstreamRequest:
        """Return the request as the server gets it. Raises ValidationFailed for a `requestState` that is not the caller's."""
        assert call.server is not None
        facts = call.server.facts
        params = dict(call.params)
        meta = params.get("_meta")
        progress: Any = None
        if isinstance(meta, dict):
            progress = meta.get("progressToken")
            kept = {key: value for key, value in meta.items() if key != "progressToken" and not key.startswith(META)}
            if kept:
                params["_meta"] = kept
            else:
                del params["_meta"]
        if call.item is not None:
            if call.method in ("tools/call", "prompts/get"):
                params["name"] = call.item.facts.name
            elif call.method == "completion/complete" and params["ref"].get("type") == "ref/prompt":
                params["ref"] = {**params["ref"], "name": call.item.facts.name}
        if call.task:
            params["taskId"] = call.task
        if params.get("requestState") == URL_STATE:
            # what the user had to do elsewhere is done, or not: the server sees it by itself
            params.pop("requestState")
            params.pop("inputResponses", None)
        elif "requestState" in params:
            params["requestState"] = self._open_state(call, params["requestState"])
        headers = {}
        if call.method == "tools/call" and call.item is not None:
            http = facts.transport == "http" and any(one in MODERN_REVISIONS for one in facts.revisions)
            headers = param_headers(call.item, params.get("arguments") or {}, http=http)
        request = UpstreamRequest(
            method=call.method,
            params=params,
            timeout=facts.timeout_seconds,
            max_bytes=self._config.answer_bytes,
            client_info=call.client_info,
            client_capabilities=_declared(call),
            log_level=call.log_level,
            param_headers=headers,
            caller=caller_name(call.caller),
            session=call.session or "",
        )
        if facts.auth == OAUTH_USER:
            request.user = user_of(call.caller)
        if call.send is not None:
            declare(request, call.capabilities)
            return request
        if call.on_message is not None and (progress is not None or not call.modern or call.log_level is not None):
            request.on_message = self._relay(call, progress)
        request.on_request = call.on_request
        if call.on_request is not None and not call.modern:
            # where the server speaks both eras, its requests reach such a caller in the caller's own
            request.era = "legacy"
        return request

    def _relay(self, call: Call, progress: Any) -> Any:
        assert call.on_message is not None
        forward = call.on_message

        async def on_message(message: Json) -> None:
            if message.get("method") == "notifications/message" and call.modern and call.log_level is None:
                return  # 2026-07-28: none for who has not asked for a level
            if message.get("method") == "notifications/progress":
                params = message.get("params")
                if progress is None or not isinstance(params, dict):
                    return  # nobody asked for it, or it is none
                message = {**message, "params": {**params, "progressToken": progress}}
            await forward(message)

        return on_message

    def answer(self, call: Call, answer: UpstreamAnswer) -> tuple[Json | None, int, str, Any]:
        """Return (result, 0, "", None) or (None, code, message, data) in the caller's era. Raises NotExpressible, UpstreamProtocolError."""
        spoke_modern = answer.revision in MODERN_REVISIONS
        if answer.error is not None:
            if call.modern and answer.error.get("code") == URL_ELICITATION_REQUIRED:
                return self._visit_first(call, answer.error)
            return self._error(call, answer.error)
        result = answer.result
        if not isinstance(result, dict):
            raise UpstreamProtocolError("The server's result is not a JSON object.")
        if call.modern:
            kind = result.get("resultType")
            if kind is None:
                result = {"resultType": "complete", **result}
                if call.method == "resources/read":
                    result.setdefault("ttlMs", 0)
                    result.setdefault("cacheScope", "private")
            elif kind == "input_required":
                if missing := _undeclared(call, result):
                    message = f"The server asks for {missing}, which this client has not declared."
                    capability, _, part = missing.partition(".")
                    needs: Json = {"requiredCapabilities": {capability: {part: {}} if part else {}}}
                    return None, MISSING_CAPABILITY, message, needs
                if "requestState" in result:
                    result = {**result, "requestState": self._seal_state(call, result["requestState"])}
            elif kind == "task":
                result = self.tasks.begun(call, result)
            if call.method in ABOUT_TASKS:
                result = self.tasks.told(call, result)
            if result.get("cacheScope") == "public":
                result = {**result, "cacheScope": "private"}  # who may have it is a matter of grants
            return result, 0, "", None
        if spoke_modern:
            kind = result.get("resultType", "complete")
            if kind not in ("complete", "input_required"):
                raise NotExpressible(
                    f"The server answered with a result of the type {str(kind)[:40]}, which this protocol revision has not. "
                    "Connect with a client that speaks 2026-07-28."
                )
            if kind != "complete":
                raise NotExpressible(
                    "The server asks for more input before it answers, which this protocol revision cannot carry here. "
                    "Connect with a client that speaks 2026-07-28."
                )
            result = {key: value for key, value in result.items() if key not in _MODERN_MEMBERS}
            structured = result.get("structuredContent")
            if structured is not None and not isinstance(structured, dict):
                result["structuredContent"] = {"result": structured}
        return result, 0, "", None

    def _visit_first(self, call: Call, error: Json) -> tuple[Json | None, int, str, Any]:
        """Put "the user has to visit these addresses first" (2025-11-25, error -32042) as 2026-07-28 does: as requests to the client."""
        data = error.get("data")
        wanted = data.get("elicitations") if isinstance(data, dict) else None
        if not isinstance(wanted, list) or not wanted or not all(isinstance(one, dict) for one in wanted):
            raise UpstreamProtocolError("The server wants its user to visit an address and does not say which.")
        elicitation = call.capabilities.get("elicitation")
        if not isinstance(elicitation, dict) or "url" not in elicitation:
            needed: Json = {"requiredCapabilities": {"elicitation": {"url": {}}}}
            return None, MISSING_CAPABILITY, "The server needs a client that can send its user to an address.", needed
        requests = {
            f"visit-{number}": {"method": "elicitation/create", "params": {"mode": "url", **one}}
            for number, one in enumerate(wanted[:AT_ONCE], 1)
        }
        return {"resultType": "input_required", "inputRequests": requests, "requestState": URL_STATE}, 0, "", None

    def connect_first(self, call: Call, error: ConnectionRequired) -> Answer | None:
        """Send the caller's user to the address where they connect their account, where their client can; None where it cannot."""
        elicitation = call.capabilities.get("elicitation")
        if not isinstance(elicitation, dict) or "url" not in elicitation:
            return None
        visit = {"mode": "url", "url": error.extra["connect_url"], "message": error.detail}
        if call.modern:
            asked = {"connect": {"method": "elicitation/create", "params": visit}}
            result = {"resultType": "input_required", "inputRequests": asked, "requestState": URL_STATE}
            return Answer(result=result, raw=dumps(result))
        data = {"type": error.type, "call_id": call.call_id, "elicitations": [{**visit, "elicitationId": f"sy-{short_id()}"}]}
        return Answer(code=URL_ELICITATION_REQUIRED, message=error.detail, data=data)

    def _error(self, call: Call, error: Json) -> tuple[None, int, str, Any]:
        code, message = error.get("code"), error.get("message")
        if not isinstance(code, int) or isinstance(code, bool) or not isinstance(message, str):
            raise UpstreamProtocolError("The server's error has no code or message.")
        data = error.get("data")
        if call.modern and code == RESOURCE_NOT_FOUND_LEGACY:
            code, data = INVALID_PARAMS, data if data is not None else {"uri": call.name}
        elif not call.modern and code == INVALID_PARAMS and isinstance(data, dict) and "uri" in data:
            code = RESOURCE_NOT_FOUND_LEGACY
        return None, code, message, data

    def _associated(self, call: Call) -> bytes:
        assert call.server is not None
        asked = hashlib.sha256(dumps(call.params.get("arguments"))).hexdigest()
        return "\x00".join((call.caller.principal.id, call.server.facts.id, call.method, call.name, asked)).encode()

    def _seal_state(self, call: Call, state: Any) -> str:
        """Bind a server's state to the caller, the server and the request with its arguments, for an hour."""
        if not isinstance(state, str):
            raise UpstreamProtocolError("The server's requestState is not a string.")
        plain = int(time.time() + STATE_SECONDS).to_bytes(8, "big") + state.encode()
        return base64.urlsafe_b64encode(self._states.seal(plain, associated=self._associated(call))).decode().rstrip("=")

    def _open_state(self, call: Call, state: Any) -> str:
        wrong = ValidationFailed(
            "params.requestState is not one that this server gave you for this request, or it has expired."
        )
        if not isinstance(state, str) or len(state) > 1024 * 1024:
            raise wrong
        try:
            plain = self._states.open(
                base64.urlsafe_b64decode(state + "=" * (-len(state) % 4)), associated=self._associated(call)
            )
        except (DecryptionFailed, binascii.Error, ValueError):
            raise wrong from None
        if int.from_bytes(plain[:8], "big") < time.time():
            raise wrong
        return plain[8:].decode()
