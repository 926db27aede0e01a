"""Toolsets: one set of slugs, entries and their rules, names, previews, and what the data planes are told."""

import pytest

from apps.common.context import SYSTEM, tenant_scope
from apps.common.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from apps.servers.services.registry import delete_server, register_server, update_server
from apps.tools.domain import NameCollision
from apps.tools.models import Grant, Toolset, ToolsetEntry
from apps.tools.selectors import plane_grants, plane_toolsets
from apps.tools.services.grants import grant
from apps.tools.services.review import reject
from apps.tools.services.toolsets import (
    create_toolset,
    delete_toolset,
    pause_toolset,
    preview,
    replace_entries,
    resume_toolset,
    update_toolset,
)
from tests.factories import as_user, make_role, make_tenant, make_user
from tests.tools.support import make_server, offer, outbox, prompt, resource, template, tool

pytestmark = pytest.mark.usefixtures("inside")


@pytest.fixture
def git(tenant):
    server = make_server(tenant, "git", name="Git")
    offer(
        server,
        tool("search", "Finds."),
        tool("commit"),
        tool("push"),
        prompts=[prompt("review")],
        resources=[resource("git://head")],
    )
    return server


@pytest.fixture
def web(tenant):
    server = make_server(tenant, "web")
    offer(server, tool("search", "Looks."), resources=[resource("web://x")], templates=[template("web://{page}")])
    return server


def names(toolset) -> list[str]:
    return [item.name for item in preview(toolset).items]


def test_a_server_comes_with_its_toolset_under_its_own_names(git):
    toolset = Toolset.objects.get(server=git)
    assert (toolset.slug, toolset.name) == ("git", "Git")
    assert names(toolset) == ["commit", "push", "search", "git://head", "review"]
    (facts,) = plane_toolsets([toolset.pk])
    assert (facts.server_id, facts.entries, facts.paused) == (str(git.pk), (), False)


def test_registering_publishes_the_toolset_and_undoes_both_on_a_taken_slug(tenant):
    create_toolset(slug="taken")
    with outbox() as notices, pytest.raises(Conflict, match="taken by the toolset taken"):
        make_server(tenant, "taken")
    assert notices.changed() == set()
    assert not Toolset.objects.filter(server__isnull=False).exists()
    with outbox() as notices:
        server = make_server(tenant, "free")
    own = Toolset.objects.get(server=server)
    assert ("toolset", str(own.pk)) in notices.changed()


def test_servers_and_toolsets_share_one_set_of_slugs_per_tenant(git):
    with pytest.raises(Conflict, match="taken by the server Git"):
        create_toolset(slug="git")
    with tenant_scope(make_tenant().pk, SYSTEM):
        create_toolset(slug="git")


def test_the_own_toolset_follows_its_server(tenant, git):
    own = Toolset.objects.get(server=git)
    update_server(git, name="Git hosting")
    own.refresh_from_db()
    assert own.name == "Git hosting"
    for act in (
        lambda: delete_toolset(own),
        lambda: update_toolset(own, slug="other"),
        lambda: update_toolset(own, entries=[{"server": "git"}]),
    ):
        with pytest.raises(Conflict, match="came with"):
            act()
    assert update_toolset(own, instructions="Commit often.").instructions == "Commit often."


