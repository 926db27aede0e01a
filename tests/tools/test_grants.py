"""Grants: form, tenants, rights, repetition, and who may use what by the one policy."""

import itertools
import threading

import pytest
from django.db import IntegrityError, connections, transaction

from apps.accounts.selectors import plane_tenants, plane_users
from apps.accounts.services.api_keys import revoke_api_key
from apps.accounts.services.roles import delete_role
from apps.accounts.services.users import delete_user
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import NotFound, PermissionDenied, ValidationFailed
from apps.common.policy import Access, ToolRef, may_use
from apps.gateway.plane.snapshot import Snapshot
from apps.tools.domain import full_name
from apps.tools.models import Grant, Tool, Toolset
from apps.tools.selectors import get_definition, grants, plane_grants, usable_by, who_may_use
from apps.tools.services.grants import grant, pattern_problem, revoke_grant
from apps.tools.services.toolsets import create_toolset
from tests.factories import as_user, make_key, make_member, make_role, make_superuser, make_tenant, make_user
from tests.tools.support import make_server, offer, outbox, prompt, tool


@pytest.fixture
def server(tenant):
    server = make_server(tenant, "git")
    offer(server, tool("search"), tool("push"), prompts=[prompt("review")])
    return server


@pytest.fixture
def role(tenant):
    return make_role(tenant)


def key_of(tenant, **fields):
    owner = make_user(tenant)
    return make_key(owner, tenant, **fields)[0]


