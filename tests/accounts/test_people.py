"""Tenants, roles, users and memberships."""

import threading

import pytest
from django.db import connections

from apps.accounts.models import APIKey, Membership, Role, Tenant, User
from apps.accounts.services.builtin_roles import ensure_builtin_roles
from apps.accounts.services.memberships import add_membership, remove_membership
from apps.accounts.services.roles import create_role, delete_role, update_role
from apps.accounts.services.tenants import activate_tenant, create_tenant, deactivate_tenant, update_tenant
from apps.accounts.services.users import activate_user, create_user, deactivate_user, delete_user, set_password, update_user
from apps.common.authorise import current_principal, decide
from apps.common.context import SYSTEM, Actor, every_tenant, tenant_scope
from apps.common.errors import Conflict, PermissionDenied, StepUpRequired, ValidationFailed
from tests.accounts.support import audited, changes, everything
from tests.factories import (
    PASSWORD,
    as_key,
    as_user,
    builtin_role,
    make_key,
    make_member,
    make_role,
    make_superuser,
    make_tenant,
    make_user,
)

pytestmark = pytest.mark.django_db


def test_a_tenant_is_made_by_a_superuser_with_its_roles():
    boss, admin = make_superuser(), make_user(make_tenant(), "admin")
    with every_tenant(as_user(boss)):
        tenant = create_tenant(slug="acme", name="Acme")
        for slug in ("Acme", "-acme", "a_b", "", "x" * 41, "acme"):
            with pytest.raises(ValidationFailed):
                create_tenant(slug=slug)
    assert Role.unscoped.filter(tenant=tenant, builtin=True).count() == 6
    with tenant_scope(tenant.pk, as_user(admin)), pytest.raises(PermissionDenied):
        create_tenant(slug="own")
    assert not Tenant.objects.filter(slug="own").exists()
    assert ("tenant", str(tenant.pk)) in changes()


def test_an_administrator_sets_up_their_tenant_but_does_not_shut_it():
    tenant = make_tenant()
    admin = make_user(tenant, "admin")
    with tenant_scope(tenant.pk, as_user(admin)):
        assert update_tenant(tenant, sample_payloads=False).sample_payloads is False
        for verb in (deactivate_tenant, lambda t: update_tenant(t, slug="other")):
            with pytest.raises(PermissionDenied):
                verb(tenant)
    with every_tenant(as_user(make_superuser())):
        assert deactivate_tenant(tenant).active is False
        assert activate_tenant(tenant).active is True
    assert [event["event_type"] for event in audited() if event["object_kind"] == "tenant" and event["outcome"] == "ok"] == [
        "tenant.created", "tenant.updated", "tenant.deactivated", "tenant.activated",
    ]  # fmt: skip


def test_builtin_roles_are_mended_and_cannot_be_changed():
    tenant = make_tenant()
    role = builtin_role(tenant, "guest")
    Role.unscoped.filter(pk=role.pk).update(permissions=["*.*"])
    with every_tenant(SYSTEM):
        assert ensure_builtin_roles(tenant)["guest"].permissions == [
            "server.read", "tool.read", "resource.read", "prompt.read", "toolset.read",
        ]  # fmt: skip
        for verb in (
            lambda: update_role(role, permissions=["*.*"]),
            lambda: update_role(role, name="x"),
            lambda: delete_role(role),
        ):
            with pytest.raises(Conflict):
                verb()


@pytest.mark.parametrize(
    ("slug", "may", "may_not"),
    [
        ("admin", ["user.write", "api_key.admin", "server.delete", "audit.read"], []),
        (
            "operator",
            ["server.write", "grant.write", "process.write", "tool.call", "audit.read"],
            ["user.read", "api_key.write"],
        ),
        ("user", ["tool.call", "server.read", "prompt.read"], ["server.write", "audit.read", "grant.read"]),
        ("guest", ["tool.read"], ["tool.call", "api_key.read"]),
        ("auditor", ["audit.read"], ["server.read", "audit.write"]),
        ("service", ["tool.call", "tool.read"], ["tool.write"]),
    ],
)
def test_what_the_builtin_roles_give(slug, may, may_not):
    tenant, other = make_tenant(), make_tenant()
    user = make_user(tenant, slug)
    with tenant_scope(tenant.pk, as_user(user)):
        assert all(decide(action, tenant_id=tenant.pk).allowed for action in may)
        assert not any(decide(action, tenant_id=tenant.pk).allowed for action in may_not)
        assert not any(decide(action, tenant_id=other.pk).allowed for action in may)
        assert not any(decide(action, tenant_id=None).allowed for action in may)
    with tenant_scope(other.pk, as_user(user)):
        assert not any(decide(action, tenant_id=other.pk).allowed for action in may)


