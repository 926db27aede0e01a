"""What nobody knows comes through as it was said, both ways, between all eras: members, content types, `_meta`, extensions.

What the gateway adds and takes away between eras is said in apps/gateway/plane/mcp/bridge.py; `across` says it once more.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.bridge.house import PEERS
from tests.bridge.matrix import ERAS
from tests.bridge.raw import META, RawClient, Said
from tests.bridge.talk import MODERN, Json

EXAMPLES = 8
LONGEST = 8000
"""Characters of a URI; the gateway takes some more."""
PAIRS = [(client, server, transport) for client in ERAS for server, transport in PEERS]
SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
few = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=SLOW)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = texts.map("com.example/{}".format)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False, width=64)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
members = st.dictionaries(names, values, max_size=4)
traced = st.sampled_from([{}, {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, {"baggage": "a=1"}])
metas = st.builds(lambda some, more: {**some, **more}, members, traced)
novelties = st.builds(lambda kind, more: {**more, "type": kind}, names, members)
blocks = st.builds(lambda said, more: {**more, "type": "text", "text": said}, texts, members) | novelties


def with_meta(body: Json, meta: Json) -> Json:
    """Return a body with `_meta`, where there is any."""
    return {**body, "_meta": meta} if meta else body


results = {
    "tools/call": st.builds(
        lambda content, structured, more: {**more, "content": content, **structured},
        st.lists(blocks, max_size=3),
        st.just({}) | st.builds(lambda value: {"structuredContent": value}, st.dictionaries(texts, values, max_size=3)),
        members,
    ),
    "prompts/get": st.builds(
        lambda content, more: {**more, "messages": [{"role": "user", "content": content, **more}]}, blocks, members
    ),
    "resources/read": st.builds(
        lambda said, more: {**more, "contents": [{"uri": "bridge://mirror/it", "text": said, **more}]}, texts, members
    ),
    "completion/complete": st.builds(
        lambda said, more: {**more, "completion": {"values": said, **more}}, st.lists(texts), members
    ),
}


def request_for(method: str, spec: Json, more: Json) -> Json:
    """Return the params of a request that the peer's mirror answers with `spec`, and with members that nobody knows."""
    if method == "tools/call":
        return {**more, "name": "mirror", "arguments": spec}
    text = json.dumps(spec, ensure_ascii=False)
    if method == "prompts/get":
        return {**more, "name": "mirror", "arguments": {"spec": text}}
    if method == "resources/read":
        return {**more, "uri": f"bridge://mirror/{base64.urlsafe_b64encode(text.encode()).decode()}"}
    ref, argument = {"type": "ref/prompt", "name": "mirror"}, {"name": "mirror", "value": text}
    return {**more, "ref": {**ref, **more}, "argument": {**argument, **more}}


def across(params: Json) -> Json:
    """Return params without what belongs to an era or to one leg: metadata of the protocol's own, the progress token."""
    meta = {key: value for key, value in params.get("_meta", {}).items() if not key.startswith(META) and key != "progressToken"}
    return with_meta({key: value for key, value in params.items() if key != "_meta"}, meta)


@pytest.fixture(scope="module")
def clients(servers) -> Iterator[dict[tuple[str, str, str], RawClient]]:
    """One raw client for each pair and transport."""
    found = {
        (client, server, transport): RawClient(servers.url(server, transport), servers.key, client)
        for client, server, transport in PAIRS
    }
    yield found
    for client in found.values():
        client.close()


def seen(said: Said) -> Json:
    """Take the params that the server has seen out of a result, and return them."""
    params = said.result["_meta"].pop("com.example/seen")
    if not said.result["_meta"]:
        del said.result["_meta"]
    return params


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@few
@given(data=st.data())
def test_params_and_results(clients, pair, data) -> None:
    client = clients[pair]
    method = data.draw(st.sampled_from(sorted(results)))
    result = with_meta(data.draw(results[method]), data.draw(metas))
    own: Json = {"resultType": "complete", **({"ttlMs": 0, "cacheScope": "private"} if method == "resources/read" else {})}
    spec = {"result": {**result, **own} if pair[1] == "modern" else result}
    params = with_meta(request_for(method, spec, data.draw(members)), data.draw(metas))
    assume(len(params.get("uri", "")) < LONGEST)
    said = client.request(method, params)
    assert across(seen(said)) == across(params)
    assert said.result == ({**result, **own} if client.modern else result)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@few
@given(code=st.integers(1, 2**31) | st.integers(-(2**31), -40_000), text=texts, data=values.filter(lambda one: one is not None))
def test_errors(clients, pair, code: int, text: str, data: Any) -> None:
    error = {"code": code, "message": text, "data": data}
    said = clients[pair].request("tools/call", request_for("tools/call", {"error": error}, {}))
    assert said.error == error


notices = st.lists(
    st.builds(
        lambda data, more: {
            "method": "notifications/message",
            "params": {**more, "level": "error", "logger": "bridge", "data": data},
        },
        values,
        members,
    )
    | st.builds(
        lambda message, more: {"method": "notifications/progress", "params": {**more, "progress": 1, "message": message}},
        texts,
        members,
    )
    | st.builds(lambda more: {"method": "notifications/com.example/novelty", "params": more}, members),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@few
@given(said=notices, token=texts.filter(bool) | st.integers(0, 2**53))
def test_notifications_of_a_call(clients, pair, said: list[Json], token: Any) -> None:
    spec = {"result": {"content": [], **({"resultType": "complete"} if pair[1] == "modern" else {})}, "notices": said}
    params = {**request_for("tools/call", spec, {}), "_meta": {"progressToken": token}}
    heard = clients[pair].request("tools/call", params).notices
    for one in said:
        if one["method"] == "notifications/progress":
            one["params"]["progressToken"] = token
    assert [{"method": one["method"], "params": one.get("params", {})} for one in heard] == said


forms = st.builds(
    lambda message, more, meta: {
        "method": "elicitation/create",
        "params": with_meta(
            {**more, "mode": "form", "message": message, "requestedSchema": {"type": "object", "properties": {}}}, meta
        ),
    },
    texts,
    members,
    metas,
)


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@few
@given(asked=forms, content=st.dictionaries(names, texts, max_size=3), more=members)
def test_requests_of_the_server_and_answers(clients, pair, asked: Json, content: Json, more: Json) -> None:
    client = clients[pair]
    answer = {**more, "action": "accept", "content": content}
    heard: list[Json] = []

    def on_request(message: Json) -> Json:
        heard.append({"method": message["method"], "params": message["params"]})
        return {"result": answer}

    params: Json = {"name": "mirror_input", "arguments": {"asked": asked}}
    said = client.request("tools/call", params, on_request)
    if client.modern:
        ((key, request),) = said.result["inputRequests"].items()
        heard.append({"method": request["method"], "params": request["params"]})
        again = {**params, "inputResponses": {key: answer}, "requestState": said.result["requestState"]}
        said = client.request("tools/call", again)
    assert heard == [asked]
    assert said.result["structuredContent"] == {"answer": answer}


def test_the_clients_speak_what_they_should(clients) -> None:
    """Else all of this would prove little."""
    for pair, client in clients.items():
        result = client.request("tools/call", {"name": "mirror", "arguments": {"result": {"content": []}}})
        meta = seen(result).get("_meta", {})
        assert (meta.get(META + "protocolVersion") == MODERN) == (pair[1] == "modern")
