"""The tool call of the API, through the real gateway: its answers and its problems are those that agents get."""

import pytest

from tests.e2e.support import exchange, made, rest
from tests.factories import unique
from tests.support import eventually

CALCULATE = "tools/system__calculate/call/"


@pytest.fixture(scope="module")
def plain_key(shared_product) -> str:
    """A key without any right."""
    return made(rest(shared_product, "POST", "api-keys/", {"name": unique("plain")}))["key"]


def refused(answer, status: int, slug: str) -> dict:
    """Check a problem and return it."""
    assert answer.status == status, answer.body[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["type"] == f"https://switchyard.dev/problems/{slug}"
    assert answer.json["request_id"]
    return answer.json


def test_a_call(shared_product):
    report = made(rest(shared_product, "POST", CALCULATE, {"arguments": {"expression": "6 * 7"}}))
    assert report["ok"] is True
    assert "42" in str(report["result"])
    assert report["steps"][0]["name"] == "authorise"
    by_id = made(rest(shared_product, "GET", "tools/system__calculate/"))["id"]
    assert made(rest(shared_product, "POST", f"tools/{by_id}/call/", {"arguments": {"expression": "1"}, "toolset": "system"}))[
        "ok"
    ]
    for name in report["events"]:
        assert made(rest(shared_product, "GET", f"audit-events/{name}/"))["call_id"] == report["call_id"]


def test_what_the_tool_itself_refuses_is_an_answer(shared_product):
    report = made(rest(shared_product, "POST", CALCULATE, {"arguments": {"expression": "1 / 0"}}))
    assert report["ok"] is False
    assert report["result"]["isError"] is True


def test_a_call_without_a_grant(shared_product, plain_key):
    body = refused(
        rest(shared_product, "POST", CALCULATE, {"arguments": {"expression": "1"}}, key=plain_key), 403, "permission-denied"
    )
    assert body["rule"] == "default-deny"
    assert body["call_id"]


def test_calls_that_cannot_be(shared_product):
    refused(rest(shared_product, "POST", CALCULATE, {"arguments": {"expression": 7}}), 400, "arguments-invalid")
    refused(rest(shared_product, "POST", CALCULATE, {"arguments": []}), 400, "validation-failed")
    refused(rest(shared_product, "POST", CALCULATE, {"arguments": {"expression": "1"}, "toolset": "nowhere"}), 404, "not-found")
    refused(rest(shared_product, "POST", "tools/system__nothing/call/", {}), 404, "not-found")
    refused(rest(shared_product, "POST", "tools/01980000-0000-7000-8000-0000000000ff/call/", {}), 404, "not-found")


def test_a_repeated_call_runs_once(shared_product):
    headers = {**shared_product.headers, "Content-Type": "application/json", "Idempotency-Key": unique("call")}
    answers = [
        exchange(shared_product, "POST", f"/api/v1/{CALCULATE}", b'{"arguments":{"expression":"2+2"}}', headers)
        for _ in range(2)
    ]
    assert answers[0].json == answers[1].json
    assert answers[1].headers["idempotent-replayed"] == "true"


def discovered(product) -> dict | None:
    """The summary of a discovery; None while another one runs, which is a conflict."""
    answer = rest(product, "POST", "servers/system/discover/")
    if answer.status == 409:
        refused(answer, 409, "conflict")
        return None
    return made(answer)


def test_discovery_brings_up_to_date(shared_product):
    summary = eventually(lambda: discovered(shared_product), within=30)
    assert summary["ok"] is True
    assert summary["unchanged"] > 0
    assert (summary["added"], summary["changed"], summary["removed"]) == (0, 0, 0)
    assert made(rest(shared_product, "POST", "servers/system/probe/"))["ok"] is True
