"""Every page renders for every role: what a role may read is there, what it may not is refused, other tenants are walls."""

import re

import pytest
from django.urls import reverse

from apps.accounts.models import Role
from apps.common.context import SYSTEM, tenant_scope
from apps.common.policy import Principal, may_manage
from apps.servers.models import Server
from apps.tools.models import Prompt, Tool
from tests.console.conftest import ROLES
from tests.console.pages import KINDS, PERSONAL, address, objects_of, registered

OK, REFUSED, AWAY = 200, 403, 302


def test_every_registered_model_is_known_here():
    assert {model._meta.label_lower for model, _ in registered()} == set(KINDS)


def _permissions(tenant, role):
    return Principal(
        kind="user",
        id="x",
        label="x",
        tenant_id=str(tenant.pk),
        permissions=frozenset(Role.unscoped.get(tenant=tenant, slug=role).permissions),
    )


@pytest.mark.parametrize("role", ROLES)
def test_lists_open_for_those_who_may_read(role, tenant, world, staff):
    principal = _permissions(tenant, role)
    for model, _ in registered():
        label = model._meta.label_lower
        allowed = label not in PERSONAL and may_manage(principal, f"{KINDS[label]}.read", tenant_id=str(tenant.pk)).allowed
        answer = staff[role].get(address(model, "changelist"))
        assert answer.status_code == (OK if allowed else REFUSED), (label, role)


@pytest.mark.parametrize("role", ROLES)
def test_object_pages_open_for_those_who_may_read(role, tenant, world, staff):
    principal = _permissions(tenant, role)
    pages = objects_of(tenant)
    assert {"servers.server", "tools.tool", "tools.toolset", "accounts.apikey", "tools.grant", "tools.prompt"} <= set(pages)
    for label, url in pages.items():
        allowed = may_manage(principal, f"{KINDS[label]}.read", tenant_id=str(tenant.pk)).allowed
        answer = staff[role].get(url)
        assert answer.status_code == (OK if allowed else REFUSED), (label, role)


def test_superuser_sees_everything(root, tenant, world):
    for model, _ in registered():
        assert root.get(address(model, "changelist")).status_code == OK, model
    for label, url in objects_of(tenant).items():
        assert root.get(url).status_code == OK, label
    for page in (
        "servers_server_add",
        "tools_toolset_add",
        "tools_grant_add",
        "accounts_role_add",
        "accounts_user_add",
        "accounts_apikey_add",
        "import_servers",
    ):
        assert root.get(reverse(f"admin:{page}")).status_code == OK, page


def test_another_tenants_objects_do_not_exist(stranger, tenant, world):
    for label, url in objects_of(tenant).items():
        assert stranger.get(url).status_code in (AWAY, 404), label
    page = stranger.get(reverse("admin:servers_server_changelist")).content.decode()
    assert "github" not in page


def test_another_tenants_verbs_do_not_exist(stranger, world):
    server = world["servers"][0][0]
    for name, verb in (("pause", {}), ("delete_it", {}), ("discover", {}), ("set_credential", {"name": "X", "value": "y"})):
        assert stranger.post(address(Server, name, server.pk), verb).status_code == 404
    assert Server.unscoped.get(pk=server.pk).paused_at is None


def test_choices_and_autocomplete_stay_in_the_tenant(stranger, world):
    page = stranger.get(reverse("admin:tools_grant_add")).content.decode()
    assert "github" not in page
    query = {"app_label": "tools", "model_name": "tool", "field_name": "server"}
    answer = stranger.get(reverse("admin:autocomplete"), query)
    assert answer.status_code == OK
    assert answer.json()["results"] == []
    found = stranger.get(reverse("admin:search"), {"s": "github", "extended": "1"})
    assert "github" not in found.content.decode()


def test_filters_do_not_look_through_the_wall(stranger, world):
    server = world["servers"][0][0]
    answer = stranger.get(reverse("admin:tools_tool_changelist"), {"server": str(server.pk)}, follow=True)
    assert answer.status_code == OK
    assert world["servers"][0][1][0] not in answer.content.decode()


def test_palette_finds_what_one_may_see(staff, world):
    found = staff["operator"].get(reverse("admin:search"), {"s": "github", "extended": "1"}).content.decode()
    assert "github" in found
    assert len(re.findall("<li", found)) <= 40


def test_nobody_enters_without_signing_in(client, world, tenant):
    for url in (reverse("admin:index"), reverse("admin:overview_live"), *objects_of(tenant).values()):
        answer = client.get(url)
        assert answer.status_code == AWAY
        assert answer["Location"].startswith(reverse("admin:login"))


