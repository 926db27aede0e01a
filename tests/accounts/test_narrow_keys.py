"""What a narrowed key may not do, whoever owns it: become its owner, or reach what its scopes do not cover."""

import pytest
from django.test import Client
from django.urls import reverse

from apps.accounts.models import APIKey, Membership, User
from apps.accounts.services.users import set_password
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import PermissionDenied, ValidationFailed
from tests.accounts.client import Api, problem
from tests.accounts.support import audited
from tests.factories import (
    PASSWORD,
    as_key,
    as_user,
    builtin_role,
    make_key,
    make_role,
    make_superuser,
    make_tenant,
    make_user,
)

pytestmark = pytest.mark.django_db

TAKEN = "Taken-Over-77!x"


def narrow(owner, tenant, *scopes, inherits=True):
    """A client whose key has these scopes, of an owner who has more."""
    return Api(make_key(owner, tenant, inherits_owner=inherits, scopes=list(scopes) or None)[1])


@pytest.fixture
def boss():
    make_superuser()  # so that none is the last
    return make_superuser()


def unharmed(user, *, password=PASSWORD):
    user = User.objects.get(pk=user.pk)
    return user.check_password(password) and user.is_active


@pytest.mark.parametrize(
    "scopes",
    [
        ["user.read"],
        ["tool.call"],
        ["user.read", "user.write"],
        ["user.*"],
        ["user.read", "user.admin", "user.write"],
        ["*.*"],
        None,
    ],
)
def test_no_key_sets_its_owners_password(tenant, boss, scopes):
    admin = make_user(tenant, "admin")
    for owner in (boss, admin):
        api = Api(make_key(owner, tenant, inherits_owner=True, scopes=scopes)[1])
        for password in (TAKEN, None):
            problem(api.patch(f"users/{owner.pk}/", {"password": password}), 403, "permission-denied")
            problem(
                api.patch(f"users/{owner.username}/", {"password": password, "current_password": PASSWORD}), 403, "permission-denied"
            )  # fmt: skip
        assert unharmed(owner)
    assert audited("access.refused")


def test_a_key_that_inherits_nothing_sets_no_password(tenant, boss):
    api = narrow(boss, tenant, inherits=False)
    problem(api.patch(f"users/{boss.pk}/", {"password": TAKEN}), 403, "permission-denied")
    key, _ = make_key(boss, tenant)
    with tenant_scope(tenant.pk, as_key(key)), pytest.raises(PermissionDenied):
        set_password(boss, TAKEN)
    assert unharmed(boss)


def test_a_person_changes_their_own_password_by_telling_the_present_one(tenant):
    guest = make_user(tenant, "guest")
    with tenant_scope(tenant.pk, as_user(guest)):
        for wrong in (None, "", "something else"):
            with pytest.raises(ValidationFailed) as caught:
                set_password(guest, TAKEN, current=wrong)
            assert "current_password" in caught.value.extra["errors"]
        assert unharmed(guest)
        set_password(guest, TAKEN, current=PASSWORD)
    assert unharmed(guest, password=TAKEN)


def test_a_session_changes_its_own_password_over_the_api(tenant):
    admin = make_user(tenant, "admin")
    client = Client(enforce_csrf_checks=False)
    client.force_login(admin)

    def change(**body):
        return client.patch(f"/api/v1/users/{admin.pk}/", body, content_type="application/json")

    assert "current_password" in problem(change(password=TAKEN), 400, "validation-failed")["errors"]
    assert "current_password" in problem(change(password=TAKEN, current_password="no"), 400, "validation-failed")["errors"]
    assert change(password=TAKEN, current_password=PASSWORD).status_code == 200
    assert unharmed(admin, password=TAKEN)


def test_the_console_asks_for_the_present_password_for_ones_own_alone(tenant):
    admin, other = make_user(tenant, "admin"), make_user(tenant, "guest")
    client = Client()
    client.force_login(admin)
    mine, theirs = (reverse("admin:accounts_user_new_password", args=[user.pk]) for user in (admin, other))
    new = {"password": TAKEN, "again": TAKEN}
    assert b"current_password" in client.get(mine).content
    assert b"current_password" not in client.get(theirs).content
    assert client.post(mine, new).status_code == 200
    assert client.post(mine, {**new, "current_password": "no"}).status_code == 200
    assert unharmed(admin)
    assert client.post(mine, {**new, "current_password": PASSWORD}).status_code == 302
    assert unharmed(admin, password=TAKEN)
    assert client.post(theirs, new).status_code == 302  # still signed in
    assert unharmed(other, password=TAKEN)


def test_everybody_has_djangos_own_form(tenant):
    guest = make_user(tenant, "guest")
    client = Client()
    client.force_login(guest)
    form = {"new_password1": TAKEN, "new_password2": TAKEN}
    assert client.post(reverse("admin:password_change"), {**form, "old_password": "no"}).status_code == 200
    assert unharmed(guest)
    assert client.post(reverse("admin:password_change"), {**form, "old_password": PASSWORD}).status_code == 302
    assert unharmed(guest, password=TAKEN)
    assert audited("user.password_changed")[-1]["actor_id"] == str(guest.pk)