def test_a_composed_toolset_prefixes_renames_and_describes(git, web):
    toolset = create_toolset(
        slug="dev",
        entries=[
            {"server": "git", "pattern": "*"},
            {"server": git, "pattern": "search", "rename": "find", "description": "Finds commits."},
            {"server": str(web.pk), "kind": "all"},
            {"server": "git", "kind": "prompt"},
            {"server": "git", "kind": "resource", "pattern": "git://*"},
        ],
    )
    content = preview(toolset)
    assert [item.name for item in content.items] == [
        "find", "git__commit", "git__push", "web__search", "git://head", "web://x", "web://{page}", "git__review",
    ]  # fmt: skip
    found = {item.name: item for item in content.items}
    assert found["find"].definition == tool("find", "Finds commits.")
    assert (found["find"].own_name, found["find"].server_id) == ("search", str(git.pk))
    assert content.problems == []
    assert content.tokens == -(-content.characters // 4) > 50
    (facts,) = plane_toolsets([toolset.pk])
    assert (facts.entries[0].pattern, facts.entries[0].rename) == ("search", "find")
    assert len(facts.entries) == 5


def test_held_and_removed_definitions_are_not_in_it(git):
    toolset = create_toolset(slug="dev", entries=[{"server": "git"}])
    reject(git.tools.get(name="push"))
    offer(git, tool("search", "Finds. And more."), tool("push"))
    assert names(toolset) == []


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ({"server": "nowhere"}, "server"),
        ({}, "server"),
        ({"server": "git", "kind": "toolbox"}, "kind"),
        ({"server": "git", "kind": "all", "pattern": "a*"}, "pattern"),
        ({"server": "git", "pattern": "x" * 2001}, "pattern"),
        ({"server": "git", "rename": "x"}, "rename"),
        ({"server": "git", "pattern": "s*", "rename": "x"}, "rename"),
        ({"server": "git", "pattern": "search", "rename": "has space"}, "rename"),
        ({"server": "git", "pattern": "search", "rename": "x" * 65}, "rename"),
        ({"server": "git", "pattern": "git://head", "kind": "resource", "rename": "x"}, "rename"),
        ({"server": "git", "description": "all of them"}, "description"),
        ({"server": "git", "pattern": "search", "description": "a\u202eb"}, "description"),
        ({"server": "git", "pattern": 7}, "pattern"),
        ({"server": "git", "colour": "red"}, "colour"),
        ("git", "server"),
    ],
)
def test_entries_that_are_not_valid_are_refused_with_their_place(git, entry, field):
    with pytest.raises(ValidationFailed) as caught:
        create_toolset(slug="dev", entries=[{"server": "git", "kind": "prompt"}, entry])
    assert f"entries.1.{field}" in caught.value.extra["errors"]
    assert not Toolset.objects.filter(slug="dev").exists()


def test_another_tenant_s_server_is_not_there(git):
    with tenant_scope(make_tenant().pk, SYSTEM):
        for ref in ("git", str(git.pk), git):
            with pytest.raises(ValidationFailed, match="no such server"):
                create_toolset(slug="dev", entries=[{"server": ref}])


def test_the_same_entry_twice_is_refused(git):
    with pytest.raises(ValidationFailed, match="twice"):
        create_toolset(slug="dev", entries=[{"server": "git"}, {"server": git}])


@pytest.mark.parametrize(
    "entries",
    [
        [{"server": "git", "pattern": "search", "rename": "find"}, {"server": "web", "pattern": "search", "rename": "find"}],
        [{"server": "git"}, {"server": "web", "pattern": "search", "rename": "git__push"}],
    ],
)
def test_two_things_with_one_name_are_refused_and_both_are_named(git, web, entries):
    with pytest.raises(NameCollision) as caught:
        create_toolset(slug="dev", entries=entries)
    (message,) = caught.value.extra["errors"]["entries"]
    assert "of git" in message
    assert "of web" in message


def test_two_servers_with_one_uri_are_refused(tenant, git):
    other = make_server(tenant, "git2")
    offer(other, resources=[resource("git://head")])
    with pytest.raises(NameCollision, match="git://head"):
        create_toolset(slug="dev", entries=[{"server": "git", "kind": "all"}, {"server": "git2", "kind": "all"}])


def test_a_name_too_long_for_its_prefix_needs_another(tenant):
    server = make_server(tenant, "a-rather-long-slug")
    offer(server, tool("n" * 50), tool("short"))
    with pytest.raises(ValidationFailed, match="70 characters"):
        create_toolset(slug="dev", entries=[{"server": server}])
    toolset = create_toolset(slug="dev", entries=[{"server": server}, {"server": server, "pattern": "n" * 50, "rename": "n"}])
    assert names(toolset) == ["a-rather-long-slug__short", "n"]


def test_what_a_server_adds_later_cannot_break_a_toolset(git, web):
    toolset = create_toolset(
        slug="dev", entries=[{"server": "git"}, {"server": "web", "pattern": "search", "rename": "git__tag"}]
    )
    offer(git, tool("search", "Finds."), tool("commit"), tool("push"), tool("tag"), tool("n" * 64))
    content = preview(toolset)
    assert [item.name for item in content.items] == ["git__commit", "git__push", "git__search", "git__tag"]
    assert {item.name: item.own_name for item in content.items}["git__tag"] == "search"
    assert {problem.code for problem in content.problems} == {"name-collision", "name-too-long"}


def test_unsaved_entries_can_be_looked_at(git):
    content = preview(entries=[{"server": "git", "pattern": "c*"}])
    assert [item.name for item in content.items] == ["git__commit"]
    own = Toolset.objects.get(server=git)
    assert len(preview(own, entries=[{"server": "git", "pattern": "c*"}]).items) == 5


