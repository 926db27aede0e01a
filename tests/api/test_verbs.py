"""Verbs that only programs use, or that the console does another way: what they leave behind."""

import pytest

from apps.common.models import OutboxEvent
from apps.servers.models import Server
from apps.tools.models import Tool
from tests.accounts.client import Api, problem
from tests.accounts.support import audited
from tests.api.world import NOWHERE, World, make_world
from tests.factories import unique
from tests.tools.support import offer, tool

pytestmark = pytest.mark.django_db


def types_after(last: int) -> list[str]:
    """The types of control events since a row of the outbox."""
    return [row.payload["event_type"] for row in OutboxEvent.objects.filter(topic="audit", id__gt=last).order_by("id")]


def last_row() -> int:
    """Where the outbox stands."""
    return OutboxEvent.objects.order_by("-id").values_list("id", flat=True).first() or 0


def test_several_servers_are_paused_together_or_not_at_all(world: World, admin: Api):
    second = admin.post("servers/", {"slug": "second", "transport": "http", "url": NOWHERE}).json()
    foreign = make_world()
    last = last_row()
    body = problem(
        admin.post("servers/bulk/pause/", {"servers": ["second", foreign.server.slug, "nobody"]}), 400, "validation-failed"
    )
    assert body["errors"]["servers"] == [f"There is no such server: {name}." for name in (foreign.server.slug, "nobody")]
    assert types_after(last) == []
    answer = admin.post("servers/bulk/pause/", {"servers": ["second", second["id"], world.server.slug]})
    assert {row["slug"]: row["state"] for row in answer.json()} == {"second": "paused", world.server.slug: "paused"}
    assert types_after(last) == ["server.paused", "server.paused"]
    answer = admin.post("servers/bulk/resume/", {"servers": [world.server.slug]})
    assert [(row["slug"], row["paused"]) for row in answer.json()] == [(world.server.slug, False)]
    problem(admin.post("servers/bulk/resume/", {"servers": []}), 400, "validation-failed")


def test_import_tells_of_each_entry(world: World, admin: Api):
    document = {
        "mcpServers": {
            "Good One": {"url": NOWHERE, "headers": {"X-Key": "v"}},
            "private": {"url": "http://169.254.169.254/latest"},
            "broken": {"url": 7},
            world.server.slug: {"url": NOWHERE, "disabled": True},
        }
    }
    dry = admin.post("servers/import/", {"document": document, "dry_run": True}).json()
    assert not Server.unscoped.filter(slug="good-one").exists()
    results = admin.post("servers/import/", {"document": document}).json()
    assert [row["action"] for row in results] == [row["action"] for row in dry] == ["created", "failed", "failed", "updated"]
    assert results[1]["error_type"].endswith("/address-refused")
    assert admin.get("servers/good-one/").json()["credentials"][0]["name"] == "X-Key"
    assert admin.get(f"servers/{world.server.slug}/").json()["paused"] is True
    assert {"server.registered", "server.updated", "server.paused"} <= {event["event_type"] for event in audited()}
    problem(admin.post("servers/import/", {"document": {"servers": 7}}), 400, "validation-failed")
    exported = admin.get("servers/export/").json()
    assert exported["mcpServers"]["good-one"]["headers"] == {"X-Key": "${GOOD_ONE__X_KEY}"}
    assert audited("server.exported")[-1]["details"]["servers"] == sorted(exported["mcpServers"])
    assert [row["action"] for row in admin.post("servers/import/", {"document": exported}).json()] == ["skipped", "skipped"]


def test_a_test_of_settings_keeps_nothing_but_its_event(world: World, admin: Api):
    report = admin.post("servers/test-connection/", {"transport": "http", "url": NOWHERE, "headers": {"X-Key": "v"}}).json()
    assert (report["ok"], report["error_type"]) == (False, "https://switchyard.dev/problems/upstream-unavailable")
    assert Server.unscoped.filter(tenant=world.tenant).count() == 1
    assert audited("server.tested")[-1]["outcome"] == "failed"
    problem(
        admin.post("servers/test-connection/", {"transport": "http", "url": "http://169.254.169.254/"}), 400, "address-refused"
    )
    problem(
        admin.post("servers/", {"slug": "meta", "transport": "http", "url": "http://169.254.169.254/"}), 400, "address-refused"
    )


