"""Discovery of real servers: processes and sockets, SDK and hand-written, sound and broken."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import Conflict, NotFound, Paused, PermissionDenied, UpstreamTimeout
from apps.common.models import QueueMessage
from apps.common.outbox import unit_of_work
from apps.servers.models import Server
from apps.servers.services.registry import pause_server, register_server, update_server
from apps.tools.models import Discovery, Prompt, Resource, ResourceTemplate, Tool
from apps.tools.selectors import last_discovery, plane_definitions
from apps.tools.services.asking import use_live_connections
from apps.tools.services.claim import claim
from apps.tools.services.discovery import discover_server
from apps.tools.tasks import discover_server_task
from tests.factories import as_user, make_tenant, make_user, unique
from tests.support import eventually, free_port
from tests.tools.support import PROGRAMS, found, outbox, prompt, resource, template, tool

pytestmark = pytest.mark.django_db(transaction=True)


class Offers:
    """A program's file of offers."""

    def __init__(self, path: Path, **offers) -> None:
        self.path = path
        self.change(**offers)

    def change(self, **offers) -> None:
        text = self.path.with_suffix(".new")
        text.write_text(json.dumps(offers))
        text.replace(self.path)


@pytest.fixture
def offers(tmp_path) -> Offers:
    return Offers(tmp_path / "offers.json", tools=[tool("a", "first"), tool("b")])


@pytest.fixture
def tenant(transactional_db):
    return make_tenant()


def stdio(tenant, program: str, *args: str, **fields):
    with tenant_scope(tenant.pk, SYSTEM):
        return register_server(
            slug=unique("s"), transport="stdio", command=sys.executable, args=[str(PROGRAMS / program), *args], **fields
        )


def raw(tenant, offers: Offers, **fields):
    return stdio(tenant, "raw.py", str(offers.path), **fields)


def discover(server, **options):
    with tenant_scope(server.tenant_id, SYSTEM):
        return discover_server(server, **options)


def states(server, model=Tool) -> dict[str, str]:
    return dict(model.unscoped.filter(server=server).values_list("name", "state"))


def in_force(server) -> set[str]:
    with every_tenant():
        return {row.name for row in plane_definitions([server.pk])}


def test_every_list_of_a_server_on_the_official_sdk_all_pages(tenant, offers):
    offers.change(
        page=3,
        instructions="Use it well.",
        tools=[tool(f"t{n}") for n in range(10)],
        resources=[resource(f"a://{n}") for n in range(7)],
        templates=[template("a://{x}"), template("b://{x}")],
        prompts=[prompt("p", arguments=[{"name": "x"}])],
    )
    server = stdio(tenant, "offering.py", "stdio", str(offers.path))
    summary = discover(server)
    assert (summary.error, summary.added, summary.held) == ("", 21, 0)
    with every_tenant():
        assert [row.name for row in plane_definitions([server.pk]) if row.kind == "tool"] == [f"t{n}" for n in range(10)]
    assert states(server, Resource).keys() == {f"a://{n}" for n in range(7)}
    assert states(server, ResourceTemplate).keys() == {"a://{x}", "b://{x}"}
    assert states(server, Prompt) == {"p": "active"}
    server.refresh_from_db()
    assert server.server_info["name"] == "offering"
    assert server.instructions == "Use it well."
    assert "2026-07-28" in server.revisions
    assert server.discovered_at is not None
    endpoint = server.endpoints.get()
    assert (endpoint.state, endpoint.era) == ("healthy", summary.era)


def test_a_server_on_fastmcp_whose_annotations_are_trusted(tenant):
    server = stdio(tenant, "friendly.py", trust_annotations=True)
    summary = discover(server)
    assert (summary.error, summary.added) == ("", 6)
    with every_tenant():
        rows = plane_definitions([server.pk])
    assert {(row.kind, row.name) for row in rows} == {
        ("tool", "weather"), ("tool", "forget"), ("resource", "weather://cities"), ("template", "weather://{city}/today"),
        ("prompt", "plan"),
    }  # fmt: skip
    assert {row.name: row.effects for row in rows if row.kind == "tool"} == {"weather": "read-only", "forget": "destructive"}
    assert discover(server).unchanged == 6


