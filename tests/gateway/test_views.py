"""What a caller sees and may use, where."""

from dataclasses import replace

import orjson
import pytest

from apps.common.errors import NotFound, PermissionDenied, ValidationFailed
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.mcp.lists import Lists
from apps.gateway.plane.snapshot import build_server, with_changes
from apps.gateway.plane.views import PAGE_ITEMS, find_named, find_resource, find_target, page, visible
from apps.tools.domain.facts import EntryFacts, ToolsetFacts
from tests.gateway.pictures import KEYRING, TENANT, caller, definition, grant, picture, server

FILES = [definition("files", "read", position=1), definition("files", "write", position=0)]
GIT = [definition("git", "log"), definition("git", "p", "prompt")]
BOTH = (server("files"), server("git"))


def names(snapshot, slug="", kind="tool"):
    who = caller(snapshot)
    return [item.name for item in visible(snapshot, who, find_target(snapshot, who, slug), kind)]


def seen(grants, slug="", kind="tool", toolsets=(), **options):
    return names(picture(BOTH, [*FILES, *GIT], toolsets, {"api_key:key-1": grants}, **options), slug, kind)


def test_nothing_is_seen_without_a_grant():
    assert seen([]) == []
    assert seen([], "files") == []


def test_the_union_prefixes_and_a_server_keeps_its_own_names():
    everything = [grant("server", server_id="id-files"), grant("server", "g2", server_id="id-git")]
    assert seen(everything) == ["files__read", "files__write", "git__log"]
    assert seen(everything, "files") == ["read", "write"]
    assert seen(everything, kind="prompt") == ["git__p"]


def test_patterns_speak_of_full_names_wherever_the_tool_is_reached():
    assert seen([grant("tool", pattern="files__r*")]) == ["files__read"]
    assert seen([grant("tool", pattern="files__r*")], "files") == ["read"]
    assert seen([grant("tool", pattern="*")], kind="prompt") == []


def test_a_deny_wins_over_every_allow():
    allow = grant("server", server_id="id-files")
    assert seen([allow, grant("tool", "g2", "deny", pattern="*__write")]) == ["files__read"]
    assert seen([allow, grant("server", "g2", "deny", server_id="id-files")]) == []
    assert seen([allow, grant("toolset", "g2", "deny", toolset_id="ts-files")]) == []
    assert seen([grant("tool", "g2", "deny", pattern="git__*")], superuser=True, inherits=True) == [
        "files__read",
        "files__write",
    ]


def test_a_key_has_its_owners_rights_only_where_it_inherits_them():
    owner = {"user:user-1": [grant("server", server_id="id-files")], "role:r1": [grant("server", "g2", server_id="id-git")]}
    rows = [*FILES, *GIT]
    assert names(picture(BOTH, rows, grants=owner)) == []
    assert names(picture(BOTH, rows, grants=owner, inherits=True)) == ["files__read", "files__write", "git__log"]
    assert names(picture(BOTH, rows, superuser=True)) == []


def test_scopes_without_the_use_of_tools_hide_everything():
    grants = [grant("server", server_id="id-files")]
    assert seen(grants, scopes=frozenset({"server.read"})) == []
    assert seen(grants, scopes=frozenset({"tool.call"})) == ["files__read", "files__write"]


def test_a_key_is_nobody_without_owner_tenant_or_membership():
    whole = picture(BOTH, FILES, grants={"api_key:key-1": [grant("server", server_id="id-files")]})
    assert caller(whole) is not None
    user = whole.users["user-1"]
    assert caller(with_changes(whole, users={"user-1": replace(user, active=False)})) is None
    assert caller(with_changes(whole, users={})) is None
    assert caller(with_changes(whole, users={"user-1": replace(user, roles=())})) is None
    assert caller(with_changes(whole, tenants={TENANT: replace(whole.tenants[TENANT], active=False)})) is None
    assert caller(with_changes(whole, keys={})) is None


COMPOSED = ToolsetFacts(
    "ts-mix",
    TENANT,
    "mix",
    "Mix",
    entries=(
        EntryFacts("id-git", "tool", "log", rename="history", description="What happened."),
        EntryFacts("id-files", "tool", "r*"),
    ),
)


