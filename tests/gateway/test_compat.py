"""What works between a client and a server: one verdict for each feature of each pair, and the same that the bridge's table states."""

import itertools

import pytest

from apps.gateway.plane.mcp.compat import (
    APPS,
    CARRIED,
    FEATURES,
    LOST,
    NOT_ASKED,
    NOT_OFFERED,
    STATES,
    TASKS,
    TRANSLATED,
    UNKNOWN,
    WORKS,
    Client,
    Server,
    declared,
    eras_of,
    verdict,
    verdicts,
)
from apps.servers.domain import LEGACY_REVISIONS, MODERN_REVISIONS

EVERYTHING = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}, "context": {}},
    "roots": {"listChanged": True},
    "tasks": {},
    "extensions": {TASKS: {}, APPS: {}},
}
OFFERED = {
    "tools": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "prompts": {"listChanged": True},
    "completions": {},
    "logging": {},
    "tasks": {},
    "extensions": {TASKS: {}, APPS: {}},
}
HAS = frozenset(("tool", "resource", "template", "prompt", "structured", "app"))
MODERN, LATEST = MODERN_REVISIONS[0], LEGACY_REVISIONS[0]


def client(
    revision: str = MODERN, capabilities: object = EVERYTHING, *, streams: bool = True, over_sse: bool = False
) -> Client:
    return Client(revision, frozenset(declared(capabilities)), streams, over_sse)


def server(era: str = "modern", transport: str = "http", capabilities: dict | None = None, has: frozenset = HAS) -> Server:
    revisions = {"modern": (MODERN,), "legacy": (LATEST,), "dual": (MODERN, LATEST), "": ()}[era]
    return Server(transport, eras_of(era, revisions), revisions, OFFERED if capabilities is None else capabilities, has)


def states(one: Client, other: Server) -> dict[str, str]:
    return {found.feature: found.state for found in verdicts(one, other)}


def test_every_pair_has_a_verdict_with_a_reason_for_every_feature():
    seen = set()
    for revision, era, transport, capabilities, offered, streams in itertools.product(
        (*MODERN_REVISIONS, *LEGACY_REVISIONS), ("modern", "legacy", "dual", ""), ("http", "sse", "stdio"), (EVERYTHING, {}), (OFFERED, {}), (True, False)
    ):  # fmt: skip
        found = verdicts(client(revision, capabilities, streams=streams), server(era, transport, offered))
        assert [one.feature for one in found] == list(FEATURES)
        assert all(one.state in STATES and one.how.endswith(".") and len(one.how) > 15 for one in found)
        assert all(one.carried == (one.state in CARRIED) for one in found)
        seen |= {(one.feature, one.state) for one in found}
    assert {state for _, state in seen} == set(STATES)
    assert {feature for feature, state in seen if state in CARRIED} == set(FEATURES)


@pytest.mark.parametrize("transport", ["http", "sse", "stdio"])
def test_in_one_era_everything_goes_through_as_it_is(transport):
    modern = states(client(), server("modern", transport))
    assert {feature for feature, state in modern.items() if state != WORKS} == {"resumption", "batches"}
    legacy = states(client(LATEST), server("legacy", transport))
    assert {feature for feature, state in legacy.items() if state != WORKS} == {"tasks", "batches"}
    assert (legacy["tasks"], legacy["batches"]) == (LOST, NOT_ASKED)
    dual = server("dual", transport)
    assert states(client(), dual) == modern
    assert states(client(LATEST), dual) == legacy


def test_between_the_eras_it_is_put_into_other_words():
    down, up = states(client(), server("legacy")), states(client(LATEST), server("modern"))
    for found in (down, up):
        assert {
            found[feature] for feature in ("tools", "elicitation-form", "sampling-tools", "roots", "subscriptions", "logging")
        } == {TRANSLATED}
    assert down["tasks"] == NOT_OFFERED, "the experimental tasks are another protocol"
    assert up["tasks"] == LOST
    assert up["structured-content"] == TRANSLATED
    assert down["structured-content"] == WORKS
    assert (down["elicitation-url"], up["elicitation-url"]) == (TRANSLATED, TRANSLATED)