def test_a_password_of_somebody_else_needs_user_admin_and_no_less_rights(tenant, boss):
    reader = make_role(tenant, "server.read")
    member = make_user(tenant, reader)
    writer = make_user(tenant, make_role(tenant, "user.read", "user.write", "server.read"))
    helpdesk = make_user(tenant, make_role(tenant, "user.*", "server.read"))
    for person, may in ((writer, False), (helpdesk, True)):
        with tenant_scope(tenant.pk, as_user(person)):
            for above in (boss, make_user(tenant, "operator")):
                with pytest.raises(PermissionDenied):
                    set_password(above, TAKEN)
            if may:
                set_password(member, TAKEN)
            else:
                with pytest.raises(PermissionDenied):
                    set_password(member, TAKEN)
    assert unharmed(member, password=TAKEN)
    assert unharmed(boss)


def test_a_narrowed_key_of_a_superuser_does_not_reach_a_superuser_or_a_member_with_more(tenant, boss):
    other = make_superuser()
    operator, reader = make_user(tenant, "operator"), make_user(tenant, make_role(tenant, "server.read"))
    api = narrow(boss, tenant, "user.*", "server.read")
    for above in (other, boss, operator):
        for method, path, body in (
            ("PATCH", "", {"password": TAKEN}),
            ("PATCH", "", {"email": "elsewhere@example.com"}),
            ("PATCH", "", {"username": "renamed"}),
            ("POST", "deactivate/", None),
            ("DELETE", "", None),
        ):
            problem(api(method, f"users/{above.pk}/{path}", body), 403, "permission-denied")
        assert unharmed(above)
        assert User.objects.get(pk=above.pk).email == ""
    assert api.patch(f"users/{reader.pk}/", {"password": TAKEN}).status_code == 200
    assert unharmed(reader, password=TAKEN)
    assert api.patch(f"users/{reader.pk}/", {"first_name": "Ida"}).status_code == 200


def test_a_narrowed_key_makes_nobody_a_superuser(tenant, boss):
    member = make_user(tenant, make_role(tenant, "server.read"))
    api = narrow(boss, tenant, "user.*", "membership.*", "server.read")
    made = api.post("users/", {"username": "root2", "password": TAKEN, "is_superuser": True})
    problem(made, 403, "superuser-required")
    problem(api.patch(f"users/{member.pk}/", {"is_superuser": True}), 403, "superuser-required")
    assert not User.objects.filter(username="root2").exists()
    assert not User.objects.get(pk=member.pk).is_superuser
    everything = narrow(boss, tenant, "*.*")
    assert everything.post("users/", {"username": "root3", "is_superuser": True}).status_code == 201


def test_a_narrowed_key_starts_no_command_and_sends_no_stored_header_elsewhere(tenant, boss):
    api = narrow(boss, tenant, "server.*")
    command = {"slug": "shell", "transport": "stdio", "command": "/bin/sh"}
    problem(api.post("servers/", command), 403, "superuser-required")
    there = {"slug": "there", "transport": "http", "url": "https://one.example/mcp", "headers": {"X-Token": "kept-secret"}}
    assert api.post("servers/", there).status_code == 201
    errors = problem(api.patch("servers/there/", {"url": "https://two.example/mcp"}), 400, "validation-failed")["errors"]
    assert "headers" in errors
    assert narrow(boss, tenant, "*.*").post("servers/", command).status_code == 201


def test_a_narrowed_key_gives_and_takes_only_roles_within_its_scopes(tenant, boss):
    admin = make_user(tenant, "admin")
    member, reader = make_user(tenant, "guest"), make_role(tenant, "server.read")
    for owner in (boss, admin):
        api = narrow(owner, tenant, "user.*", "membership.*", "role.*", "server.read")
        for role in ("admin", "operator", "user"):
            problem(api.post("memberships/", {"user": member.username, "role": role}), 403, "permission-denied")
            problem(api.post("users/", {"username": "friend", "roles": [role]}), 403, "permission-denied")
        held = Membership.unscoped.get(user=admin)
        problem(api.delete(f"memberships/{held.pk}/"), 403, "permission-denied")
        problem(api.post("roles/", {"slug": "wide", "permissions": ["server.write"]}), 403, "permission-denied")
        problem(api.patch(f"roles/{reader.slug}/", {"permissions": ["*.*"]}), 403, "permission-denied")
        assert api.post("memberships/", {"user": member.username, "role": reader.slug}).status_code in (200, 201)
    assert not User.objects.filter(username="friend").exists()


