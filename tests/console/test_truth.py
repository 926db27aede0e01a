"""What pages say is what holds: states, callers, times, names, and what somebody may not."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import APIKey
from apps.accounts.services.api_keys import create_api_key
from apps.accounts.services.authentication import actor_of_key
from apps.audit.admin.history import problems
from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.outbox import unit_of_work
from apps.common.shell import operator as shell_operator
from apps.gateway.adapters.builder import SnapshotBuilder
from apps.gateway.adapters.learned import Learned
from apps.gateway.plane.mcp.revisions import LEGACY, MODERN
from apps.gateway.plane.store import SnapshotStore
from apps.servers.domain import Discovered
from apps.servers.models import Endpoint, Server
from apps.servers.services.endpoints import set_endpoint_state
from apps.servers.services.lifecycle import pause_server
from apps.servers.services.registry import register_server
from apps.tools.models import Instructions, Tool
from apps.tools.selectors import who_may_use
from apps.tools.services.discovery import apply_found
from apps.tools.services.grants import grant
from apps.tools.services.review import reject
from config.console.errors import broken
from tests.console.conftest import client_of
from tests.console.pages import address
from tests.console.support import server_form
from tests.console.test_audit_pages import write
from tests.console.test_writes_access import make_key_form
from tests.factories import make_user

HTMX = {"HX-Request": "true"}


def words(answer: Any) -> str:
    """The page as one line of text, its main part alone."""
    page = answer.content.decode()
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page[page.find('id="main"') :]))


def offer(server: Server, *tools: dict[str, Any], instructions: str = "") -> None:
    """Let a server offer tools."""
    found = Discovered(era="modern", revisions=("2026-07-28",), tools=list(tools), instructions=instructions)
    with tenant_scope(server.tenant_id, SYSTEM), unit_of_work():
        apply_found(server, found)


def tool(description: str = "Adds.", **annotations: Any) -> dict[str, Any]:
    return {"name": "add", "description": description, "inputSchema": {"type": "object"}, "annotations": annotations}


def serve(tenant: Any, review: str, slug: str = "sums") -> Server:
    with tenant_scope(tenant.pk, SYSTEM):
        return register_server(slug=slug, transport="http", url=f"https://{slug}.example.com/mcp", review=review)


@pytest.fixture
def changed(tenant: Any) -> Tool:
    """A tool that was in force and has changed under `hold-changed`."""
    server = serve(tenant, "hold-changed")
    offer(server, tool())
    offer(server, tool("Adds, and keeps a copy.", destructiveHint=True))
    return Tool.unscoped.select_related("server").get(server=server)


# --- what is held ---------------------------------------------------------------------------------------------------------


def test_a_changed_tool_is_said_to_be_out_of_reach(changed, operator):
    assert changed.state == "held"
    page = words(operator.get(address(Tool, "change", changed.pk)))
    assert "neither listed nor callable, not as it was before either" in page
    assert "The rule of sums holds what has changed" in page
    assert "Approved before" in page
    assert "still" not in page
    assert "Callers see now" not in page
    dialog = operator.get(address(Tool, "approve", changed.pk), headers=HTMX).content.decode()
    assert "against what was approved before. Now it is neither listed nor callable" in dialog
    assert "callers see now" not in dialog


def test_a_new_tool_under_hold_all(tenant, operator):
    server = serve(tenant, "hold-all")
    offer(server, tool())
    page = words(operator.get(address(Tool, "change", Tool.unscoped.get(server=server).pk)))
    assert "Offered for the first time and held: it is neither listed nor callable" in page
    assert "holds everything new or changed" in page
    assert "Approved before" not in page


def test_what_the_checks_hold_is_said_to_be_held_by_them(tenant, operator):
    server = serve(tenant, "accept")
    offer(server, tool("Adds.\u202e evil"))
    held = Tool.unscoped.get(server=server)
    assert held.state == "held"
    assert "What the checks found in it holds it" in words(operator.get(address(Tool, "change", held.pk)))


def test_a_withdrawn_tool_was_not_offered_for_the_first_time(tenant, operator):
    server = serve(tenant, "accept")
    offer(server, tool())
    row = Tool.unscoped.get(server=server)
    with tenant_scope(tenant.pk, SYSTEM):
        reject(row)
    page = words(operator.get(address(Tool, "change", row.pk)))
    assert "first time" not in page
    assert "Rejected: it is neither listed nor callable" in page


def test_held_instructions_leave_the_approved_ones_in_force(tenant, operator):
    server = serve(tenant, "hold-changed")
    offer(server, instructions="Be brief.")
    offer(server, instructions="Be long.")
    row = Instructions.unscoped.get(server=server)
    server.refresh_from_db()
    assert (row.state, server.instructions) == ("held", "Be brief.")
    page = words(operator.get(address(Instructions, "change", row.pk)))
    assert "Clients still get the text that was approved before" in page
    assert "Clients get now" in page


# --- who gets it ----------------------------------------------------------------------------------------------------------


def test_an_approval_counts_those_who_will_have_it(changed, tenant, operator):
    ada, bob, eve = (make_user(tenant, "user") for _ in range(3))
    with tenant_scope(tenant.pk, SYSTEM):
        grant(kind="server", user=ada, server=changed.server)
        grant(kind="tool", user=bob, pattern="sums__*")
        grant(kind="tool", user=bob, pattern="*__add", effect="deny")
        grant(kind="tool", user=eve, pattern="other__*")
        key, _ = create_api_key(name="bot", owner=ada, inherits_owner=True, scopes=["server.read"])
        other, _ = create_api_key(name="hand", owner=eve, inherits_owner=False)
        grant(kind="tool", api_key=other, pattern="sums__add")
        assert not [use for use in who_may_use(changed) if use.allowed]
        expected = [use for use in who_may_use(changed, once_approved=True) if use.kind != "role"]
    assert {use.label for use in expected} >= {ada.username, str(other)}
    assert {use.label for use in expected}.isdisjoint({bob.username, eve.username, str(key)})
    users, keys = (sum(use.kind == kind for use in expected) for kind in ("user", "api_key"))
    said = operator.get(address(Tool, "approve", changed.pk), headers=HTMX).content.decode()
    assert re.search(rf"{users} users? and {keys} API keys?[^.]* may call it within a second", said)
    page = words(operator.get(address(Tool, "change", changed.pk)))
    assert "Who may call once it is approved" in page
    assert "Nobody may call it now: it is held for review" in page


def test_an_approval_that_reaches_nobody_says_so(changed, operator):
    said = operator.get(address(Tool, "approve", changed.pk), headers=HTMX).content.decode()
    assert "Nobody may call it even then" in said
    with tenant_scope(changed.tenant_id, SYSTEM):
        pause_server(changed.server)
    said = operator.get(address(Tool, "approve", changed.pk), headers=HTMX).content.decode()
    assert "sums is paused" in said


def test_withdrawing_counts_those_who_lose_it(tenant, operator):
    server = serve(tenant, "accept")
    offer(server, tool())
    row = Tool.unscoped.get(server=server)
    user = make_user(tenant, "user")
    with tenant_scope(tenant.pk, SYSTEM):
        grant(kind="server", user=user, server=server)
    said = operator.get(address(Tool, "reject", row.pk), headers=HTMX).content.decode()
    assert f"1 user ({user.username}) may call it now and may not any more" in said


def test_the_list_does_not_say_that_superusers_may_call_what_is_held(changed, operator):
    page = words(operator.get(address(Tool, "changelist")))
    assert "nobody while held" in page
    assert "superusers alone" not in page


def test_the_risk_is_named_and_so_is_the_servers_claim(tenant, operator):
    server = serve(tenant, "hold-all")
    offer(server, tool(destructiveHint=True))
    page = words(operator.get(address(Tool, "changelist")))
    assert "Effects not ruled" in page
    assert "server claims destructive" in page
    assert "Not reviewed" not in page
    row = Tool.unscoped.get(server=server)
    operator.post(address(Tool, "approve", row.pk), {"digest": row.pending_digest})
    assert "Not reviewed" not in words(operator.get(address(Tool, "change", row.pk)))
    operator.post(address(Tool, "rule", row.pk), {"effects": "writes"})
    row.refresh_from_db()
    assert f"says {row.effects_by}" in words(operator.get(address(Tool, "changelist")))


# --- servers --------------------------------------------------------------------------------------------------------------


def test_last_seen_is_the_newest_answer(tenant):
    endpoint = Endpoint.unscoped.get(server=serve(tenant, "accept"))
    assert set_endpoint_state(endpoint.pk, "healthy")
    old = now() - timedelta(minutes=17)
    Endpoint.unscoped.filter(pk=endpoint.pk).update(last_seen_at=old)
    assert not set_endpoint_state(endpoint.pk, "healthy", "It answered discovery.")
    endpoint.refresh_from_db()
    assert endpoint.last_seen_at > old + timedelta(minutes=16)
    set_endpoint_state(endpoint.pk, "unhealthy", "It does not answer.")
    seen = endpoint.last_seen_at
    set_endpoint_state(endpoint.pk, "unhealthy", "It does not answer.")
    endpoint.refresh_from_db()
    assert endpoint.last_seen_at == seen


def test_calls_move_last_seen_though_the_state_stays(tenant, monkeypatch):
    monkeypatch.setattr("apps.gateway.adapters.learned.close_old_connections", lambda: None)  # the test's own connection
    endpoint = Endpoint.unscoped.get(server=serve(tenant, "accept"))
    learned = Learned(SnapshotStore())
    with every_tenant(SYSTEM):
        learned.endpoint_state(str(endpoint.pk), "healthy", "It answered a call.")
        learned._flush()
        old = now() - timedelta(minutes=17)
        Endpoint.unscoped.filter(pk=endpoint.pk).update(last_seen_at=old)
        learned.endpoint_state(str(endpoint.pk), "healthy", "It answered a call.")
        learned._flush()
        endpoint.refresh_from_db()
        assert endpoint.last_seen_at == old, "written at most every 5 s"
        learned._answers_at -= 5
        learned._flush()
    endpoint.refresh_from_db()
    assert endpoint.last_seen_at > old + timedelta(minutes=16)


def test_compatibility_promises_what_the_gateway_serves(tenant, operator):
    server = serve(tenant, "accept")
    page = words(operator.get(address(Server, "change", server.pk)))
    part = page[page.index("Clients of the gateway may speak") :]
    assert all(revision in part for revision in (MODERN, *LEGACY))
    assert "every revision" not in page
    assert "2024-11-05 translated" not in page
    assert "clients of the older HTTP+SSE transport connect at /sse" in part


@pytest.mark.parametrize(("who", "may"), [("operator", False), ("superuser", True)])
def test_credentials_of_commands_are_offered_to_superusers_alone(who, may, tenant, staff, superuser):
    with tenant_scope(tenant.pk, SYSTEM):
        server = register_server(slug="shell", transport="stdio", command="cat", env={"TOKEN": "x"})
        plain = register_server(slug="plain", transport="http", url="https://plain.example.com/mcp", headers={"X-Key": "x"})
    client = client_of(superuser) if may else staff[who]
    page = client.get(address(Server, "change", server.pk)).content.decode()
    for verb in ("set_credential", "remove_credential", "clone"):
        assert (address(Server, verb, server.pk) in page) is may
    assert ("superusers alone add, replace and delete" in page) is not may
    page = client.get(address(Server, "change", plain.pk)).content.decode()
    assert address(Server, "set_credential", plain.pk) in page


def test_a_registered_server_is_shown(operator, tenant):
    answer = operator.post(reverse("admin:servers_server_add"), server_form())
    assert answer["Location"] == address(Server, "change", Server.unscoped.get(slug="billing").pk)


def test_all_that_is_wrong_with_a_server_is_said_at_once(operator, world):
    page = operator.post(reverse("admin:servers_server_add"), server_form(slug="No Slug", url="ftp://x")).content.decode()
    assert "Use lower-case letters" in page
    assert "Use an http:// or https:// URL" in page


def test_an_imported_server_that_is_disabled_is_paused_and_said_to_be(operator, tenant):
    document = '{"mcpServers": {"calm": {"url": "https://calm.example.com/mcp", "disabled": true}}}'
    page = operator.post(reverse("admin:import_servers"), {"text": document, "preview": "1"}).content.decode()
    assert "Paused, as the file says" in page
    operator.post(reverse("admin:import_servers"), {"text": document, "confirmed": "1"})
    assert Server.unscoped.get(slug="calm").paused


# --- who did what ---------------------------------------------------------------------------------------------------------


def test_a_key_has_one_name_everywhere(tenant, world, operator):
    key = world["keys"][0]
    label = f"{key.name} (sy_{key.prefix}_…) of olga"
    assert str(key) == label
    assert actor_of_key(key, origin="rest").label == label
    with tenant_scope(tenant.pk, SYSTEM):
        row = Tool.objects.filter(state="active").select_related("server").first()
        assert label in {use.label for use in who_may_use(row, refused=True)}


def test_the_data_plane_names_keys_alike(tenant, world, monkeypatch):
    monkeypatch.setattr("apps.gateway.adapters.builder.close_old_connections", lambda: None)  # the test's own connection
    store = SnapshotStore()
    SnapshotBuilder(store).build()
    key = APIKey.unscoped.get(pk=world["keys"][0].pk)
    assert store.current.caller_of_key(bytes(key.digest)).principal.label == str(key)


def test_what_is_done_on_the_command_line_is_not_switchyards(tenant, staff):
    write(tenant, 1, event_type="server.paused", actor="command line (root)", actor_kind="system", origin="cli", object="github",
          object_kind="server", server=None, tool=None)  # fmt: skip
    write(tenant, 2, event_type="server.state_changed", actor="system", actor_kind="system", origin="task", object="slack",
          object_kind="server", server=None, tool=None)  # fmt: skip
    page = words(staff["auditor"].get(reverse("admin:audit_auditevent_changelist")))
    assert re.search(r"command line \(root\) +paused the server +github", page)
    assert re.search(r"Switchyard +noticed a new state of the server +slack", page)
    assert re.fullmatch(r"command line \(.+\)", shell_operator().label)


def test_the_filter_takes_the_beginning_of_a_name(tenant, staff):
    write(tenant, 1, actor="laptop (sy_abcdefgh_…) of olga")
    write(tenant, 2, actor="olga", actor_kind="user")
    page = staff["auditor"].get(reverse("admin:audit_auditevent_changelist"), {"who": "lap"}).content.decode()
    assert reverse("admin:audit_auditevent_change", args=("0-1",)) in page
    assert reverse("admin:audit_auditevent_change", args=("0-2",)) not in page


def test_a_denied_change_reads_as_a_sentence(tenant, staff):
    write(tenant, 1, event_type="access.refused", outcome="refused", actor="olga", actor_kind="user", action="server.write",
          object="everything", object_kind="server", server=None, tool=None)  # fmt: skip
    page = words(staff["auditor"].get(reverse("admin:audit_auditevent_changelist")))
    assert re.search(r"olga +was not allowed to change the server +everything", page)


# --- problems -------------------------------------------------------------------------------------------------------------


def test_equal_problems_are_one_with_a_number(tenant, boss):
    for number in range(1, 11):
        details = {"result": '{"content":[{"type":"text","text":"division by \\"zero\\""}],"isError":true}'}
        write(tenant, number, outcome="error", error_type="tool-error", duration_us=number * 1000, details=details)
    write(
        tenant, 20, outcome="error", error_type="tool-error", details={"result": '{"content":[{"type":"text","text":"too lar'}
    )
    write(tenant, 21, event_type="call.outcome", outcome="unknown", details={"closed_by": "sweep"})
    with tenant_scope(tenant.pk, SYSTEM):
        found = problems(10)
    assert [(one.times, one.outcome) for one in found] == [(1, "unknown"), (1, "error"), (10, "error")]
    assert found[0].cause.startswith("the process that made the call ended")
    assert found[2].cause == 'tool-error · division by "zero"'
    assert found[2].id == "0-10"
    page = words(boss.get(reverse("admin:index")))
    assert "10 ×" in page
    assert "division by" in page


def test_the_text_of_a_tool_error_hides_nothing(tenant):
    write(tenant, 1, outcome="error", error_type="tool-error", details={"reason": "a\u202eb\nc"})
    with tenant_scope(tenant.pk, SYSTEM):
        assert problems(1)[0].cause == "tool-error · a b c"


# --- keys -----------------------------------------------------------------------------------------------------------------


def test_a_new_key_starts_with_nothing_and_its_maker_as_owner(boss, world):
    page = boss.get(reverse("admin:accounts_apikey_add")).content.decode()
    assert re.search(r'<input type="radio" name="access" value="chosen"[^>]* checked', page)
    assert not re.search(r'value="inherit"[^>]* checked', page)
    mine = APIKey.unscoped.model.owner.field.related_model.objects.get(pk=boss.session["_auth_user_id"])
    assert re.search(rf'<option value="{mine.pk}" selected>', page)


def test_the_wide_choice_is_made_twice(boss, world):
    form, _ = make_key_form(boss)
    form.pop("wide")
    page = boss.post(reverse("admin:accounts_apikey_add"), form).content.decode()
    assert "Tick this, or choose what the key may use" in page
    assert "can call everything that its owner may" in page
    assert not APIKey.unscoped.filter(name="laptop").exists()


# --- refusals -------------------------------------------------------------------------------------------------------------


def test_a_refused_page_names_the_permission_and_a_way_back(staff, world):
    answer = staff["operator"].get(
        reverse("admin:accounts_role_add"), headers={"Referer": "http://testserver/admin/tools/tool/"}
    )
    assert answer.status_code == 403
    page = answer.content.decode()
    assert "role.write" in page
    assert 'href="/admin/tools/tool/"' in page
    assert reverse("admin:index") in page
    assert answer["X-Request-Id"] in page
    assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
    answer = staff["operator"].get(reverse("admin:accounts_role_changelist"))
    assert "role.read" in answer.content.decode()


@pytest.mark.parametrize("page", ["accounts_tenant_changelist", "audit_verify"])
def test_what_is_a_superusers_is_said_to_be(page, boss):
    answer = boss.get(reverse(f"admin:{page}"))
    assert answer.status_code == 403
    assert "superusers alone" in answer.content.decode()


def test_a_refused_dialog_says_so_in_its_place(staff, world):
    server = world["servers"][0][0]
    answer = staff["auditor"].get(address(Server, "pause", server.pk), headers=HTMX)
    assert answer.status_code == 403
    assert answer.content.decode().lstrip().startswith('<div id="dialog"')
    assert "server.write" in answer.content.decode()


def test_a_page_that_is_not_there(boss, client, db):
    for visitor, inside in ((boss, True), (client, False)):
        answer = visitor.get("/admin/none-such/" if inside else "/no/such/page")
        assert answer.status_code == 404
        page = answer.content.decode()
        assert "There is nothing here" in page
        assert reverse("admin:index") in page
        assert ("nav-sidebar" in page) is inside


def test_a_form_without_its_token_is_explained(world, superuser):
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(superuser)
    answer = strict.post(address(Server, "pause", world["servers"][0][0].pk))
    assert answer.status_code == 403
    assert "Open the page again" in answer.content.decode()


def test_what_broke_names_the_request(rf):
    request = rf.get("/admin/")
    request.request_id = "abcdefgh"
    answer = broken(request)
    assert answer.status_code == 500
    assert "abcdefgh" in answer.content.decode()


def test_links_lead_nowhere_that_is_refused(tenant, world, staff):
    server = world["servers"][0][0]
    page = staff["operator"].get(address(Server, "change", server.pk)).content.decode()
    assert reverse("admin:accounts_apikey_add") not in page
    assert "Ask an administrator for one" in page
    page = staff["admin"].get(address(Server, "change", server.pk)).content.decode()
    assert reverse("admin:accounts_apikey_add") in page
    row = Tool.unscoped.filter(tenant=tenant, state="active").first()
    assert reverse("admin:tools_grant_add") not in staff["user"].get(address(Tool, "change", row.pk)).content.decode()
    assert reverse("admin:accounts_apikey_add") not in staff["operator"].get(reverse("admin:index")).content.decode()
