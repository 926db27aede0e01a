"""What a server's schema may cost: what is refused before it is compiled, what is refused for one call, and what must pass."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.gateway.plane.schemacost import MAX_STEPS, Plan
from apps.gateway.plane.schemadocument import TooCostly
from apps.gateway.plane.schemapattern import pattern_cost
from apps.gateway.plane.schemas import ArgumentsInvalid, ArgumentsTooCostly, SchemaGate, SchemaTooCostly


def check(schema, arguments):
    SchemaGate().check("digest", {"name": "tool", "inputSchema": schema}, arguments)


def chained(levels, link, last=None):
    """Build definitions of which each refers to the next by `link`."""
    definitions = {f"d{at}": link({"$ref": f"#/$defs/d{at + 1}"}) for at in range(levels)}
    return {"type": "object", "$defs": {**definitions, f"d{levels}": last or {"type": "object"}}, "$ref": "#/$defs/d0"}


def nested(levels, link, last=None):
    schema = last or {"type": "object"}
    for _ in range(levels):
        schema = link(schema)
    return {"type": "object", **schema}


def deep(levels, leaf=1):
    return json.loads('{"x":' * levels + json.dumps(leaf) + "}" * levels)


LINKS = {
    "allOf": lambda to: {"allOf": [to, to]},
    "anyOf": lambda to: {"anyOf": [to, to]},
    "oneOf": lambda to: {"oneOf": [to, to]},
    "if": lambda to: {"if": to, "then": to, "else": to},
    "not": lambda to: {"not": {"allOf": [to, to]}},
    "dependentSchemas": lambda to: {"dependentSchemas": {"a": to, "b": to}},
    "dependencies": lambda to: {"dependencies": {"a": to, "b": to}},
    "unevaluatedProperties": lambda to: {"unevaluatedProperties": {"type": "integer"}, "allOf": [to]},
    "unevaluatedItems": lambda to: {"unevaluatedItems": {"type": "integer"}, "allOf": [to]},
    "$dynamicRef": lambda to: {"allOf": [to, {"$ref": to["$ref"]}], "$dynamicAnchor": "x"},
}


class TestSchemasThatAreRefused:
    @pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
    def test_what_applies_to_one_value_again_and_again(self, link):
        with pytest.raises(SchemaTooCostly) as refused:
            check(chained(20, link), {})
        assert "one value" in refused.value.detail
        assert "discover the server again" in refused.value.detail

    @pytest.mark.parametrize(
        "schema",
        [
            nested(900, lambda below: {"not": below}),
            nested(140, lambda below: {"properties": {"a": below}}),
            nested(100, lambda below: {"not": below}, {"enum": ["x"] * 20_000}),
            chained(400, lambda to: {"allOf": [to]}),
            {"allOf": [{"$ref": "#"}]},
            {"not": {"$ref": "#"}},
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
            {"$dynamicAnchor": "x", "allOf": [{"$dynamicRef": "#x"}]},
            {"properties": {"a": {"pattern": "(a{1,300}){1,300}$"}}},
            {"properties": {"a": {"pattern": "^[[a]\\p{L}]{1,5000}$"}}},
            {"properties": {"a": {"allOf": [{"pattern": f"(.*x){{20}}{at}"} for at in range(1500)]}}},
            {"patternProperties": {f"^p{at}": {} for at in range(300)}},
            {"properties": {"a": {"items": {"enum": [[at] for at in range(20_000)]}}}},
            {"description": "x" * 300_000},
            nested(30, lambda below: {"properties": {"n" * 4_000: below}}, {"required": [str(at) for at in range(9_000)]}),
        ],
        ids=lambda schema: json.dumps(schema)[:40],
    )
    def test_what_is_too_large_too_deep_or_goes_round_in_circles(self, schema):
        with pytest.raises(SchemaTooCostly):
            check({"type": "object", **schema}, {})

    def test_a_decoy_of_the_same_name_does_not_hide_what_a_reference_leads_to(self):
        costly = chained(20, LINKS["allOf"])
        inner = {"$id": "https://example.test/inner", "$defs": costly["$defs"], "$ref": "#/$defs/d0"}
        cheap = {f"d{at}": {} for at in range(21)}
        with pytest.raises(SchemaTooCostly):
            check({"type": "object", "$defs": {**cheap, "inner": inner}, "$ref": "https://example.test/inner"}, {})

    def test_counting_grows_with_the_schema_and_no_faster(self):
        def seconds(levels):
            best = float("inf")
            for _ in range(3):
                started = time.thread_time()
                with pytest.raises(TooCostly):
                    Plan(chained(levels, LINKS["anyOf"]))
                best = min(best, time.thread_time() - started)
            return best

        # Twenty times the levels, each of which doubles what a check takes.
        assert seconds(1_000) < 200 * seconds(50)

    def test_the_verdict_is_remembered(self):
        class Definition(dict):
            asked = 0

            def get(self, key, default=None):
                self.asked += key == "inputSchema"
                return super().get(key, default)

        gate = SchemaGate()
        definition = Definition(inputSchema=chained(20, LINKS["allOf"]))
        for _ in range(5):
            with pytest.raises(SchemaTooCostly):
                gate.check("digest", definition, {})
        assert definition.asked == 1

    def test_a_heavy_schema_makes_room_for_others(self):
        gate = SchemaGate()
        weights = []
        for at in range(30):
            schema = {"properties": {"a": {"anyOf": [{"pattern": f"^x{at}{one}.*y$"} for one in range(250)]}}}
            gate.check(str(at), {"inputSchema": schema}, {})
            weights.append(gate.weight)
        assert max(weights) <= 256 * 1024 * 1024
        assert weights != sorted(weights)


TWICE = {"properties": {"x": {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}}


class TestCallsThatAreRefused:
    def test_recursion_that_doubles_is_followed_only_as_deep_as_the_arguments_go(self):
        schema = {"type": "object", "$defs": {"a": TWICE}, "$ref": "#/$defs/a"}
        check(schema, deep(8))
        with pytest.raises(ArgumentsTooCostly) as refused:
            check(schema, deep(60))
        assert "20,000,000 steps" in refused.value.detail

    def test_a_call_that_would_overflow_the_stack(self):
        schema = chained(40, lambda to: {"allOf": [to]}, {"properties": {"x": {"$ref": "#/$defs/d0"}, "y": {"type": "string"}}})
        with pytest.raises(ArgumentsInvalid):
            check(schema, deep(10, {"y": 1}))
        with pytest.raises(ArgumentsTooCostly):
            check(schema, deep(110, {"y": 1}))

    def test_a_long_text_for_a_large_pattern(self):
        schema = {"properties": {"a": {"pattern": "(a|b)*a(a|b){300}c"}, "b": {"type": "string"}}}
        check(schema, {"b": "ab" * 1_000_000})
        with pytest.raises(ArgumentsInvalid):
            check(schema, {"a": "ab" * 1_000})
        with pytest.raises(ArgumentsTooCostly):
            check(schema, {"a": "ab" * 100_000})

    def test_many_values_for_a_long_enum(self):
        schema = {"properties": {"a": {"items": {"enum": [[at] for at in range(1_500)]}}}}
        check(schema, {"a": [[1]] * 50})
        with pytest.raises(ArgumentsTooCostly):
            check(schema, {"a": [[1_499]] * 20_000})

    def test_counting_a_call_is_bounded_too(self):
        many = {"allOf": [{"properties": {f"k{at}": {}}} for at in range(2_000)], "unevaluatedProperties": False}
        plan = Plan({"type": "object", **many})
        started = time.thread_time()
        with pytest.raises(TooCostly):
            plan.steps({f"k{at}": 1 for at in range(3_000)})
        assert time.thread_time() - started < 2


TREE = {"type": "object", "properties": {"value": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}}}
FILTER = {
    "type": "object",
    "properties": {"filter": {"$ref": "#/$defs/filter"}},
    "$defs": {
        "filter": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"and": {"type": "array", "items": {"$ref": "#/$defs/filter"}}},
                    "required": ["and"],
                },
                {
                    "type": "object",
                    "properties": {"or": {"type": "array", "items": {"$ref": "#/$defs/filter"}}},
                    "required": ["or"],
                },
                {"type": "object", "properties": {"not": {"$ref": "#/$defs/filter"}}, "required": ["not"]},
                {
                    "type": "object",
                    "properties": {"property": {"type": "string"}, "equals": {"type": ["string", "number", "boolean"]}},
                    "required": ["property", "equals"],
                    "additionalProperties": False,
                },
            ]
        }
    },
}
EXPRESSION = {
    "type": "object",
    "properties": {"e": {"$ref": "#/$defs/e"}},
    "$defs": {
        "e": {
            "oneOf": [
                {"type": "number"},
                *(
                    {
                        "type": "object",
                        "properties": {"op": {"const": op}, "left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}},
                        "required": ["op", "left", "right"],
                    }
                    for op in ("add", "sub", "mul", "div")
                ),
            ]
        }
    },
}
SUM = {
    "op": "add",
    "left": {"op": "mul", "left": 1, "right": 2},
    "right": {"op": "sub", "left": {"op": "div", "left": 1, "right": 2}, "right": 1},
}
ANY_JSON = {
    "type": "object",
    "properties": {"data": {"$ref": "#/definitions/json"}},
    "definitions": {
        "json": {
            "anyOf": [
                {"type": ["string", "number", "boolean", "null"]},
                {"type": "array", "items": {"$ref": "#/definitions/json"}},
                {"type": "object", "additionalProperties": {"$ref": "#/definitions/json"}},
            ]
        }
    },
}
ISSUE = {
    "type": "object",
    "properties": {
        f"field_{at}": {
            "type": "object",
            "description": "One of the fields of an issue, with what it may be. " * 3,
            "properties": {
                "state": {"type": "string", "enum": ["open", "closed", "all"]},
                "labels": {"type": "array", "items": {"type": "string", "maxLength": 50}, "maxItems": 100},
                "since": {"type": "string", "format": "date-time", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$"},
                "sort": {"anyOf": [{"enum": ["created", "updated"]}, {"type": "null"}], "default": None},
            },
            "additionalProperties": False,
        }
        for at in range(100)
    },
}
WRITE = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "properties": {
        "path": {"type": "string", "pattern": "^[^\\u0000]{1,4096}$"},
        "content": {"type": "string"},
        "base64": {"type": "string", "pattern": "^(?:[0-9a-zA-Z+/]{4})*(?:(?:[0-9a-zA-Z+/]{2}==)|(?:[0-9a-zA-Z+/]{3}=))?$"},
    },
    "required": ["path"],
    "additionalProperties": False,
}
EDITS = {
    "type": "object",
    "properties": {
        "edits": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {
                "type": "object",
                "properties": {"oldText": {"type": "string"}, "newText": {"type": "string"}},
                "required": ["oldText"],
            },
        },
        "dryRun": {"type": "boolean", "default": False},
    },
    "required": ["edits"],
}
STRICT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "base": {
            "properties": {"id": {"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"}}
        }
    },
    "allOf": [{"$ref": "#/$defs/base"}, {"properties": {"kind": {"enum": ["a", "b"]}}}],
    "if": {"properties": {"kind": {"const": "a"}}, "required": ["kind"]},
    "then": {"required": ["id"]},
    "unevaluatedProperties": False,
}
ROWS = {
    "type": "object",
    "properties": {"rows": {"items": {"type": "object", "additionalProperties": {"type": ["string", "number"]}}}},
}
COORDINATES = {
    "type": "object",
    "properties": {"at": {"prefixItems": [{"type": "number"}, {"type": "number"}, True], "items": False}},
}
ENUMS = {
    "type": "object",
    "properties": {f"zone{at}": {"enum": [f"Region/City_{one}" for one in range(600)]} for at in range(5)},
}
UUID = "0123abcd-0123-0123-0123-0123456789ab"

REALISTIC = {
    "no arguments": ({"type": "object", "properties": {}}, {}, None),
    "sum": (
        {"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"]},
        {"a": 1, "b": 2},
        {"a": 1},
    ),
    "tree": (TREE, {"children": [{"children": [{"value": "x"}] * 40}] * 200}, {"children": [{"children": [{"value": 1}]}]}),
    "deep tree": (
        TREE,
        json.loads('{"children":[' * 60 + '{"value":"x"}' + "]}" * 60),
        json.loads('{"children":[' * 60 + "1" + "]}" * 60),
    ),
    "filter": (
        FILTER,
        {"filter": {"and": [{"or": [{"not": {"property": "a", "equals": 1}}]}] * 20}},
        {"filter": {"and": [{"or": [{"x": 1}]}]}},
    ),
    "expression": (EXPRESSION, {"e": SUM}, {"e": {**SUM, "right": {"op": "pow", "left": 1, "right": 2}}}),
    "any json": (ANY_JSON, {"data": {"a": [{"b": [1, "x", None, {"c": [[True]]}]}] * 500}}, None),
    "issue": (
        ISSUE,
        {"field_1": {"state": "open", "since": "2026-01-01T00:00:00Z", "labels": ["x"] * 100}},
        {"field_99": {"state": "x"}},
    ),
    "write": (WRITE, {"path": "/a", "content": 'a,b{["\n' * 500_000, "base64": "QUJD" * 500_000}, {"content": "x"}),
    "edits": (EDITS, {"edits": [{"oldText": str(at), "newText": "x" * 500} for at in range(3_000)]}, {"edits": []}),
    "strict": (STRICT, {"kind": "a", "id": UUID}, {"kind": "a"}),
    "rows": (ROWS, {"rows": [{f"c{one}": at for one in range(20)} for at in range(10_000)]}, {"rows": [{"c": []}]}),
    "coordinates": (COORDINATES, {"at": [1.5, 2, "m"]}, {"at": [1, 2, 3, 4]}),
    "enums": (ENUMS, {"zone1": "Region/City_599", "zone4": "Region/City_0"}, {"zone1": "Region/City_600"}),
}


@pytest.mark.parametrize(("schema", "fits", "wrong"), REALISTIC.values(), ids=REALISTIC)
def test_realistic_schemas_are_checked_as_ever(schema, fits, wrong):
    check(schema, fits)
    if wrong is not None:
        with pytest.raises(ArgumentsInvalid) as refused:
            check(schema, wrong)
        assert refused.value.extra["errors"]


# Schemas and arguments small enough to be followed by hand, with every way in which one subschema leads to another.
NAMES = st.sampled_from(["a", "b", "c"])
REFERENCES = st.sampled_from([{"$ref": "#/$defs/p"}, {"$ref": "#/$defs/q"}, {"$ref": "#down"}])
LEAVES = st.one_of(REFERENCES, st.sampled_from([{}, {"type": "string"}, {"type": "object"}, {"enum": ["a", 1]}]))


def _composed(below):
    several = st.lists(below, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "allOf": several,
            "anyOf": several,
            "oneOf": several,
            "not": below,
            "if": below,
            "then": below,
            "properties": st.dictionaries(NAMES, below, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b"]), below, max_size=2),
            "additionalProperties": below,
            "propertyNames": below,
            "items": below,
            "prefixItems": several,
            "contains": below,
        },
    )


SCHEMAS = st.recursive(LEAVES, _composed, max_leaves=6)
ARGUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        st.sampled_from([1, "a", None]),
        lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(NAMES, below, max_size=3)),
    ),
    max_size=3,
)


def _visits(schema, value, root):
    """Count the subschemas that a check without short cuts goes through, each use on its own."""
    if not isinstance(schema, dict):
        return 0
    below = []
    if "$ref" in schema:
        target = {"#down": root["$defs"]["down"]}.get(schema["$ref"]) or root["$defs"][schema["$ref"][-1]]
        if target is not schema:
            below.append((target, value))
    below += [(one, value) for keyword in ("allOf", "anyOf", "oneOf") for one in schema.get(keyword, ())]
    below += [(schema[keyword], value) for keyword in ("not", "if", "then") if keyword in schema]
    if isinstance(value, dict):
        for name, item in value.items():
            own = schema.get("properties", {})
            matching = [one for pattern, one in schema.get("patternProperties", {}).items() if pattern.strip("^") in name]
            below += [(one, item) for one in matching]
            if name in own:
                below.append((own[name], item))
            elif not matching:
                below.append((schema.get("additionalProperties"), item))
            below.append((schema.get("propertyNames"), name))
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        for at, item in enumerate(value):
            below.append((prefix[at] if at < len(prefix) else schema.get("items"), item))
            below.append((schema.get("contains"), item))
    return 1 + sum(_visits(one, item, root) for one, item in below)


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, SCHEMAS, SCHEMAS, ARGUMENTS)
def test_no_check_goes_through_more_than_was_counted(schema, p, q, arguments):
    down = {"$anchor": "down", "properties": {"a": p, "b": {"$ref": "#/$defs/q"}}, "items": {"$ref": "#/$defs/p"}}
    root = {**schema, "$defs": {"p": p, "q": q, "down": down}}
    try:
        plan = Plan(root)
    except TooCostly:
        return
    visits = _visits(root, arguments, root)
    counted = plan.steps(arguments)
    assert visits <= counted
    assert counted <= plan.at_most(len(json.dumps(arguments, separators=(",", ":"))))


@pytest.mark.parametrize(
    ("pattern", "least", "most"),
    [
        ("^[a-z][a-z0-9-]{0,62}$", 63, 500),
        ("a{1,300}", 300, 1_000),
        ("(a{1,300}){1,300}", 90_000, 300_000),
        ("((a{100}b){100}|c{5,}){10}", 101_000, 300_000),
        (r"\p{L}{64}", 64 * 300, 64 * 400),
        ("(?x) ( a { 1 , # several\n 300 } ) {300}", 90_000, 1 << 41),
        ("a{00000000000000009000}", 9_000, 30_000),
        ("a{" + "9" * 9_000 + "}", 1 << 40, 1 << 41),
        ("[[:alpha:]&&[^x]]{500}", 500 * 300, 1 << 41),
        (r"[\[\]{}()*+?]{1,3}\{1,9999\}", 3, 200),
        (r"[\\[a]\p{L}]{900}", 900 * 300, 1 << 41),
        (r"\u{1F600}{500}", 500, 10_000),
        ("(a|b)*c", 3, 30),
        ("(?i)[a-z]{50}", 200, 1_000),
        ("((((", 1, 30),
        ("[", 1, 30),
        ("{5}*", 1, 30),
        ("a{99999}{99999}{99999}{99999}", 1 << 40, 1 << 42),
        ("", 1, 1),
    ],
)
def test_states_of_a_pattern(pattern, least, most):
    assert least <= pattern_cost(pattern)[0] <= most


def test_only_what_cannot_explode_is_cheap_for_each_byte():
    assert pattern_cost("^[A-Za-z0-9+/]*={0,2}$")[1] < 1
    assert pattern_cost("^.{1,3000}$")[1] < 10
    assert pattern_cost("(a|b)*a(a|b){30}c")[1] > 30
    assert pattern_cost("a.{1,3000}$")[1] > 3_000


def test_the_budget_is_what_the_documentation_of_the_module_says():
    schema = {"properties": {"a": {"items": {"type": "integer"}}}}
    plan = Plan(schema)
    assert 50 * plan.at_most(1_000) < MAX_STEPS
    check(schema, {"a": list(range(1_000_000))})
