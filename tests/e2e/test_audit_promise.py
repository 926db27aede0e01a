"""Nothing runs unrecorded: intent before effect, outcome before answer, 503 when the log cannot be written, and it heals by itself."""

import contextlib
import json
import resource
import sqlite3
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from tests import services
from tests.e2e.raw import Wire
from tests.e2e.rogue import Rogue
from tests.e2e.support import (
    ERAS,
    Client,
    assert_serves,
    audit_mark,
    audit_rows,
    connect,
    exchange,
    made,
    recorded,
    rest,
    unique,
)
from tests.engines import Postgres, Valkey
from tests.product import ROOT, Product
from tests.support import eventually


def register(product, server, slug=""):
    """Register a hostile server; returns its slug once its tool may be called."""
    slug = slug or unique("promise")
    made(rest(product, "POST", "servers/", {"slug": slug, "transport": "http", "url": server.url, "timeout_seconds": 5}))
    eventually(lambda: "act" in connect(product, "modern", f"/mcp/{slug}").names(), within=20)
    return slug


@pytest.fixture(scope="module")
def slug(shared_product, rogue):
    """The hostile server's slug on the shared product."""
    return register(shared_product, rogue)


def of_mark(rows, mark):
    """Return the rows that name a mark among their arguments."""
    return [row for row in rows if mark in json.dumps(row["details"])]


@pytest.mark.parametrize("door", [*ERAS, "rest"])
def test_the_intent_is_committed_before_the_server_sees_the_call(shared_product, rogue, slug, door):
    mark = unique("mark")
    seen = []
    since = audit_mark(shared_product)

    def look(arrival):
        if arrival.arguments.get("mark") == mark:
            seen.append(of_mark(audit_rows(shared_product, "server = ?", slug, since=since), mark))

    rogue.on_call = look
    try:
        arguments = {"how": "ok", "mark": mark}
        if door == "rest":
            report = made(rest(shared_product, "POST", f"tools/{slug}__act/call/", {"arguments": arguments}))
            assert report["ok"]
        else:
            assert connect(shared_product, door, f"/mcp/{slug}").call("act", arguments).result
    finally:
        rogue.on_call = None
    # and the outcome stands when the answer is read: no waiting here
    rows = audit_rows(shared_product, "server = ? AND event_type = 'call.outcome'", slug, since=since)
    assert [[row["event_type"] for row in rows] for rows in seen] == [["call.intent"]]
    (intent,) = seen[0]
    (outcome,) = [row for row in rows if row["call_id"] == intent["call_id"]]
    assert outcome["outcome"] == "ok"
    assert intent["id"] < outcome["id"]
    for row in (intent, outcome):
        assert (row["server"], row["tool"], row["action"]) == (slug, "act", "tool.call")
        assert row["actor_id"]
        assert row["tenant"]