@pytest.mark.parametrize(
    "slug", ["", "Upper", "two--hyphens", "under_score", "-a", "a-", "x" * 41, "a b", "ä", "mcp", "admin", "a\n"]
)
def test_slugs_that_cannot_be(slug):
    with pytest.raises(ValidationFailed) as caught:
        create_toolset(slug=slug)
    assert "slug" in caught.value.extra["errors"]


def test_changes_are_told_and_recorded_and_nothing_is_where_nothing_changes(git, web):
    toolset = create_toolset(slug="dev", entries=[{"server": "git"}])
    with outbox() as notices:
        update_toolset(toolset, name="Development", entries=[{"server": "git", "pattern": "search"}])
    assert notices.changed() == {("toolset", str(toolset.pk))}
    (event,) = notices.events("toolset.updated")
    assert event["details"]["after"] == {"name": "Development"}
    assert event["details"]["entries"]["after"][0]["pattern"] == "search"
    with outbox() as notices:
        update_toolset(toolset, name="Development", entries=[{"server": "git", "pattern": "search"}])
        replace_entries(toolset, [{"server": git, "pattern": "search"}])
    assert notices == []
    with outbox() as notices:
        replace_entries(toolset, [{"server": "web", "pattern": "search"}])
        pause_toolset(toolset)
        pause_toolset(toolset)
    assert [event["event_type"] for event in notices.events()] == ["toolset.updated", "toolset.paused"]
    assert plane_toolsets([toolset.pk])[0].paused
    resume_toolset(toolset)
    assert not plane_toolsets([toolset.pk])[0].paused
    with pytest.raises(ValidationFailed):
        update_toolset(toolset, colour="red")


def test_a_failed_update_leaves_everything(git, web):
    toolset = create_toolset(slug="dev", entries=[{"server": "git"}])
    with outbox() as notices, pytest.raises(ValidationFailed):
        update_toolset(toolset, name="Other", entries=[{"server": "nowhere"}])
    assert notices == []
    toolset.refresh_from_db()
    assert toolset.name == "dev"
    assert len(names(toolset)) == 3


def test_deleting_takes_entries_and_grants_along_and_says_so(tenant, git):
    toolset = create_toolset(slug="dev", entries=[{"server": "git"}])
    role = make_role(tenant)
    grant(kind="toolset", role=role, toolset=toolset)
    with outbox() as notices:
        delete_toolset(toolset)
    assert notices.changed() == {("toolset", str(toolset.pk)), ("grants", f"role:{role.pk}")}
    assert not ToolsetEntry.objects.exists()
    with pytest.raises(NotFound):
        delete_toolset(toolset)


def test_deleting_a_server_tells_every_dependent(tenant, git, web):
    role, user = make_role(tenant), make_user(tenant)
    mixed = create_toolset(slug="dev", entries=[{"server": "git"}, {"server": "web"}])
    own = Toolset.objects.get(server=git)
    for row in (
        {"kind": "server", "role": role, "server": git},
        {"kind": "toolset", "user": user, "toolset": own},
        {"kind": "tool", "role": role, "pattern": "git__search"},
        {"kind": "tool", "role": role, "pattern": "*__search"},
        {"kind": "server", "role": role, "server": web},
    ):
        grant(**row)
    with outbox() as notices:
        delete_server(git)
    assert notices.changed() >= {
        ("server", str(git.pk)), ("toolset", str(own.pk)), ("toolset", str(mixed.pk)),
        ("grants", f"role:{role.pk}"), ("grants", f"user:{user.pk}"),
    }  # fmt: skip
    left = {(facts.kind, facts.pattern) for _, _, facts in plane_grants()}
    assert left == {("tool", "*__search"), ("server", "")}
    assert Grant.objects.filter(server=web).exists()
    assert names(mixed) == ["web__search"]
    register_server(slug="git", transport="stdio", command="/bin/true")
    assert not Grant.objects.filter(pattern="git__search").exists()


@pytest.mark.parametrize(("role", "allowed"), [("admin", True), ("operator", True), ("user", False), ("guest", False)])
def test_who_may_compose(tenant, role, allowed):
    person = as_user(make_user(tenant, role=role))
    with tenant_scope(tenant.pk, person):
        if allowed:
            assert preview(create_toolset(slug="dev")).items == []
            return
        with pytest.raises(PermissionDenied):
            create_toolset(slug="dev")
        assert preview(entries=[]).items == []
