"""A client of the REST API."""

import json

from django.test import Client


class Api:
    """Calls `/api/v1/…` with a key."""

    def __init__(self, text=None, **headers):
        self.client = Client(raise_request_exception=False)
        self.headers = {**({"Authorization": f"Bearer {text}"} if text else {}), **headers}

    def __call__(self, method, path, body=None, *, raw=None, **headers):
        """Send a request; `headers` with `_` for `-`."""
        sent = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        return self.client.generic(
            method, path if path.startswith("/") else f"/api/v1/{path}", sent, content_type="application/json",
            headers={**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}},
        )  # fmt: skip

    def __getattr__(self, method):
        return lambda path, body=None, **options: self(method.upper(), path, body, **options)


def problem(answer, status, slug):
    """Check that an answer is a problem, and return it."""
    assert answer.status_code == status, answer.content[:500]
    assert answer["Content-Type"] == "application/problem+json"
    body = answer.json()
    assert body["type"] == f"https://switchyard.dev/problems/{slug}"
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer["X-Request-Id"]
    assert body["instance"]
    return body
