"""The tool call of the API, through the real gateway: its answers and its problems are those that agents get."""

import sys

import pytest

from tests.e2e.support import exchange, made, rest
from tests.factories import unique
from tests.support import eventually
from tests.tools.support import PROGRAMS

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


def test_the_story_of_a_call_has_its_place_in_the_chain(shared_product):
    report = made(rest(shared_product, "POST", CALCULATE, {"arguments": {"expression": "2 * 3"}}))
    story = made(rest(shared_product, "GET", f"audit-events/calls/{report['call_id']}/"))
    assert len(story) == 2
    for event in story:
        alone = made(rest(shared_product, "GET", f"audit-events/{event['event_id']}/"))
        assert (event["digest"], event["previous"]) == (alone["digest"], alone["previous"])
        assert len(event["digest"]) == len(event["previous"]) == 64


def test_a_call_of_what_waits_for_review_says_so_to_those_who_may_know(shared_product, plain_key):
    slug = unique("held")
    program = str(PROGRAMS / "friendly.py")
    body = {"slug": slug, "transport": "stdio", "command": sys.executable, "args": [program], "review": "hold-all"}
    made(rest(shared_product, "POST", "servers/", body))
    eventually(lambda: discovered(shared_product, slug), within=20)
    call = f"tools/{slug}__weather/call/"
    said = refused(rest(shared_product, "POST", call, {"arguments": {"city": "Bern"}}), 404, "not-found")
    assert "held for review" in said["detail"]
    assert f"/api/v1/tools/{slug}__weather/difference/" in said["detail"]
    assert said["state"] == "held"
    assert said["call_id"]
    unseen = refused(rest(shared_product, "POST", call, {"arguments": {"city": "Bern"}}, key=plain_key), 404, "not-found")
    assert "review" not in str(unseen)
    assert "state" not in unseen
    made(rest(shared_product, "POST", f"tools/{slug}__weather/reject/", {}))
    said = refused(rest(shared_product, "POST", call, {"arguments": {"city": "Bern"}}), 404, "not-found")
    assert (said["state"], "rejected" in said["detail"]) == ("rejected", True)


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


def discovered(product, server: str = "system") -> dict | None:
    """The summary of a discovery; None while another one runs, which is a conflict."""
    answer = rest(product, "POST", f"servers/{server}/discover/")
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
