"""Testing a connection, against real MCP servers over stdio and HTTP, and against what is none."""

import socket
import sys
import threading
from pathlib import Path

import pytest
import uvicorn

from apps.common.context import tenant_scope
from apps.common.errors import AddressRefused, PermissionDenied, ValidationFailed
from apps.servers.models import Credential, Endpoint, Server
from apps.servers.services.connection import test_connection as try_connection
from apps.servers.services.registry import update_server
from tests.factories import as_user, make_user
from tests.servers.support import PUBLIC, make_server, recorded, superuser_in
from tests.support import eventually, free_port

pytestmark = pytest.mark.django_db(databases="__all__")

GREETER = Path(__file__).parent / "programs" / "greeter.py"
COMMAND = {"command": sys.executable, "args": [str(GREETER)]}
PROBLEMS = "https://switchyard.dev/problems/"


@pytest.fixture(scope="module")
def greeter_url():
    """The SDK's server over Streamable HTTP; it wants a header."""
    from tests.servers.programs.greeter import server

    inner = server.streamable_http_app()

    async def app(scope, receive, send):
        if scope["type"] == "http" and (b"x-key", b"let me in") not in scope["headers"]:
            await send({"type": "http.response.start", "status": 401, "headers": []})
            await send({"type": "http.response.body", "body": b"who are you?"})
            return
        await inner(scope, receive, send)

    port = free_port()
    running = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="on", ws="none"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    eventually(lambda: running.started)
    yield f"http://127.0.0.1:{port}/mcp"
    running.should_exit = True
    running.force_exit = True
    thread.join(10)


@pytest.fixture
def loopback(configure):
    configure(allowed_networks=["loopback"])


def test_a_registered_stdio_server_is_found_and_its_state_kept(tenant):
    server = make_server(tenant, **COMMAND)
    with recorded() as found, tenant_scope(tenant.pk, as_user(make_user(tenant, "operator"))):
        report = try_connection(server)
    assert report.ok, report.error
    assert report.server_info["name"] == "greeter"
    assert report.era in ("modern", "dual")
    assert "2026-07-28" in report.revisions
    assert "tools" in report.capabilities
    assert report.duration_ms > 0
    endpoint = Endpoint.unscoped.get(server=server)
    assert (endpoint.state, endpoint.era) == ("healthy", report.era)
    tested = [event for event in found if event["event_type"] == "server.tested"]
    assert [(event["outcome"], event["object_id"]) for event in tested] == [("ok", str(server.pk))]


def test_unsaved_settings_are_tried_and_nothing_is_kept(tenant):
    with recorded() as found, superuser_in(tenant):
        report = try_connection(transport="stdio", name="Draft", description="as the form has it", **COMMAND)
    assert report.ok, report.error
    assert not Server.unscoped.filter(tenant=tenant).exists()
    assert not Credential.unscoped.filter(tenant=tenant).exists()
    assert [event["event_type"] for event in found if event["object_kind"] == "server"] == ["server.tested"]


def test_no_process_is_left(tenant, tmp_path):
    pid_file = tmp_path / "pid"
    script = f"import os,runpy; open({str(pid_file)!r},'w').write(str(os.getpid())); runpy.run_path({str(GREETER)!r}, run_name='__main__')"
    with superuser_in(tenant):
        assert try_connection(transport="stdio", command=sys.executable, args=["-c", script]).ok
    eventually(lambda: not Path(f"/proc/{pid_file.read_text()}").exists())


def test_over_http_with_and_without_the_right_header(tenant, loopback, greeter_url):
    server = make_server(tenant, url=greeter_url)
    with superuser_in(tenant):
        report = try_connection(server)
        assert not report.ok
        assert report.error_type == PROBLEMS + "upstream-unauthenticated"
        assert Endpoint.unscoped.get(server=server).state == "unauthenticated"
        update_server(server, headers={"X-Key": "let me in"})
        report = try_connection(server)
        assert report.ok, report.error
        assert Endpoint.unscoped.get(server=server).state == "healthy"
        assert try_connection(transport="http", url=greeter_url, headers={"X-Key": "let me in"}).ok


def test_the_address_policy_holds_for_unsaved_settings_and_at_connect_time(tenant, configure, greeter_url):
    configure(allowed_networks=["loopback"])
    server = make_server(tenant, url=greeter_url)
    configure(allowed_networks=[])
    with superuser_in(tenant):
        with pytest.raises(AddressRefused):
            try_connection(transport="http", url=greeter_url)
        report = try_connection(server)
    assert not report.ok
    assert report.error_type == PROBLEMS + "address-refused"


def test_a_server_that_is_down_or_hangs_or_is_none_is_a_report_in_time(tenant, loopback):
    with socket.create_server(("127.0.0.1", 0)) as silent, superuser_in(tenant):
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        report = try_connection(transport="http", url=hanging, time_limit=0.3)
        assert report.error_type == PROBLEMS + "upstream-timeout"
        assert report.duration_ms < 5000
        report = try_connection(transport="http", url=f"http://127.0.0.1:{free_port()}/mcp")
        assert report.error_type == PROBLEMS + "upstream-unavailable"
        report = try_connection(transport="stdio", command="/nonexistent/program")
        assert report.error_type == PROBLEMS + "upstream-unavailable"
        report = try_connection(transport="stdio", command="/bin/false")
        assert not report.ok
        report = try_connection(transport="stdio", command="/bin/sleep", args=["60"], time_limit=0.3)
        assert report.error_type == PROBLEMS + "upstream-timeout"
        report = try_connection(transport="stdio", command="/bin/echo", args=["rubbish"])
        assert not report.ok
        assert report.error_type.startswith(PROBLEMS + "upstream-")


def test_a_failure_of_a_registered_server_becomes_its_state(tenant, loopback):
    server = make_server(tenant, url=f"http://127.0.0.1:{free_port()}/mcp")
    with recorded() as found, superuser_in(tenant):
        report = try_connection(server)
    endpoint = Endpoint.unscoped.get(server=server)
    assert (endpoint.state, endpoint.state_reason) == ("unhealthy", report.error[:500])
    assert {event["event_type"]: event["outcome"] for event in found}["server.tested"] == "failed"


def test_credentials_that_cannot_be_opened_are_a_report(tenant):
    server = make_server(tenant, headers={"X-Key": "v"})
    Credential.unscoped.filter(server=server).update(sealed=b"\x02k1damaged")
    with superuser_in(tenant):
        report = try_connection(server)
    assert report.error_type == PROBLEMS + "not-ready"
    assert "X-Key" in report.error


def test_bad_settings_and_missing_rights_are_refused_before_anything_runs(tenant):
    with superuser_in(tenant):
        for settings in (
            {"transport": "http", "url": "gopher://x"},
            {"transport": "http", "url": PUBLIC, "headers": {"Host": "x"}},
            {"transport": "http", "url": PUBLIC, "surprise": 1},
            {"transport": "stdio"},
        ):
            with pytest.raises(ValidationFailed):
                try_connection(**settings)
        with pytest.raises(ValidationFailed):
            try_connection(make_server(tenant), url=PUBLIC)
    with tenant_scope(tenant.pk, as_user(make_user(tenant, "user"))), pytest.raises(PermissionDenied):
        try_connection(transport="http", url=PUBLIC)
