"""Servers that are down, hang, lie, flood or die: a typed error that names them, the right row, and nobody else notices."""

import json
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.rogue import Rogue, refusing_port
from tests.e2e.support import ERAS, assert_serves, audit_mark, connect, made, recorded, rest, serving_memory, unique
from tests.support import eventually

pytestmark = pytest.mark.once

MB = 1024 * 1024
DEAD, TIMEOUT, PROTOCOL, LARGE = "upstream-died", "upstream-timeout", "upstream-protocol-error", "upstream-too-large"
UNAVAILABLE, UNAUTHENTICATED = "upstream-unavailable", "upstream-unauthenticated"


def register(product, url, **settings):
    """Register a server and wait until its tool may be called; returns its slug."""
    slug = unique("rogue")
    settings = {"transport": "http", "url": url, "timeout_seconds": 2, **settings}
    made(rest(product, "POST", "servers/", {"slug": slug, **settings}))
    eventually(
        lambda: "act" in connect(product, "modern", f"/mcp/{slug}").names(), within=20, because=f"{slug} was not discovered"
    )
    return slug


@pytest.fixture(scope="module", params=["modern", "legacy"])
def upstream(request, shared_product):
    """A hostile server of either era and its slug."""
    with Rogue(request.param) as it:
        it.slug = register(shared_product, it.url)
        yield it


WAYS = {
    "hang": (TIMEOUT, "unknown"), "drip": (TIMEOUT, "unknown"), "drip-head": (TIMEOUT, "unknown"), "silent-stream": (TIMEOUT, "unknown"),
    "abort": (DEAD, "unknown"), "close": (DEAD, "unknown"), "truncated": (DEAD, "unknown"), "cut-stream": (DEAD, "unknown"),
    "html": (PROTOCOL, None), "rubbish": (PROTOCOL, None), "not-http": (None, None), "nan": (PROTOCOL, None), "nested": (PROTOCOL, None),
    "wrong-id": (PROTOCOL, None), "no-result": (PROTOCOL, None), "array": (PROTOCOL, None), "empty": (PROTOCOL, None),
    "result-string": (PROTOCOL, None), "bad-error": (PROTOCOL, None), "both": (None, None), "redirect": (PROTOCOL, None),
    "401": (UNAUTHENTICATED, None), "403": (UNAUTHENTICATED, None), "404": (None, None), "500": (UNAVAILABLE, None),
    "503": (UNAVAILABLE, None),
}  # fmt: skip
"""What the server does → the type of the error (None: one of the upstream family), and whether the effect must be called unknown."""


@pytest.mark.parametrize("how", WAYS)
def test_a_server_that_answers_badly(shared_product, upstream, how):
    expected, effect = WAYS[how]
    era = ERAS[sorted(WAYS).index(how) % 2]
    client = connect(shared_product, era, f"/mcp/{upstream.slug}")
    mark = unique("mark")
    since = audit_mark(shared_product)
    answer = client.call("act", {"how": how, "mark": mark})
    assert answer.seconds < 6
    assert answer.type == expected or (expected is None and answer.type.startswith("upstream-"))
    assert answer.error["data"]["server"] == upstream.slug
    assert upstream.slug in json.dumps(answer.error)
    row = recorded(shared_product, "event_type = 'call.outcome' AND server = ?", upstream.slug, since=since)
    assert (row["outcome"], row["error_type"]) == ("failed", answer.type)
    assert row["details"]["sent"] is True
    # the request had left and nothing sure came back
    assert row["details"].get("effect") == "unknown" if effect else True
    intent = recorded(shared_product, "event_type = 'call.intent' AND call_id = ?", row["call_id"], since=since)
    assert intent["id"] < row["id"]
    # the initialize era reads a bare 404 as a lost session: it says that nothing was run
    assert len(upstream.calls(mark=mark)) == 1 or how == "404", "a call that may have had an effect was sent again"
    assert client.call("act", {"how": "ok"}).result["content"][0]["text"] == "done"
    assert_serves(shared_product, era)


