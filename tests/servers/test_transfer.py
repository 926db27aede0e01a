"""Import and export of clients' files, through the registry's own verbs."""

import io
import json

import pytest
from django.core.management import CommandError, call_command

from apps.common.context import tenant_scope
from apps.common.errors import PermissionDenied
from apps.servers.models import Credential, Endpoint, Server
from apps.servers.services.registry import pause_server, update_server
from apps.servers.services.secrets import secrets_of
from apps.servers.services.transfer import export_servers, import_servers
from tests.factories import as_user, make_role, make_tenant, make_user
from tests.servers.support import PRODUCT, PUBLIC, last_id, make_server, recorded, superuser_in

pytestmark = pytest.mark.django_db(databases="__all__")

CANARY = "canary-2342-secret-value"


def actions(results) -> dict[str, str]:
    return {result.slug: result.action for result in results}


def document() -> dict:
    return {
        "mcpServers": {
            "Time": {"command": "uvx", "args": ["mcp-server-time"], "env": {"TZ_TOKEN": CANARY}, "cwd": "/srv"},
            "web": {"type": "http", "url": PUBLIC, "headers": {"Authorization": f"Bearer {CANARY}"}},
            "old": {"url": "https://93.184.215.14/sse", "disabled": True},
        }
    }


def test_importing_registers_and_importing_again_changes_nothing(tenant):
    with superuser_in(tenant):
        first = import_servers(document())
        assert actions(first) == {"time": "created", "web": "created", "old": "created"}
        before = last_id()
        assert set(actions(import_servers(document())).values()) == {"skipped"}
        assert last_id() == before
    rows = {row.slug: row for row in Server.unscoped.filter(tenant=tenant)}
    assert {slug: row.transport for slug, row in rows.items()} == {"time": "stdio", "web": "http", "old": "sse"}
    assert rows["time"].name == "Time"
    assert {slug for slug, row in rows.items() if row.paused} == {"old"}
    assert secrets_of(rows["time"].pk).env == {"TZ_TOKEN": CANARY}
    assert secrets_of(rows["web"].pk).headers == {"Authorization": f"Bearer {CANARY}"}


def test_only_what_differs_is_updated(tenant):
    changed = document()
    changed["mcpServers"]["Time"]["args"] += ["--utc"]
    changed["mcpServers"]["web"]["headers"]["X-More"] = "m"
    with superuser_in(tenant):
        import_servers(document())
        with recorded() as found:
            results = import_servers(changed)
    assert actions(results) == {"time": "updated", "web": "updated", "old": "skipped"}
    assert sorted(event["object_label"] for event in found) == ["time", "web"]
    assert CANARY not in str(found)


def test_what_the_console_set_stays_and_an_operators_pause_too(tenant):
    with superuser_in(tenant):
        import_servers(document())
        server = Server.objects.get(slug="web")
        update_server(server, name="Renamed", review="hold-all")
        pause_server(server)
        assert actions(import_servers(document()))["web"] == "skipped"
        again = document()
        again["mcpServers"]["web"]["disabled"] = False
        assert actions(import_servers(again))["web"] == "updated"
    row = Server.unscoped.get(pk=server.pk)
    assert (row.name, row.review, row.paused) == ("Renamed", "hold-all", False)


def test_one_bad_entry_does_not_lose_the_others(tenant, configure):
    configure(allowed_networks=[])
    mixed = document()
    mixed["mcpServers"] |= {
        "neither": {},
        "inside": {"url": "http://169.254.169.254/mcp"},
        "loader": {"command": "x", "env": {"LD_PRELOAD": "x"}},
        "splitter": {"url": PUBLIC, "headers": {"X": "a\r\nb"}},
        "mcp": {"url": PUBLIC},
        "a b": {"url": PUBLIC},
        "a-b": {"url": PUBLIC},
    }
    with superuser_in(tenant):
        results = import_servers(mixed)
    failed = [result for result in results if result.action == "failed"]
    assert [result.name for result in failed] == ["neither", "inside", "loader", "splitter", "mcp", "a b", "a-b"]
    assert all(result.error and result.error_type for result in failed)
    assert sorted(Server.unscoped.filter(tenant=tenant).values_list("slug", flat=True)) == ["old", "time", "web"]


def test_a_dry_run_finds_the_same_and_keeps_nothing(tenant):
    with superuser_in(tenant):
        with recorded() as found:
            assert set(actions(import_servers(document(), dry_run=True)).values()) == {"created"}
        assert not Server.objects.exists()
        assert not found
        import_servers(document())
        changed = document()
        changed["mcpServers"]["web"]["url"] = PUBLIC + "/2"
        assert actions(import_servers(changed, dry_run=True)) == {"time": "skipped", "web": "updated", "old": "skipped"}
        assert Endpoint.objects.get(server__slug="web").url == PUBLIC