def test_a_test_takes_what_a_registration_takes_and_judges_it_alike(world: World, admin: Api):
    body = {
        "slug": "weather", "name": "Weather", "description": "Forecasts.", "transport": "http", "url": NOWHERE,
        "headers": {"X-Api-Key": "secret"}, "review": "hold-all", "trust_annotations": True, "timeout_seconds": 5,
        "max_concurrency": 3, "idle_seconds": 9, "paused": True,
    }  # fmt: skip
    report = admin.post("servers/test-connection/", body)
    assert (report.status_code, report.json()["ok"]) == (200, False)
    assert audited("server.tested")[-1]["object_label"] == "weather"
    for wrong in (
        {"slug": "Not A Slug"},
        {"slug": "admin"},
        {"paused": "perhaps"},
        {"args": "x"},
        {"nothing": 1},
        {"max_concurrency": 0},
    ):
        said = [set(problem(admin.post(path, body | wrong), 400, "validation-failed")["errors"]) for path in (
            "servers/", "servers/test-connection/",
        )]  # fmt: skip
        assert said[0] == said[1]
        assert set(wrong) <= said[0]
    assert admin.post("servers/", body).status_code == 201


def test_discovery_of_a_server_that_is_down_leaves_the_catalogue(world: World, admin: Api):
    summary = admin.post(f"servers/{world.server.slug}/discover/").json()
    assert (summary["ok"], summary["error_type"]) == (False, "upstream-unavailable")
    assert Tool.unscoped.filter(server=world.server, state="held").count() == 2
    assert admin.get(f"servers/{world.server.slug}/").json()["state"] == "unhealthy"
    admin.post(f"servers/{world.server.slug}/pause/")
    problem(admin.post(f"servers/{world.server.slug}/discover/"), 503, "paused")


def test_what_changed_is_shown_and_only_what_was_seen_is_approved(world: World, admin: Api):
    admin.post(f"servers/{world.server.slug}/approve-all/")
    offer(world.server, tool("search", "Finds everything."), tool("read", "Reads."), tool("write", "Writes."))
    name = f"{world.server.slug}__search"
    shown = admin.get(f"tools/{name}/").json()
    assert shown["state"] == "held"
    assert shown["definition"]["description"] == "Finds things."
    assert shown["pending"]["description"] == "Finds everything."
    difference = admin.get(f"tools/{name}/difference/").json()
    assert difference["changes"] == [
        {"path": "/description", "kind": "changed", "before": "Finds things.", "after": "Finds everything."}
    ]
    assert (difference["state"], difference["expected_digest"]) == ("held", shown["pending_digest"])
    problem(admin.post(f"tools/{name}/approve/", {"expected_digest": shown["digest"]}), 409, "conflict")
    kept = admin.post(
        f"servers/{world.server.slug}/approve-all/", {"expected_digests": {shown["id"]: shown["pending_digest"]}}
    ).json()
    assert kept == {"approved": 1, "left": 1}
    assert admin.get(f"tools/{name}/").json()["definition"]["description"] == "Finds everything."
    assert "expected_digest" in problem(admin.post(f"tools/{name}/approve/"), 400, "validation-failed")["errors"]
    assert admin.post(f"tools/{name}/reject/").json()["state"] == "rejected"
    assert admin.post(f"tools/{name}/effects/", {"effects": "read-only"}).json()["effects"]["value"] == "read-only"


def test_a_difference_names_what_approve_and_reject_take(world: World, admin: Api):
    name = f"{world.server.slug}__search"
    seen = admin.get(f"tools/{name}/difference/").json()["expected_digest"]
    assert admin.post(f"tools/{name}/approve/", {"expected_digest": seen}).json()["state"] == "active"
    found = admin.get(f"tools/{name}/difference/").json()
    assert (found["state"], found["changes"], found["unified"]) == ("active", [], "")
    rejected = admin.post(f"tools/{name}/reject/", {"expected_digest": found["expected_digest"]})
    assert rejected.json()["state"] == "rejected"
    again = admin.get(f"tools/{name}/difference/").json()["expected_digest"]
    assert admin.post(f"tools/{name}/approve/", {"expected_digest": again}).json()["state"] == "active"


