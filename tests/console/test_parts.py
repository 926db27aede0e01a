"""The parts that pages are made of: words, figures, snippets, schemas, differences, and what a tool answers."""

import base64
import json
import shlex
import subprocess
import sys

import pytest

from apps.audit.admin.words import tell
from apps.audit.domain import EventFacts
from apps.common.admin import format as formats
from apps.common.admin.difference import fold
from apps.common.admin.spark import sparkline
from apps.common.admin.states import STATES, look_of, state_badge
from apps.common.clock import now
from apps.gateway.services.calls import CallReport
from apps.servers.models import Endpoint
from apps.tools.admin.schema import schema_rows
from apps.tools.domain import EFFECTS, difference
from apps.tools.models import Definition
from config.console.playground import MAX_TEXT, block_of, read_arguments, report_context
from config.console.snippets import call_snippets, client_snippets


def test_every_state_of_the_models_has_a_word_an_icon_and_a_colour():
    for state in (
        *Endpoint.State.values,
        *Definition.State.values,
        "expired",
        "revoked",
        "ok",
        "error",
        "refused",
        "failed",
        "cancelled",
    ):
        assert state in STATES
    for effects in EFFECTS:
        assert effects == "unknown" or effects in STATES
    badge = state_badge("unhealthy", title='"><script>', href="#x")
    assert "Unhealthy" in badge
    assert "sy-tone-bad" in badge
    assert "<script>" not in badge
    assert look_of("brand-new").word == "Brand new"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0"), (999, "999"), (12_345, "12.3k"), (1_000_000, "1M"), (4_100_000_000, "4.1G"), (150_000, "150k")],
)
def test_compact(value, text):
    assert formats.compact(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.42, "0.4 ms"), (12, "12 ms"), (1800, "1.8 s"), (180_000, "3 min"), (None, "–")])
def test_durations(value, text):
    assert formats.milliseconds(value) == text


@pytest.mark.parametrize(
    ("now_", "before", "direction"), [(0, 0, "same"), (5, 0, "new"), (150, 100, "up"), (50, 100, "down"), (100, 100, "same")]
)
def test_trends(now_, before, direction):
    assert formats.change(now_, before)[1] == direction


@pytest.mark.parametrize(("part", "whole", "text"), [(0, 0, "–"), (0, 9, "0 %"), (1, 3, "33 %"), (1, 200, "0.5 %")])
def test_shares(part, whole, text):
    assert formats.share(part, whole) == text


def test_sparklines_have_words_for_those_who_do_not_see_them():
    assert 'aria-label="3 calls"' in sparkline([1, 0, 2], label="3 calls", marks=[0, 0, 1])
    assert "No calls" in sparkline([0, 0], label="none")


def fact(**fields) -> EventFacts:
    names = EventFacts.__dataclass_fields__
    return EventFacts(**{**dict.fromkeys(names), "id": 5, "event_type": "server.paused", "time": now(), **fields})


def test_events_read_as_sentences():
    told = tell(
        fact(
            actor_kind="user", actor="olga", object_kind="server", object_id="1", object="github", outcome="ok", origin="admin"
        )
    )
    assert (told.who, told.did, told.what) == ("olga", "paused the server", "github")
    assert "in the console" in told.more
    told = tell(
        fact(
            event_type="call.refused",
            actor="agent",
            server="github",
            tool="list",
            outcome="refused",
            details={"rule": "default-deny", "reason": "no grant"},
        )
    )
    assert told.outcome == "refused"
    assert "no grant" in told.more
    assert "default-deny" in told.more
    told = tell(fact(event_type="server.updated", details={"before": {"name": "a"}, "after": {"name": "b"}}))
    assert [(change.name, change.before, change.after) for change in told.changes] == [("name", "a", "b")]
    assert tell(fact(event_type="brand.new")).did == "new the brand"


def test_a_difference_folds_what_is_alike_and_marks_what_changed():
    before = {f"k{number:02}": number for number in range(30)} | {"description": "Reads a file."}
    after = {**before, "description": "Reads a file and sends it."}
    rows = fold(difference(before, after).lines)
    assert [row.skipped for row in rows if row.skipped]
    changed = next(row for row in rows if row.before_changed)
    assert "".join(piece.text for piece in changed.after).strip().startswith('"description"')
    assert any(piece.marked and "sends" in piece.text for piece in changed.after)
    assert not any(piece.marked and "Reads" in piece.text for piece in changed.after)


def test_schemas_are_rows_required_first():
    schema = {
        "type": "object",
        "required": ["b"],
        "properties": {
            "a": {"type": ["string", "null"], "maxLength": 5},
            "b": {"$ref": "#/$defs/kind"},
            "c": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "integer", "minimum": 1}}}},
        },
        "$defs": {"kind": {"enum": ["x", "y"], "description": "Which."}},
    }
    rows = schema_rows(schema)
    assert [(row.path, row.required) for row in rows] == [("b", True), ("a", False), ("c", False), ("c[].d", False)]
    assert rows[0].type == "one of 2"
    assert rows[0].limits == "x | y"
    assert rows[1].limits == "0–5 characters"