def test_a_document_over_http_cannot_read_the_gateways_variables(tenant, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", CANARY)
    entry = {"mcpServers": {"web": {"url": PUBLIC, "headers": {"X-Key": "${SOME_TOKEN}"}}}}
    with superuser_in(tenant, origin="rest"):
        for from_file in (False, True):
            [result] = import_servers(entry, from_file=from_file)
            assert result.action == "failed"
            assert "${SOME_TOKEN}" in result.error
    with superuser_in(tenant, origin="cli"):
        assert actions(import_servers(entry, from_file=True)) == {"web": "created"}
    assert secrets_of(Server.unscoped.get(tenant=tenant).pk).headers == {"X-Key": CANARY}


def test_a_stored_value_is_kept_when_its_placeholder_has_no_value(tenant):
    make_server(tenant, "web", headers={"X-Key": CANARY})
    entry = {"mcpServers": {"web": {"url": PUBLIC, "headers": {"X-Key": "${NO_SUCH_VARIABLE_HERE}"}}}}
    with superuser_in(tenant):
        [result] = import_servers(entry)
    assert result.action == "skipped"
    assert "keeps its stored value" in result.warnings[0]
    assert secrets_of(Server.unscoped.get(tenant=tenant).pk).headers == {"X-Key": CANARY}


def test_a_built_in_server_is_not_overwritten(tenant):
    make_server(tenant, "system", builtin=True, actor=PRODUCT)
    with superuser_in(tenant):
        [result] = import_servers({"mcpServers": {"system": {"url": PUBLIC + "/evil"}}})
    assert result.action == "failed"


def test_roles_without_the_right_import_and_export_nothing(tenant):
    make_server(tenant)
    with tenant_scope(tenant.pk, as_user(make_user(tenant, make_role(tenant, "tool.*")))):
        with pytest.raises(PermissionDenied):
            import_servers(document())
        with pytest.raises(PermissionDenied):
            export_servers()


def test_an_export_holds_no_secret_and_no_other_tenant_and_comes_back_the_same(tenant):
    make_server(make_tenant(), "foreign")
    make_server(tenant, "system", builtin=True, actor=PRODUCT)
    with superuser_in(tenant):
        import_servers(document())
        update_server(Server.objects.get(slug="time"), review="accept", timeout_seconds=9, description="Clock")
        with recorded() as found:
            exported = export_servers()
    assert [event["event_type"] for event in found] == ["server.exported"]
    text = json.dumps(exported)
    assert CANARY not in text
    assert sorted(exported["mcpServers"]) == ["old", "time", "web"]
    assert exported["mcpServers"]["time"] == {
        "command": "uvx",
        "args": ["mcp-server-time"],
        "cwd": "/srv",
        "env": {"TZ_TOKEN": "${TIME__TZ_TOKEN}"},
        "x-switchyard": {"name": "Time", "description": "Clock", "review": "accept", "timeout_seconds": 9},
    }
    assert exported["mcpServers"]["web"]["headers"] == {"Authorization": "${WEB__AUTHORIZATION}"}
    elsewhere = make_tenant()
    values = {"TIME__TZ_TOKEN": CANARY, "WEB__AUTHORIZATION": f"Bearer {CANARY}"}
    with superuser_in(elsewhere):
        assert set(actions(import_servers(exported, environment=values)).values()) == {"created"}
        assert export_servers() == exported
        assert secrets_of(Server.objects.get(slug="web").pk).headers == {"Authorization": f"Bearer {CANARY}"}
        assert set(actions(import_servers(exported)).values()) == {"skipped"}


def test_the_commands(tenant, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", CANARY)
    source = tmp_path / "mcp.json"
    entry = {"url": PUBLIC, "headers": {"X-Key": "${SOME_TOKEN}"}, "odd": 1}
    source.write_text('{"mcpServers": {"web": ' + json.dumps(entry) + ",},} // end")
    out = io.StringIO()
    call_command("import_servers", str(source), "--tenant", tenant.slug, "--dry-run", stdout=out)
    assert "created  web" in out.getvalue()
    assert not Server.unscoped.filter(tenant=tenant).exists()
    with recorded() as found:
        call_command("import_servers", str(source), "--tenant", tenant.slug, stdout=out)
    assert "odd is not used" in out.getvalue()
    assert (found[0]["actor_kind"], found[0]["origin"]) == ("system", "cli")
    target = tmp_path / "out.json"
    call_command("export_servers", str(target), "--tenant", tenant.slug, stdout=out)
    assert json.loads(target.read_text())["mcpServers"]["web"]["headers"] == {"X-Key": "${WEB__X_KEY}"}
    assert CANARY not in out.getvalue() + target.read_text()
    call_command("export_servers", "--tenant", tenant.slug, stdout=out)


def test_the_commands_end_with_one_clear_line(tenant, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"mcpServers": {"a": {}, "b": {"url": PUBLIC}}}))
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 of 2 servers"):
        call_command("import_servers", str(bad), "--tenant", tenant.slug, stdout=out)
    assert "failed   a: It has neither" in out.getvalue()
    assert Server.unscoped.filter(tenant=tenant).count() == 1
    bad.write_text("{")
    for arguments in ([str(bad)], [str(tmp_path / "missing.json")], [str(tmp_path)]):
        with pytest.raises(CommandError):
            call_command("import_servers", *arguments, "--tenant", tenant.slug)
    with pytest.raises(CommandError, match="no tenant"):
        call_command("export_servers", "--tenant", "no-such-tenant")
    with pytest.raises(CommandError):
        call_command("export_servers", str(tmp_path / "no" / "such"), "--tenant", tenant.slug)


def test_a_credential_name_is_told_apart_in_an_export(tenant):
    make_server(tenant, "a-b", headers={"C": "1"})
    make_server(tenant, "a", headers={"B-C": "2"})
    with superuser_in(tenant):
        exported = export_servers()["mcpServers"]
    assert {entry["headers"][name] for entry in exported.values() for name in entry["headers"]} == {"${A_B__C}", "${A__B_C}"}
    assert Credential.unscoped.filter(tenant=tenant).count() == 2
