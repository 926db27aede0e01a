"""The same bad input through REST: problems (RFC 9457), bounded time and memory."""

import pytest

from tests.e2e.bodies import MB, NOT_JSON, answer_if_any
from tests.e2e.raw import Wire
from tests.e2e.support import (
    assert_serves,
    exchange,
    rest,
)

REST_BODIES = {name: body for name, body in NOT_JSON.items() if name not in ("empty", "white")}


@pytest.mark.parametrize("what", REST_BODIES)
def test_rest_refuses_what_is_not_strict_json(shared_product, what):
    answer = exchange(
        shared_product, "POST", "/api/v1/servers/", REST_BODIES[what],
        {**shared_product.headers, "Content-Type": "application/json"},
    )  # fmt: skip
    assert answer.status == 400, answer.body[:300]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"].startswith("https://switchyard.dev/problems/")
    assert answer.seconds < 5


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Authorization": "Bearer sy_00000000_" + "x" * 43}, 401),
        ({"Authorization": ""}, 401),
        ({"Host": "evil.example"}, 400),
    ],
    ids=repr,
)
def test_rest_refuses_with_problems(shared_product, headers, status):
    sent = {**shared_product.headers, "Content-Type": "application/json", **headers}
    answer = exchange(shared_product, "POST", "/api/v1/servers/", b'{"slug":"x"}', sent)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status
    assert answer.json["type"].startswith("https://switchyard.dev/problems/")


def test_rest_refuses_a_key_in_the_query_and_wrong_methods(shared_product):
    assert (
        exchange(shared_product, "GET", f"/api/v1/servers/?key={shared_product.key}&access_token={shared_product.key}").status
        == 401
    )
    answer = rest(shared_product, "PUT", "servers/")
    assert answer.status == 405
    assert "POST" in answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("form", ["declared", "chunked"])
def test_rest_refuses_100_mb(shared_product, form, memory):
    headers = {**shared_product.headers, "Content-Type": "application/json"}
    with Wire(shared_product) as wire:
        if form == "declared":
            wire.send(wire.head("POST", "/api/v1/servers/", {**headers, "Content-Length": str(100 * MB)}))
        else:
            wire.send(wire.head("POST", "/api/v1/servers/", {**headers, "Transfer-Encoding": "chunked"}))
        for _ in range(100):
            if not wire.send(b"%x\r\n" % MB + b" " * MB + b"\r\n" if form == "chunked" else b" " * MB):
                break
        answer = answer_if_any(wire)
    assert answer is None or answer.status == 413
    assert_serves(shared_product)