def test_a_composed_toolset_serves_what_it_chose_as_it_names_it():
    snapshot = picture(BOTH, [*FILES, *GIT], [COMPOSED], {"api_key:key-1": [grant("toolset", toolset_id="ts-mix")]})
    who = caller(snapshot)
    target = find_target(snapshot, who, "mix")
    items = visible(snapshot, who, target, "tool")
    assert [item.name for item in items] == ["files__read", "history"]
    assert orjson.loads(items[1].listing)["description"] == "What happened."
    item, decision = find_named(snapshot, who, target, "tool", "history")
    assert (item.facts.name, decision.rule) == ("log", "grant:g1")
    # The grant on the toolset also opens its tools at /mcp, and nothing else of their servers.
    assert names(snapshot) == ["files__read", "git__log"]
    assert names(snapshot, "files") == []


def test_a_refusal_names_its_rule_and_an_unknown_name_does_not_pretend():
    snapshot = picture(BOTH, [*FILES, *GIT], grants={"api_key:key-1": [grant("tool", "g9", "deny", pattern="git__*")]})
    who = caller(snapshot)
    everywhere = find_target(snapshot, who, "")
    with pytest.raises(PermissionDenied) as refused:
        find_named(snapshot, who, everywhere, "tool", "git__log")
    assert refused.value.extra["rule"] == "grant:g9"
    with pytest.raises(PermissionDenied) as refused:
        find_named(snapshot, who, everywhere, "tool", "files__read")
    assert refused.value.extra["rule"] == "default-deny"
    for unknown in ("files__nothing", "nothing__read", "read", "__read", "files__", "files"):
        with pytest.raises(NotFound):
            find_named(snapshot, who, everywhere, "tool", unknown)


def test_another_tenants_toolset_is_as_missing_as_none():
    snapshot = picture((server("files"), replace(server("theirs"), tenant_id="tenant-2")), FILES, superuser=True, inherits=True)
    details = set()
    for slug in ("theirs", "nowhere"):
        with pytest.raises(NotFound) as missing:
            find_target(snapshot, caller(snapshot), slug)
        details.add(missing.value.detail.replace(slug, "X"))
    assert len(details) == 1
    assert all(not name.startswith("theirs__") for name in names(snapshot))


def test_resources_are_found_by_uri_then_template_and_never_guessed_between_servers():
    rows = [
        definition("files", "file:///a", "resource"),
        definition("files", "file:///dir/{name}", "template"),
        definition("git", "file:///a", "resource"),
    ]
    snapshot = picture(BOTH, rows, superuser=True, inherits=True)
    who = caller(snapshot)
    with pytest.raises(ValidationFailed, match="/mcp/files"):
        find_resource(snapshot, who, find_target(snapshot, who, ""), "file:///a")
    owner, item, _ = find_resource(snapshot, who, find_target(snapshot, who, ""), "file:///dir/x")
    assert (owner.facts.slug, item.name) == ("files", "file:///dir/{name}")
    owner, item, _ = find_resource(snapshot, who, find_target(snapshot, who, "git"), "file:///a")
    assert owner.facts.slug == "git"
    with pytest.raises(NotFound):
        find_resource(snapshot, who, find_target(snapshot, who, ""), "file:///elsewhere")


def test_a_uri_that_several_servers_offer_is_listed_once():
    rows = [definition(slug, "file:///a", "resource") for slug in ("files", "git")]
    snapshot = picture(BOTH, rows, superuser=True, inherits=True)
    assert names(snapshot, kind="resource") == ["file:///a"]
    assert names(snapshot, "git", kind="resource") == ["file:///a"]


def test_pages_neither_repeat_nor_skip_what_stays():
    rows = [definition("files", f"t{index:04}", position=index) for index in range(PAGE_ITEMS * 2 + 10)]
    snapshot = picture((server("files"),), rows, superuser=True, inherits=True)
    who = caller(snapshot)
    items = visible(snapshot, who, find_target(snapshot, who, "files"), "tool")
    first, cursor = page(items, None)
    assert len(first) == PAGE_ITEMS
    # In between, three of the first page go away, and so does the very item that the cursor names.
    left = tuple(item for item in items if item.name not in ("t0001", "t0002", "t0003"))
    second, cursor = page(left, cursor)
    assert second[0].name == f"t{PAGE_ITEMS:04}"
    third, end = page(left, cursor)
    assert end is None
    assert [*first, *second, *third] == list(items)


def lists_of(snapshot, slug="", method="tools/list", cursor=None):
    who = caller(snapshot)
    params = {} if cursor is None else {"cursor": cursor}
    target = find_target(snapshot, who, slug)
    return orjson.loads(Lists(PlaneConfig(), KEYRING).list(snapshot, who, target, method, params, modern=True)[0])