def test_over_streamable_http_with_a_rug_pull_in_between(tenant, offers, settings):
    settings.SWITCHYARD = type(settings.SWITCHYARD)(**{**vars(settings.SWITCHYARD), "allowed_networks": ["loopback"]})
    port = free_port()
    process = subprocess.Popen([sys.executable, PROGRAMS / "offering.py", "http", offers.path, str(port)])
    try:
        with tenant_scope(tenant.pk, SYSTEM):
            server = register_server(slug=unique("s"), transport="http", url=f"http://127.0.0.1:{port}/mcp")
        eventually(lambda: discover(server).ok, within=20)
        assert in_force(server) == {"a", "b"}
        offers.change(tools=[tool("a", "first."), tool("b"), tool("c")])
        with outbox() as notices:
            summary = discover(server)
        assert (summary.held, summary.added, summary.unchanged) == (1, 1, 1)
        assert in_force(server) == {"b", "c"}
        assert len(notices.events("tool.held")) == 1
    finally:
        process.kill()
        process.wait()
    summary = discover(server, limit=10)
    assert summary.error_type == "upstream-unavailable"
    assert in_force(server) == {"b", "c"}
    server.refresh_from_db()
    assert server.discovery_error == summary.error
    assert server.server_info["name"] == "offering"
    assert server.endpoints.get().state == "unhealthy"


def test_definitions_of_any_shape_are_kept_as_they_came(tenant, offers):
    odd = {
        "zz": None,
        "name": "odd",
        "inputSchema": {"type": "object", "properties": {"z": {"const": 1e2}, "a": {"$ref": "https://example.invalid/schema"}}},
        "x-vendor": {"b": [1, 2.50, 1234567890123456789], "a": "ü"},
    }
    offers.change(tools=[odd], page=1)
    server = raw(tenant, offers)
    assert discover(server).added == 1
    with every_tenant():
        (row,) = plane_definitions([server.pk])
    assert row.definition == odd
    assert list(row.definition) == list(odd)
    assert [flag["code"] for flag in Tool.unscoped.get(server=server).flags] == ["network-ref"]


@pytest.mark.parametrize(
    ("mode", "error_type"),
    [
        ({"mode": "die"}, "upstream-died"),
        ({"mode": "silent"}, "upstream-timeout"),
        ({"mode": "rubbish"}, "upstream-protocol-error"),
        ({"mode": "circle", "page": 1, "tools": [tool("a"), tool("b")]}, "upstream-protocol-error"),
        ({"raw": '{"tools":[' + "[" * 5000 + "]" * 5000 + "]}"}, "upstream-timeout"),
        ({"raw": '{"tools":[["a"]]}'}, "upstream-protocol-error"),
    ],
)
def test_a_broken_server_leaves_the_catalogue_as_it_was(tenant, offers, mode, error_type):
    server = raw(tenant, offers)
    discover(server)
    offers.change(**mode)
    started = time.monotonic()
    with outbox() as notices:
        summary = discover(server, limit=3)
    assert summary.error_type == error_type, summary.error
    assert time.monotonic() - started < 15
    assert in_force(server) == {"a", "b"}
    (event,) = notices.events("server.discovered")
    assert (event["outcome"], event["details"]["error"]) == ("failed", error_type)
    offers.change(tools=[tool("a", "first"), tool("b")])
    assert discover(server).unchanged == 2


def test_a_command_that_is_not_there(tenant):
    with tenant_scope(tenant.pk, SYSTEM):
        server = register_server(slug=unique("s"), transport="stdio", command="/nonexistent/program")
    summary = discover(server)
    assert summary.error_type == "upstream-unavailable"
    assert "/nonexistent/program" in summary.error


def test_no_process_is_left(tenant, offers, tmp_path):
    server = raw(tenant, offers)
    discover(server)
    marker = str(offers.path)
    commands = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                commands.append((entry / "cmdline").read_text())
            except OSError:
                continue
    assert not [command for command in commands if marker in command]


