"""Patterns of grants and toolsets: what they match, and that no pattern costs more than the text it is laid on."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.common.policy import Access, Grant, ToolRef, matches, may_use


def _reference(pattern: str, name: str) -> bool:
    """Match by the definition, one character at a time over the set of places the pattern can have reached."""

    def closed(places: set[int]) -> set[int]:
        for place in range(len(pattern)):
            if place in places and pattern[place] == "*":
                places.add(place + 1)
        return places

    places = closed({0})
    for character in name:
        stay = {place for place in places if place < len(pattern) and pattern[place] == "*"}
        step = {place + 1 for place in places if pattern[place : place + 1] == character}
        places = closed(stay | step)
    return len(pattern) in places


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("git__log", "git__log", True),
        ("git__log", "git__logs", False),
        ("git__log", "Git__log", False),
        ("git__*", "git__", True),
        ("git__*", "git_", False),
        ("*", "", True),
        ("", "", True),
        ("", "a", False),
        ("*__log", "git__log", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("ab*bc", "abc", False),
        ("*ab*ab*", "abab", True),
        ("*ab*ab*", "aab", False),
        ("a***b", "ab", True),
        ("a*b", "a\n\nb", True),
        ("a*", "a\n", True),
        ("a", "a\n", False),
        ("a.c", "abc", False),
        ("[a-z]?*", "[a-z]?x", True),
        ("a\\*", "a\\b", True),
        ("*b*a", "ab", False),
    ],
)
def test_only_the_star_is_special(pattern, name, fits):
    assert matches(pattern, name) is fits


@given(st.text("ab*\n.", max_size=10), st.text("ab\n.", max_size=14))
def test_every_pattern_matches_what_its_definition_says(pattern, name):
    assert matches(pattern, name) is _reference(pattern, name)


@given(st.lists(st.text("abé*", max_size=4), min_size=1, max_size=6), st.lists(st.text("abé", max_size=3), max_size=7))
def test_a_name_made_from_the_pattern_fits(pieces, filling):
    pattern = "*".join(pieces)
    name = "".join(part + (filling[at % len(filling)] if filling else "") for at, part in enumerate(pattern.split("*")[:-1]))
    assert matches(pattern, name + pattern.split("*")[-1])


def _seconds(pattern: str, name: str) -> float:
    """Return the thread's own time for one match, the best of three."""
    best = float("inf")
    for _ in range(3):
        started = time.thread_time()
        assert matches(pattern, name) is False
        best = min(best, time.thread_time() - started)
    return best


@pytest.mark.parametrize(
    "pattern", ["*a*a*a*b", "*a" * 63 + "*b", "*" * 2000 + "b", "*" + "a" * 60 + "*" + "a" * 60 + "b*b", "a*" * 999 + "b"]
)
def test_the_work_grows_with_the_text_and_no_faster(pattern):
    # Twenty times the text: a linear matcher takes about twenty times as long, a quadratic one four hundred times.
    matches(pattern, "")
    short = max(_seconds(pattern, "a" * 2_000), 20e-6)
    assert _seconds(pattern, "a" * 40_000) < 120 * short


def test_a_deny_pattern_of_stars_is_asked_of_a_long_uri_at_once():
    access = Access.of([Grant("1", "tool", "deny", pattern="*a" * 63 + "*b"), Grant("2", "server", server_id="s")])
    started = time.thread_time()
    assert may_use(access, ToolRef("s", "a" * 8_000, kind="resource")).allowed
    assert time.thread_time() - started < 0.5
