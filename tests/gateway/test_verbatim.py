"""Results go on in the server's own spelling, whatever is changed around them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.gateway.plane.mcp.verbatim import result_text
from apps.servers.transports.wire import answer_of, parse

NUMBERS = st.one_of(
    st.integers(-(10**40), 10**40).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=25).map(lambda number: f"{number:f}"),
    st.sampled_from(["1.50", "1E+2", "-0.0", "1e-9", "0.10000000000000000000001"]),
)
TEXTS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=20).map(json.dumps)
VALUES = st.recursive(
    NUMBERS | TEXTS | st.sampled_from(["null", "true", "false"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda parts: "[" + ", ".join(parts) + "]")
        | st.lists(st.tuples(TEXTS, inner), max_size=4, unique_by=lambda pair: pair[0]).map(
            lambda pairs: "{" + " ,".join(f"{key} : {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=12,
)


def answer(text: str):
    raw = f'{{"jsonrpc":"2.0","id":1,"result":{text}}}'.encode()
    return answer_of(parse(raw), 1, "2025-11-25", len(raw), raw)


@given(VALUES, VALUES)
def test_what_is_not_touched_is_the_same_bytes(one: str, two: str):
    text = f'{{"one":{one}, "two" : {two}}}'
    found = answer(text)
    assert result_text(found, found.result) == text.encode()


@given(VALUES, VALUES)
def test_what_is_added_and_taken_away_leaves_the_rest_as_it_was(one: str, two: str):
    found = answer(f'{{"one":{one},"gone":1,"two":{two}}}')
    changed = {"resultType": "complete", "one": found.result["one"], "two": found.result["two"]}
    assert result_text(found, changed) == f'{{"resultType":"complete","one":{one},"two":{two}}}'.encode()


def test_what_is_replaced_is_written_anew():
    found = answer('{"one":1.50,"requestState":"theirs"}')
    assert result_text(found, {**found.result, "requestState": "ours"}) == b'{"one":1.50,"requestState":"ours"}'


@pytest.mark.parametrize("gap", ["\n", "\r\n", "\r"])
def test_it_is_one_line(gap: str):
    found = answer(f'{{{gap}"one":{gap}[1,{gap}2]{gap}}}')
    for result in (found.result, {"resultType": "complete", **found.result}):
        text = result_text(found, result)
        assert b"\n" not in text
        assert b"\r" not in text
        assert json.loads(text) == result


def test_one_of_a_batch_is_written_anew():
    found = answer_of({"jsonrpc": "2.0", "id": 1, "result": {"one": 1.5}}, 1, "2025-03-26", 10)
    assert result_text(found, found.result) == b'{"one":1.5}'
