"""The pure rules: digests, names, checks, differences, effects, the review rule."""

import json
import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.common.policy import matches
from apps.tools.domain import (
    KINDS,
    NAME_MEMBER,
    DefinitionFacts,
    EntryFacts,
    Known,
    NameTooLong,
    NotCanonical,
    callable_name,
    canonical,
    check,
    claimed_effects,
    compose,
    difference,
    digest,
    effective_effects,
    full_name,
    name_problem,
    split_name,
    verdict,
    visible,
)
from tests.tools.support import prompt, resource, template, tool


def double(bits: str) -> float:
    return struct.unpack(">d", bytes.fromhex(bits))[0]


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        # RFC 8785, appendix B
        ("0000000000000000", "0"),
        ("8000000000000000", "0"),
        ("0000000000000001", "5e-324"),
        ("8000000000000001", "-5e-324"),
        ("7fefffffffffffff", "1.7976931348623157e+308"),
        ("ffefffffffffffff", "-1.7976931348623157e+308"),
        ("4340000000000000", "9007199254740992"),
        ("c340000000000000", "-9007199254740992"),
        ("4430000000000000", "295147905179352830000"),
        ("44b52d02c7e14af5", "9.999999999999997e+22"),
        ("44b52d02c7e14af6", "1e+23"),
        ("44b52d02c7e14af7", "1.0000000000000001e+23"),
        ("444b1ae4d6e2ef4e", "999999999999999700000"),
        ("444b1ae4d6e2ef4f", "999999999999999900000"),
        ("444b1ae4d6e2ef50", "1e+21"),
        ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
        ("3eb0c6f7a0b5ed8d", "0.000001"),
        ("41b3de4355555553", "333333333.3333332"),
        ("41b3de4355555554", "333333333.33333325"),
        ("41b3de4355555555", "333333333.3333333"),
        ("41b3de4355555556", "333333333.3333334"),
        ("41b3de4355555557", "333333333.33333343"),
        ("becbf647612f3696", "-0.0000033333333333333333"),
        ("43143ff3c1cb0959", "1424953923781206.2"),
    ],
)
def test_numbers_have_the_form_of_rfc_8785(bits, text):
    assert canonical(double(bits)) == text.encode()


def test_the_worked_example_of_rfc_8785():
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical(value).decode() == expected


def test_members_are_sorted_by_utf_16_code_units():
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\x80", "\xf6"]
    assert list(json.loads(canonical(dict.fromkeys(keys, 0)))) == ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {"\udfff": 1}, {1: 2}, {"x": object()}, b"x"])
def test_what_is_no_json_has_no_digest(value):
    with pytest.raises(NotCanonical):
        digest(value)


def test_deep_nesting_is_refused_and_not_a_recursion_error():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(NotCanonical):
        canonical(value)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(-(2.0**53), 2.0**53)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_the_canonical_form_is_json_of_the_same_value_and_its_own_canonical_form(value):
    again = json.loads(canonical(value))
    assert again == value
    assert canonical(again) == canonical(value)


@given(json_values, json_values)
def test_equal_digests_mean_equal_values(one, other):
    if digest(one) == digest(other):
        assert one == other


def test_big_integers_keep_every_digit():
    assert digest({"x": 9007199254740993}) != digest({"x": 9007199254740992})


def test_the_order_of_members_does_not_matter_and_everything_else_does():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})
    assert digest({"a": True}) != digest({"a": 1})


def test_full_names_split_at_the_first_border():
    assert full_name("git-hub", "a__b") == "git-hub__a__b"
    assert split_name("git-hub__a__b") == ("git-hub", "a__b")
    assert split_name("git-hub___a") == ("git-hub", "_a")
    assert split_name("plain") == ("", "plain")


@given(st.from_regex(r"\A[a-z0-9]+(-[a-z0-9]+)*\Z"), st.text(min_size=1))
def test_every_full_name_leads_back_to_its_server_and_tool(slug, name):
    assert split_name(full_name(slug, name)) == (slug, name)


def test_names_over_64_characters_are_refused_with_a_typed_error():
    assert callable_name("s", "n" * 61) == "s__" + "n" * 61
    with pytest.raises(NameTooLong, match="65 characters") as caught:
        callable_name("s", "n" * 62)
    assert caught.value.slug == "name-too-long"
    assert name_problem("a b")
    assert name_problem("ä")
    assert name_problem("")
    assert name_problem("A-z_0.9") == ""


