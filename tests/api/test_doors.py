"""The console and the API leave the same state and the same events: one service stands behind both doors."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import APIKey, Membership, Role, Tenant, User
from apps.servers.models import Server, UpstreamProcess
from apps.tools.models import Grant, Tool, Toolset
from tests.api.state import Left, Undone
from tests.api.world import NOWHERE, World
from tests.factories import make_superuser, make_user

pytestmark = pytest.mark.django_db

Door = Callable[[Client, World], Any]


def page(model: Any, verb: str, row: Any = None) -> str:
    """The address of an admin page."""
    name = f"admin:{model._meta.app_label}_{model._meta.model_name}_{verb}"
    return reverse(name, args=(row.pk,)) if row is not None else reverse(name)


def form(model: Any, verb: str, row: Callable[[World], Any] | None = None, **fields: Any) -> Door:
    """Send a form of the console."""

    def send(client: Client, world: World) -> Any:
        given = {name: value(world) if callable(value) else value for name, value in fields.items()}
        return client.post(
            page(model, verb, row(world) if row else None), {name.replace("__", "-"): value for name, value in given.items()}
        )

    return send


def rest(method: str, path: str, **body: Any) -> Door:
    """Send the same to the API, in the same person's session; `{server}` in the path is the world's server."""

    def send(client: Client, world: World) -> Any:
        given = {name: value(world) if callable(value) else value for name, value in body.items()}
        address = "/api/v1/" + path.format(
            **{name: getattr(value, "pk", value) for name, value in vars(world).items()}, tool=world.definitions["tools"].pk
        )
        data = b"" if method == "DELETE" else json.dumps(given).encode()
        headers = {"X-Switchyard-Tenant": world.tenant.slug}
        return client.generic(method, address, data, content_type="application/json", headers=headers)

    return send


def server_form(**fields: Any) -> dict[str, Any]:
    """What the console's form of a server sends."""
    return {
        "slug": "billing", "name": "", "description": "", "transport": "http", "url": NOWHERE, "command": "", "args": "", "cwd": "",
        "review": "hold-changed", "timeout_seconds": "60", "max_concurrency": "256", "idle_seconds": "600", **fields,
    }  # fmt: skip


def change_form(**fields: Any) -> dict[str, Any]:
    """The same for a server that there is."""
    given = server_form(**fields)
    del given["slug"]
    return {**given, "name": lambda world: world.server.name, "review": "hold-all"} | fields


def new_key(client: Client, world: World) -> Any:
    """Make a key on the console's page, which hands out a number that is good for one."""
    shown = client.get(page(APIKey, "add")).content.decode()
    nonce, owner = re.search(r'name="nonce" value="([^"]+)"', shown), re.search(r'<option value="([^"]+)" selected', shown)
    assert nonce
    assert owner
    given = {
        "name": "laptop",
        "owner": owner.group(1),
        "access": "inherit",
        "wide": "on",
        "manage": "on",
        "lifetime": "",
        "nonce": nonce.group(1),
    }
    return client.post(page(APIKey, "add"), given)


def entry(world: World) -> list[dict[str, str]]:
    """One entry of a toolset, as the API takes it."""
    return [{"server": str(world.server.pk), "kind": "tool", "pattern": "search", "rename": "find", "description": ""}]


ENTRY = {
    "entries__present": "1", "entries__server": lambda world: [str(world.server.pk)], "entries__kind": ["tool"],
    "entries__pattern": ["search"], "entries__rename": ["find"], "entries__description": [""],
}  # fmt: skip
SERVER = "servers/{server}/"


def the_server(world: World) -> Server:
    return world.server


def the_toolset(world: World) -> Toolset:
    return world.toolset


def the_tool(world: World) -> Tool:
    return world.definitions["tools"]


def seen(world: World) -> str:
    """The digest of what the operator looked at."""
    return world.definitions["tools"].pending_digest


def the_key(world: World) -> APIKey:
    return world.key


