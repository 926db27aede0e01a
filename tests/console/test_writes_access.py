"""Writes go through services: keys, grants, people, roles and tenants."""

import json
import re
from typing import Any

import pytest
from django.urls import reverse

from apps.accounts.models import APIKey, Membership, Role, Tenant, User
from apps.common.models import OutboxEvent
from apps.tools.models import Grant, Toolset
from tests.console.conftest import client_of
from tests.console.pages import address
from tests.console.support import Recorded
from tests.factories import make_user, unique


def make_key_form(client, **fields: Any) -> tuple[dict[str, Any], str]:
    page = client.get(reverse("admin:accounts_apikey_add")).content.decode()
    nonce = re.search(r'name="nonce" value="([^"]+)"', page)
    owner = re.search(r'<option value="([^"]+)" selected', page)
    assert nonce
    assert owner
    form = {
        "name": "laptop",
        "owner": owner.group(1),
        "access": "inherit",
        "wide": "on",
        "lifetime": "30",
        "nonce": nonce.group(1),
    }
    return {**form, **fields}, page


def test_a_key_appears_once(boss, world):
    form, _ = make_key_form(boss)
    with Recorded() as seen:
        answer = boss.post(reverse("admin:accounts_apikey_add"), form)
    page = answer.content.decode()
    text = re.search(r"sy_[a-z0-9]{8}_[\w-]{43,}", page)
    assert text
    assert "no-store" in answer["Cache-Control"]
    assert f"Bearer {text.group(0)}" in page.replace("&quot;", '"')
    key = APIKey.unscoped.get(prefix=text.group(0)[3:11])
    assert key.expires_at is not None
    assert "api_key.created" in seen.types
    assert text.group(0) not in json.dumps(seen.events)
    for url in (address(APIKey, "change", key.pk), address(APIKey, "changelist")):
        assert text.group(0)[12:] not in boss.get(url).content.decode()


def test_sending_the_form_again_makes_no_second_key(boss, world):
    form, _ = make_key_form(boss)
    boss.post(reverse("admin:accounts_apikey_add"), form)
    page = boss.post(reverse("admin:accounts_apikey_add"), form).content.decode()
    assert APIKey.unscoped.filter(tenant=world["tenant"], name="laptop").count() == 1
    assert "made a key already" in page


def test_a_key_with_chosen_rights_gets_its_grants(boss, world):
    server = world["servers"][0][0]
    toolset = Toolset.unscoped.get(slug="desk-1", tenant=world["tenant"])
    form, _ = make_key_form(
        boss,
        access="chosen",
        servers=[str(server.pk)],
        toolsets=[str(toolset.pk)],
        patterns="*__search_*\ntime__convert",
        lifetime="",
    )
    with Recorded() as seen:
        boss.post(reverse("admin:accounts_apikey_add"), form)
    key = APIKey.unscoped.get(tenant=world["tenant"], name="laptop")
    assert not key.inherits_owner
    assert sorted(Grant.unscoped.filter(api_key=key).values_list("kind", "pattern")) == [
        ("server", ""),
        ("tool", "*__search_*"),
        ("tool", "time__convert"),
        ("toolset", ""),
    ]
    assert seen.types == ["api_key.created", *["grant.created"] * 4]


def test_a_key_that_may_use_nothing_is_not_made(boss, world):
    form, _ = make_key_form(boss, access="chosen")
    page = boss.post(reverse("admin:accounts_apikey_add"), form).content.decode()
    assert "Choose at least one" in page
    assert not APIKey.unscoped.filter(name="laptop").exists()


def test_a_refused_grant_leaves_no_key(boss, world):
    form, _ = make_key_form(boss, access="chosen", patterns="no-pattern-at-all")
    page = boss.post(reverse("admin:accounts_apikey_add"), form).content.decode()
    assert not APIKey.unscoped.filter(name="laptop").exists()
    assert "pattern" in page.lower()


def test_a_key_that_only_calls_manages_nothing(boss, world):
    form, _ = make_key_form(boss)
    boss.post(reverse("admin:accounts_apikey_add"), form)
    key = APIKey.unscoped.get(name="laptop")
    assert set(key.scopes) == {
        f"{kind}.{verb}" for kind in ("server", "tool", "resource", "prompt", "toolset") for verb in ("read", "call")
    }
    form, _ = make_key_form(boss, name="manager", manage="on")
    boss.post(reverse("admin:accounts_apikey_add"), form)
    assert APIKey.unscoped.get(name="manager").scopes is None