@pytest.mark.parametrize(
    ("character", "code"),
    [
        ("\u202e", "bidi"),
        ("\u2066", "bidi"),
        ("\u200f", "bidi"),
        ("\u061c", "bidi"),
        ("\u200b", "invisible"),
        ("\u200d", "invisible"),
        ("\u2060", "invisible"),
        ("\ufeff", "invisible"),
        ("\u00ad", "invisible"),
        ("\u3164", "invisible"),
        ("\ufe01", "invisible"),
        ("\U000e0041", "invisible"),
        ("\U000e0100", "invisible"),
        ("\x00", "control"),
        ("\x08", "control"),
        ("\x0c", "control"),
        ("\x1f", "control"),
        ("\x7f", "control"),
        ("\x85", "control"),
        ("\x1b[31m", "ansi"),
        ("\x9b31m", "ansi"),
        ("\x1b]8;;http://x\x07", "ansi"),
    ],
)
@pytest.mark.parametrize(
    ("path", "build"),
    [
        ("/description", lambda text: tool("t", f"ab{text}cd")),
        ("/title", lambda text: tool("t", title=f"ab{text}cd")),
        ("/annotations/title", lambda text: tool("t", annotations={"title": f"ab{text}cd"})),
        (
            "/inputSchema/properties/p/description",
            lambda text: tool("t", inputSchema={"type": "object", "properties": {"p": {"description": f"ab{text}cd"}}}),
        ),
        ("/inputSchema/enum/1", lambda text: tool("t", inputSchema={"type": "object", "enum": ["a", f"ab{text}cd"]})),
    ],
)
def test_hidden_and_turning_characters_hold_a_definition(character, code, path, build):
    checked = check("tool", build(character))
    assert checked.holds
    assert (code, path) in {(flag.code, flag.path) for flag in checked.flags}
    assert character not in visible(f"ab{character}cd")


def test_a_member_s_name_is_a_text_too():
    checked = check("tool", tool("t", inputSchema={"type": "object", "properties": {"a\u200bb": {}}}))
    assert checked.holds
    assert "\u200b" not in checked.flags[0].path


@pytest.mark.parametrize(
    "text", ["plain", "line\nbreak\ttab\r\n", "Grüße, 你好, مرحبا, שלום", "👨‍👩‍👧‍👦 🏳️‍🌈 ❤️ ☎️ 1️⃣ 👍🏽", "a\\u202eb", '"\\u0000"']
)
def test_ordinary_texts_are_not_suspicious(text):
    assert check("tool", tool("t", text)).flags == ()


@pytest.mark.parametrize("name", ["", "a\u202eb", "a\x1b[0m", "x" * 129, "a\nb", " a", "a\x00b", "a\ud800b", 7, None, ["a"]])
def test_names_that_cannot_be_are_refused(name):
    checked = check("tool", {"name": name, "inputSchema": {"type": "object"}})
    assert checked.refused
    assert checked.name == visible(checked.name)


@pytest.mark.parametrize("name", ["my tool", "a/b", "naïve", "a,b"])
def test_names_mcp_does_not_allow_are_held(name):
    checked = check("tool", tool(name))
    assert not checked.refused
    assert [flag.code for flag in checked.flags] == ["name"]
    assert checked.holds


@pytest.mark.parametrize(
    ("kind", "definition"),
    [
        ("tool", {"name": "t"}),
        ("tool", {"name": "t", "inputSchema": []}),
        ("tool", {"name": "t", "inputSchema": {"type": "string"}}),
        ("tool", {"name": "t", "inputSchema": {"type": ["object"]}}),
        ("tool", tool("t", outputSchema=True)),
        ("tool", tool("t", annotations="x")),
        ("tool", tool("t", description=["x"])),
        ("tool", tool("t", _meta=1)),
        ("tool", tool("t", icons={})),
        ("resource", {"uri": "a://b"}),
        ("resource", {"name": "b"}),
        ("resource", resource("a://b c")),
        ("template", {"uriTemplate": "a://{x}"}),
        ("prompt", prompt("p", arguments={})),
        ("prompt", prompt("p", arguments=[{"description": "x"}])),
        ("tool", []),
        ("tool", None),
    ],
)
def test_wrong_shapes_are_refused(kind, definition):
    assert check(kind, definition).refused


def test_sound_definitions_of_every_kind_pass():
    for kind, definition in (
        ("tool", tool("t")),
        ("resource", resource("a://b")),
        ("template", template("a://{x}")),
        ("prompt", prompt("p p")),
    ):
        checked = check(kind, definition)
        assert (checked.refused, checked.flags) == ("", ())
        assert checked.canonical == canonical(definition)


def test_references_to_the_network_are_noted_and_kept():
    definition = tool(
        "t", inputSchema={"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x"}, "b": {"$ref": "#/$defs/b"}}}
    )
    checked = check("tool", definition)
    assert [(flag.code, flag.path, flag.holds) for flag in checked.flags] == [
        ("network-ref", "/inputSchema/properties/a/$ref", False)
    ]
    assert json.loads(checked.canonical) == definition


def test_a_difference_names_each_place():
    before = tool("t", "old\nsame", annotations={"readOnlyHint": True}, tags=["a", "b"])
    after = tool("t", "new\nsame", tags=["a", "c", "d"], flag=1)
    found = difference(before, after)
    assert {(change.path, change.kind) for change in found.changes} == {
        ("/description", "changed"),
        ("/annotations", "removed"),
        ("/tags/1", "changed"),
        ("/tags/2", "added"),
        ("/flag", "added"),
    }
    assert '-  "description": "old' in found.unified
    assert '+  "description": "new' in found.unified
    assert all((line.before is None) == (line.kind == "added") for line in found.lines)