@pytest.mark.usefixtures("inside")
class TestGiving:
    def test_each_subject_and_each_object(self, tenant, server, role):
        subjects = {"user": make_user(tenant), "role": role, "api_key": key_of(tenant)}
        objects = {"server": server, "toolset": create_toolset(slug="dev"), "pattern": "git__*"}
        for subject, (field, value) in itertools.product(subjects, objects.items()):
            kind = "tool" if field == "pattern" else field
            with outbox() as notices:
                row = grant(kind=kind, **{subject: subjects[subject], field: value})
            name = f"{subject}:{subjects[subject].pk}"
            assert notices.changed() == {("grants", name)}
            (event,) = notices.events("grant.created")
            assert event["details"]["subject"] == name
            assert [facts.id for _, _, facts in plane_grants([name]) if facts.kind == kind] == [str(row.pk)]
        assert Grant.objects.count() == 9

    def test_the_same_grant_again_is_the_same_row_and_no_event(self, server, role):
        first = grant(kind="server", role=role, server=server)
        with outbox() as notices:
            assert grant(kind="server", role=role.pk, server=str(server.pk)).pk == first.pk
        assert notices == []
        assert grant(kind="server", role=role, server=server, effect="deny").pk != first.pk

    def test_the_database_refuses_a_second_row(self, tenant, server, role):
        grant(kind="server", role=role, server=server)
        with pytest.raises(IntegrityError), transaction.atomic():
            Grant.objects.create(tenant=tenant, kind="server", role=role, server=server)

    @pytest.mark.parametrize(
        "fields",
        [
            {"kind": "server"},
            {"kind": "server", "subject": "none"},
            {"kind": "server", "subject": "both", "server": True},
            {"kind": "toolset", "server": True},
            {"kind": "tool"},
            {"kind": "tool", "pattern": "x", "server": True},
            {"kind": "tool", "pattern": "has space__x"},
            {"kind": "tool", "pattern": "search"},
            {"kind": "tool", "pattern": "git__"},
            {"kind": "tool", "pattern": "Git__x"},
            {"kind": "tool", "pattern": "a_b__c"},
            {"kind": "tool", "pattern": "git__a\u0000"},
            {"kind": "tool", "pattern": "g" * 127 + "__x"},
            {"kind": "everything", "server": True},
            {"kind": "server", "server": True, "effect": "maybe"},
            {"kind": "server", "server": "019a0000-0000-7000-8000-000000000000"},
            {"kind": "server", "server": "no id"},
        ],
    )
    def test_what_is_not_well_formed_is_refused(self, tenant, server, role, fields):
        fields = dict(fields)
        subject = fields.pop("subject", "role")
        given = {"role": {"role": role}, "none": {}, "both": {"role": role, "user": make_user(tenant)}}[subject]
        if fields.get("server") is True:
            fields["server"] = server
        with pytest.raises(ValidationFailed) as caught:
            grant(**given, **fields)
        assert caught.value.extra["errors"]
        assert not Grant.objects.exists()

    @pytest.mark.parametrize("pattern", ["*", "git__*", "*__search", "git__a.b-C_9", "g*t__x", "git*", "git__a__b"])
    def test_patterns_that_may_be(self, pattern):
        assert pattern_problem(pattern) == ""

    def test_what_belongs_to_another_tenant_is_not_there(self, tenant, server, role):
        other = make_tenant()
        with tenant_scope(other.pk, SYSTEM):
            foreign = {"role": make_role(other), "user": make_user(other), "api_key": key_of(other)}
            own = {"role": make_role(other)}
            with pytest.raises(ValidationFailed):
                grant(kind="server", server=server, **own)
            with pytest.raises(ValidationFailed):
                grant(kind="toolset", toolset=Toolset.unscoped.get(server=server), **own)
        for subject, row in foreign.items():
            with pytest.raises(ValidationFailed) as caught:
                grant(kind="server", server=server, **{subject: row})
            assert subject in caught.value.extra["errors"]
        assert not Grant.unscoped.exists()

    def test_a_superuser_needs_no_role_and_a_revoked_key_gets_nothing(self, tenant, server):
        assert grant(kind="server", server=server, user=make_superuser(), effect="deny")
        key = key_of(tenant)
        revoke_api_key(key)
        key.refresh_from_db()
        with pytest.raises(ValidationFailed, match="revoked"):
            grant(kind="server", server=server, api_key=key)

    def test_taking_back(self, server, role):
        row = grant(kind="server", role=role, server=server)
        with tenant_scope(make_tenant().pk, SYSTEM), pytest.raises(NotFound):
            revoke_grant(row)
        with outbox() as notices:
            revoke_grant(row)
            revoke_grant(row)
        assert len(notices.events("grant.revoked")) == 1
        assert notices.changed() == {("grants", f"role:{row.role_id}")}
        assert plane_grants([f"role:{row.role_id}"]) == []

    def test_subjects_that_go_take_their_grants_along_and_it_is_told(self, server, role):
        grant(kind="server", role=role, server=server)
        with outbox() as notices:
            delete_role(role)
        assert ("grants", f"role:{role.pk}") in notices.changed()
        assert not Grant.objects.exists()


@pytest.mark.parametrize(("name", "allowed"), [("admin", True), ("operator", True), ("user", False), ("auditor", False)])
def test_giving_and_taking_need_the_right(tenant, server, role, name, allowed):
    person = as_user(make_user(tenant, role=name))
    with tenant_scope(tenant.pk, SYSTEM):
        row = grant(kind="server", role=role, server=server)
    with outbox() as notices, tenant_scope(tenant.pk, person):
        if allowed:
            revoke_grant(row)
            grant(kind="tool", role=role, pattern="git__*")
            return
        with pytest.raises(PermissionDenied):
            revoke_grant(row)
        with pytest.raises(PermissionDenied):
            grant(kind="tool", role=role, pattern="git__*")
    assert len(notices.events("access.refused")) == 2
    assert notices.changed() == set()