def test_a_role_gives_no_more_than_its_maker_has():
    tenant = make_tenant()
    maker = make_user(tenant, make_role(tenant, "role.write", "role.delete", "server.read", "membership.write"))
    with tenant_scope(tenant.pk, as_user(maker)):
        role = create_role(slug="readers", permissions=["server.read"])
        for permissions in (["server.write"], ["server.*"], ["*.*"]):
            with pytest.raises(PermissionDenied):
                create_role(slug="more", permissions=permissions)
            with pytest.raises(PermissionDenied):
                update_role(role, permissions=permissions)
        with pytest.raises(ValidationFailed):
            create_role(slug="odd", permissions=["server.fly"])
        with pytest.raises(ValidationFailed):
            create_role(slug="readers")
        update_role(role, name="Readers")
        delete_role(role)
    assert not Role.unscoped.filter(slug="readers").exists()
    assert [event["event_type"] for event in audited() if event["object_label"] == "readers" and event["outcome"] == "ok"] == [
        "role.created", "role.updated", "role.deleted",
    ]  # fmt: skip


def test_a_role_that_somebody_has_is_not_deleted():
    tenant = make_tenant()
    role = make_role(tenant, "server.read")
    make_user(tenant, role)
    with every_tenant(SYSTEM), pytest.raises(Conflict, match="1 member has"):
        delete_role(role)


def test_a_user_is_made_with_a_password_that_nobody_keeps():
    tenant = make_tenant()
    admin = make_user(tenant, "admin")
    with tenant_scope(tenant.pk, as_user(admin)):
        user = create_user(username="eve", password="correct horse battery", roles=[builtin_role(tenant, "user")])
        assert user.check_password("correct horse battery")
        robot = create_user(username="robot", roles=[builtin_role(tenant, "service")])
        assert not robot.has_usable_password()
        for password in ("short", "password12345", "evelyn-long-name"):
            with pytest.raises(ValidationFailed) as caught:
                create_user(username="evelyn-long-name", password=password, roles=[builtin_role(tenant, "user")])
            assert password not in str(caught.value) or password == "evelyn-long-name"
        with pytest.raises(ValidationFailed) as caught:
            create_user(username="eve", roles=[builtin_role(tenant, "user")])
        assert "username" in caught.value.extra["errors"]
        with pytest.raises(ValidationFailed):
            create_user(username="homeless")
        with pytest.raises(StepUpRequired):
            create_user(username="root", is_superuser=True, roles=[builtin_role(tenant, "user")])
    assert not User.objects.filter(username__in=["homeless", "root", "evelyn-long-name"]).exists()
    assert "correct horse" not in everything()
    assert audited("access.refused")[-1]["object_label"] == "root"


def test_nobody_gives_a_role_with_more_than_they_have():
    tenant = make_tenant()
    maker = make_user(tenant, make_role(tenant, "user.*", "membership.*", "server.read"))
    with tenant_scope(tenant.pk, as_user(maker)):
        with pytest.raises(PermissionDenied):
            create_user(username="friend", roles=[builtin_role(tenant, "admin")])
        with pytest.raises(PermissionDenied):
            add_membership(maker, builtin_role(tenant, "admin"))
        foreign = make_user(make_tenant())
        with pytest.raises(PermissionDenied) as caught:
            add_membership(foreign, make_role(tenant, "server.read"))
        assert caught.value.extra["rule"] == "tenant"
    assert not User.objects.filter(username="friend").exists()


def test_a_password_or_an_account_of_somebody_with_more_rights_is_out_of_reach():
    tenant, other = make_tenant(), make_tenant()
    helpdesk = make_user(tenant, make_role(tenant, "user.*", "server.read"))
    admin, reader = make_user(tenant, "admin"), make_user(tenant, make_role(tenant, "server.read"))
    boss = make_superuser()
    guest_elsewhere = make_user(tenant, make_role(tenant, "server.read"))
    make_member(guest_elsewhere, other, "guest")
    with tenant_scope(tenant.pk, as_user(helpdesk)):
        for out_of_reach in (admin, boss, guest_elsewhere, make_user(other), make_user()):
            for verb in (
                lambda user: set_password(user, "a new pass phrase 1"), deactivate_user, delete_user,
                lambda user: update_user(user, email="x@example.com"),
            ):  # fmt: skip
                with pytest.raises(PermissionDenied):
                    verb(out_of_reach)
            assert not User.objects.get(pk=out_of_reach.pk).check_password("a new pass phrase 1")
        set_password(reader, "a new pass phrase 1")
        with pytest.raises(StepUpRequired):
            update_user(reader, is_superuser=True)
    assert User.objects.get(pk=reader.pk).check_password("a new pass phrase 1")


def test_everybody_may_change_their_own_password():
    tenant = make_tenant()
    guest = make_user(tenant, "guest")
    with tenant_scope(tenant.pk, as_user(guest)):
        set_password(guest, "a new pass phrase 1", current=PASSWORD)
        with pytest.raises(PermissionDenied):
            update_user(guest, is_staff=False)
    changed = audited("user.password_changed")[-1]
    assert (changed["object_id"], changed["actor_id"]) == (str(guest.pk), str(guest.pk))
    assert "pass phrase" not in everything()