def test_many_calls_at_once_have_each_its_rows_in_order(shared_product, rogue, slug):
    since = audit_mark(shared_product)
    marks = [unique("many") for _ in range(60)]
    early = []

    def look(arrival):
        mark = arrival.arguments.get("mark")
        if mark in marks and not of_mark(
            audit_rows(shared_product, "event_type = 'call.intent' AND server = ?", slug, since=since), mark
        ):
            early.append(mark)

    def run(some):
        client = connect(shared_product, "modern", f"/mcp/{slug}")
        for mark in some:
            assert client.call("act", {"how": "ok", "mark": mark}).result

    rogue.on_call = look
    try:
        threads = [threading.Thread(target=run, args=(marks[place::6],)) for place in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        rogue.on_call = None
    assert early == []
    rows = audit_rows(shared_product, "server = ?", slug, since=since)
    intents = {row["call_id"] for row in rows if row["event_type"] == "call.intent"}
    outcomes = {row["call_id"] for row in rows if row["event_type"] == "call.outcome" and row["outcome"] == "ok"}
    assert len(intents) == len(marks)
    assert intents == outcomes


@pytest.mark.parametrize("era", ERAS)
def test_a_refusal_is_a_row_that_names_the_rule(shared_product, rogue, slug, era):
    key = made(rest(shared_product, "POST", "api-keys/", {"name": unique("no-grants")}))
    mark = unique("mark")
    since = audit_mark(shared_product)
    answer = connect(shared_product, era, f"/mcp/{slug}", key["key"]).call("act", {"how": "ok", "mark": mark})
    assert answer.type == "permission-denied"
    assert answer.error["data"]["rule"] == "default-deny"
    rows = of_mark(audit_rows(shared_product, "event_type = 'call.refused'", since=since), mark)
    assert [(row["outcome"], row["error_type"], row["details"]["rule"]) for row in rows] == [
        ("refused", "permission-denied", "default-deny")
    ]
    assert rogue.calls(mark=mark) == []


# A client that leaves


def leave_during(product, slug, era, how, mark):
    """Start a call on a connection and return that connection once the server has the call."""
    client = connect(product, era, f"/mcp/{slug}")
    body = client.message("tools/call", {"name": "act", "arguments": {"how": how, "mark": mark}})
    raw = json.dumps(body).encode()
    wire = Wire(product)
    wire.send(wire.head("POST", f"/mcp/{slug}", {**client.headers(body), "Content-Length": str(len(raw))}) + raw)
    return client, body["id"], wire


def test_a_modern_client_that_leaves_cancels(shared_product, rogue, slug):
    mark = unique("mark")
    since = audit_mark(shared_product)
    _, _, wire = leave_during(shared_product, slug, "modern", "hang", mark)
    with wire:
        eventually(lambda: rogue.calls(mark=mark))
    row = recorded(shared_product, "event_type = 'call.outcome' AND outcome = 'cancelled' AND server = ?", slug, since=since)
    assert of_mark(audit_rows(shared_product, "event_type = 'call.intent' AND call_id = ?", row["call_id"]), mark)
    eventually(lambda: rogue.calls(mark=mark)[0].left, because="the server was not told")
    assert_serves(shared_product)


def test_a_legacy_client_that_leaves_does_not_cancel(shared_product, rogue, slug):
    mark = unique("mark")
    since = audit_mark(shared_product)
    _, _, wire = leave_during(shared_product, slug, "legacy", "slow", mark)
    with wire:
        eventually(lambda: rogue.calls(mark=mark))
    row = recorded(shared_product, "event_type = 'call.outcome' AND outcome = 'ok' AND server = ?", slug, since=since)
    assert of_mark(audit_rows(shared_product, "event_type = 'call.intent' AND call_id = ?", row["call_id"]), mark)
    assert not rogue.calls(mark=mark)[0].left


def test_a_legacy_client_cancels_by_a_notification(shared_product, rogue, slug):
    mark = unique("mark")
    since = audit_mark(shared_product)
    client, id, wire = leave_during(shared_product, slug, "legacy", "hang", mark)
    with wire:
        eventually(lambda: rogue.calls(mark=mark))
        # somebody else's notification with the same id does nothing
        other = connect(shared_product, "legacy", f"/mcp/{slug}")
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}
        assert other.send(cancel).status == 202
        time.sleep(0.1)
        assert audit_rows(shared_product, "outcome = 'cancelled' AND server = ?", slug, since=since) == []
        assert client.send(cancel).status == 202
        recorded(shared_product, "event_type = 'call.outcome' AND outcome = 'cancelled' AND server = ?", slug, since=since)
        wire.answer()
    eventually(lambda: rogue.calls(mark=mark)[0].left, because="the server was not told")


# A log that cannot be written


def assert_refuses_calls(product, slug, rogue):
    """Require 503 for calls of both eras within 3 s, that the server sees nothing, and that lists are served."""
    for era in ERAS:
        client = Client(product, era, f"/mcp/{slug}")
        mark = unique("dark")
        answer = client.call("act", {"how": "ok", "mark": mark})
        assert answer.status == 503, answer.body[:300]
        assert answer.type == "audit-unavailable"
        assert answer.seconds < 4
        assert rogue.calls(mark=mark) == []
        assert client.names() == ["act"]
    answer = rest(product, "POST", f"tools/{slug}__act/call/", {"arguments": {"how": "ok", "mark": "dark-rest"}})
    assert answer.status in (200, 503)
    assert answer.status == 503 or answer.json["error"]["data"]["type"].endswith("audit-unavailable")
    assert rogue.calls(mark="dark-rest") == []
    assert exchange(product, "GET", "/health/ready").status == 503
    assert exchange(product, "GET", "/health/live").status == 200