LONG = [definition("files", f"t{index:04}") for index in range(PAGE_ITEMS + 10)]


@pytest.mark.parametrize("cursor", ["", "x", 5, [], {}, "e30", "WzEsInQwMDAxIiwxXQ", "A" * 100_000, "é"])
def test_foreign_cursors_are_refused(cursor):
    with pytest.raises(ValidationFailed):
        lists_of(picture((server("files"),), LONG, superuser=True, inherits=True), cursor=cursor)


def test_a_cursor_is_good_for_its_caller_its_place_and_its_list_alone():
    whole = picture((server("files"),), [*LONG, definition("files", "p", "prompt")], superuser=True, inherits=True)
    cursor = lists_of(whole)["nextCursor"]
    assert len(lists_of(whole, cursor=cursor)["tools"]) == 10
    other = replace(next(iter(whole.keys.values())), id="key-2")
    for wrong in (
        lambda: lists_of(whole, "files", cursor=cursor),
        lambda: lists_of(whole, method="prompts/list", cursor=cursor),
        lambda: lists_of(with_changes(whole, keys={other.digest: other}), cursor=cursor),
    ):
        with pytest.raises(ValidationFailed):
            wrong()


def test_an_unchanged_server_keeps_its_items_so_that_nobody_is_told_of_a_change():
    entry = build_server(server("files"), FILES)
    again = build_server(server("files", version=2), [replace(row) for row in FILES], entry)
    assert again.own["tool"]["read"] is entry.own["tool"]["read"]
    changed = build_server(server("files", version=2), [FILES[0], definition("files", "write", title="new")], entry)
    assert changed.own["tool"]["write"] is not entry.own["tool"]["write"]


def test_names_too_long_for_the_union_are_still_served_by_their_own_toolset():
    long = "x" * 62
    snapshot = picture((server("files"),), [definition("files", long)], superuser=True, inherits=True)
    assert names(snapshot) == []
    assert names(snapshot, "files") == [long]


def test_a_paused_toolset_lists_nothing():
    paused = replace(COMPOSED, paused=True)
    assert seen([grant("toolset", toolset_id="ts-mix")], "mix", toolsets=[paused]) == []


def test_a_paused_toolset_opens_nothing_elsewhere():
    grants = [grant("toolset", toolset_id="ts-mix")]
    assert seen(grants, toolsets=[COMPOSED]) == ["files__read", "git__log"]
    assert seen(grants, toolsets=[replace(COMPOSED, paused=True)]) == []


def test_the_toolset_of_a_server_can_be_paused_and_its_server_goes_on_elsewhere():
    allow = [grant("server", server_id="id-files")]
    whole = picture(BOTH, FILES, grants={"api_key:key-1": allow})
    own = whole.toolsets["ts-files"]
    off = with_changes(whole, toolsets={**whole.toolsets, "ts-files": replace(own, facts=replace(own.facts, paused=True))})
    assert names(off, "files") == []
    assert find_target(off, caller(off), "files").paused
    assert names(off) == ["files__read", "files__write"]
    through_it = with_changes(off, grants={"api_key:key-1": (grant("toolset", toolset_id="ts-files"),)})
    assert names(through_it) == []


def person(snapshot, tenant):
    found = snapshot.caller_of_user("user-1", tenant)
    assert found is not None
    return found


def two_tenants():
    """The same slugs in two tenants; one person is at home in both."""
    other = "tenant-2"
    there = server("files", id="id-theirs", tenant_id=other)
    rows = [definition("files", "read"), replace(definition("files", "read"), server_id="id-theirs")]
    grants = {"user:user-1": [grant("server", server_id="id-files"), grant("server", "g2", server_id="id-theirs")]}
    whole = picture((server("files"), there), rows, grants=grants)
    user = replace(whole.users["user-1"], roles=((TENANT, "r1"), (other, "r1")))
    tenants = {**whole.tenants, other: replace(whole.tenants[TENANT], id=other, slug="other")}
    return with_changes(whole, users={"user-1": user}, tenants=tenants), other


@pytest.mark.parametrize("slug", ["", "files"])
def test_a_person_in_two_tenants_is_led_to_the_server_of_the_tenant_they_are_in(slug):
    snapshot, other = two_tenants()
    name = "read" if slug else "files__read"
    for _ in range(2):  # what was found once is remembered
        for tenant, server_id in ((TENANT, "id-files"), (other, "id-theirs")):
            who = person(snapshot, tenant)
            target = find_target(snapshot, who, slug)
            item, _ = find_named(snapshot, who, target, "tool", name)
            assert item.facts.server_id == server_id
            assert [item.facts.server_id for item in visible(snapshot, who, target, "tool")] == [server_id]


