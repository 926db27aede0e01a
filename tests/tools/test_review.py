"""Approving and rejecting: who, when, what was seen, and what the data planes are told."""

import threading

import pytest
from django.db import connections

from apps.common.context import SYSTEM, tenant_scope
from apps.common.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from apps.tools.models import Instructions, Prompt, Resource, ResourceTemplate, Tool
from apps.tools.selectors import catalogue, held_counts, plane_definitions, plane_withheld
from apps.tools.services.review import approve, approve_all, reject, set_effects
from tests.factories import as_user, make_tenant, make_user
from tests.tools.support import make_server, offer, outbox, prompt, resource, template, tool


@pytest.fixture
def server(tenant):
    server = make_server(tenant)
    offer(server, tool("a", "old"), tool("b"), prompts=[prompt("p")])
    offer(server, tool("a", "new"), tool("b"), prompts=[prompt("p", description="new")])
    return server


def the(server, name: str = "a") -> Tool:
    return Tool.unscoped.select_related("server").get(server=server, name=name)


def test_an_approved_difference_is_in_force_with_who_and_when(tenant, server):
    operator = make_user(tenant, role="operator")
    with outbox() as notices, tenant_scope(tenant.pk, as_user(operator)):
        row = approve(the(server))
    assert (row.state, row.definition["description"], row.description) == ("active", "new", "new")
    assert (row.pending, row.pending_digest, row.held_at) == (None, "", None)
    assert row.reviewed_by == operator.username
    assert row.reviewed_at is not None
    (event,) = notices.events("tool.approved")
    assert (event["actor_label"], event["object_label"], event["tool"]) == (operator.username, "a", "a")
    assert event["details"]["changes"] == [{"path": "/description", "kind": "changed", "before": "old", "after": "new"}]
    assert ("server", str(server.pk)) in notices.changed()
    with tenant_scope(tenant.pk, SYSTEM):
        assert {row.name for row in plane_definitions([server.pk])} == {"a", "b"}


@pytest.mark.parametrize("verb", [approve, reject])
def test_what_changed_since_the_operator_looked_is_refused(tenant, server, verb):
    seen = the(server)
    offer(server, tool("a", "newer"), tool("b"))
    with outbox() as notices, tenant_scope(tenant.pk, SYSTEM):
        with pytest.raises(Conflict, match="since you looked"):
            verb(seen)
        with pytest.raises(Conflict, match="since you looked"):
            verb(the(server), expected_digest=seen.pending_digest)
    assert notices == []
    assert the(server).state == "held"
    with tenant_scope(tenant.pk, SYSTEM):
        verb(the(server), expected_digest=the(server).pending_digest)
    assert the(server).state in ("active", "rejected")


@pytest.mark.parametrize("verb", [approve, reject])
def test_a_decision_is_made_once(tenant, server, verb):
    seen = the(server)
    with tenant_scope(tenant.pk, SYSTEM):
        verb(seen)
        with pytest.raises(Conflict):
            verb(seen)


def test_nothing_waits_where_nothing_is_held(tenant, server):
    with tenant_scope(tenant.pk, SYSTEM), pytest.raises(Conflict, match="nothing waits"):
        approve(the(server, "b"))


def test_a_rejected_tool_may_be_approved_after_all_and_an_active_one_withdrawn(tenant, server):
    with tenant_scope(tenant.pk, SYSTEM):
        reject(the(server))
        assert approve(the(server)).definition["description"] == "new"
        with outbox() as notices:
            row = reject(the(server))
        assert (row.state, row.definition, row.digest) == ("rejected", None, "")
        assert row.pending["description"] == "new"
        assert {row.name for row in plane_definitions([server.pk])} == {"b"}
    assert ("server", str(server.pk)) in notices.changed()
    offer(server, tool("a", "new"), tool("b"))
    assert the(server).state == "rejected"
    with tenant_scope(tenant.pk, SYSTEM):
        assert approve(the(server)).state == "active"
    offer(server, tool("a", "new"), tool("b"))
    assert the(server).state == "active"


@pytest.mark.parametrize(
    ("role", "allowed"), [("admin", True), ("operator", True), ("user", False), ("guest", False), ("auditor", False)]
)
def test_review_needs_the_right_to_write(tenant, server, role, allowed):
    person = as_user(make_user(tenant, role=role))
    with outbox() as notices, tenant_scope(tenant.pk, person):
        if allowed:
            approve(the(server))
            set_effects(the(server), "read-only")
            return
        for act in (
            lambda: approve(the(server)),
            lambda: reject(the(server)),
            lambda: set_effects(the(server), "writes"),
            lambda: approve_all(server),
        ):
            with pytest.raises(PermissionDenied):
                act()
    assert [event["event_type"] for event in notices.events()] == ["access.refused"] * 4
    assert the(server).state == "held"


def test_another_tenant_s_definition_is_not_there(server):
    with tenant_scope(make_tenant().pk, SYSTEM):
        for act in (
            lambda: approve(the(server)),
            lambda: reject(the(server)),
            lambda: set_effects(the(server), "writes"),
            lambda: approve_all(server),
        ):
            with pytest.raises(NotFound):
                act()