def test_sign_in_page_names_the_product_and_leads_to_the_overview(client, superuser):
    from tests.factories import PASSWORD

    page = client.get(reverse("admin:login"))
    assert "<title>" in page.content.decode()
    assert "Switchyard" in page.content.decode()
    answer = client.post(reverse("admin:login"), {"username": superuser.username, "password": PASSWORD})
    assert answer["Location"] == reverse("admin:index")


def test_signing_out_needs_post(root):
    assert root.get(reverse("admin:logout")).status_code == 405
    assert root.post(reverse("admin:logout")).status_code in (OK, AWAY)


def test_security_policy_allows_no_inline_script(root, world):
    for url in (reverse("admin:index"), reverse("admin:login"), reverse("admin:servers_server_changelist")):
        policy = root.get(url)["Content-Security-Policy"]
        script = next(part for part in policy.split(";") if part.strip().startswith("script-src"))
        assert "'unsafe-inline'" not in script
        assert "frame-ancestors 'none'" in policy
    page = root.get(reverse("admin:index")).content.decode()
    assert not re.search(r"<[^>]+\son[a-z]+=", page)
    assert all("src=" in tag or "application/json" in tag or "nonce=" in tag for tag in re.findall(r"<script[^>]*>", page))


def test_switching_the_tenant_narrows_the_view(root, world, tenant):
    assert "github" in root.get(reverse("admin:servers_server_changelist")).content.decode()
    assert root.get(reverse("admin:choose_tenant")).status_code == 405
    from tests.factories import make_tenant

    other = make_tenant()
    answer = root.post(reverse("admin:choose_tenant"), {"tenant": str(other.pk), "next": "https://evil.example/"})
    assert answer["Location"] == reverse("admin:index")
    assert "github" not in root.get(reverse("admin:servers_server_changelist")).content.decode()
    root.post(reverse("admin:choose_tenant"), {"tenant": ""})
    assert "github" in root.get(reverse("admin:servers_server_changelist")).content.decode()


def test_others_cannot_choose_a_foreign_tenant(stranger, tenant, world):
    stranger.post(reverse("admin:choose_tenant"), {"tenant": str(tenant.pk)})
    assert "github" not in stranger.get(reverse("admin:servers_server_changelist")).content.decode()


def test_a_member_of_no_tenant_sees_an_explanation_not_an_error(db):
    from tests.console.conftest import client_of
    from tests.factories import make_user

    client = client_of(make_user(is_staff=True))
    page = client.get(reverse("admin:index"))
    assert page.status_code == OK
    assert "member of no tenant" in page.content.decode()
    assert client.get(reverse("admin:servers_server_changelist")).status_code == REFUSED


def test_empty_lists_explain_themselves_and_offer_one_step(staff):
    page = staff["admin"].get(reverse("admin:servers_server_changelist")).content.decode()
    assert "Bring the first server" in page
    assert reverse("admin:servers_server_add") in page


def test_history_leads_to_the_timeline(staff, world):
    server = world["servers"][0][0]
    answer = staff["operator"].get(address(Server, "history", server.pk))
    assert answer["Location"].endswith("#history")


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\x1b[31m"])
def test_what_hides_in_a_definition_is_shown_as_an_escape(hidden, staff, world):
    tool = Tool.unscoped.filter(tenant=world["tenant"]).first()
    with tenant_scope(world["tenant"].pk, SYSTEM):
        Tool.unscoped.filter(pk=tool.pk).update(definition={**tool.shown, "description": f"a{hidden}b"})
    page = staff["operator"].get(address(Tool, "change", tool.pk)).content.decode()
    assert hidden not in page


def test_definitions_are_text_never_markup(staff, world):
    prompt = Prompt.unscoped.filter(tenant=world["tenant"]).first()
    evil = "<img src=x onerror=alert(1)>"
    Prompt.unscoped.filter(pk=prompt.pk).update(definition={**prompt.shown, "description": evil}, description=evil, title=evil)
    for url in (address(Prompt, "change", prompt.pk), address(Prompt, "changelist")):
        page = staff["operator"].get(url).content.decode()
        assert evil not in page
        assert "&lt;img" in page


def test_a_superuser_of_one_tenant_can_still_look_above_it(superuser, tenant):
    from tests.console.conftest import client_of

    client = client_of(superuser)
    assert "All tenants" in client.get(reverse("admin:index")).content.decode()
    client.post(reverse("admin:choose_tenant"), {"tenant": str(tenant.pk)})
    page = client.get(reverse("admin:index")).content.decode()
    assert f'value="{tenant.pk}" aria-current="true"' in page