def test_one_discovery_of_a_server_at_a_time_and_once_more_for_who_asked_meanwhile(tenant, offers):
    server = raw(tenant, offers)
    with tenant_scope(tenant.pk, SYSTEM):
        with unit_of_work():
            assert claim(server)
        with pytest.raises(Conflict, match="already"):
            discover_server(server)
    row = Discovery.unscoped.get(server=server)
    assert row.again is True
    Discovery.unscoped.filter(pk=row.pk).update(lease_until="2020-01-01T00:00:00Z")
    assert discover(server).ok
    row.refresh_from_db()
    assert (row.token, row.lease_until, row.again) == ("", None, False)
    assert row.summary["added"] == 2


def test_many_at_once_run_one_after_the_other_or_not_at_all(tenant, offers):
    server = raw(tenant, offers)
    results: list[object] = []

    def run() -> None:
        try:
            results.append(discover(server))
        except Conflict as error:
            results.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done = [one for one in results if not isinstance(one, Conflict)]
    assert len(results) == 6
    assert len(done) >= 1
    assert sum(one.added for one in done) == 2
    assert states(server) == {"a": "active", "b": "active"}


def test_a_result_that_comes_after_the_claim_lapsed_is_not_written(tenant, offers):
    server = raw(tenant, offers)
    discover(server)
    offers.change(mode="silent")

    def steal() -> None:
        try:
            with tenant_scope(tenant.pk, SYSTEM):
                eventually(lambda: Discovery.objects.filter(server=server).exclude(token="").exists())
                Discovery.objects.filter(server=server).update(token="somebody else")
        finally:
            connections.close_all()

    thread = threading.Thread(target=steal)
    thread.start()
    with pytest.raises(Conflict, match="another one"):
        discover(server, limit=2)
    thread.join()
    assert Discovery.unscoped.get(server=server).token == "somebody else"


def test_what_another_server_said_is_not_taken_for_this_one_s(tenant, offers, tmp_path):
    """The connection is changed while the old one is being asked: its answer is thrown away."""
    offers.change(mode="slow", tools=[tool("old")])
    server = raw(tenant, offers)
    other = Offers(tmp_path / "other.json", tools=[tool("new")])

    def repoint() -> None:
        try:
            with tenant_scope(tenant.pk, SYSTEM):
                eventually(lambda: Discovery.objects.filter(server=server).exclude(token="").exists())
                update_server(server, args=[str(PROGRAMS / "raw.py"), str(other.path)])
        finally:
            connections.close_all()
            offers.change(tools=[tool("old")])

    thread = threading.Thread(target=repoint)
    thread.start()
    with pytest.raises(Conflict, match="changed while it was asked"):
        discover(server)
    thread.join()
    assert states(server) == {}
    assert discover(server).added == 1
    assert states(server) == {"new": "active"}


def test_paused_foreign_and_unknown_servers(tenant, offers):
    server = raw(tenant, offers)
    other = make_tenant()
    with tenant_scope(other.pk, SYSTEM), pytest.raises(NotFound):
        discover_server(server)
    guest = make_user(tenant, role="guest")
    with outbox() as notices, tenant_scope(tenant.pk, as_user(guest)), pytest.raises(PermissionDenied):
        discover_server(server)
    assert [event["action"] for event in notices.events("access.refused")] == ["server.write"]
    with tenant_scope(tenant.pk, SYSTEM):
        pause_server(server)
        with pytest.raises(Paused):
            discover_server(server)
    assert last_discovery_of(server) is None


def last_discovery_of(server):
    with every_tenant():
        return last_discovery(server)


def enqueued(server) -> int:
    """How many discoveries of a server wait for a worker."""
    if connections["default"].vendor == "sqlite":
        bodies = list(QueueMessage.objects.values_list("body", flat=True))
    else:
        with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
            bodies = [text.decode() for text in client.lrange(settings.CELERY_TASK_DEFAULT_QUEUE, 0, -1)]
    headers = [json.loads(body)["headers"] for body in bodies]
    return sum(one["task"] == "tools.discover_server" and str(server.pk) in one["argsrepr"] for one in headers)


def test_registering_and_changing_a_connection_enqueue_a_discovery_with_the_commit(tenant, offers):
    server = raw(tenant, offers)
    assert enqueued(server) == 1
    with tenant_scope(tenant.pk, SYSTEM):
        update_server(server, description="Something else.")
        assert enqueued(server) == 1
        update_server(server, args=[str(PROGRAMS / "raw.py"), "elsewhere"])
        assert enqueued(server) == 2
        with contextlib.suppress(ZeroDivisionError), unit_of_work():
            update_server(server, args=[str(PROGRAMS / "raw.py"), "nowhere"])
            raise ZeroDivisionError
    assert enqueued(server) == 2