def test_all_at_once_leaves_what_is_suspicious_or_was_not_seen(tenant, server):
    offer(server, tool("a", "new"), tool("b", "b\u202ec"), prompts=[prompt("p", description="new")], instructions="x")
    offer(server, tool("a", "new"), tool("b", "b\u202ec"), prompts=[prompt("p", description="new")], instructions="y")
    with tenant_scope(tenant.pk, SYSTEM):
        assert held_counts(server) == {"tool": 2, "resource": 0, "template": 0, "prompt": 1, "instructions": 1}
        seen = {str(the(server).pk): the(server).pending_digest}
        assert approve_all(server, expected_digests=seen) == (1, 3)
        assert approve_all(server, expected_digests={str(Prompt.objects.get(server=server).pk): "other"}) == (0, 3)
        assert approve_all(server) == (2, 1)
        assert [row.name for row in catalogue("tool", state="held")] == ["b"]
        assert Instructions.objects.get(server=server).text == "y"
    server.refresh_from_db()
    assert server.instructions == "y"


def test_many_at_once_share_events_and_are_all_named(tenant):
    server = make_server(tenant, review="hold-all")
    with outbox() as held:
        offer(server, *[tool(f"t{n}") for n in range(350)])
    with outbox() as approved, tenant_scope(tenant.pk, SYSTEM):
        assert approve_all(server) == (350, 0)
        assert len(plane_definitions([server.pk])) == 350
    everything = {f"t{n}" for n in range(350)}
    events = held.events("tool.held")
    assert len(events) == 101
    assert {event["object_label"] for event in events[:100]} | set(events[100]["details"]["names"]) == everything
    events = approved.events("tool.approved")
    assert len(events) == 102
    named = {event["object_label"] for event in events[:100]}
    assert named.union(*(event["details"]["digests"] for event in events[100:])) == everything
    assert approved.changed() == {("server", str(server.pk))}


def test_effects_are_the_operator_s_word(tenant, server):
    operator = make_user(tenant, role="operator")
    with tenant_scope(tenant.pk, as_user(operator)):
        with outbox() as notices:
            row = set_effects(the(server, "b"), "read-only")
            set_effects(row, "read-only")
        assert (row.effects, row.effects_by) == ("read-only", operator.username)
        assert len(notices.events("tool.effects_set")) == 1
        assert [one.effects for one in plane_definitions([server.pk]) if one.name == "b"] == ["read-only"]
        assert set_effects(row, "unknown").effects_by == ""
        with pytest.raises(ValidationFailed):
            set_effects(row, "harmless")


def test_trusted_annotations_count_until_an_operator_speaks(tenant):
    server = make_server(tenant, trust_annotations=True)
    distrusted = make_server(tenant)
    for one in (server, distrusted):
        offer(one, tool("r", annotations={"readOnlyHint": True}), tool("d", annotations={"destructiveHint": True}), tool("n"))
    with tenant_scope(tenant.pk, SYSTEM):
        said = {row.name: row.effects for row in plane_definitions([server.pk])}
        assert said == {"r": "read-only", "d": "destructive", "n": "unknown"}
        assert {row.effects for row in plane_definitions([distrusted.pk])} == {"unknown"}
        assert [row.name for row in catalogue("tool", server=server, effects="read-only")] == ["r"]
        assert catalogue("tool", server=distrusted, effects="unknown").count() == 3
        row = set_effects(the(server, "r"), "writes")
        assert row.effective_effects.said_by == "operator"
        assert {one.name: one.effects for one in plane_definitions([server.pk])}["r"] == "writes"


@pytest.mark.django_db(transaction=True)
def test_of_two_operators_at_the_same_moment_one_wins():
    tenant = make_tenant()
    server = make_server(tenant, review="hold-all")
    offer(server, tool("a"))
    results = []
    ready = threading.Barrier(2)

    def decide(verb) -> None:
        seen = the(server)
        ready.wait(10)
        try:
            with tenant_scope(tenant.pk, SYSTEM):
                results.append(verb(seen).state)
        except Conflict:
            results.append("conflict")
        finally:
            connections.close_all()

    threads = [threading.Thread(target=decide, args=[approve]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == ["active", "conflict"]


@pytest.mark.usefixtures("inside")
def test_what_was_held_or_rejected_stays_withheld_when_its_server_no_longer_lists_it(tenant):
    server = make_server(tenant, review="hold-all")
    resources = [resource(f"file:///{name}") for name in ("held", "rejected", "accepted")]
    offer(server, resources=resources, templates=[template("db:///{table}")])
    reject(Resource.objects.get(name="file:///rejected"))
    approve(Resource.objects.get(name="file:///accepted"))
    withheld = {("resource", "file:///held"), ("resource", "file:///rejected"), ("template", "db:///{table}")}
    assert set(plane_withheld([server.pk])[str(server.pk)]) == withheld
    offer(server)
    assert set(Resource.objects.values_list("state", flat=True)) == {"removed"}
    assert set(plane_withheld([server.pk])[str(server.pk)]) == withheld
    offer(server, resources=resources, templates=[template("db:///{table}")])
    approve(ResourceTemplate.objects.get())
    approve(Resource.objects.get(name="file:///rejected"))
    offer(server)
    assert set(plane_withheld([server.pk])[str(server.pk)]) == {("resource", "file:///held")}
