"""The product starts, answers, and ends without a trace; the fixtures that other tests stand on do what they say."""

import json
import urllib.error
import urllib.request

import psutil
import pytest

from tests.support import eventually


def get(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_the_shared_product_is_ready_and_serves_its_console(shared_product):
    assert get(f"{shared_product.base_url}/health/ready")[0] == 200
    status, headers, body = get(f"{shared_product.base_url}/admin/login/")
    assert status == 200
    assert b"Switchyard" in body
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_its_key_opens_the_gateway_and_another_does_not(shared_product):
    body = json.dumps(
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}
    ).encode()  # fmt: skip

    def initialize(**headers):
        sent = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **headers}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"{shared_product.base_url}/mcp", body, sent), timeout=10
            ) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert initialize(**shared_product.headers) == 200
    assert initialize(Authorization=f"Bearer {shared_product.key[:-1]}-") == 401


@pytest.mark.once
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_product_ends_on_sigterm_and_leaves_no_process(start_product, database):
    product = start_product(database=database, has="nothing")
    processes = product.processes()
    assert product.pid in {process.pid for process in processes}
    assert product.stop() == 0
    assert [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.once
def test_a_product_whose_supervisor_is_killed_leaves_no_process(start_product):
    product = start_product()
    product.processes()
    product.process.kill()
    eventually(lambda: not product.processes(), within=10)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{product.base_url}/health/live", timeout=2)


@pytest.mark.once
def test_a_port_in_use_is_one_line(start_product, tmp_path):
    first = start_product()
    second = start_product(home=tmp_path / "other", port=first.port, wait=False)
    assert second.process.wait(30) == 1
    assert second.log().count("\n") == 1
    assert second.log().startswith("switchyard: ")
    assert str(first.port) in second.log()
