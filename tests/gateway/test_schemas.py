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
        {"properties": {"schema": {"$ref": "http://json-schema.org/draft-07/schema#"}}},
        {"properties": {"a": {"pattern": "("}}},
        {"properties": {"a": {"pattern": "^(?!-)[a-z]+$"}}},
    ],
)
def test_a_schema_that_cannot_be_used_leaves_the_judgement_to_the_server(schema):
    check(schema, {"a": 1})


def test_a_schema_that_cannot_be_used_is_told_to_the_operator_once(caplog):
    gate = SchemaGate()
    for _ in range(3):
        gate.check("d", {"name": "sign-up", "inputSchema": {"properties": {"a": {"pattern": "("}}}}, {"a": 1})
    (line,) = caplog.messages
    assert "sign-up" in line
    assert "the server alone judges" in line


def test_a_hostile_pattern_cannot_stall_the_gateway():
    started = time.thread_time()
    with pytest.raises(ArgumentsInvalid):
        check({"properties": {"a": {"pattern": "^(a+)+$"}}}, {"a": "a" * 5000 + "!"})
    assert time.thread_time() - started < 1.0


def test_many_errors_are_not_all_looked_for():
    schema = {"properties": {"rows": {"items": {"type": "string"}}}}
    with pytest.raises(ArgumentsInvalid) as few:
        check(schema, {"rows": [1] * 100})
    with pytest.raises(ArgumentsInvalid) as many:
        check(schema, {"rows": [1] * 200_000})
    assert [error["path"] for error in few.value.extra["errors"]] == [f"rows/{at}" for at in range(5)]
    assert [error["path"] for error in many.value.extra["errors"]] == ["rows/0"]


def test_errors_within_errors_are_left_out_where_they_are_too_many():
    choice = {"anyOf": [{"type": "string"}, {"type": "boolean"}]}
    schema = {"properties": {"rows": {"items": choice}}}
    with pytest.raises(ArgumentsInvalid) as refused:
        check(schema, {"rows": [1] * 50_000})
    assert refused.value.extra["errors"] == []
    assert "too large for the place to be named" in refused.value.detail


def test_a_long_name_is_not_copied_into_thousands_of_errors():
    schema = {"additionalProperties": {"items": {"type": "string"}}}
    with pytest.raises(ArgumentsInvalid) as refused:
        check(schema, {"n" * 200_000: [1] * 1500})
    assert len(refused.value.extra["errors"]) == 1


def test_integers_and_texts_beyond_the_usual_are_checked():
    check({"properties": {"n": {"type": "integer"}}}, {"n": 10**30})
    with pytest.raises(ArgumentsInvalid):
        check({"properties": {"n": {"type": "string"}}}, {"n": 10**30})
