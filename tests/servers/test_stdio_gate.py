"""Only a superuser gets a command started, on every path; the canary is a command that would leave a file behind."""

import sys

import pytest

from apps.common.context import tenant_scope
from apps.common.errors import PermissionDenied, StepUpRequired
from apps.servers.models import Endpoint, Server
from apps.servers.services.connection import test_connection as try_connection
from apps.servers.services.registry import (
    clone_server,
    delete_credential,
    register_server,
    resume_server,
    set_credential,
    update_server,
)
from apps.servers.services.secrets import secrets_of
from apps.servers.services.transfer import import_servers
from tests.factories import as_key, as_user, make_key, make_superuser, make_user
from tests.servers.support import PUBLIC, make_server, recorded, superuser_in

pytestmark = pytest.mark.django_db(databases="__all__")

ROLES = ("admin", "operator", "user", "guest", "auditor", "service")


def paths(web: Server, stdio: Server, canary: str) -> dict:
    """Every verb with which a command can be had, changed or influenced; `canary` is the file that it would make."""
    command = {"command": "touch", "args": [canary]}
    return {
        "create": lambda: register_server(slug="evil", transport="stdio", **command),
        "create, said to be http": lambda: register_server(slug="evil", transport="http", url=PUBLIC, **command),
        "create, said to come from a file": lambda: register_server(slug="evil", transport="stdio", from_file=True, **command),
        "update to stdio": lambda: update_server(web, transport="stdio", **command),
        "update, transport left": lambda: update_server(web, **command),
        "update command": lambda: update_server(stdio, **command),
        "update arguments": lambda: update_server(stdio, args=["-c", f"open({canary!r}, 'w')"]),
        "update directory": lambda: update_server(stdio, cwd="/tmp"),
        "update environment": lambda: update_server(stdio, env={"PATH": "/tmp"}),
        "update, said to come from a file": lambda: update_server(stdio, from_file=True, **command),
        "update away from stdio": lambda: update_server(stdio, transport="http", url=PUBLIC),
        "test unsaved": lambda: try_connection(transport="stdio", **command),
        "test unsaved, said to be http": lambda: try_connection(transport="http", url=PUBLIC, **command),
        "preview": lambda: import_servers({"mcpServers": {"evil": command}}, dry_run=True),
        "import": lambda: import_servers({"mcpServers": {"evil": command}}),
        "import, said to come from a file": lambda: import_servers({"mcpServers": {"evil": command}}, from_file=True),
        "import over a server": lambda: import_servers({"mcpServers": {stdio.slug: command}}),
        "clone": lambda: clone_server(stdio, "evil"),
        "set environment": lambda: set_credential(stdio, "env", "PATH", "/tmp"),
        "delete environment": lambda: delete_credential(stdio, "env", "PATH"),
    }


def refused(verb) -> bool:
    """Carry out the verb; an import says in its result what an exception says elsewhere."""
    try:
        result = verb()
    except PermissionDenied:
        return True
    return isinstance(result, list) and bool(result) and all(row.action == "failed" for row in result)


@pytest.mark.parametrize("role", ROLES)
def test_no_role_gets_a_command_started_on_any_path(tenant, tmp_path, role):
    canary = tmp_path / "canary"
    web, stdio = make_server(tenant), make_server(tenant, command=sys.executable, args=["-c", "pass"], env={"PATH": "/usr/bin"})
    endpoint = Endpoint.unscoped.filter(server=stdio).values().get()
    user = make_user(tenant, role)
    key, _ = make_key(user, tenant, inherits_owner=True)
    for actor in (as_user(user), as_key(key)):
        for name, verb in paths(web, stdio, str(canary)).items():
            with recorded() as found, tenant_scope(tenant.pk, actor):
                assert refused(verb), name
            refusals = [event for event in found if event["event_type"] == "access.refused" and event["actor_id"] == actor.id]
            assert refusals, name
            assert {event["event_type"] for event in found} == {"access.refused"}, name
    assert not canary.exists()
    assert Server.unscoped.filter(tenant=tenant).count() == 2
    assert Endpoint.unscoped.filter(server=stdio).values().get() == endpoint
    assert secrets_of(stdio.pk).env == {"PATH": "/usr/bin"}


