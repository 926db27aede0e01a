"""Lists say which servers they are not whole about, to those alone who may use something of them."""

from dataclasses import replace

import orjson
import pytest

from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.mcp.lists import Lists
from apps.gateway.plane.mcp.missing import META_MISSING
from apps.gateway.plane.views import find_target
from apps.tools.domain.facts import EntryFacts, ToolsetFacts
from tests.gateway.pictures import KEYRING, TENANT, caller, definition, grant, picture, server

FILES = [definition("files", "read")]
GIT = [definition("git", "log"), definition("git", "diff")]
EVERYTHING = [grant("tool", pattern="*")]


def stated(slug, state, **changes):
    facts = server(slug, revisions=("2025-11-25",), **changes)
    return replace(facts, endpoints=tuple(replace(place, state=state) for place in facts.endpoints))


def listed(git, grants=EVERYTHING, slug="", toolsets=(), rows=(*FILES, *GIT), modern=True):
    whole = picture((stated("files", "healthy"), git), rows, toolsets, {"api_key:key-1": list(grants)})
    who = caller(whole)
    raw, _, _ = Lists(PlaneConfig(), KEYRING).list(whole, who, find_target(whole, who, slug), "tools/list", {}, modern=modern)
    answer = orjson.loads(raw)
    return [one["name"] for one in answer["tools"]], answer.get("_meta", {}).get(META_MISSING)


@pytest.mark.parametrize("modern", [True, False])
def test_a_dead_server_stays_listed_and_is_named(modern):
    names, lacking = listed(stated("git", "unhealthy"), modern=modern)
    assert names == ["files__read", "git__diff", "git__log"]
    assert [(one["server"], one["state"], one["listed"]) for one in lacking] == [("git", "unhealthy", True)]
    assert "last answer" in lacking[0]["detail"]


@pytest.mark.parametrize("state", ["healthy", "degraded", "unknown"])
def test_nothing_is_said_of_a_server_that_was_heard(state):
    assert listed(stated("git", state))[1] is None
    assert listed(stated("git", state), modern=False)[1] is None


def test_one_instance_that_answers_is_enough():
    git = stated("git", "unhealthy")
    second = replace(git.endpoints[0], id="ep-2", state="healthy")
    assert listed(replace(git, endpoints=(*git.endpoints, second)))[1] is None


def test_a_paused_server_is_named_as_not_listed():
    names, lacking = listed(stated("git", "healthy", paused=True))
    assert names == ["files__read"]
    assert [(one["server"], one["state"], one["listed"]) for one in lacking] == [("git", "paused", False)]


@pytest.mark.parametrize(
    ("grants", "named"),
    [
        ([grant("server", server_id="id-git")], True),
        ([grant("toolset", toolset_id="ts-git")], True),
        ([grant("tool", pattern="git__read_*")], True),
        ([grant("tool", pattern="g*")], True),
        ([grant("tool", pattern="gi")], False),
        ([grant("tool", pattern="files__*")], False),
        ([grant("tool", pattern="*"), grant("server", "g2", "deny", server_id="id-git")], False),
        ([], False),
    ],
)
def test_a_server_that_was_never_discovered_is_named_to_those_who_might_use_it(grants, named):
    git = replace(server("git"), endpoints=tuple(replace(one, state="unknown") for one in server("git").endpoints))
    _, lacking = listed(git, grants, rows=FILES)
    assert [(one["server"], one["state"], one["listed"]) for one in lacking or ()] == [("git", "unknown", False)] * named


def test_nobody_is_told_of_a_server_that_is_not_theirs():
    assert listed(stated("git", "unhealthy"), [grant("tool", pattern="files__*")])[1] is None


def test_a_composed_toolset_speaks_of_what_it_chose():
    mix = ToolsetFacts("ts-mix", TENANT, "mix", "Mix", entries=(EntryFacts("id-files", "tool", "read"),
                                                                 EntryFacts("id-git", "tool", "log")))  # fmt: skip
    may = [grant("toolset", toolset_id="ts-mix")]
    assert listed(stated("git", "unauthenticated"), may, "mix", [mix])[1][0]["state"] == "unauthenticated"
    alone = replace(mix, entries=mix.entries[:1])
    assert listed(stated("git", "unauthenticated"), may, "mix", [alone])[1] is None
    names, lacking = listed(stated("git", "healthy"), may, "mix", [replace(mix, paused=True)])
    assert (names, [(one["toolset"], one["state"]) for one in lacking]) == ([], [("mix", "paused")])