def test_a_key_is_given_only_what_the_giver_may_change(tenant, server, role):
    granter = make_role(tenant, "grant.write", "toolset.write")
    person = as_user(make_user(tenant, role=granter))
    key = key_of(tenant)
    with tenant_scope(tenant.pk, SYSTEM):
        toolset = create_toolset(slug="dev")
    with outbox() as notices, tenant_scope(tenant.pk, person):
        grant(kind="server", role=role, server=server)
        grant(kind="toolset", api_key=key, toolset=toolset)
        grant(kind="server", api_key=key, server=server, effect="deny")
        for fields in ({"kind": "server", "server": server}, {"kind": "tool", "pattern": "*"}):
            with pytest.raises(PermissionDenied):
                grant(api_key=key, **fields)
    assert {event["action"] for event in notices.events("access.refused")} == {"server.write", "tool.write"}


@pytest.mark.django_db(transaction=True)
def test_the_same_grant_from_many_hands_is_one_row():
    tenant = make_tenant()
    server, role = make_server(tenant), make_role(tenant)
    ids = []

    def give() -> None:
        try:
            with tenant_scope(tenant.pk, SYSTEM):
                ids.append(grant(kind="server", role=role, server=server).pk)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=give) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ids) == 4
    assert len(set(ids)) == 1