@pytest.mark.parametrize("mark", ["json", "stream"])
@pytest.mark.parametrize("era", ERAS)
def test_a_result_keeps_the_spelling_of_its_server(shared_product, upstream, era, mark):
    answer = connect(shared_product, era, f"/mcp/{upstream.slug}").call("act", {"how": "spelled", "mark": mark})
    for member in (
        b'"text": "d\\u006fne \\/"', b'"long": 123456789012345678901234567890,', b'"exact": 0.12345678901234567890123,',
        b'"trailing": 1.50,', b'"exponent": 1E+2,', b'"minus": -0.0,', b'{"b": 1, "a": [18446744073709551616]}',
    ):  # fmt: skip
        # between eras the members are put together anew, each as it was
        assert member.rstrip(b",").partition(b": ")[2] in answer.body, (member, answer.body)
    assert answer.result["content"][0]["text"] == "done /"
    assert answer.result["long"] == 123456789012345678901234567890


@pytest.mark.parametrize("mark", ["result", "error"])
@pytest.mark.parametrize("era", ERAS)
def test_a_deep_answer_leaves_no_call_open(shared_product, upstream, era, mark):
    client, since = connect(shared_product, era, f"/mcp/{upstream.slug}"), audit_mark(shared_product)
    answer = client.call("act", {"how": "deep", "mark": mark})
    assert answer.status < 500 or answer.type.startswith("upstream-")
    intent = recorded(shared_product, "event_type = 'call.intent' AND server = ?", upstream.slug, since=since)
    recorded(shared_product, "event_type = 'call.outcome' AND call_id = ?", intent["call_id"], since=since)
    assert client.call("act", {"how": "ok"}).result


def test_long_numbers_reach_the_server_with_every_digit(shared_product, upstream):
    client, mark = connect(shared_product, "modern", f"/mcp/{upstream.slug}"), unique("mark")
    long = 123456789012345678901234567890
    assert client.call("act", {"how": "ok", "mark": mark, "x-long": long, "x-list": [-long]}).result
    assert upstream.calls(mark=mark)[0].arguments["x-long"] == long
    assert upstream.calls(mark=mark)[0].arguments["x-list"] == [-long]


@pytest.mark.parametrize("how", ["giant-declared", "giant-chunked", "giant-line", "giant-events", "giant-header"])
def test_a_server_that_answers_1_gb(shared_product, upstream, how):
    client = connect(shared_product, "modern", f"/mcp/{upstream.slug}")
    before = serving_memory(shared_product)
    since = audit_mark(shared_product)
    answer = client.call("act", {"how": how})
    assert answer.seconds < 6
    assert answer.type in (LARGE, PROTOCOL, TIMEOUT, DEAD)
    assert serving_memory(shared_product) - before < 100 * MB
    row = recorded(shared_product, "event_type = 'call.outcome' AND server = ?", upstream.slug, since=since)
    assert row["outcome"] == "failed"
    assert client.call("act", {"how": "ok"}).result
    assert_serves(shared_product)


@pytest.mark.parametrize("era", ERAS)
def test_a_slow_stream_that_comes_to_its_end_is_an_answer(shared_product, upstream, era):
    answer = connect(shared_product, era, f"/mcp/{upstream.slug}").call("act", {"how": "slow-stream"})
    assert answer.result["content"][0]["text"] == "done"


