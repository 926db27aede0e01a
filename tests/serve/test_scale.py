"""Several processes of one installation on PostgreSQL and Redis, each role its own `serve`."""

import http.client
import json
import os
import signal
import subprocess
import sys

import psycopg
import pytest

from config.processes.beat import BEAT_LOCK
from tests.product import ROOT, Product
from tests.support import eventually

pytestmark = [pytest.mark.once, pytest.mark.slow]


def request(product: Product, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", product.port, timeout=30)
    try:
        connection.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def call(product: Product, tool: str, expression: str) -> dict:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": {"expression": expression}, "_meta": meta},
    }
    headers = {
        "Authorization": f"Bearer {product.key}",
        "Content_Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP_Protocol_Version": "2026-07-28",
        "Mcp_Method": "tools/call",
        "Mcp_Name": tool,
    }
    return json.loads(request(product, "POST", "/mcp", json.dumps(message).encode(), **headers)[1])


def text_of(answer: dict) -> str:
    assert "result" in answer, answer
    return answer["result"]["content"][0]["text"]


@pytest.fixture
def installation(start_product, tmp_path):
    """A function that starts a role of one installation."""
    first: list[Product] = []

    def start(role: str, **options) -> Product:
        if first:
            given = first[0].environment
            options |= {"key": first[0].key, "password": first[0].password}
            options |= {"database_url": given["DATABASE_URL"], "redis_url": given["REDIS_URL"]}
        first.append(start_product(database="postgres", home=tmp_path / "shared-home", role=role, **options))
        return first[-1]

    return start


def test_two_gateways_a_web_a_worker_and_two_clocks(installation, tmp_path):
    """One installation of six `serve`s: calls, roles, tasks, a child lost, and the clock that takes over from another."""
    gateways = [installation("gateway", arguments=("--workers", "2")), installation("gateway")]
    web, _worker, clock = installation("web"), installation("worker"), installation("beat")

    for gateway in gateways:
        assert text_of(call(gateway, "system__calculate", "6 * 7")) == "42"
        assert request(gateway, "GET", "/admin/login/")[0] == 404
    assert request(web, "GET", "/admin/login/")[0] == 200
    assert request(web, "POST", "/mcp", b"{}")[0] == 404

    discovered_by_the_worker(gateways, tmp_path)
    one_of_two_children_lost(gateways[0])
    with psycopg.connect(web.environment["DATABASE_URL"], autocommit=True) as database:
        takes_over(database, clock, installation("beat"))


def discovered_by_the_worker(gateways: list[Product], tmp_path) -> None:
    """What a command registered is discovered by the worker and called through every gateway."""
    command = {"command": sys.executable, "args": ["-m", "apps.workbench.servers.system"], "cwd": str(ROOT)}
    path = tmp_path / "servers.json"
    path.write_text(json.dumps({"mcpServers": {"second": command}}))
    imported = subprocess.run(
        [sys.executable, "manage.py", "import_servers", str(path)],
        cwd=ROOT,
        env=gateways[0].environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert imported.returncode == 0, imported.stdout + imported.stderr
    for gateway in gateways:
        assert eventually(lambda gateway=gateway: "result" in call(gateway, "second__calculate", "2 + 3"), within=60)


def one_of_two_children_lost(gateway: Product) -> None:
    """Two processes share the port: with one killed, every request is still answered."""
    children = [process for process in gateway.processes() if "serving" in process.cmdline()]
    assert len(children) == 2
    os.kill(children[0].pid, signal.SIGKILL)
    for _ in range(5):
        assert request(gateway, "GET", "/health/ready")[0] == 200


def takes_over(database: psycopg.Connection, first: Product, second: Product) -> None:
    """Of two clocks one ticks; when it is killed, the other one does."""

    def holders() -> list[int]:
        rows = database.execute(
            "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = %s"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            [BEAT_LOCK],
        ).fetchall()
        return [pid for (pid,) in rows]

    def runs() -> int:
        return database.execute("SELECT coalesce(sum(total_run_count), 0) FROM django_celery_beat_periodictask").fetchone()[0]

    (holder,) = eventually(holders, within=20)
    for process in first.processes():
        os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: holders() not in ([], [holder]), within=30)
    assert len(holders()) == 1
    before = runs()
    eventually(lambda: runs() > before, within=60)
    assert second.stop() == 0
