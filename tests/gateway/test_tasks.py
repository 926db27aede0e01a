"""Handles of tasks: what they are bound to, how long they last, and what answers about tasks become."""

import json
import time
from dataclasses import replace

import pytest

from apps.common.crypto.keyring import Key, Keyring
from apps.common.errors import NotFound, PermissionDenied, UpstreamProtocolError, ValidationFailed
from apps.common.policy import Principal
from apps.gateway.plane.call import Call
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.mcp.bridge import Bridge
from apps.gateway.plane.mcp.lists import Lists
from apps.gateway.plane.mcp.tasks import ENDLESS_SECONDS, EXTENSION, LEAST_SECONDS, MAX_ID, MissingCapability, TaskHandles
from apps.gateway.plane.mcp.verbatim import result_text
from apps.gateway.plane.recorder import _trace
from apps.gateway.plane.views import find_target
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest, without_tasks
from tests.gateway.pictures import KEYRING, caller, definition, grant, picture, server

MODERN = "2026-07-28"
DECLARED = {"extensions": {EXTENSION: {}}}
KEY = Key("k1", b"k" * 32)
ALL = {"api_key:key-1": [grant("server", server_id="id-files"), grant("server", "g2", server_id="id-git")]}
ROWS = [definition("files", "read"), definition("git", "read")]


def keyring(*keys: Key) -> Keyring:
    return Keyring(keys or (KEY,))


def made(method="tools/call", slug="files", capabilities=DECLARED, grants=None, rows=ROWS, **params) -> Call:
    snapshot = picture((server("files"), server("git")), rows, grants=ALL if grants is None else grants)
    who = caller(snapshot)
    call = Call(snapshot, who, find_target(snapshot, who, slug), method, params, MODERN, True)
    call.capabilities = capabilities
    return call


def begun(handles: TaskHandles, id: str = "t-1", slug="files", name="read", ttl: object = 1000) -> str:
    call = made(slug=slug, name=name)
    call.name = name
    kind = call.target.items(call.snapshot, "tool")
    call.item = next(item for item in kind if item.name == name)
    return handles.begun(call, {"taskId": id, "ttlMs": ttl})["taskId"]


def resolved(handles: TaskHandles, handle: object, **options) -> Call:
    call = made("tasks/get", taskId=handle, **options)
    handles.resolve(call)
    return call


def test_any_process_reads_a_handle():
    handle = begun(TaskHandles(keyring()), "ünï/\x00 id")
    call = resolved(TaskHandles(keyring()), handle)
    assert (call.task, call.name, call.item.facts.server_id) == ("ünï/\x00 id", "read", "id-files")


def test_a_handle_is_short_and_never_the_same():
    handles = TaskHandles(keyring())
    id = "786512e2-9e0d-44bd-8f29-789f320fe840"
    first, second = begun(handles, id), begun(handles, id)
    assert first != second
    assert len(first) <= 140


def test_a_handle_outlives_a_change_of_keys():
    handle = begun(TaskHandles(keyring()))
    assert resolved(TaskHandles(keyring(Key("k2", b"n" * 32), KEY)), handle).task == "t-1"
    with pytest.raises(NotFound):
        resolved(TaskHandles(keyring(Key("k2", b"n" * 32))), handle)


def test_a_handle_of_one_server_is_none_of_another():
    handles = TaskHandles(keyring())
    handle = begun(handles, slug="", name="files__read")
    assert resolved(handles, handle, slug="").item.facts.server_id == "id-files"
    with pytest.raises(NotFound):
        resolved(handles, handle, slug="files")
    # a toolset that gives another server's tool the same name
    other = begun(handles)
    call = made("tasks/get", taskId=other)
    call.target = replace(call.target, server=call.snapshot.servers["id-git"])
    with pytest.raises(NotFound):
        handles.resolve(call)


@pytest.mark.parametrize("changes", [{"id": "key-2"}, {"kind": "user"}])
def test_a_handle_is_its_callers_own(changes):
    handles = TaskHandles(keyring())
    call = made("tasks/get", taskId=begun(handles))
    principal: Principal = replace(call.caller.principal, **changes)
    call.caller = replace(call.caller, principal=principal)
    with pytest.raises(NotFound):
        handles.resolve(call)


