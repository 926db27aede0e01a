"""Requests that are too large, too slow, or lie about their length, through `/mcp`: bounded time and bounded memory."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.bodies import MB, TOOL, answer_if_any, assert_refused, call_body
from tests.e2e.raw import Wire
from tests.e2e.support import (
    ERAS,
    assert_serves,
    audit_mark,
    connect,
    exchange,
    recorded,
    serving_memory,
)

pytestmark = pytest.mark.once


@pytest.mark.parametrize("era", ERAS)
def test_a_100_mb_body_is_refused_before_it_is_read(shared_product, era, memory):
    client = connect(shared_product, era)
    since = audit_mark(shared_product)
    with Wire(shared_product) as wire:
        wire.send(wire.head("POST", "/mcp", {**client.headers(call_body(client)), "Content-Length": str(100 * MB)}))
        answer = wire.answer()
    assert answer.seconds < 2
    assert_refused(shared_product, client, answer, status=413, code=-32600, type="too-large", since=since)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("form", ["declared", "chunked", "one chunk"])
def test_a_100_mb_body_that_is_sent_all_the_same(shared_product, era, form, memory):
    client = connect(shared_product, era)
    headers = client.headers(call_body(client))
    since = audit_mark(shared_product)
    with Wire(shared_product) as wire:
        if form == "declared":
            wire.send(wire.head("POST", "/mcp", {**headers, "Content-Length": str(100 * MB)}))
        else:
            wire.send(wire.head("POST", "/mcp", {**headers, "Transfer-Encoding": "chunked"}))
        if form == "one chunk":
            wire.send(b"%x\r\n" % (100 * MB))
        piece = b" " * MB
        for _ in range(100):
            if not wire.send(b"%x\r\n" % MB + piece + b"\r\n" if form == "chunked" else piece):
                break
        answer = answer_if_any(wire)
    if answer is not None:
        assert answer.status == 413
        assert answer.type == "too-large"
    recorded(shared_product, "outcome = 'refused' AND error_type = 'too-large'", since=since)
    assert_serves(shared_product, era)


@pytest.mark.parametrize("era", ERAS)
def test_a_4_mb_call_is_within_the_limit(shared_product, era, memory):
    client = connect(shared_product, era)
    answer = client.call(TOOL, {"expression": "1" * (4 * MB - 2000)})
    assert answer.seconds < 10
    assert answer.type == "arguments-invalid"
    assert len(answer.body) < 5000


@pytest.mark.parametrize("era", ERAS)
def test_many_keys_and_many_values_do_not_hold_the_gateway(shared_product, era):
    client = connect(shared_product, era)
    wide = {f"k{number}": number for number in range(150_000)}
    waits, sizes = [], []
    for _ in range(4):
        with ThreadPoolExecutor(1) as pool:
            heavy = pool.submit(client.call, TOOL, {"expression": "1", **wide})
            while not heavy.done():
                began = time.monotonic()
                assert exchange(shared_product, "GET", "/health/live").status == 200
                waits.append(time.monotonic() - began)
        assert heavy.result().status in (200, 400)
        assert heavy.result().seconds < 10
        sizes.append(serving_memory(shared_product))
    assert max(waits, default=0) < 3
    # the first one makes the heap as large as such a body needs; it does not grow from there
    assert max(sizes[1:]) - sizes[0] < 50 * MB


@pytest.mark.parametrize("era", ERAS)
def test_a_content_length_that_lies(shared_product, era):
    client = connect(shared_product, era)
    body = call_body(client)
    raw = json.dumps(body).encode()
    # too short: what is left over is read as the next request, and is none
    with Wire(shared_product) as wire:
        wire.send(wire.head("POST", "/mcp", {**client.headers(body), "Content-Length": str(len(raw) - 10)}) + raw)
        answers = [wire.answer()]
        answers += [answer_if_any(wire)]
        assert {answer.status for answer in answers if answer is not None} == {400}
        assert wire.closed_within(5)
    for value in ("-1", "1e3", "0x10", "abc", "99999999999999999999", "+5", f"{len(raw)}, {len(raw)}"):
        with Wire(shared_product) as wire:
            wire.send(wire.head("POST", "/mcp", {**client.headers(body), "Content-Length": value}) + raw)
            answer = answer_if_any(wire)
            assert answer is None or answer.status in (400, 413), value
    # two framings at once are a smuggler's (RFC 9112, section 6.1)
    with Wire(shared_product) as wire:
        pairs = [*client.headers(body).items(), ("Content-Length", str(len(raw))), ("Transfer-Encoding", "chunked")]
        wire.send(wire.head("POST", "/mcp", pairs) + b"0\r\n\r\n" + raw)
        answer = answer_if_any(wire)
        assert answer is None or answer.status == 400
    assert_serves(shared_product, era)


def test_headers_without_end(shared_product, memory):
    with Wire(shared_product) as wire:
        wire.send(f"POST /mcp HTTP/1.1\r\nHost: {wire.host}\r\nX-Long: ".encode())
        sent = 0
        while sent < 100 * MB and wire.send(b"a" * MB):
            sent += MB
    assert sent < 20 * MB, "a header of 100 MB was taken"
    with Wire(shared_product) as wire:
        wire.send(f"POST /mcp HTTP/1.1\r\nHost: {wire.host}\r\n".encode())
        sent = 0
        while sent < 100 * MB and wire.send(b"X-Many: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 16384):
            sent += MB
    assert sent < 20 * MB, "100 MB of headers were taken"
    assert_serves(shared_product)


@pytest.mark.slow
def test_requests_that_drip_are_cut_and_hold_nobody_up(shared_product):
    client = connect(shared_product, "modern")
    body = call_body(client)
    raw = json.dumps(body).encode()
    wires = [Wire(shared_product) for _ in range(120)]
    heads = [wire.head("POST", "/mcp", {**client.headers(body), "Content-Length": str(len(raw))}) for wire in wires]
    rest_head = wires[0].head(
        "POST", "/api/v1/servers/", {**shared_product.headers, "Content-Type": "application/json", "Content-Length": "9000"}
    )
    refused_head = wires[0].head("POST", "/mcp", {"Content-Type": "application/json", "Content-Length": "9000"})
    starts = {
        "head": heads[0][:40], "body": heads[0] + raw[:20], "nothing": b"", "rest body": rest_head + b"{", "refused body": refused_head + b"{",
    }  # fmt: skip
    kinds = [list(starts)[number % len(starts)] for number in range(len(wires))]
    try:
        for wire, kind in zip(wires, kinds, strict=True):
            wire.send(starts[kind])
        began = time.monotonic()
        open_ = list(zip(wires, kinds, strict=True))
        slowest = 0.0
        while open_ and time.monotonic() - began < 45:
            for wire, kind in list(open_):
                alive = kind == "nothing" or wire.send(b"a" if kind == "head" else b" ")
                if not alive or wire.closed_within(0.001):
                    open_.remove((wire, kind))
            asked = time.monotonic()
            assert client.send(body).status == 200
            slowest = max(slowest, time.monotonic() - asked)
        assert not open_, f"still open after 45 s: {sorted({kind for _, kind in open_})}"
        assert slowest < 3
    finally:
        for wire in wires:
            wire.socket.close()
    assert_serves(shared_product)