def assert_heals(product, slug):
    """Require that calls work again by themselves."""
    client = Client(product, "modern", f"/mcp/{slug}")
    eventually(lambda: client.call("act", {"how": "ok"}).status == 200, within=10, every=0.1)
    eventually(lambda: exchange(product, "GET", "/health/ready").status == 200, within=10)
    verified = subprocess.run(
        [sys.executable, "manage.py", "audit", "verify"],
        cwd=ROOT,
        env=product.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.fixture(scope="module")
def dark(start_for_module, rogue):
    """A product of this module's own on the database of the pass, with a hostile server."""
    product = start_for_module(services.DATABASE)
    product.slug = register(product, rogue)
    return product


@contextlib.contextmanager
def full_disk(product):
    """Let no file of the serving process grow: what a full disk does."""
    serving = [one for one in product.processes() if "run_process" in " ".join(one.cmdline())]
    before = {one.pid: resource.prlimit(one.pid, resource.RLIMIT_FSIZE) for one in serving}
    for pid in before:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[pid][1]))
    try:
        yield
    finally:
        for pid, limit in before.items():
            resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


@contextlib.contextmanager
def locked_log(product):
    """Hold the log's write lock, as a program that copies the file badly would."""
    connection = sqlite3.connect(product.home / "audit.sqlite3", isolation_level=None, timeout=20, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@contextlib.contextmanager
def insert_revoked(product):
    """Take the right to write the log away."""
    with psycopg.connect(product.environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit_event, audit_chain FROM switchyard")
        try:
            yield
        finally:
            connection.execute("GRANT INSERT ON audit_event, audit_chain TO switchyard")


@contextlib.contextmanager
def locked_table(product):
    """Hold a lock on the log's table that no insert passes."""
    with psycopg.connect(product.environment["DATABASE_URL"]) as connection:
        connection.execute("LOCK TABLE audit_event IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


FAULTS = [full_disk, locked_log] if services.DATABASE == "sqlite" else [insert_revoked, locked_table]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_a_log_that_cannot_be_written_stops_calls_and_nothing_else(dark, rogue, fault):
    with fault(dark):
        eventually(lambda: Client(dark, "modern", f"/mcp/{dark.slug}").call("act", {"how": "ok"}).status == 503, within=10)
        assert_refuses_calls(dark, dark.slug, rogue)
    assert_heals(dark, dark.slug)


def test_an_outcome_that_cannot_be_written_withholds_the_answer(dark, rogue):
    fault = FAULTS[-1]
    mark = unique("mark")
    client = connect(dark, "modern", f"/mcp/{dark.slug}")
    since = audit_mark(dark)
    holding = contextlib.ExitStack()

    def strike(arrival):
        if arrival.arguments.get("mark") == mark:
            holding.enter_context(fault(dark))

    rogue.on_call = strike
    try:
        answer = client.call("act", {"how": "ok", "mark": mark})
    finally:
        rogue.on_call = None
        holding.close()
    assert len(rogue.calls(mark=mark)) == 1
    assert answer.status == 503
    assert answer.type == "audit-unavailable"
    assert "outcome" in answer.error["message"]
    assert_heals(dark, dark.slug)
    call_id = answer.error["data"]["call_id"]
    # what happened is a fact, so it is written as soon as that is possible
    row = recorded(dark, "event_type = 'call.outcome' AND call_id = ?", call_id, since=since)
    assert row["outcome"] in ("ok", "unknown")


@pytest.mark.once
@pytest.mark.slow
def test_postgresql_that_goes_away_and_comes_back(tmp_path):
    with Postgres() as engine, Valkey() as store, Rogue() as server:
        product = Product(tmp_path / "home", database_url=engine.create("away"), redis_url=store.url())
        try:
            product.start()
            slug = register(product, server)
            engine.process.send_signal(engine.stop_signal)
            engine.process.wait(20)
            eventually(lambda: Client(product, "modern", f"/mcp/{slug}").call("act", {"how": "ok"}).status == 503, within=15)
            for era in ERAS:
                client = Client(product, era, f"/mcp/{slug}")
                mark = unique("away")
                answer = client.call("act", {"how": "ok", "mark": mark})
                assert (answer.status, answer.type) == (503, "audit-unavailable")
                assert server.calls(mark=mark) == []
                assert client.names() == ["act"]
            assert exchange(product, "GET", "/health/ready").status == 503
            engine.process = subprocess.Popen(
                engine.process.args, cwd=engine.directory / "run", env={"LC_ALL": "C", "TZ": "UTC"}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, **engine._owner,
            )  # fmt: skip
            client = Client(product, "modern", f"/mcp/{slug}")
            eventually(lambda: client.call("act", {"how": "ok"}).status == 200, within=30, every=0.2)
            eventually(lambda: exchange(product, "GET", "/health/ready").status == 200, within=15)
            product.stop()
        finally:
            product.destroy()
