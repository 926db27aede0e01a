"""Between the caller's era and the server's: what a request becomes on its way up, and an answer on its way down.

Results are relayed as the server gave them; only what the caller's revision cannot express is taken away or put into its words.
"""

import base64
import binascii
import hashlib
import time
from typing import Any

from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.common.errors import SwitchyardError, UpstreamProtocolError, ValidationFailed
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Call, Json
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.jsonrpc import INVALID_PARAMS, RESOURCE_NOT_FOUND_LEGACY
from apps.gateway.plane.mcp.params import param_headers
from apps.gateway.plane.mcp.revisions import META
from apps.servers.domain import MODERN_REVISIONS
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest

_MODERN_MEMBERS = ("resultType", "ttlMs", "cacheScope")
STATE_SECONDS = 3600


class NotExpressible(SwitchyardError):
    """The server asked for something that the caller's protocol revision has no words for."""

    slug, title, status, jsonrpc_code = "not-expressible", "The caller's protocol revision cannot express this", 501, -32603


class Bridge:
    """Translates requests and answers."""

    def __init__(self, config: PlaneConfig, keyring: Keyring) -> None:
        self._config = config
        self._states = keyring.for_purpose(b"request-state")

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
        if "requestState" in params:
            params["requestState"] = self._open_state(call, params["requestState"])
        headers = {}
        if call.method == "tools/call" and call.item is not None:
            headers = param_headers(call.item, params.get("arguments") or {})
        request = UpstreamRequest(
            method=call.method,
            params=params,
            timeout=facts.timeout_seconds,
            max_bytes=self._config.answer_bytes,
            client_info=call.client_info,
            client_capabilities=call.capabilities,
            log_level=call.log_level,
            param_headers=headers,
            caller=f"{call.caller.principal.kind}:{call.caller.principal.id}",
        )
        if call.on_message is not None and (progress is not None or not call.modern or call.log_level is not None):
            request.on_message = self._relay(call, progress)
        if call.on_request is not None:
            # where the server speaks both eras, its requests reach such a caller in the caller's own
            request.on_request, request.era = call.on_request, "legacy"
        return request

    def _relay(self, call: Call, progress: Any) -> Any:
        assert call.on_message is not None
        forward = call.on_message

        async def on_message(message: Json) -> None:
            if message.get("method") == "notifications/progress":
                if progress is None:
                    return
                message = {**message, "params": {**message.get("params", {}), "progressToken": progress}}
            await forward(message)

        return on_message

    def answer(self, call: Call, answer: UpstreamAnswer) -> tuple[Json | None, int, str, Any]:
        """Return (result, 0, "", None) or (None, code, message, data) in the caller's era. Raises NotExpressible, UpstreamProtocolError."""
        spoke_modern = answer.revision in MODERN_REVISIONS
        if answer.error is not None:
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
            elif kind == "input_required" and "requestState" in result:
                result = {**result, "requestState": self._seal_state(call, result["requestState"])}
            return result, 0, "", None
        if spoke_modern:
            if result.get("resultType", "complete") != "complete":
                raise NotExpressible(
                    "The server asks for more input before it answers, which this protocol revision cannot carry here. "
                    "Connect with a client that speaks 2026-07-28."
                )
            result = {key: value for key, value in result.items() if key not in _MODERN_MEMBERS}
            structured = result.get("structuredContent")
            if structured is not None and not isinstance(structured, dict):
                result["structuredContent"] = {"result": structured}
        return result, 0, "", None

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