def test_a_role_that_several_tenants_have_brings_the_grants_of_its_own_tenant_alone():
    snapshot, other = two_tenants()
    given = replace(grant("tool", pattern="*"), tenant_id=TENANT)
    snapshot = with_changes(snapshot, grants={"role:r1": (given,)})
    assert person(snapshot, TENANT).access.allow_tools
    assert not person(snapshot, other).access.allow_tools


RES = [definition("files", "file:///{+path}", "template"), definition("files", "file:///a", "resource")]


def reads(uri, *grants, rows=(), withheld=(), slug="files"):
    """Return whether somebody with these grants may read a URI."""
    whole = picture((server("files"),), rows, grants={"api_key:key-1": [grant("server", server_id="id-files"), *grants]})
    whole = with_changes(whole, servers={"id-files": build_server(server("files"), rows, withheld=withheld)})
    who = caller(whole)
    try:
        find_resource(whole, who, find_target(whole, who, slug), uri)
    except (NotFound, PermissionDenied):
        return False
    return True


@pytest.mark.parametrize("rows", [(), RES[:1], RES])
def test_a_deny_on_uris_holds_for_listed_unlisted_and_expanded_ones(rows):
    deny = grant("tool", "g9", "deny", pattern="files__file:///etc/*")
    assert reads("file:///etc/passwd", rows=rows)
    assert not reads("file:///etc/passwd", deny, rows=rows)
    assert reads("file:///home/x", deny, rows=rows)
    assert not reads("file:///home/x", grant("tool", "g9", "deny", pattern="files__*"), rows=rows)


def test_a_resource_that_waits_for_an_operator_is_not_read_by_its_uri():
    held = [("resource", "file:///a"), ("template", "file:///held/{name}")]
    for rows in ((), RES[:1]):
        assert not reads("file:///a", rows=rows, withheld=held)
        assert not reads("file:///held/x", rows=rows, withheld=held)
        assert reads("file:///b", rows=rows, withheld=held)
    assert not reads("file:///a", rows=RES[:1], withheld=held, slug="")


def test_who_may_use_nothing_here_is_not_told_what_it_is():
    import json

    secret = server("files", server_info={"name": "payroll", "version": "9"}, instructions="Ask for the salaries.")
    lists = Lists(PlaneConfig(), KEYRING)
    for grants, told in (([], False), ([grant("server", server_id="id-files")], True)):
        whole = picture((secret,), FILES, grants={"api_key:key-1": grants})
        who = caller(whole)
        target = find_target(whole, who, "files")
        for raw in (
            lists.initialize(whole, who, target, "2025-11-25"),
            lists.discover(whole, who, target),
            lists.list(whole, who, target, "tools/list", {}, modern=True)[0],
        ):
            assert ("payroll" in json.dumps(json.loads(raw))) is told
            assert not told or b"tools" in raw
        assert (b"salaries" in lists.discover(whole, who, target)) is told


WRAPPED = {"type": "object", "properties": {"result": {"type": "array", "items": {"$ref": "#/$defs/row"}}}, "required": ["result"],
           "$defs": {"row": {"type": "integer"}}}  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "object", "properties": {}}, {"type": "object", "properties": {}}),
        ({"type": "integer"}, {"type": "object", "properties": {"result": {"type": "integer"}}, "required": ["result"]}),
        ({"type": "array", "items": {"$ref": "#/$defs/row"}, "$defs": {"row": {"type": "integer"}}}, WRAPPED),
        ({"type": "array", "items": {"$ref": "#"}}, None),
        ({"anyOf": [{"type": "object"}, {"type": "array"}]}, None),
        ({"type": ["object", "null"]}, None),
        (True, None),
    ],
)
def test_legacy_clients_get_output_schemas_that_they_can_read(schema, shown):
    whole = picture((server("files"),), [definition("files", "read", outputSchema=schema)], superuser=True, inherits=True)
    who = caller(whole)

    def listed(modern):
        lists = Lists(PlaneConfig(), KEYRING)
        raw = lists.list(whole, who, find_target(whole, who, "files"), "tools/list", {}, modern=modern)[0]
        return orjson.loads(raw)["tools"][0].get("outputSchema")

    assert listed(True) == schema
    assert listed(False) == shown