def test_what_a_client_does_not_declare_or_its_revision_lacks_is_not_asked():
    quiet = states(client(capabilities={}), server())
    assert {
        quiet[one] for one in ("elicitation-form", "elicitation-url", "sampling", "sampling-tools", "roots", "tasks", "apps")
    } == {NOT_ASKED}
    old = states(client("2025-03-26"), server("legacy"))
    assert (old["elicitation-form"], old["elicitation-url"], old["sampling-tools"], old["structured-content"]) == (
        NOT_ASKED,
    ) * 4
    assert (old["sampling"], old["roots"], old["batches"]) == (WORKS, WORKS, TRANSLATED)
    plain = states(client(LATEST, {"elicitation": {}, "sampling": {}}), server("legacy"))
    assert (plain["elicitation-form"], plain["elicitation-url"]) == (WORKS, NOT_ASKED), "without parts it is the form alone"
    assert (plain["sampling"], plain["sampling-tools"]) == (WORKS, NOT_ASKED)
    urls = states(client(LATEST, {"elicitation": {"url": {}}}), server("legacy"))
    assert (urls["elicitation-form"], urls["elicitation-url"]) == (NOT_ASKED, WORKS)


def test_what_a_server_lacks_is_not_offered():
    bare = states(client(), server(capabilities={"tools": {}}, has=frozenset(("tool",))))
    assert bare["tools"] == WORKS
    assert {
        bare[one]
        for one in ("resources", "templates", "prompts", "completion", "logging", "subscriptions", "list-changes", "apps")
    } == {NOT_OFFERED}
    assert states(client(), server(capabilities={}, has=frozenset(("tool",))))["tools"] == WORKS, "it has them all the same"
    older = Server("http", frozenset(("legacy",)), ("2025-03-26",), OFFERED, HAS)
    assert states(client(), older)["elicitation-form"] == NOT_OFFERED
    assert states(client(), older)["sampling"] == TRANSLATED
    assert set(states(client(), server("")).values()) == {UNKNOWN}


def test_a_client_without_event_streams_loses_what_is_told_on_them():
    lost = {one for one, state in states(client(LATEST, streams=False), server("legacy")).items() if state == LOST}
    assert lost >= {"progress", "list-changes", "subscriptions", "logging", "elicitation-form", "sampling", "roots"}
    modern = states(client(streams=False), server())
    assert modern["progress"] == LOST
    assert modern["elicitation-form"] == WORKS, "what the server needs is an answer of its own there"


def test_a_client_of_the_old_transport_has_no_resumption():
    assert states(client(LATEST), server("legacy"))["resumption"] == WORKS
    assert states(client(LATEST, over_sse=True), server("legacy"))["resumption"] == NOT_ASKED


@pytest.mark.parametrize(
    "hostile",
    [None, [], "all", 7, {"x" * 500: {}}, {f"c{number}": {} for number in range(5000)}, {"a\u202eb\x00\x1b[31m": {}}, {"elicitation": 5},
     {"extensions": {f"e{number}": {} for number in range(5000)}}, {"extensions": ["a"]}, {"": {}, " ": {}}, {"sampling": {"tools": None}}],
)  # fmt: skip
def test_a_clients_words_are_bounded_and_printable(hostile):
    found = declared(hostile)
    assert len(found) <= 24
    assert all(one and one.isprintable() and len(one) <= 100 for one in found)
    verdicts(Client(MODERN, frozenset(found)), server())


def test_a_feature_that_is_none():
    with pytest.raises(KeyError):
        verdict("telepathy", client(), server())


SAME = {
    "plain": "tools", "tool-error": "tools", "rpc-error": "tools", "definitions": "tools", "param-headers": "tools", "structured-any": "structured-content",
    "progress": "progress", "logging": "logging", "elicitation-form": "elicitation-form", "elicitation-declined": "elicitation-form",
    "inputs-together": "elicitation-form", "inputs-in-a-row": "elicitation-form", "inputs-side-by-side": "elicitation-form", "loose-input": "elicitation-form",
    "loose-inputs-side-by-side": "elicitation-form", "prompt-input": "elicitation-form",
    "resource-input": "elicitation-form", "elicitation-url": "elicitation-url", "url-required": "elicitation-url", "sampling": "sampling",
    "sampling-tools": "sampling-tools", "roots": "roots", "cancellation": "cancellation", "tools-changed": "list-changes",
    "prompts-changed": "list-changes", "resources-changed": "list-changes", "subscription": "subscriptions", "completion": "completion",
    "templates": "templates", "missing-resource": "resources", "binary": "tools",
}  # fmt: skip
"""Lines of the bridge's table → the feature they are about."""
APART = {"capabilities", "roots-changed", "ping", "server-ping"}
"""Lines about no feature of their own: parts of the protocol that both sides have or have not."""


def test_the_verdicts_are_those_of_the_bridges_table():
    from tests.bridge.matrix import load

    matrix = load()
    assert set(matrix.features) == set(SAME) | APART, "say which feature a new line is about"
    for line in matrix.lines:
        feature = SAME.get(line.feature)
        if feature is None:
            continue
        found = verdict(feature, client(MODERN if line.client == "modern" else LATEST), server(line.server, line.transport))
        assert found.carried == (not line.refusal), (str(line), found)