@pytest.mark.parametrize(
    "schema", [None, [], {"properties": 5}, {"properties": {"a": True}}, {"properties": {"a": {"$ref": "#/properties/a"}}}]
)
def test_odd_schemas_do_no_harm(schema):
    schema_rows(schema)


@pytest.mark.parametrize("text", ["", "{}", '{"a": 1}'])
def test_arguments_are_read(text):
    assert isinstance(read_arguments(text), dict)


@pytest.mark.parametrize("text", ["[1]", "1", "{", '{"a": NaN}', "[" * 100_000, "x" * 300_000])
def test_bad_arguments_are_told(text):
    with pytest.raises(ValueError, match=r"arguments|JSON"):
        read_arguments(text)


def test_results_are_never_trusted():
    png = base64.b64encode(b"\x89PNG").decode()
    assert block_of({"type": "image", "data": png, "mimeType": "image/png"}).source.startswith("data:image/png;base64,")
    assert block_of({"type": "image", "data": png, "mimeType": "image/svg+xml"}).kind == "note"
    assert block_of({"type": "image", "data": '"><script>', "mimeType": "image/png"}).kind == "note"
    assert block_of({"type": "text", "text": "a\u202eb"}).text == "a\\u{202e}b"
    assert len(block_of({"type": "text", "text": "x" * (MAX_TEXT * 2)}).text) < MAX_TEXT + 100
    assert block_of("rubbish").kind == "json"
    assert block_of({"type": "resource_link", "uri": "javascript:alert(1)"}).kind == "link"
    assert block_of({"type": "resource", "resource": {"uri": "x", "text": "y"}}).text == "y"


@pytest.mark.parametrize(
    ("result", "error", "outcome"),
    [
        ({"content": []}, None, "ok"),
        ({"content": [], "isError": True}, None, "error"),
        (None, {"code": -1, "message": "no"}, "failed"),
        ({"content": "odd"}, None, "ok"),
    ],
)
def test_reports_are_laid_out(result, error, outcome):
    report = CallReport("c", result is not None, result, error, [("authorise", 0.001), ("upstream", 0.011)], 11.0, ["0-7"])
    context = report_context(report)
    assert context["outcome"] == outcome
    assert [round(step["ms"]) for step in context["steps"]] == [1, 10]
    assert context["events"][0][0] == "0-7"


KEY = "sy_abcdefgh_" + "k" * 43


def test_snippets_for_every_client():
    found = {one.name: one.text for one in client_snippets("https://gate.example.com/mcp/desk", "desk", KEY)}
    assert set(found) == {"claude-code", "claude-desktop", "cursor", "vscode", "sse", "curl", "python"}
    assert all(KEY in text for text in found.values())
    assert shlex.split(found["claude-code"].replace("\\\n", " "))[:7] == [
        "claude",
        "mcp",
        "add",
        "--transport",
        "http",
        "desk",
        "https://gate.example.com/mcp/desk",
    ]
    desktop = json.loads(found["claude-desktop"])["mcpServers"]["desk"]
    assert desktop["command"] == "npx"
    assert desktop["env"] == {"AUTH_HEADER": f"Bearer {KEY}"}
    assert "--allow-http" not in desktop["args"]
    assert json.loads(found["cursor"])["mcpServers"]["desk"]["headers"]["Authorization"] == f"Bearer {KEY}"
    assert json.loads(found["vscode"])["servers"]["desk"]["type"] == "http"
    assert json.loads(found["sse"])["mcpServers"]["desk"]["url"] == "https://gate.example.com/sse/desk"
    named = {one.name: one.text for one in client_snippets("https://mcp.example.com/mcp/mcp-x", "x", KEY)}["sse"]
    assert json.loads(named)["mcpServers"]["x"]["url"] == "https://mcp.example.com/sse/mcp-x"
    compile(found["python"], "snippet", "exec")


def test_vs_code_asks_for_the_key_when_there_is_none():
    found = {one.name: one.text for one in client_snippets("http://localhost:8000/mcp", "switchyard")}
    document = json.loads(found["vscode"])
    assert document["inputs"][0]["password"] is True
    assert document["inputs"][0]["id"] in document["servers"]["switchyard"]["headers"]["Authorization"]
    assert "--allow-http" in found["claude-desktop"]


def test_calls_as_code_quote_what_a_person_typed():
    arguments = {"text": 'it\'s "quoted" $HOME `id`', "n": True, "nothing": None}
    found = {one.name: one.text for one in call_snippets("https://gate.example.com/mcp/desk", "look_up", arguments)}
    words = shlex.split(found["curl"].replace("\\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    assert body["params"]["arguments"] == arguments
    assert body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
    compile(found["python"], "snippet", "exec")
    assert '"look_up"' in found["typescript"]


def test_the_python_snippet_imports_what_is_installed():
    text = next(one.text for one in client_snippets("http://127.0.0.1:9/mcp", "x") if one.name == "python")
    imports = "\n".join(line for line in text.splitlines() if line.startswith(("import", "from")))
    subprocess.run([sys.executable, "-c", imports], check=True)
