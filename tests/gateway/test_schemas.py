"""Arguments against the accepted definition."""

import time

import pytest

from apps.gateway.plane.schemas import ArgumentsInvalid, SchemaGate


def check(schema, arguments, digest=None):
    SchemaGate().check(digest or repr(schema), {"inputSchema": schema}, arguments)


def test_what_fits_passes_and_what_does_not_is_named_with_its_place():
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "o": {"type": "object", "required": ["x"]}},
        "required": ["n"],
    }
    check(schema, {"n": 1})
    with pytest.raises(ArgumentsInvalid) as refused:
        check(schema, {"n": "1", "o": {}})
    assert {error["path"] for error in refused.value.extra["errors"]} == {"n", "o"}


def test_conditions_of_2020_12_count():
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {"a": {"$anchor": "here", "type": "string"}},
        "properties": {"kind": {"enum": ["a", "b"]}, "v": {"$ref": "#here"}},
        "if": {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
        "then": {"required": ["v"]},
    }
    check(schema, {"kind": "b"})
    check(schema, {"kind": "a", "v": "x"})
    for wrong in ({"kind": "a"}, {"kind": "c"}, {"kind": "b", "v": 1}):
        with pytest.raises(ArgumentsInvalid):
            check(schema, wrong)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        "x",
        {"type": "no-such-type"},
        {"$ref": "http://169.254.169.254/latest/meta-data"},
        {"$ref": "#/$defs/missing"},
        {"properties": {"a": {"pattern": "("}}},
        {"description": "x" * 300_000},
    ],
)
def test_a_schema_that_cannot_be_used_leaves_the_judgement_to_the_server(schema):
    check(schema, {"a": 1})


def test_a_hostile_pattern_cannot_stall_the_gateway():
    started = time.perf_counter()
    with pytest.raises(ArgumentsInvalid):
        check({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 5000 + "!"})
    assert time.perf_counter() - started < 1.0