def test_the_task_does_it_and_leaves_alone_what_it_cannot(tenant, offers):
    server = raw(tenant, offers)
    discover_server_task.apply(args=[str(server.pk)], throw=True)
    assert in_force(server) == {"a", "b"}
    with tenant_scope(tenant.pk, SYSTEM):
        pause_server(server)
    discover_server_task.apply(args=[str(server.pk)], throw=True)
    discover_server_task.apply(args=["019a0000-0000-7000-8000-000000000000"], throw=True)


def test_the_command_reports_and_fails_when_one_fails(tenant, offers, capsys):
    server = raw(tenant, offers)
    call_command("discover", server.slug)
    assert f"{server.slug}: 2 added (legacy" in capsys.readouterr().out
    offers.change(tools=[tool("a", "changed")])
    call_command("discover", str(server.pk))
    out = capsys.readouterr().out
    assert "1 held, 1 removed" in out
    assert "tool held: a" in out
    offers.change(mode="die")
    with pytest.raises(CommandError, match="1 of 1"):
        call_command("discover", server.slug, "--json")
    assert json.loads(capsys.readouterr().out)["error_type"] == "upstream-died"
    with pytest.raises(CommandError, match="No such server"):
        call_command("discover", "nobody-knows-it")
    with pytest.raises(CommandError, match="--all"):
        call_command("discover")


def test_the_command_takes_all_and_asks_which_tenant(tenant, offers, capsys):
    server = raw(tenant, offers)
    other = make_tenant()
    with tenant_scope(other.pk, SYSTEM):
        register_server(
            slug=server.slug, transport="stdio", command=sys.executable, args=[str(PROGRAMS / "raw.py"), str(offers.path)]
        )
    with pytest.raises(CommandError, match="--tenant"):
        call_command("discover", server.slug)
    call_command("discover", server.slug, "--tenant", other.slug)
    assert in_force(server) == set()
    capsys.readouterr()
    call_command("discover", "--all")
    assert capsys.readouterr().out.count("2 added") == 1
    assert in_force(server) == {"a", "b"}


@pytest.mark.parametrize("connection", ["answers", "fails", "is missing"])
def test_the_connection_that_calls_use_is_asked_first(tenant, offers, connection: str) -> None:
    server = raw(tenant, offers)
    with tenant_scope(tenant.pk, SYSTEM):
        endpoint = str(server.endpoints.get().pk)
    asked = []

    def live(server_id: str, version: int, limit: float, survey: bool):
        asked.append((server_id, version))
        if connection == "fails":
            raise UpstreamTimeout("It is stuck.")
        return (endpoint, found(tool("only-there"))) if connection == "answers" else None

    use_live_connections(live)
    try:
        assert discover(server).ok
    finally:
        use_live_connections(None)
    assert asked == [(str(server.pk), server.version)]
    assert in_force(server) == ({"only-there"} if connection == "answers" else {"a", "b"})


def test_older_revisions_are_asked_for_once_in_a_later_discovery(tenant, offers) -> None:
    server = raw(tenant, offers)
    asked = []

    def live(server_id: str, version: int, limit: float, survey: bool):
        asked.append(survey)
        said = found(tool("a"))
        said.era, said.surveyed = "legacy", survey
        said.revisions = ("2025-11-25", "2025-03-26") if survey else ("2025-11-25",)
        return str(server.endpoints.get().pk), said

    def look() -> list[str]:
        assert discover(server).ok
        server.refresh_from_db()
        return server.revisions

    use_live_connections(live)
    try:
        with tenant_scope(tenant.pk, SYSTEM):
            assert look() == look() == ["2025-11-25"]
            Server.unscoped.filter(pk=server.pk).update(discovered_at=now() - timedelta(minutes=2))
            assert look() == ["2025-11-25", "2025-03-26"]
            Server.unscoped.filter(pk=server.pk).update(discovered_at=now() - timedelta(minutes=2))
            assert look() == ["2025-11-25", "2025-03-26"]
    finally:
        use_live_connections(None)
    assert asked == [False, False, True, False]