def test_a_handle_is_of_one_tenant():
    handles = TaskHandles(keyring())
    call = made("tasks/get", taskId=begun(handles))
    call.target = replace(call.target, tenant_id="tenant-2")
    with pytest.raises(NotFound):
        handles.resolve(call)


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [
        (1000, LEAST_SECONDS),
        (0, LEAST_SECONDS),
        (-5, LEAST_SECONDS),
        ((LEAST_SECONDS + 60) * 1000, LEAST_SECONDS + 60),
        (None, ENDLESS_SECONDS),
        ("soon", ENDLESS_SECONDS),
        (True, ENDLESS_SECONDS),
        (1e300, ENDLESS_SECONDS),
        (10**400, ENDLESS_SECONDS),
    ],
)
def test_a_handle_lasts_as_long_as_its_task_may(monkeypatch, ttl, seconds):
    handles = TaskHandles(keyring())
    now = time.time()
    handle = begun(handles, ttl=ttl)
    monkeypatch.setattr(time, "time", lambda: now + seconds - 2)
    assert resolved(handles, handle).task == "t-1"
    monkeypatch.setattr(time, "time", lambda: now + seconds + 2)
    with pytest.raises(NotFound):
        resolved(handles, handle)


def test_the_policy_is_asked_each_time():
    handles = TaskHandles(keyring())
    handle = begun(handles)
    with pytest.raises(PermissionDenied):
        resolved(handles, handle, grants={})
    with pytest.raises(NotFound, match="read"):
        resolved(handles, handle, rows=ROWS[1:])


@pytest.mark.parametrize(
    "capabilities",
    [{}, {"extensions": {}}, {"extensions": []}, {"extensions": {EXTENSION: None}}, {"tasks": {}}, {EXTENSION: {}}],
)
def test_the_capability_comes_before_the_task(capabilities):
    handles = TaskHandles(keyring())
    with pytest.raises(MissingCapability) as refused:
        resolved(handles, "nonsense", capabilities=capabilities)
    assert refused.value.extra == {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}


@pytest.mark.parametrize("handle", ["", None, 7, [], {}])
def test_a_task_is_named_by_a_string(handle):
    with pytest.raises(ValidationFailed):
        resolved(TaskHandles(keyring()), handle)


@pytest.mark.parametrize("responses", [None, [], "x"])
def test_an_update_brings_answers(responses):
    handles = TaskHandles(keyring())
    call = made("tasks/update", taskId=begun(handles), inputResponses=responses)
    with pytest.raises(ValidationFailed, match="inputResponses"):
        handles.resolve(call)


@pytest.mark.parametrize(
    "id", [None, 7, "", "x" * (MAX_ID + 1), "ü" * MAX_ID], ids=["none", "number", "empty", "long", "bytes"]
)
def test_a_task_without_a_proper_id_is_no_answer(id):
    with pytest.raises(UpstreamProtocolError, match="taskId"):
        begun(TaskHandles(keyring()), id)


@pytest.mark.parametrize(("method", "capabilities"), [("prompts/get", DECLARED), ("tools/call", {}), ("tasks/get", DECLARED)])
def test_a_task_is_given_only_where_it_may_be(method, capabilities):
    bridge = Bridge(PlaneConfig(), keyring())
    call = made(method, capabilities=capabilities, name="read")
    call.name, call.item = "read", call.snapshot.servers["id-files"].own["tool"]["read"]
    answer = UpstreamAnswer({"resultType": "task", "taskId": "t-1"}, None, MODERN, 1)
    with pytest.raises(UpstreamProtocolError):
        bridge.answer(call, answer)


def test_an_answer_about_another_task_is_none():
    bridge = Bridge(PlaneConfig(), keyring())
    call = resolved(bridge.tasks, begun(bridge.tasks))
    with pytest.raises(UpstreamProtocolError, match="another task"):
        bridge.answer(call, UpstreamAnswer({"taskId": "t-2", "resultType": "complete"}, None, MODERN, 1))


def test_what_is_said_of_a_task_keeps_its_spelling():
    bridge = Bridge(PlaneConfig(), keyring())
    handle = begun(bridge.tasks)
    call = resolved(bridge.tasks, handle)
    text = '{"taskId":"t-1","x-new":123456789012345678901234567890,"result":{"a":1.10,"b":"\\u00fc"},"resultType":"complete"}'
    raw = b'{"jsonrpc":"2.0","id":1,"result":' + text.encode() + b"}"
    answer = UpstreamAnswer(json.loads(text), None, MODERN, len(raw), raw)
    result, *_ = bridge.answer(call, answer)
    assert result_text(answer, result).decode() == text.replace('"t-1"', json.dumps(handle))