def test_a_difference_shows_what_hides_and_tells_true_from_one():
    found = difference(tool("t", "a", x=1), tool("t", "a\u202eb", x=True))
    assert {change.path for change in found.changes} == {"/description", "/x"}
    assert "\\u{202e}" in found.unified
    assert "\u202e" not in found.unified


def test_a_new_definition_differs_from_none():
    assert [change.kind for change in difference(None, {"a": 1}).changes] == ["added"]
    assert {line.kind for line in difference({"a": 1}, None).lines} == {"removed"}
    assert difference({"a": 1}, {"a": 1}).changes == ()


@pytest.mark.parametrize(
    ("annotations", "claimed"),
    [
        (None, "unknown"),
        ({}, "unknown"),
        ("readOnlyHint", "unknown"),
        ({"readOnlyHint": True, "destructiveHint": True}, "read-only"),
        ({"readOnlyHint": "true"}, "unknown"),
        ({"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True}, "destructive"),
        ({"idempotentHint": True}, "idempotent"),
        ({"destructiveHint": False}, "writes"),
    ],
)
def test_what_annotations_claim_and_when_they_count(annotations, claimed):
    definition = {"annotations": annotations}
    assert claimed_effects(annotations) == claimed
    distrusted = effective_effects(definition, "unknown", trust_annotations=False)
    assert (distrusted.value, distrusted.has_effects) == ("unknown", True)
    trusted = effective_effects(definition, "unknown", trust_annotations=True)
    assert trusted.value == claimed
    assert trusted.said_by == ("nobody" if claimed == "unknown" else "server")
    ruled = effective_effects(definition, "writes", trust_annotations=True, operator="ann")
    assert (ruled.value, ruled.said_by, ruled.claimed) == ("writes", "operator", claimed)
    assert "ann" in ruled.reason


slugs = st.sampled_from(["a", "b-c", "long-" * 9 + "slug"])
own_names = st.sampled_from(["x", "y", "x__y", "a__x", "b-c__x", "n" * 62, "sp ace"])
rows_offered = st.lists(st.tuples(slugs, st.sampled_from(["tool", "prompt", "resource"]), own_names), max_size=12, unique=True)
entry_choices = st.lists(
    st.tuples(
        slugs,
        st.sampled_from(["all", "tool", "prompt", "resource"]),
        st.sampled_from(["*", "x*", "*y", "x", "y", "a__x"]),
        st.sampled_from(["", "x", "a__x"]),
    ),
    max_size=6,
)


@given(rows_offered, entry_choices)
def test_whatever_is_composed_has_one_name_each_that_callers_can_use(rows, entries):
    offered: dict[str, list[DefinitionFacts]] = {}
    for position, (slug, kind, name) in enumerate(rows):
        member = NAME_MEMBER[kind]
        offered.setdefault(slug, []).append(DefinitionFacts(kind, slug, name, {member: name}, "d", position=position))
    facts = [EntryFacts(slug, kind, pattern, rename if "*" not in pattern else "") for slug, kind, pattern, rename in entries]
    composed = compose(facts, offered, {slug: slug for slug, _, _ in rows})
    names = [(item.kind, item.name) for item in composed.items]
    assert len(set(names)) == len(names)
    assert names == sorted(names, key=lambda pair: (KINDS.index(pair[0]), pair[1]))
    brought_in = [(item.server_id, item.kind, item.own_name) for item in [*composed.items, *composed.problems]]
    assert len(set(brought_in)) == len(brought_in)
    chosen = {
        (row.server_id, row.kind, row.name)
        for entry in facts
        for row in offered.get(entry.server_id, ())
        if entry.kind in ("all", row.kind) and matches(entry.pattern, row.name)
    }
    assert set(brought_in) == chosen
    for item in composed.items:
        assert item.definition[NAME_MEMBER[item.kind]] == item.name
        assert item.kind == "resource" or name_problem(item.name) == ""
    again = compose(
        facts, {slug: list(reversed(found)) for slug, found in offered.items()}, {slug: slug for slug, _, _ in rows}
    )
    assert [item.name for item in again.items] == [item.name for item in composed.items]


digests = st.sampled_from(["", "a", "b", "c"])


@given(
    st.sampled_from(["active", "held", "rejected", "removed"]),
    digests,
    digests,
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["accept", "hold-changed", "hold-all"]),
    st.booleans(),
)
def test_nothing_unseen_comes_into_force_under_a_rule_that_holds(state, approved, rejected, offered, review, suspicious):
    result = verdict(Known(state, approved, "", rejected), offered, review=review, suspicious=suspicious)
    if offered == rejected:
        assert result == "rejected"
    elif offered == approved:
        assert result == "active"
    elif review != "accept" or suspicious or rejected:
        assert result == "held"
    else:
        assert result == "active"