def test_others_are_served_while_one_hangs(shared_product, upstream):
    client = connect(shared_product, "modern", f"/mcp/{upstream.slug}")
    hanging = [threading.Thread(target=client.call, args=("act", {"how": "hang"})) for _ in range(16)]
    for thread in hanging:
        thread.start()
    eventually(lambda: len([one for one in upstream.calls(how="hang") if time.time() - one.at < 2.5]) >= 12, within=5)
    waits = []
    while any(thread.is_alive() for thread in hanging):
        began = time.monotonic()
        assert_serves(shared_product)
        waits.append(time.monotonic() - began)
    assert waits
    assert sorted(waits)[len(waits) // 2] < 0.5


@pytest.mark.parametrize("era", ERAS)
def test_a_server_that_refuses_connections_and_comes_back(shared_product, era):
    with Rogue() as server:
        slug = register(shared_product, server.url)
        client = connect(shared_product, era, f"/mcp/{slug}")
        assert client.call("act", {"how": "ok"}).result
        port = server.port
    since = audit_mark(shared_product)
    answer = client.call("act", {"how": "ok"})
    assert answer.type in (UNAVAILABLE, DEAD)
    assert answer.error["data"]["server"] == slug
    answer = client.call("act", {"how": "ok"})
    assert answer.type == UNAVAILABLE
    row = recorded(
        shared_product, "event_type = 'call.outcome' AND error_type = 'upstream-unavailable' AND server = ?", slug, since=since
    )
    assert row["details"]["sent"] is False
    assert "effect" not in row["details"]
    # lists are of the catalogue, not of the moment, and say so
    lacking = eventually(lambda: lacks(client), within=5)
    assert [(one["server"], one["state"], one["listed"]) for one in lacking] == [(slug, "unhealthy", True)]
    assert "act" in client.names()
    everywhere = connect(shared_product, era)
    assert f"{slug}__act" in everywhere.names()
    assert slug in [one["server"] for one in lacks(everywhere)]
    assert "system__calculate" in everywhere.names()
    with Rogue(port=port):
        eventually(lambda: "result" in client.call("act", {"how": "ok"}).json, within=5)
        eventually(lambda: not lacks(client), within=15)  # states are written every 5 s at most


def lacks(client):
    """Return what a list says is missing from it."""
    return client.ask("tools/list").result.get("_meta", {}).get("switchyard/missing", [])


def test_a_server_that_never_was_there_is_registered_with_its_state(shared_product):
    slug = unique("absent")
    made(
        rest(
            shared_product,
            "POST",
            "servers/",
            {"slug": slug, "transport": "http", "url": f"http://127.0.0.1:{refusing_port()}/mcp"},
        )
    )
    found = eventually(
        lambda: (one := made(rest(shared_product, "GET", f"servers/{slug}/")))["discovery_error"] and one, within=15
    )
    assert found["state"] in ("unhealthy", "degraded", "unknown")
    assert found["state"] == "unhealthy", found["endpoints"]
    client = connect(shared_product, "modern", f"/mcp/{slug}")
    assert client.call("act", {}).type == "not-found"
    lacking = eventually(lambda: [one for one in lacks(client) if one["state"] == "unhealthy"], within=5)
    assert (client.names(), [(one["server"], one["listed"]) for one in lacking]) == ([], [(slug, False)])


@pytest.mark.parametrize(("how", "state"), [("401", "unauthenticated"), ("abort", "unhealthy")])
def test_the_console_tells_how_a_server_is(shared_product, how, state):
    with Rogue() as server:
        slug = register(shared_product, server.url)
        client = connect(shared_product, "modern", f"/mcp/{slug}")
        assert client.call("act", {"how": "ok"}).result
        client.call("act", {"how": how})  # written at most every 5 s for one endpoint
        eventually(lambda: made(rest(shared_product, "GET", f"servers/{slug}/"))["state"] == state, within=12)
        client.call("act", {"how": "ok"})
        eventually(lambda: made(rest(shared_product, "GET", f"servers/{slug}/"))["state"] == "healthy", within=12)


# Programs

PEER = Path(__file__).with_name("rogue_stdio.py")


def register_stdio(product, *args, **settings):
    """Register the hostile program; returns its slug."""
    slug = unique("program")
    settings = {"transport": "stdio", "command": sys.executable, "args": [str(PEER), *args], "timeout_seconds": 2, **settings}
    made(rest(product, "POST", "servers/", {"slug": slug, **settings}))
    return slug


@pytest.fixture(scope="module")
def program(shared_product, tmp_path_factory):
    """The slug of a hostile program that lives through what it is asked for."""
    return await_program(shared_product, register_stdio(shared_product, str(tmp_path_factory.mktemp("program") / "ledger")))


def await_program(product, slug):
    """Wait until a program's tool may be called."""
    eventually(lambda: "act" in connect(product, "modern", f"/mcp/{slug}").names(), within=25)
    return slug


def test_a_result_of_a_program_keeps_its_spelling(shared_product, program):
    for era in ERAS:
        body = connect(shared_product, era, f"/mcp/{program}").call("act", {"how": "spelled"}).body
        for spelled in (b'"d\\u006fne"', b"123456789012345678901234567890", b"1.50"):
            assert spelled in body


def lines(ledger):
    return ledger.read_text().splitlines() if ledger.exists() else []


@pytest.mark.parametrize(
    ("how", "types"),
    [
        ("hang", {TIMEOUT}),
        ("exit", {DEAD}),
        ("kill", {DEAD}),
        ("rubbish", {TIMEOUT, PROTOCOL}),
        ("binary", {TIMEOUT, PROTOCOL}),
        ("giant", {LARGE, PROTOCOL, DEAD, TIMEOUT}),
        ("close-stdout", {DEAD, TIMEOUT}),
        ("wrong-id", {TIMEOUT, PROTOCOL}),
    ],
)
def test_a_program_that_answers_badly(shared_product, program, tmp_path, how, types):
    # one that dies has a program of its own: the pause before the next start grows with every death
    deadly = how in ("exit", "kill", "giant", "close-stdout")
    slug = await_program(shared_product, register_stdio(shared_product, str(tmp_path / "ledger"))) if deadly else program
    era = ERAS[len(how) % 2]
    client = connect(shared_product, era, f"/mcp/{slug}")
    before = serving_memory(shared_product)
    since = audit_mark(shared_product)
    answer = client.call("act", {"how": how})
    assert answer.seconds < 8
    assert answer.type in types
    assert answer.error["data"]["server"] == slug
    row = recorded(shared_product, "event_type = 'call.outcome' AND server = ?", slug, since=since)
    assert row["outcome"] == "failed"
    assert row["error_type"] == answer.type
    assert serving_memory(shared_product) - before < 60 * MB
    # it is started again, with a pause that grows
    eventually(lambda: "result" in (client.call("act", {"how": "ok"}).json or {}), within=15, every=0.2)
    assert_serves(shared_product)


def test_rubbish_beside_the_protocol_does_no_harm(shared_product, program):
    client = connect(shared_product, "legacy", f"/mcp/{program}")
    assert client.call("act", {"how": "chatter"}).result["content"][0]["text"] == "done"


def test_a_program_inherits_its_three_pipes_and_nothing_else(shared_product, program):
    client = connect(shared_product, "modern", f"/mcp/{program}")
    open_ = client.call("act", {"how": "descriptors"}).result["content"][0]["text"].split()
    # the fourth is the listing's own
    assert open_[:3] == ["0", "1", "2"]
    assert len(open_) == 4


def test_a_program_that_exits_at_once(shared_product):
    slug = unique("short")
    made(
        rest(
            shared_product,
            "POST",
            "servers/",
            {"slug": slug, "transport": "stdio", "command": sys.executable, "args": ["-c", "print('hello')"]},
        )
    )
    found = eventually(
        lambda: (one := made(rest(shared_product, "GET", f"servers/{slug}/")))["discovery_error"] and one, within=20
    )
    assert found["state"] == "unhealthy"
    assert_serves(shared_product)


def test_a_program_that_is_not_there(shared_product):
    slug = unique("missing")
    made(rest(shared_product, "POST", "servers/", {"slug": slug, "transport": "stdio", "command": "/nonexistent/program"}))
    found = eventually(
        lambda: (one := made(rest(shared_product, "GET", f"servers/{slug}/")))["discovery_error"] and one, within=20
    )
    assert found["state"] == "unhealthy"


def test_a_stubborn_program_and_its_children_end_with_its_server(shared_product, tmp_path):
    ledger = tmp_path / "ledger"
    slug = register_stdio(shared_product, str(ledger), "stubborn")
    client = connect(shared_product, "modern", f"/mcp/{slug}")
    eventually(lambda: "act" in client.names(), within=25)
    assert client.call("act", {"how": "fork"}).result
    pids = [int(line.split()[1]) for line in lines(ledger) if line.startswith("pid")]
    running = [pid for pid in pids if psutil.pid_exists(pid)]
    assert len(running) >= 2, "the program and its child run"
    made(rest(shared_product, "DELETE", f"servers/{slug}/"))
    eventually(lambda: not [pid for pid in running if _runs(pid)], within=12, because=f"still there: {running}")
    assert_serves(shared_product)


def _runs(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