def test_the_server_is_asked_about_its_own_task():
    bridge = Bridge(PlaneConfig(), keyring())
    call = made("tasks/update", taskId=begun(bridge.tasks), inputResponses={"k": {}}, _meta={"traceparent": "x"})
    bridge.tasks.resolve(call)
    call.server = call.snapshot.servers["id-files"]
    request = bridge.request(call)
    assert request.params == {"taskId": "t-1", "inputResponses": {"k": {}}, "_meta": {"traceparent": "x"}}
    assert request.client_capabilities == DECLARED


# What is declared, and announced


def test_a_legacy_caller_does_not_declare_tasks_to_a_server():
    bridge = Bridge(PlaneConfig(), keyring())
    call = made(name="read", capabilities={"extensions": {EXTENSION: {}, "com.example/x": {"a": 1}}, "experimental": {"b": {}}})
    call.name, call.item = "read", call.snapshot.servers["id-files"].own["tool"]["read"]
    call.server, call.modern = call.snapshot.servers["id-files"], False
    assert bridge.request(call).client_capabilities == {
        "extensions": {"com.example/x": {"a": 1}},
        "experimental": {"b": {}},
    }


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, {}),
        ({"extensions": {EXTENSION: {}}}, {}),
        ({"extensions": {EXTENSION: {}, "x/y": {"a": 1}}}, {"extensions": {"x/y": {"a": 1}}}),
        ({"extensions": [], "roots": {}}, {"extensions": [], "roots": {}}),
    ],
)
def test_other_extensions_stay(capabilities, expected):
    assert without_tasks(capabilities) == expected


async def _nobody(message: dict) -> dict:
    return {}


def test_a_handshake_declares_what_somebody_answers_for_and_extensions():
    capabilities = {"sampling": {}, "extensions": {EXTENSION: {}, "io.modelcontextprotocol/ui": {"mimeTypes": ["x"]}}}
    extensions = {"extensions": {"io.modelcontextprotocol/ui": {"mimeTypes": ["x"]}}}
    alone = UpstreamRequest("tools/call", {}, client_capabilities=capabilities)
    assert alone.declared == extensions
    asked = UpstreamRequest("tools/call", {}, client_capabilities=capabilities, on_request=_nobody)
    assert asked.declared == {"sampling": {}, **extensions}
    assert UpstreamRequest("tools/call", {}).declared == {}


def announced(slug, *, modern=True, files=None, git=None):
    both = [server("files", **(files or {})), server("git", **(git or {}))]
    snapshot = picture(both, ROWS, grants=ALL)
    target = find_target(snapshot, caller(snapshot), slug)
    return Lists(PlaneConfig(), KEYRING).capabilities(snapshot, target, modern=modern).get("extensions")


def test_extensions_are_announced_where_they_are_carried():
    ui = {"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}}
    tasks = {EXTENSION: {"x": 1}}
    both = {"capabilities": {"tools": {}, "extensions": {**ui, **tasks}}, "revisions": (MODERN, "2025-11-25")}
    assert announced("files", files=both) == {**ui, **tasks}
    assert announced("files", files=both, modern=False) == ui
    assert announced("", files=both) == {EXTENSION: {}}
    assert announced("", files=both, modern=False) is None
    assert announced("git", files=both) is None
    old = {**both, "revisions": ("2025-11-25",)}
    assert announced("files", files=old) == ui


# Trace context

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize(
    ("parent", "trace"),
    [
        (f"00-{TRACE}-b7ad6b7169203331-01", TRACE),
        (f"00-{TRACE}-b7ad6b7169203331-00", TRACE),
        (f"cc-{TRACE}-b7ad6b7169203331-01-what-comes-later", TRACE),
        (f"00-{TRACE}-b7ad6b7169203331-01-more", None),
        (f"cc-{TRACE}-b7ad6b7169203331-01more", None),
        (f"ff-{TRACE}-b7ad6b7169203331-01", None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-b7ad6b7169203331-01", None),
        (f"00-{TRACE[:-1]}-b7ad6b7169203331-01", None),
        pytest.param("00-" + "\ud800" * 32 + "-b7ad6b7169203331-01", None, id="surrogates"),
        (f"00-{TRACE}-b7ad6b7169203331-01\n", None),
        pytest.param("cc-" + "x" * 100_000, None, id="long"),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_the_trace_is_recorded_where_it_is_one(parent, trace):
    assert _trace({"_meta": {"traceparent": parent}}) == trace


@pytest.mark.parametrize("params", [{}, {"_meta": None}, {"_meta": []}, {"_meta": {}}])
def test_there_need_not_be_a_trace(params):
    assert _trace(params) is None