@pytest.mark.usefixtures("inside")
class TestWhoMayUseWhat:
    def test_every_subject_with_its_rule(self, tenant, server, role):
        member, other, boss = make_user(tenant), make_user(tenant), make_superuser()
        by_role = make_user(tenant, role=role)
        bare, inheriting = key_of(tenant), make_key(by_role, tenant, inherits_owner=True)[0]
        narrowed = make_key(by_role, tenant, inherits_owner=True, scopes=["audit.read"])[0]
        given = grant(kind="tool", user=member, pattern="git__sea*")
        to_role = grant(kind="server", role=role, server=server)
        found = {use.id: use for use in who_may_use(get_definition("git__search"), refused=True)}
        assert (found[str(member.pk)].allowed, found[str(member.pk)].rule) == (True, f"grant:{given.pk}")
        assert (found[str(by_role.pk)].allowed, found[str(by_role.pk)].rule) == (True, f"grant:{to_role.pk}")
        assert (found[str(role.pk)].kind, found[str(role.pk)].label) == ("role", role.name)
        assert found[str(inheriting.pk)].allowed
        assert found[str(boss.pk)].rule == "superuser"
        for row in (other, bare, narrowed):
            assert (found[str(row.pk)].allowed, found[str(row.pk)].rule) == (False, "default-deny")
        assert str(other.pk) not in {use.id for use in who_may_use(get_definition("git__search"))}
        refused = {use.id: use.allowed for use in who_may_use(get_definition("git__push"), refused=True)}
        assert refused[str(member.pk)] is False

    def test_what_is_not_in_force_nobody_may_use(self, tenant, server):
        offer(server, tool("search", "changed"))
        make_superuser()
        found = who_may_use(get_definition("git__search"), refused=True)
        assert {(use.allowed, use.rule) for use in found} == {(False, "review")}
        assert found[0].reason == "it is held for review"

    def test_toolsets_carry_what_they_have(self, tenant, server):
        user = make_user(tenant)
        toolset = create_toolset(
            slug="dev", entries=[{"server": "git", "pattern": "sea*"}, {"server": "git", "kind": "prompt"}]
        )
        grant(kind="toolset", user=user, toolset=toolset)
        assert [(use.kind, use.full_name) for use in usable_by(tenant.pk, user=user)] == [
            ("tool", "git__search"), ("prompt", "git__review"),
        ]  # fmt: skip
        grant(kind="tool", user=user, pattern="*__search", effect="deny")
        assert [use.full_name for use in usable_by(tenant.pk, user=user)] == ["git__review"]

    def test_a_deny_wins_also_over_a_superuser(self, tenant, server):
        boss = make_superuser()
        assert len(usable_by(tenant.pk, user=boss)) == 3
        grant(kind="server", user=boss, server=server, effect="deny")
        assert usable_by(tenant.pk, user=boss) == []

    def test_a_user_of_another_tenant_uses_nothing_here(self, tenant, server):
        stranger = make_user(make_tenant())
        assert usable_by(tenant.pk, user=stranger) == []
        make_member(stranger, tenant)
        grant(kind="server", user=stranger, server=server)
        assert len(usable_by(tenant.pk, user=stranger, kind="tool")) == 2

    def test_the_same_answers_as_the_policy_over_what_the_data_plane_gets(self, tenant, server):
        """Every subject kind × object kind × effect, alone and in pairs, asked both ways."""
        other = make_server(tenant, "web")
        offer(other, tool("search"))
        toolset = create_toolset(slug="dev", entries=[{"server": "git", "pattern": "search"}])
        user = make_user(tenant)
        key = make_key(user, tenant)[0]
        objects = [
            {"kind": "server", "server": server},
            {"kind": "toolset", "toolset": toolset},
            {"kind": "tool", "pattern": "*__search"},
        ]
        single = [{**what, "effect": effect} for what in objects for effect in ("allow", "deny")]
        own = {str(row.server_id): str(row.pk) for row in Toolset.objects.filter(server__isnull=False)}
        checked = 0
        for subject, row in (("user", user), ("api_key", key)):
            for pair in itertools.combinations_with_replacement(single, 2):
                Grant.objects.all().delete()
                for fields in pair:
                    grant(**{subject: row}, **fields)
                with every_tenant():
                    access = Access.of(facts for _, _, facts in plane_grants([f"{subject}:{row.pk}"]))
                expected = set()
                for definition in Tool.objects.select_related("server"):
                    through = {own[str(definition.server_id)]}
                    if (definition.server.slug, definition.name) == ("git", "search"):
                        through.add(str(toolset.pk))
                    full = full_name(definition.server.slug, definition.name)
                    if may_use(access, ToolRef(str(definition.server_id), full, frozenset(through))).allowed:
                        expected.add(full)
                assert {use.full_name for use in usable_by(tenant.pk, kind="tool", **{subject: row})} == expected, pair
                checked += 1
        assert checked == 42

    def test_a_pattern_given_in_one_tenant_says_nothing_in_another(self, tenant, server):
        """The data plane gathers a user's grants by user; those of other tenants must not count."""
        elsewhere = make_tenant()
        foreign = make_server(elsewhere, "git")
        offer(foreign, tool("search"))
        user = make_user(tenant)
        make_member(user, elsewhere)
        with tenant_scope(elsewhere.pk, SYSTEM):
            grant(kind="tool", user=user, pattern="git__*")
        with every_tenant():
            given = tuple(facts for _, _, facts in plane_grants([f"user:{user.pk}"]))
            snapshot = Snapshot(
                users={row.id: row for row in plane_users([user.pk])},
                tenants={row.id: row for row in plane_tenants([tenant.pk, elsewhere.pk])},
                grants={f"user:{user.pk}": given},
            )
        ref = ToolRef("any", "git__search")
        here, there = (snapshot.caller_of_user(str(user.pk), str(one.pk)) for one in (tenant, elsewhere))
        assert (may_use(here.access, ref).allowed, may_use(there.access, ref).allowed) == (False, True)
        assert usable_by(tenant.pk, user=user) == []
        assert [use.full_name for use in usable_by(elsewhere.pk, user=user)] == ["git__search"]

    def test_a_deleted_user_s_grants_go_and_it_is_told(self, tenant, server):
        user = make_user(tenant)
        grant(kind="server", user=user, server=server)
        with every_tenant(SYSTEM), outbox() as notices:
            delete_user(user)
        assert ("grants", f"user:{user.pk}") in notices.changed()
        assert not Grant.objects.exists()

    def test_lists_of_grants(self, tenant, server, role):
        row = grant(kind="server", role=role, server=server)
        assert list(grants(role=role)) == [row]
        assert list(grants(server=server.pk)) == [row]
        assert not grants(user=make_user(tenant)).exists()