@pytest.mark.parametrize("whose", ["superuser", "administrator"])
def test_a_key_made_by_a_narrowed_key_has_no_more_than_it(tenant, boss, whose):
    owner = boss if whose == "superuser" else make_user(tenant, "admin")
    api = narrow(owner, tenant, "api_key.*", "server.read")
    before = APIKey.unscoped.count()
    for body in (
        {"inherits_owner": True},
        {"inherits_owner": True, "scopes": None},
        {"inherits_owner": False},
        {"inherits_owner": True, "scopes": ["*.*"]},
        {"inherits_owner": True, "scopes": ["server.*"]},
        {"inherits_owner": True, "scopes": ["user.read"]},
        {"inherits_owner": False, "scopes": ["user.read"]},
    ):
        problem(api.post("api-keys/", {"name": "wide", **body}), 403, "permission-denied")
    assert APIKey.unscoped.count() == before
    assert api.post("api-keys/", {"name": "ok", "inherits_owner": True, "scopes": ["server.read"]}).status_code == 201


@pytest.mark.parametrize("whose", ["superuser", "administrator"])
def test_a_narrowed_key_changes_no_key_that_has_more_than_it(tenant, boss, whose):
    owner = boss if whose == "superuser" else make_user(tenant, "admin")
    wide, _ = make_key(owner, tenant, inherits_owner=True, loopback_only=True)
    wider, _ = make_key(owner, tenant, inherits_owner=True, scopes=["user.*", "api_key.*"])
    equal, _ = make_key(owner, tenant, inherits_owner=True, scopes=["api_key.read"])
    api = narrow(owner, tenant, "api_key.*", "server.read")
    for key in (wide, wider):
        for body in (
            {"loopback_only": False},
            {"expires_at": "2999-01-01T00:00:00Z"},
            {"name": "mine"},
            {"scopes": ["api_key.read"]},
        ):
            if key is wider and body == {"loopback_only": False}:
                continue
            problem(api.patch(f"api-keys/{key.prefix}/", body), 403, "permission-denied")
        problem(
            api.patch(f"api-keys/{key.prefix}/", {"scopes": None, "inherits_owner": True, "name": "x"}),
            403,
            "permission-denied",
        )
    wide.refresh_from_db()
    assert (wide.loopback_only, wide.scopes, wide.expires_at) == (True, None, None)
    problem(api.patch(f"api-keys/{equal.prefix}/", {"scopes": ["*.*"]}), 403, "permission-denied")
    assert api.patch(f"api-keys/{equal.prefix}/", {"name": "renamed"}).status_code == 200
    assert api.post(f"api-keys/{wide.prefix}/revoke/").status_code == 200  # to end a key gives nobody anything


def test_a_narrowed_key_of_a_member_makes_no_key_for_others_without_api_key_admin(tenant):
    admin, other = make_user(tenant, "admin"), make_user(tenant, "guest")
    api = narrow(admin, tenant, "api_key.read", "api_key.write", "user.read", "server.read")
    problem(api.post("api-keys/", {"name": "x", "owner": other.username, "scopes": ["server.read"]}), 403, "permission-denied")
    foreign, _ = make_key(other, tenant)
    problem(api.post(f"api-keys/{foreign.prefix}/revoke/"), 403, "permission-denied")


def test_a_read_only_key_changes_nothing_of_itself_or_its_owner(tenant, boss):
    admin = make_user(tenant, "admin")
    role = builtin_role(tenant, "guest")
    for owner in (boss, admin):
        key, text = make_key(owner, tenant, inherits_owner=True, scopes=["*.read"])
        api = Api(text)
        for method, path, body in (
            ("PATCH", f"users/{owner.pk}/", {"first_name": "x"}),
            ("PATCH", f"users/{owner.pk}/", {"password": TAKEN}),
            ("POST", f"users/{owner.pk}/deactivate/", None),
            ("DELETE", f"users/{owner.pk}/", None),
            ("PATCH", f"api-keys/{key.prefix}/", {"scopes": ["*.*"]}),
            ("PATCH", f"api-keys/{key.prefix}/", {"name": "x"}),
            ("POST", f"api-keys/{key.prefix}/revoke/", None),
            ("POST", "api-keys/", {"name": "x", "inherits_owner": True, "scopes": ["*.read"]}),
            ("POST", "memberships/", {"user": owner.username, "role": role.slug}),
            ("POST", "roles/", {"slug": "x"}),
            ("PATCH", f"tenants/{tenant.slug}/", {"name": "x"}),
        ):
            problem(api(method, path, body), 403, "permission-denied")
        assert unharmed(owner)
        assert not User.objects.get(pk=owner.pk).first_name
    with every_tenant(SYSTEM):
        key.refresh_from_db()
    assert key.revoked_at is None


def test_the_system_still_sets_a_password(boss):
    with every_tenant(SYSTEM):
        set_password(boss, TAKEN)
    assert unharmed(boss, password=TAKEN)


def test_another_tenants_administrator_is_not_reached(tenant):
    stranger = make_user(make_tenant(), "admin")
    api = narrow(make_user(tenant, "admin"), tenant, "user.*")
    problem(api.patch(f"users/{stranger.pk}/", {"password": TAKEN}), 404, "not-found")
    assert unharmed(stranger)