DOORS: dict[str, tuple[Door, Door, list[str]]] = {
    "register a server": (
        form(Server, "add", **server_form(headers__name=["Authorization"], headers__value=["Bearer x"])),
        rest("POST", "servers/", slug="billing", transport="http", url=NOWHERE, headers={"Authorization": "Bearer x"}),
        ["toolset.created", "server.registered"],
    ),
    "change a server": (
        form(Server, "change", the_server, **change_form(name="Billing", timeout_seconds="30")),
        rest("PATCH", SERVER, name="Billing", timeout_seconds=30),
        ["server.updated"],
    ),
    "move a server": (
        form(Server, "change", the_server, **change_form(url="http://127.0.0.1:1/other")),
        rest("PATCH", SERVER, url="http://127.0.0.1:1/other"),
        ["server.updated"],
    ),
    "change nothing of a server": (
        form(Server, "change", the_server, **change_form()),
        rest("PATCH", SERVER, timeout_seconds=60),
        [],
    ),
    "pause a server": (form(Server, "pause", the_server), rest("POST", SERVER + "pause/"), ["server.paused"]),
    "pause several servers": (
        form(Server, "changelist", action="pause_chosen", _selected_action=lambda world: [str(world.server.pk)], confirmed="yes"),
        rest("POST", "servers/bulk/pause/", servers=lambda world: [world.server.slug]),
        ["server.paused"],
    ),
    "clone a server": (
        form(Server, "clone", the_server, slug="copy", name="Copy"),
        rest("POST", SERVER + "clone/", slug="copy", name="Copy"),
        ["toolset.created", "server.cloned"],
    ),
    "delete a server": (form(Server, "delete_it", the_server), rest("DELETE", SERVER), ["grant.revoked", "server.deleted"]),
    "set a credential": (
        form(Server, "set_credential", the_server, name="X-Team", value="blue"),
        rest("POST", SERVER + "credentials/", kind="header", name="X-Team", value="blue"),
        ["credential.set"],
    ),
    "delete a credential": (
        form(Server, "remove_credential", the_server, name="Authorization"),
        rest("POST", SERVER + "credentials/delete/", kind="header", name="Authorization"),
        ["credential.deleted"],
    ),
    "probe a server": (form(Server, "test", the_server), rest("POST", SERVER + "probe/"), ["server.tested", "server.state_changed"]),
    "discover a server": (form(Server, "discover", the_server), rest("POST", SERVER + "discover/"), ["server.state_changed", "server.discovered"]),
    "approve everything": (
        form(Server, "approve_everything", the_server),
        rest("POST", SERVER + "approve-all/"),
        ["tool.approved", "tool.approved", "resource.approved", "template.approved", "prompt.approved", "instructions.approved"],
    ),
    "approve a tool": (form(Tool, "approve", the_tool, digest=seen), rest("POST", "tools/{tool}/approve/", expected_digest=seen), ["tool.approved"]),
    "reject a tool": (form(Tool, "reject", the_tool, digest=seen), rest("POST", "tools/{tool}/reject/", expected_digest=seen), ["tool.rejected"]),
    "say what a tool does": (
        form(Tool, "rule", the_tool, effects="destructive"),
        rest("POST", "tools/{tool}/effects/", effects="destructive"),
        ["tool.effects_set"],
    ),
    "create a toolset": (
        form(Toolset, "add", slug="triage", name="Triage", description="", instructions="Be brief.", **ENTRY),
        rest("POST", "toolsets/", slug="triage", name="Triage", instructions="Be brief.", entries=entry),
        ["toolset.created"],
    ),
    "change a toolset": (
        form(Toolset, "change", the_toolset, slug=lambda world: world.toolset.slug, name="Renamed", description="", instructions="", **ENTRY),
        rest("PATCH", "toolsets/{toolset}/", name="Renamed", entries=entry),
        ["toolset.updated"],
    ),
    "pause a toolset": (form(Toolset, "pause", the_toolset), rest("POST", "toolsets/{toolset}/pause/"), ["toolset.paused"]),
    "delete a toolset": (form(Toolset, "delete_it", the_toolset), rest("DELETE", "toolsets/{toolset}/"), ["toolset.deleted"]),
    "grant": (
        form(Grant, "add", effect="deny", subject="role", role=lambda world: str(world.spare_role.pk), kind="server", server=lambda world: str(world.server.pk)),
        rest("POST", "grants/", effect="deny", role=lambda world: world.spare_role.slug, kind="server", server=lambda world: world.server.slug),
        ["grant.created"],
    ),
    "take a grant back": (form(Grant, "take_back", lambda world: world.grant), rest("DELETE", "grants/{grant}/"), ["grant.revoked"]),
    "make a key": (new_key, rest("POST", "api-keys/", name="laptop", inherits_owner=True), ["api_key.created"]),
    "change a key": (
        form(APIKey, "change", the_key, name="renamed", loopback_only="on"),
        rest("PATCH", "api-keys/{key}/", name="renamed", loopback_only=True),
        ["api_key.updated"],
    ),
    "revoke a key": (form(APIKey, "revoke", the_key), rest("POST", "api-keys/{key}/revoke/"), ["api_key.revoked"]),
    "make a role": (
        form(Role, "add", slug="reader", name="Reader", permissions="tool.read\nserver.read"),
        rest("POST", "roles/", slug="reader", name="Reader", permissions=["tool.read", "server.read"]),
        ["role.created"],
    ),
    "make a user": (
        form(User, "add", username="ute", password_text="a long pass phrase 4711", roles=lambda world: [str(world.spare_role.pk)], is_staff="on", first_name="", last_name="", email=""),
        rest("POST", "users/", username="ute", password="a long pass phrase 4711", roles=lambda world: [world.spare_role.slug]),
        ["user.password_changed", "user.created", "membership.added"],
    ),
    "take a membership away": (
        form(Membership, "take_away", lambda world: world.membership),
        rest("DELETE", "memberships/{membership}/"),
        ["membership.removed", "api_key.revoked"],
    ),
    "kill a process": (
        form(UpstreamProcess, "kill", lambda world: world.process),
        rest("POST", "processes/{process}/kill/"),
        ["process.killed"],
    ),
}  # fmt: skip
SUPERUSERS: dict[str, tuple[Door, Door, list[str]]] = {
    "register a command": (
        form(Server, "add", **server_form(tenant=lambda world: str(world.tenant.pk), transport="stdio", url="", command="python3", args="-c\npass", env__name=["TOKEN"], env__value=["s"])),
        rest("POST", "servers/", slug="billing", transport="stdio", command="python3", args=["-c", "pass"], env={"TOKEN": "s"}),
        ["toolset.created", "server.registered"],
    ),
    "shut a tenant": (
        form(Tenant, "deactivate", lambda world: world.tenant),
        rest("POST", "tenants/{tenant}/deactivate/"),
        ["tenant.deactivated"],
    ),
}  # fmt: skip