def test_the_refusal_is_that_only_a_superuser_may(tenant):
    with tenant_scope(tenant.pk, as_user(make_user(tenant, "admin"))), pytest.raises(StepUpRequired) as caught:
        register_server(slug="evil", transport="stdio", command="touch")
    assert caught.value.extra["rule"] == "superuser-only"


def test_a_superusers_key_with_narrow_scopes_is_no_superuser(tenant):
    key, _ = make_key(make_superuser(), tenant, inherits_owner=True, scopes=["server.read"])
    with tenant_scope(tenant.pk, as_key(key)), pytest.raises(PermissionDenied):
        register_server(slug="evil", transport="stdio", command="touch")


def test_what_does_not_touch_the_command_is_not_held_back(tenant):
    stdio = make_server(tenant, command="cat")
    with tenant_scope(tenant.pk, as_user(make_user(tenant, "admin"))):
        assert update_server(stdio, description="x", timeout_seconds=9).timeout_seconds == 9
        assert not resume_server(stdio).paused


def test_off_starts_nothing_for_nobody(tenant, tmp_path, configure):
    canary = tmp_path / "canary"
    web, stdio = make_server(tenant), make_server(tenant, command="cat", env={"PATH": "/usr/bin"})
    configure(stdio="off")
    for origin in ("admin", "rest", "cli", "start"):
        for name, verb in paths(web, stdio, str(canary)).items():
            if name == "update away from stdio":
                continue
            with recorded() as found, superuser_in(tenant, origin=origin):
                assert refused(verb), name
            rules = {event["details"]["rule"] for event in found if event["event_type"] == "access.refused"}
            assert rules == {"stdio-off"}, name
    with pytest.raises(PermissionDenied):
        secrets_of(stdio.pk)
    with superuser_in(tenant), pytest.raises(PermissionDenied):
        try_connection(stdio)
    assert not canary.exists()
    with superuser_in(tenant):
        assert update_server(stdio, transport="http", url=PUBLIC).transport == "http"


def test_files_takes_commands_from_files_on_this_machine_alone(tenant, tmp_path, configure):
    before = make_server(tenant, "typed", command="cat")
    configure(stdio="files")
    entry = {"mcpServers": {"listed": {"command": "cat", "env": {"TOKEN": "t"}}}}
    for origin in ("admin", "rest"):
        with superuser_in(tenant, origin=origin):
            for from_file in (False, True):
                with pytest.raises(PermissionDenied) as caught:
                    register_server(slug="evil", transport="stdio", command="touch", from_file=from_file)
                assert caught.value.extra["rule"] == "stdio-files"
            assert [row.action for row in import_servers(entry, from_file=True)] == ["failed"]
    with superuser_in(tenant, origin="cli"):
        assert [row.action for row in import_servers(entry)] == ["failed"]
        assert [row.action for row in import_servers(entry, from_file=True)] == ["created"]
        assert [row.action for row in import_servers(entry, from_file=True)] == ["skipped"]
    listed = Server.unscoped.get(tenant=tenant, slug="listed")
    assert secrets_of(listed.pk).env == {"TOKEN": "t"}
    with pytest.raises(PermissionDenied):
        secrets_of(before.pk)
    with superuser_in(tenant), pytest.raises(PermissionDenied):
        set_credential(listed, "env", "PATH", str(tmp_path))


def test_a_command_that_came_from_a_file_and_was_changed_by_hand_is_no_longer_from_a_file(tenant, configure):
    with superuser_in(tenant, origin="cli"):
        server = register_server(slug="listed", transport="stdio", command="cat", from_file=True)
    assert Endpoint.unscoped.get(server=server).from_file
    with superuser_in(tenant):
        update_server(server, args=["-"])
    configure(stdio="files")
    with pytest.raises(PermissionDenied):
        secrets_of(server.pk)