def test_revoking_a_key(boss, world):
    key = world["keys"][0]
    with Recorded() as seen:
        boss.post(address(APIKey, "revoke", key.pk))
    key.refresh_from_db()
    assert key.state == "revoked"
    assert seen.types == ["api_key.revoked"]


def test_giving_and_taking_back_access(boss, world):
    user = world["operator"]
    form = {
        "effect": "allow",
        "subject": "user",
        "user": str(user.pk),
        "kind": "tool",
        "pattern": "github__list_*",
        "server": "",
        "toolset": "",
        "role": "",
        "api_key": "",
    }
    with Recorded() as seen:
        answer = boss.post(reverse("admin:tools_grant_add"), form)
    assert answer.status_code == 302
    grant = Grant.unscoped.get(user=user, pattern="github__list_*")
    assert seen.types == ["grant.created"]
    with Recorded() as seen:
        boss.post(address(Grant, "take_back", grant.pk))
    assert seen.types == ["grant.revoked"]
    assert not Grant.unscoped.filter(pk=grant.pk).exists()


@pytest.mark.parametrize(
    "fields", [{"pattern": "no dashes"}, {"kind": "server", "server": ""}, {"subject": "role", "role": ""}]
)
def test_a_grant_that_says_nothing_is_refused(fields, boss, world):
    form = {"effect": "allow", "subject": "user", "user": str(world["operator"].pk), "kind": "tool", "pattern": "github__*"}
    before = Grant.unscoped.count()
    assert boss.post(reverse("admin:tools_grant_add"), {**form, **fields}).status_code == 200
    assert Grant.unscoped.count() == before


def test_people_and_roles(boss, tenant):
    with Recorded() as seen:
        answer = boss.post(
            reverse("admin:accounts_role_add"), {"slug": "reader", "name": "Reader", "permissions": "tool.read\nserver.read"}
        )
    assert answer.status_code == 302
    role = Role.unscoped.get(tenant=tenant, slug="reader")
    assert set(role.permissions) == {"tool.read", "server.read"}
    assert seen.types == ["role.created"]
    name = unique("ute")
    with Recorded() as seen:
        answer = boss.post(
            reverse("admin:accounts_user_add"),
            {
                "username": name,
                "password_text": "a long pass phrase 4711",
                "roles": [str(role.pk)],
                "is_staff": "on",
                "first_name": "",
                "last_name": "",
                "email": "",
            },
        )
    assert answer.status_code == 302
    user = User.objects.get(username=name)
    assert {"user.created", "membership.added"} <= set(seen.types)
    membership = Membership.unscoped.get(user=user)
    with Recorded() as seen:
        boss.post(address(Membership, "take_away", membership.pk))
    assert "membership.removed" in seen.types


def test_nobody_gives_more_than_they_have(tenant, world):
    helper = client_of(make_user(tenant, make_role(tenant)))
    answer = helper.post(reverse("admin:accounts_role_add"), {"slug": "king", "name": "King", "permissions": "*.*"})
    assert answer.status_code == 200
    assert "may not" in answer.content.decode()
    assert not Role.unscoped.filter(slug="king").exists()
    assert OutboxEvent.objects.filter(topic="audit", payload__event_type="access.refused").exists()


def make_role(tenant) -> Role:
    from tests.factories import make_role as make

    return make(tenant, "role.read", "role.write")


def test_tenants_are_made_and_shut_by_superusers(root, boss, tenant):
    assert boss.get(reverse("admin:accounts_tenant_add")).status_code == 403
    slug = unique("north")
    with Recorded() as seen:
        root.post(reverse("admin:accounts_tenant_add"), {"slug": slug, "name": "North", "sample_payloads": "on"})
    made = Tenant.objects.get(slug=slug)
    assert "tenant.created" in seen.types
    root.post(address(Tenant, "deactivate", made.pk))
    made.refresh_from_db()
    assert not made.active
    assert boss.post(address(Tenant, "deactivate", tenant.pk)).status_code == 403
