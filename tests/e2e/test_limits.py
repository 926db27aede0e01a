"""Limits as clients meet them: exact under parallel load, named, recorded, in force at once."""

import concurrent.futures

import pytest

from tests.e2e.rogue import Rogue
from tests.e2e.support import ERAS, audit_mark, audit_rows, connect, made, rest, unique
from tests.support import eventually


@pytest.fixture
def key(shared_product):
    """A key of its own that may use the built-in server."""
    made_key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("limited")}))
    made(rest(shared_product, "POST", "grants/", {"kind": "server", "server": "system", "api_key": made_key["id"]}))
    return made_key


def limited(product, key, **body):
    """Set a limit on a key and wait until it is in force; returns its id."""
    row = made(rest(product, "POST", "limits/", {"subject": "api_key", "api_key": key["id"], **body}))
    # a limit is counted where it is in force
    eventually(lambda: made(rest(product, "GET", f"limits/{row['id']}/"))["in_use"] is not None, within=2)
    return row["id"]


def calculate(client):
    return client.call("system__calculate", {"expression": "6 * 7"})


@pytest.mark.parametrize("era", ERAS)
def test_of_200_parallel_calls_the_amount_passes(shared_product, key, era):
    id = limited(shared_product, key, measure="calls", amount=11, window="hour")
    client = connect(shared_product, era, key=key["key"])
    since = audit_mark(shared_product)
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: calculate(client), range(200)))
    passed = [one for one in answers if one.status == 200]
    refused = [one for one in answers if one.status == 429]
    assert (len(passed), len(refused)) == (11, 189)
    error = refused[0].error
    assert error["data"]["type"].endswith("/rate-limited")
    assert error["data"]["rule"] == f"limit:{id}"
    assert error["data"]["limit"]["amount"] == 11
    assert int(refused[0].headers["retry-after"]) == error["data"]["retry_after"] >= 1
    assert passed[0].headers["ratelimit-policy"] == f'"{id}";q=11;w=3600'
    rows = audit_rows(shared_product, "event_type = 'call.refused' AND error_type = 'rate-limited'", since=since)
    mine = [row for row in rows if row["details"].get("rule") == f"limit:{id}"]
    assert len(mine) == len(refused)
    assert made(rest(shared_product, "GET", f"limits/{id}/"))["in_use"] == 11
    listed = made(rest(shared_product, "GET", f"limits/?api_key={key['id']}"))["results"]
    assert [row["in_use"] for row in listed] == [11]


def test_calls_at_once(shared_product, key):
    with Rogue() as server:
        slug = unique("slow")
        made(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "http", "url": server.url}))
        made(rest(shared_product, "POST", "grants/", {"kind": "server", "server": slug, "api_key": key["id"]}))
        client = connect(shared_product, "modern", f"/mcp/{slug}", key["key"])
        eventually(lambda: "act" in client.names(), within=20)
        id = limited(shared_product, key, measure="concurrent", amount=2)
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: client.call("act", {"how": "slow"}), range(12)))
        assert sorted(one.status for one in answers) == [200] * 2 + [429] * 10
        eventually(lambda: made(rest(shared_product, "GET", f"limits/{id}/"))["in_use"] == 0, within=5)
        assert client.call("act", {"how": "ok"}).status == 200


def test_a_limit_that_is_taken_away_is_gone_within_a_second(shared_product, key):
    id = limited(shared_product, key, measure="calls", amount=1, window="day")
    client = connect(shared_product, "modern", key=key["key"])
    eventually(lambda: calculate(client).status == 429, within=5)
    assert rest(shared_product, "DELETE", f"limits/{id}/").status == 204
    eventually(lambda: calculate(client).status == 200, within=2)
