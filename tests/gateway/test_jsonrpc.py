"""The strict reader of JSON-RPC bodies."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.common.errors import MalformedRequest
from apps.common.jsontext import dumps
from apps.gateway.plane.jsonrpc import MAX_DEPTH, error_bytes, parse, result_bytes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"c":2,"b":3}}',
        b'[{"a":1,"a":1}]',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b"[" * 200_000,
        b"[" * 200_000 + b"]" * 200_000,
        b'{"a":' * 200 + b"1" + b"}" * 200,
        b'{"a":1}{"b":2}',
        b"\x00",
        b'{"a":01}',
    ],
)
def test_what_is_not_strict_json_is_refused(body):
    with pytest.raises(MalformedRequest):
        parse(body)


def test_nesting_up_to_the_limit_is_read():
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(MalformedRequest, match="levels"):
        parse(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))


def test_many_siblings_are_not_depth():
    body = b"[" + b",".join([b'{"a":[]}'] * 1000) + b"]"
    assert len(parse(body)) == 1000


@given(JSON)
def test_whatever_json_says_is_read_and_written_unchanged(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, separators=(",", ":"))):
        try:
            body = text.encode()
        except UnicodeEncodeError:
            continue
        assert parse(body) == value
        assert json.loads(dumps(parse(body))) == value


def test_integers_of_any_size_keep_their_digits():
    body = b'{"n":123456789012345678901234567890,"m":-18446744073709551617}'
    assert json.loads(dumps(parse(body))) == json.loads(body)


def test_responses_carry_the_callers_id():
    assert json.loads(result_bytes("é", b'{"x":1}')) == {"jsonrpc": "2.0", "id": "é", "result": {"x": 1}}
    error = json.loads(error_bytes(None, -32600, "no", {"type": "t"}))
    assert error == {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no", "data": {"type": "t"}}}