def test_who_may_use_a_tool(world: World, admin: Api):
    admin.post(f"servers/{world.server.slug}/approve-all/")
    uses = admin.get(f"tools/{world.server.slug}__search/access/").json()
    allowed = {(use["kind"], use["label"]): use["rule"] for use in uses if use["allowed"]}
    assert allowed["role", world.role.name] == f"grant:{world.grant.pk}"
    assert {use["rule"] for use in uses if not use["allowed"]} <= {"default-deny", "scope", "review"}


def test_a_toolset_says_how_to_connect(world: World, admin: Api):
    found = admin.get(f"toolsets/{world.toolset.slug}/connect/").json()
    assert found["url"].endswith(f"/mcp/{world.toolset.slug}")
    assert {snippet["name"] for snippet in found["snippets"]} == {
        "claude-desktop",
        "claude-code",
        "cursor",
        "vscode",
        "sse",
        "curl",
        "python",
    }
    address = {"sse": found["url"].replace("/mcp/", "/sse/")}
    assert all(address.get(snippet["name"], found["url"]) in snippet["text"] for snippet in found["snippets"])


def test_a_preview_says_what_would_be_left_out(world: World, admin: Api):
    admin.post(f"servers/{world.server.slug}/approve-all/")
    entries = [
        {"server": world.server.slug, "pattern": "search", "rename": "same"},
        {"server": world.server.slug, "pattern": "read", "rename": "same"},
    ]
    found = admin.post("toolsets/preview/", {"entries": entries}).json()
    assert {one["code"] for one in found["problems"]} == {"name-collision"}
    problem(admin.post("toolsets/", {"slug": unique("clash")[:40], "entries": entries}), 409, "name-collision")
    contents = admin.get(f"toolsets/{world.toolset.slug}/contents/").json()
    assert [item["name"] for item in contents["items"]] == [f"{world.server.slug}__read"]
    assert contents["tokens"] > 0


def test_a_grant_given_twice_is_one(world: World, admin: Api):
    body = {"kind": "tool", "user": world.member.username, "pattern": f"{world.server.slug}__*"}
    first, second = admin.post("grants/", body), admin.post("grants/", body)
    assert first.json()["id"] == second.json()["id"]
    assert len(audited("grant.created")) == 2  # that of the world, and this one


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "tool", "pattern": "a__*"}, {"kind": "tool", "role": "admin"}, {"kind": "server", "role": "admin"},
        {"kind": "tool", "role": "admin", "pattern": "no-separator"}, {"kind": "tool", "role": "admin", "user": "nobody", "pattern": "a__*"},
        {"kind": "server", "role": "admin", "server": "nobody"}, {"kind": "planet", "role": "admin"}, {"effect": "maybe", "kind": "tool"},
    ],
)  # fmt: skip
def test_grants_that_say_nothing(body: dict, world: World, admin: Api):
    assert problem(admin.post("grants/", body), 400, "validation-failed")["errors"]


def test_a_repeated_verb_is_carried_out_once(world: World, admin: Api):
    """`Idempotency-Key` on a verb that would otherwise do something twice."""
    path, key = f"servers/{world.server.slug}/clone/", unique("key")
    first = admin.post(path, {"slug": "copy"}, Idempotency_Key=key)
    again = admin.post(path, {"slug": "copy"}, Idempotency_Key=key)
    assert (first.status_code, again.status_code, again["Idempotent-Replayed"]) == (201, 201, "true")
    assert first.json() == again.json()
    problem(admin.post(path, {"slug": "other"}, Idempotency_Key=key), 409, "conflict")
    problem(admin.post(path, {"slug": "copy"}), 409, "conflict")
    assert Server.unscoped.filter(tenant=world.tenant).count() == 2
