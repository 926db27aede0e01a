"""What the rows of calls say, through the running product."""

import subprocess
import sys

from benchmarks.installation import api
from tests.gateway.wire import call_tool, error_of


def rows(product, **filters):
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    return api(product, "GET", f"audit-events/?{query}")["results"]


def test_a_refusal_names_the_server_it_was_about(shared_product):
    key = api(shared_product, "POST", "api-keys/", {"name": "recording"})
    answer = call_tool(shared_product, "system__calculate", {"expression": "1"}, key=key["key"])
    assert error_of(answer) == "permission-denied"
    (refused,) = rows(shared_product, event_type="call.refused", actor_id=key["id"])
    assert (refused["server"], refused["error_type"]) == ("system", "permission-denied")


def test_a_rest_call_is_found_by_the_requests_id(shared_product):
    import http.client
    import json
    from urllib.parse import urlsplit

    parts = urlsplit(shared_product.base_url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
    headers = {**shared_product.headers, "Content-Type": "application/json", "X-Request-Id": "recording-test-1"}
    body = json.dumps({"arguments": {"expression": "6 * 7"}})
    connection.request("POST", "/api/v1/tools/system__calculate/call/", body, headers)
    report = json.loads(connection.getresponse().read())
    assert report["result"]["content"][0]["text"] == "42"
    found = rows(shared_product, request_id="recording-test-1")
    assert [row["event_type"] for row in reversed(found) if row["event_type"].startswith("call.")] == [
        "call.intent",
        "call.outcome",
    ]
    assert {row["call_id"] for row in found if row["call_id"]} == {report["call_id"]}


def test_names_that_no_server_has_are_counted_but_are_no_tools(shared_product):
    for number in range(3):
        assert error_of(call_tool(shared_product, f"invented__{number}", {})) == "not-found"
    call_tool(shared_product, "system__calculate", {"expression": "1"})

    command = [sys.executable, "manage.py", "audit", "rollups"]
    subprocess.run(command, env=shared_product.environment, check=True, capture_output=True)
    figures = api(shared_product, "GET", "statistics/")
    assert figures["calls"]["refused"] >= 3
    tools = {(row["server"], row["tool"]) for row in figures["tools"]}
    assert ("system", "calculate") in tools
    assert not any(tool.startswith("invented") for _, tool in tools)