def compare(client: Client, world: World, console: Door, api: Door, events: list[str]) -> None:
    """Go through one door, undo it, go through the other, and compare."""
    with Undone(), Left() as by_console:
        answer = console(client, world)
        assert answer.status_code in (200, 302), answer.content.decode()[-2000:]
    with Undone(), Left() as by_api:
        answer = api(client, world)
        assert answer.status_code < 300, answer.content.decode()[:2000]
    assert by_api.events == events
    assert by_console.all == by_api.all
    assert by_api.new or not events or events[0] == "process.killed" or by_api.gone


@pytest.mark.parametrize("deed", DOORS)
def test_both_doors_leave_the_same(deed: str, world: World):
    client = Client()
    client.force_login(make_user(world.tenant, "admin", username="ada"))
    compare(client, world, *DOORS[deed])


@pytest.mark.parametrize("deed", SUPERUSERS)
def test_both_doors_leave_the_same_for_a_superuser(deed: str, world: World):
    client = Client()
    client.force_login(make_superuser())
    compare(client, world, *SUPERUSERS[deed])


@pytest.mark.parametrize("verb", ["resume", "pause"])
@pytest.mark.parametrize("kind", ["servers/{server}", "toolsets/{toolset}"])
def test_a_verb_that_changes_nothing_leaves_nothing(kind: str, verb: str, world: World):
    client = Client()
    client.force_login(make_user(world.tenant, "admin"))
    if verb == "pause":
        rest("POST", f"{kind}/pause/")(client, world)
    with Left() as left:
        assert rest("POST", f"{kind}/{verb}/")(client, world).status_code == 200
    assert (left.notices, left.new, left.gone) == ([], [], [])


def test_resuming_both(world: World):
    client = Client()
    client.force_login(make_user(world.tenant, "admin"))
    for kind, model, row in (("servers/{server}", Server, world.server), ("toolsets/{toolset}", Toolset, world.toolset)):
        rest("POST", f"{kind}/pause/")(client, world)
        compare(
            client,
            world,
            form(model, "resume", lambda _, row=row: row),
            rest("POST", f"{kind}/resume/"),
            [f"{model._meta.model_name}.resumed"],
        )
