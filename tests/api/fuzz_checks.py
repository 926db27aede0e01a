"""What schemathesis also looks at (`SCHEMATHESIS_HOOKS`): the document must list each status by itself, not by `default`."""

from typing import Any

import schemathesis


@schemathesis.check
def status_is_listed(ctx: Any, response: Any, case: Any) -> None:
    """Fail for a status that the document does not name; 405 belongs to methods that are not there."""
    listed = set(case.operation.definition.raw["responses"])
    if response.status_code != 405:
        assert str(response.status_code) in listed, f"{response.status_code} is not among {sorted(listed)}"


@schemathesis.check
def refusals_are_problems(ctx: Any, response: Any, case: Any) -> None:
    """Fail for an error that is not a problem (RFC 9457) with a type, an id of the request and a detail."""
    if response.status_code >= 400:
        kind = response.headers["content-type"]
        assert "application/problem+json" in kind, kind
        body = response.json()
        assert body["type"].startswith("https://switchyard.dev/problems/")
        assert body["request_id"]
        assert body["detail"]
