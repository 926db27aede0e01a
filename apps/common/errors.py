"""Typed errors, one vocabulary for every door.

HTTP answers them as `application/problem+json` (RFC 9457), MCP as a JSON-RPC error with the same `type` in `data`.
"""

from typing import Any, ClassVar

PROBLEM_BASE = "https://switchyard.dev/problems/"


class SwitchyardError(Exception):
    """An error a caller may read. `detail` says what happened and what to do; never a secret, never a traceback."""

    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500
    jsonrpc_code: ClassVar[int] = -32603

    def __init__(self, detail: str = "", **extra: Any) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.extra = extra

    @property
    def type(self) -> str:
        """Return the stable problem type, a URI."""
        return PROBLEM_BASE + self.slug

    def problem(self) -> dict[str, Any]:
        """Return the RFC 9457 object."""
        return {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail, **self.extra}


class ValidationFailed(SwitchyardError):
    """The input breaks a rule; `errors` maps field to messages."""

    slug, title, status, jsonrpc_code = "validation-failed", "The input is not valid", 400, -32602


class MalformedRequest(SwitchyardError):
    """The bytes are not what the door reads (JSON, encoding, nesting)."""

    slug, title, status, jsonrpc_code = "malformed-request", "The request cannot be read", 400, -32700


class InvalidRequest(SwitchyardError):
    """JSON, but no message that belongs here (JSON-RPC 2.0, section 4)."""

    slug, title, status, jsonrpc_code = "invalid-request", "Not a valid request", 400, -32600


class MethodNotFound(SwitchyardError):
    """No such JSON-RPC method in the caller's protocol revision."""

    slug, title, status, jsonrpc_code = "method-not-found", "No such method", 404, -32601


class MethodNotAllowed(SwitchyardError):
    """The HTTP method is not served at this address; `allow` lists those that are."""

    slug, title, status, jsonrpc_code = "method-not-allowed", "The HTTP method is not served here", 405, -32600


class UnsupportedMediaType(SwitchyardError):
    """The body is not of a content type that is read here."""

    slug, title, status, jsonrpc_code = "unsupported-media-type", "The content type is not read here", 415, -32600


class UnsupportedRevision(SwitchyardError):
    """A protocol revision that is not spoken here; `supported` lists those that are."""

    slug, title, status = "unsupported-protocol-version", "The protocol revision is not spoken here", 400
    jsonrpc_code = -32022


class TooLarge(SwitchyardError):
    """The body or the answer is over its limit."""

    slug, title, status, jsonrpc_code = "too-large", "Too large", 413, -32600


class AuthenticationRequired(SwitchyardError):
    """No credential, or one that is unknown, expired or revoked."""

    slug, title, status, jsonrpc_code = "authentication-required", "Authentication required", 401, -32001


class PermissionDenied(SwitchyardError):
    """The policy refused; `rule` names the rule."""

    slug, title, status, jsonrpc_code = "permission-denied", "Permission denied", 403, -32003


class StepUpRequired(PermissionDenied):
    """Only a superuser may do this."""

    slug, title = "superuser-required", "Only a superuser may do this"


class HeaderMismatch(SwitchyardError):
    """A header says something else than the body (MCP 2026-07-28, Streamable HTTP)."""

    slug, title, status, jsonrpc_code = "header-mismatch", "A header differs from the body", 400, -32020


class NotFound(SwitchyardError):
    """No such object, or it belongs to somebody else."""

    slug, title, status, jsonrpc_code = "not-found", "Not found", 404, -32602


class Conflict(SwitchyardError):
    """The object's state does not allow it (a taken slug, a used idempotency key)."""

    slug, title, status, jsonrpc_code = "conflict", "Conflict", 409, -32600


class TenantRequired(SwitchyardError):
    """A tenant's rows were asked for without a tenant; always a defect of ours."""

    slug, title, status = "tenant-required", "No tenant is in force", 500


class AddressRefused(SwitchyardError):
    """The address is not one this installation may connect to."""

    slug, title, status, jsonrpc_code = "address-refused", "The address is refused", 400, -32602


class AuditUnavailable(SwitchyardError):
    """The audit log cannot be written, so nothing runs."""

    slug, title, status = "audit-unavailable", "The audit log cannot be written; nothing was run", 503


class NotReady(SwitchyardError):
    """The product cannot do this now (starting, stopping, database down)."""

    slug, title, status = "not-ready", "Not ready", 503


class Paused(SwitchyardError):
    """The server or toolset is paused by an operator."""

    slug, title, status, jsonrpc_code = "paused", "Paused by an operator", 503, -32603


class Overloaded(SwitchyardError):
    """A concurrency limit is reached; `retry_after` seconds."""

    slug, title, status, jsonrpc_code = "overloaded", "Too many calls at once", 429, -32603


class RateLimited(SwitchyardError):
    """A limit on calls, concurrency or spending is reached; `retry_after` seconds, `rule` names it."""

    slug, title, status, jsonrpc_code = "rate-limited", "A limit is reached", 429, -32603


class UpstreamError(SwitchyardError):
    """The MCP server behind the gateway failed; the base of what follows."""

    slug, title, status = "upstream-error", "The server failed", 502
    stderr_tail: str = ""
    """The last words of a stdio process; for operators and logs, never in an answer."""


class UpstreamUnavailable(UpstreamError):
    """No connection, or the server cannot be started."""

    slug, title = "upstream-unavailable", "The server cannot be reached"


class UpstreamTimeout(UpstreamError):
    """No answer within the time limit."""

    slug, title, status = "upstream-timeout", "The server did not answer in time", 504


class UpstreamBusy(UpstreamError):
    """The server can take the call only when another one has ended, which did not happen within the time limit; nothing was sent."""

    slug, title, status = "upstream-busy", "The server is busy with another call", 503


class UpstreamDied(UpstreamError):
    """The connection or the process ended in the middle of the call; whether it took effect is not known."""

    slug, title = "upstream-died", "The server ended in the middle of the call"


class UpstreamProtocolError(UpstreamError):
    """The answer is not MCP."""

    slug, title = "upstream-protocol-error", "The server's answer is not valid MCP"


class UpstreamTooLarge(UpstreamError):
    """The answer is over the size limit."""

    slug, title = "upstream-too-large", "The server's answer is too large"


class AuthorizationFailed(UpstreamError):
    """An authorization server, or what a server says of it, does not let Switchyard connect; `rule` names the rule that was broken."""

    slug, title = "authorization-failed", "The server's authorization does not work"


class UpstreamUnauthenticated(UpstreamError):
    """The server refused Switchyard's credential (401 or 403)."""

    slug, title = "upstream-unauthenticated", "The server refused the credential stored for it"
    challenge: str = ""
    """Its `WWW-Authenticate`; for the OAuth client alone, never in logs or answers."""


class ScopeNeeded(UpstreamUnauthenticated):
    """The token is good and does not reach as far as this call (403, `insufficient_scope`); `scope` is what is missing."""

    slug, title = "scope-needed", "The server wants a wider authorization"


class ConnectionRequired(UpstreamUnauthenticated):
    """The caller has not connected their own account with the server; `connect_url` is where a person does it."""

    slug, title, status, jsonrpc_code = "connection-required", "Connect your account with the server first", 403, -32003