def test_the_last_superuser_stays():
    boss = make_superuser()
    with every_tenant(as_user(boss)):
        for verb in (
            deactivate_user,
            lambda user: update_user(user, is_superuser=False),
            lambda user: update_user(user, is_active=False),
        ):
            with pytest.raises(Conflict, match="last active superuser"):
                verb(boss)
    with every_tenant(SYSTEM), pytest.raises(Conflict, match="last active superuser"):
        delete_user(boss)
    second = make_superuser()
    with every_tenant(as_user(boss)):
        with pytest.raises(Conflict, match="yourself"):
            delete_user(boss)
        deactivate_user(second)
        with pytest.raises(Conflict):
            deactivate_user(boss)
        activate_user(second)
        update_user(second, is_superuser=False)
        with pytest.raises(Conflict):
            deactivate_user(boss)
    boss.refresh_from_db()
    assert boss.is_active
    assert boss.is_superuser


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_two_superusers_cannot_shut_each_other_out_at_once():
    first, second = make_superuser(), make_superuser()
    barrier = threading.Barrier(2)
    results = []

    def shut(actor, target):
        try:
            barrier.wait(5)
            with every_tenant(as_user(actor)):
                deactivate_user(target)
            results.append("done")
        except (Conflict, PermissionDenied):
            results.append("refused")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=shut, args=pair) for pair in ((first, second), (second, first))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(results) == ["done", "refused"]
    assert User.objects.filter(is_superuser=True, is_active=True).count() == 1


def test_with_the_last_role_the_keys_go():
    tenant = make_tenant()
    user = make_user(tenant, "user")
    second = make_member(user, tenant, "auditor")
    key, _ = make_key(user, tenant)
    first = Membership.unscoped.get(user=user, role__slug="user")
    with every_tenant(SYSTEM):
        remove_membership(first)
        key.refresh_from_db()
        assert key.revoked_at is None
        remove_membership(second)
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert audited("api_key.revoked")[-1]["details"]["because"] == "the owner left"
    assert not Membership.unscoped.filter(user=user).exists()


def test_a_deleted_users_keys_are_announced():
    tenant = make_tenant()
    user = make_user(tenant, "user")
    key, _ = make_key(user, tenant)
    with every_tenant(SYSTEM):
        delete_user(user)
    assert not User.objects.filter(pk=user.pk).exists()
    assert not APIKey.unscoped.filter(pk=key.pk).exists()
    assert {("user", str(user.pk)), ("api_key", str(key.pk))} <= set(changes())


def test_an_actor_who_is_gone_has_no_rights():
    tenant = make_tenant()
    user = make_user(tenant, "admin")
    for actor in (
        Actor(kind="user", id=str(tenant.pk), label="nobody"),
        Actor(kind="user", id="", label="", is_superuser=True),
        Actor(kind="anonymous", id="", label="", is_superuser=True),
        Actor(kind="api_key", id="x", label="", is_superuser=True),
    ):
        with tenant_scope(tenant.pk, actor):
            assert not decide("server.read", tenant_id=tenant.pk).allowed
    with every_tenant(SYSTEM):
        deactivate_user(user)
    with tenant_scope(tenant.pk, as_user(user)):
        assert not decide("server.read", tenant_id=tenant.pk).allowed


def test_a_keys_rights_follow_its_owner():
    tenant, other = make_tenant(), make_tenant()
    owner = make_user(tenant, "admin")
    key, _ = make_key(owner, tenant, inherits_owner=True, scopes=["server.*", "tool.call"])
    with tenant_scope(tenant.pk, as_key(key)):
        assert decide("server.write", tenant_id=tenant.pk).allowed
        assert not decide("user.write", tenant_id=tenant.pk).allowed
        assert not decide("server.write", tenant_id=other.pk).allowed
    with tenant_scope(other.pk, as_key(key)):
        assert not decide("server.write", tenant_id=other.pk).allowed
        assert current_principal().tenant_id == str(tenant.pk)
    with every_tenant(SYSTEM):
        for membership in Membership.unscoped.filter(user=owner):
            remove_membership(membership)
    with tenant_scope(tenant.pk, as_key(key)):
        assert not decide("server.write", tenant_id=tenant.pk).allowed


def test_a_superusers_key_is_narrowed_by_its_scopes_too():
    tenant = make_tenant()
    key, _ = make_key(make_superuser(), tenant, inherits_owner=True, scopes=["audit.read"])
    with tenant_scope(tenant.pk, as_key(key)):
        assert decide("audit.read", tenant_id=tenant.pk).allowed
        assert not decide("server.write", tenant_id=tenant.pk).allowed
        with pytest.raises(PermissionDenied):
            create_role(slug="x")


def test_the_factories_make_what_they_say():
    user = make_user(make_tenant(), "operator")
    assert user.check_password(PASSWORD)
