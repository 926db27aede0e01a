"""The OpenAPI schema: problems in every operation, objects addressed by id or slug."""

from typing import Any

from drf_spectacular.openapi import AutoSchema

PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `type` is stable; further members depend on it.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "example": "https://switchyard.dev/problems/not-found"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "object",
            "additionalProperties": {"type": "array", "items": {"type": "string"}},
            "description": "Messages by field, where the input is not valid.",
        },
        "rule": {"type": "string", "description": "The rule that refused."},
        "retry_after": {"type": "number", "description": "Seconds."},
    },
    "additionalProperties": True,
}
_CHANGING = ("post", "put", "patch", "delete")
_TENANT = {
    "name": "X-Switchyard-Tenant", "in": "header", "required": False, "schema": {"type": "string"},
    "description": "Slug of the tenant to work in, for callers who may work in several.",
}  # fmt: skip
_IDEMPOTENCY = {
    "name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 255},
    "description": "Carries a repeated request out once; the repetition is answered with `Idempotent-Replayed: true`.",
}  # fmt: skip


class SwitchyardSchema(AutoSchema):
    """Describes addresses as they are: `{id}` takes an id or a slug."""

    def _resolve_path_parameters(self, variables: Any) -> list[dict[str, Any]]:
        parameters: list[dict[str, Any]] = super()._resolve_path_parameters(variables)  # type: ignore[no-untyped-call]
        for parameter in parameters:
            if parameter["name"] == "id":
                named = getattr(self.view, "slug_field", None)
                parameter["schema"] = {"type": "string"}
                parameter["description"] = f"Id or {named}." if named else "Id."
        return parameters


_EVERYWHERE = {
    400: "The request is not valid.",
    401: "No credential, or one that is unknown, expired or revoked.",
    403: "The policy refuses; `rule` names the rule.",
    406: "The caller takes no JSON.",
    404: "No such object, or somebody else's; also for what the body or the header of the tenant names.",
    503: "Not now: starting, stopping, a database that does not answer, or an audit log that cannot be written.",
}
_OF_A_CHANGE = {
    409: "The state of the object does not allow it, a name is taken, or an idempotency key was used for another request.",
    413: "The body is over 4 MB.",
    415: "The body is not JSON.",
}

_OF_A_CALL = {429: "Too many calls at once.", 502: "The server failed.", 504: "The server did not answer in time."}


def _problems(path: str, method: str) -> dict[int, str]:
    found = dict(_EVERYWHERE)
    if method in _CHANGING:
        found |= _OF_A_CHANGE
    if path.endswith("/call/"):
        found |= _OF_A_CALL
    return found


def add_problems(result: dict[str, Any], generator: Any, request: Any, public: bool) -> dict[str, Any]:
    """Give every operation its problem answers and common headers; a post-processing hook of drf-spectacular."""
    result.setdefault("components", {}).setdefault("schemas", {})["Problem"] = PROBLEM
    answer = {
        "description": "A problem (RFC 9457)",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for path, methods in result.get("paths", {}).items():
        for method, operation in methods.items():
            if not isinstance(operation, dict):
                continue
            answers = operation.setdefault("responses", {})
            for status, words in _problems(path, method).items():
                answers.setdefault(str(status), {**answer, "description": words})
            answers.setdefault("default", answer)
            parameters = operation.setdefault("parameters", [])
            parameters.append(_TENANT)
            if method in _CHANGING:
                parameters.append(_IDEMPOTENCY)
    return result
