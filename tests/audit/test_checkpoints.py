"""Signed checkpoints: made once, delivered in order to real places, and what they show of a log that was set back."""

import base64
import io
import json
import socket
import socketserver
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from apps.audit.checkpointing import CheckpointThread
from apps.audit.checkpoints.document import FIRST, Checkpoint, NoCheckpoint, genuine, read, sign
from apps.audit.checkpoints.keys import CheckpointKeys, new_checkpoint_key
from apps.audit.checkpoints.target import AwsCredentials, TargetFailed
from apps.audit.checkpoints.targets import parse_targets
from apps.audit.models import AuditCheckpoint, CheckpointState, CheckpointTarget
from apps.audit.services.checkpoints import configured_keys, deliver, make_checkpoint, overview, prune_checkpoints
from apps.audit.services.verify import check_log
from apps.audit.sink.config import SinkConfig
from apps.common.clock import now
from apps.common.models import OutboxEvent
from tests.audit import logs
from tests.audit.test_verify import Tamper
from tests.support import eventually, free_port


def made() -> Checkpoint:
    """A checkpoint of the log as it is."""
    found = make_checkpoint(configured_keys())
    assert found is not None
    return found


def an_example(keys: CheckpointKeys | None = None, **changes: Any) -> Checkpoint:
    """A checkpoint of no log."""
    facts = {"installation": "i", "number": 1, "time": "2026-01-01T00:00:00Z", "previous": FIRST, "heads": [(0, 3, "ab" * 32)]}
    return sign(keys or CheckpointKeys.parse(new_checkpoint_key()), **{**facts, **changes})


# Form and keys


@pytest.mark.once
def test_a_document_goes_both_ways_and_its_signature_holds_for_it_alone() -> None:
    keys = CheckpointKeys.parse(new_checkpoint_key())
    one = an_example(keys)
    assert read(one.line.decode()) == one
    assert read(f"<109>1 2026-01-01T00:00:00Z host switchyard 7 checkpoint - {one.line.decode()}\n") == one
    assert genuine(one, keys)
    for changed in ({"number": 2}, {"time": "2026-01-02T00:00:00Z"}, {"heads": ((0, 4, "ab" * 32),)}, {"previous": "1" * 64},
                    {"installation": "j"}, {"key": "0" * 16}, {"signature": "AAAA"}):  # fmt: skip
        assert not genuine(replace(one, **changed), keys), changed


@pytest.mark.once
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", 'x{"kind":1}', '{"kind":"switchyard-audit-checkpoint","form":1}', "{" * 5000]
)
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(NoCheckpoint):
        read(text)


@pytest.mark.once
def test_keys_rotate_and_an_old_one_goes_on_to_verify_by_its_public_half() -> None:
    old_text, new_text = new_checkpoint_key(), new_checkpoint_key()
    old = CheckpointKeys.parse(old_text)
    signed = an_example(old)
    both = CheckpointKeys.parse(f"{new_text},{old_text}")
    half = CheckpointKeys.parse(f"{new_text}\npublic:{old.published[old.newest]}")
    for keys in (both, half, CheckpointKeys.trusting(old.published.values())):
        assert genuine(signed, keys)
        assert keys.newest != old.newest
    assert list(both.published) == list(half.published) == [both.newest, old.newest]
    assert not genuine(signed, CheckpointKeys.parse(new_text))


@pytest.mark.once
@pytest.mark.parametrize("text", ["", "k1:AAAA", "public:" + "A" * 43, "A" * 42, "ä" * 43])
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="key"):
        CheckpointKeys.parse(text)


@pytest.mark.once
@pytest.mark.parametrize(
    "text",
    ["ftp://x", "file://", "/var/log/x", "syslog://", "syslog://h:99999", "https://user:secret@h/", "http://example.org/x",
     "s3://bucket", "s3://bucket/p?region=x&acl=y", "file://other-host/x"],
)  # fmt: skip
def test_places_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"use |twice|hold a user|missing|not an address") as told:
        parse_targets([text], AwsCredentials("a", "b"))
    assert "secret" not in str(told.value)


# Made once


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_one_makes_it(log: SinkConfig) -> None:
    logs.write(log, [logs.note()])
    found: list[Checkpoint] = []
    start = threading.Barrier(6)

    def one() -> None:
        start.wait()
        try:
            checkpoint = make_checkpoint(configured_keys(), older_than=30)
            if checkpoint is not None:
                found.append(checkpoint)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert CheckpointState.objects.get().number == 1
    assert make_checkpoint(configured_keys(), older_than=30) is None
    following = made()
    assert (following.number, following.previous) == (2, found[0].digest)
    assert following.heads[0][:2] == (0, 1)


# Places


class Collector:
    """Keeps what arrives somewhere, as lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def numbers(self) -> list[int]:
        """The numbers of the checkpoints, in the order of their arrival."""
        return [read(line).number for line in self.lines]


@contextmanager
def syslog_server(kind: str, port: int = 0) -> Iterator[tuple[int, Collector]]:
    """A syslog server on a real socket."""
    collector = Collector()

    class Datagram(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            collector.lines.append(self.request[0].decode())

    class Stream(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            length = b""
            while (sign_ := self.rfile.read(1)) not in (b" ", b""):
                length += sign_
            collector.lines.append(self.rfile.read(int(length)).decode())

    socketserver.TCPServer.allow_reuse_address = True
    server = (
        socketserver.UDPServer(("127.0.0.1", port), Datagram)
        if kind == "syslog"
        else socketserver.TCPServer(("127.0.0.1", port), Stream)
    )
    server.max_packet_size = 65_535
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1], collector
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def webhook_server(answers: list[int] | None = None) -> Iterator[tuple[int, Collector]]:
    """A webhook; `answers` are the status codes to give first."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            status = answers.pop(0) if answers else 204
            if status < 300:
                assert self.headers["Switchyard-Checkpoint"] == str(read(body).number)
                collector.lines.append(body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1], collector
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.once
@pytest.mark.parametrize("kind", ["syslog", "syslog+tcp"])
def test_syslog_gets_it_as_rfc_5424_says(kind: str) -> None:
    with syslog_server(kind) as (port, collector):
        (target,) = parse_targets([f"{kind}://127.0.0.1:{port}"])
        sent = an_example()
        target.send(sent)
        (line,) = eventually(lambda: collector.lines)
    head = line.split(" ", 7)
    assert (head[0], head[1], head[3], head[5], head[6]) == ("<109>1", sent.time, "switchyard", "checkpoint", "-")
    assert read(line) == sent


@pytest.mark.once
def test_a_webhook_that_refuses_has_not_taken_it() -> None:
    with webhook_server([500]) as (port, collector):
        (target,) = parse_targets([f"http://127.0.0.1:{port}/take?token=secret"])
        assert "secret" not in target.name
        with pytest.raises(TargetFailed, match="answered 500"):
            target.send(an_example())
        target.send(an_example())
        assert collector.numbers() == [1]


@pytest.mark.once
def test_a_file_is_appended_to_and_a_torn_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jsonl"
    (target,) = parse_targets([f"file://{path}"])
    target.send(an_example())
    with path.open("ab") as file:
        file.write(b'{"kind":"switch')
    target.send(an_example(number=2))
    lines = path.read_text().splitlines()
    assert [read(lines[0]).number, read(lines[2]).number] == [1, 2]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TargetFailed):
        parse_targets([f"file://{tmp_path}/nowhere/x"])[0].send(an_example())


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, AwsCredentials, Any]]:
    """A bucket at a server that speaks S3 and checks signatures, and a client of the maker's to read it with."""
    import boto3
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    at = f"http://127.0.0.1:{port}"
    root = {"endpoint_url": at, "region_name": "eu-central-1", "aws_access_key_id": "root", "aws_secret_access_key": "root"}
    iam = boto3.client("iam", **root)
    iam.create_user(UserName="switchyard")
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    iam.put_user_policy(UserName="switchyard", PolicyName="all", PolicyDocument=json.dumps(everything))
    made_key = iam.create_access_key(UserName="switchyard")["AccessKey"]
    key = AwsCredentials(made_key["AccessKeyId"], made_key["SecretAccessKey"])
    client = boto3.client("s3", **{**root, "aws_access_key_id": key.access_key, "aws_secret_access_key": key.secret_key})
    client.create_bucket(Bucket="evidence", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    urllib.request.urlopen(
        urllib.request.Request(f"{at}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
    )
    try:
        yield f"s3://evidence/audit%20log/one?region=eu-central-1&endpoint={at}", key, client
    finally:
        server.stop()


@pytest.mark.once
def test_s3_takes_objects_that_take_nobodys_place_and_checks_their_signature(bucket: Any) -> None:
    url, key, client = bucket
    (target,) = parse_targets([url.replace("%20", "+")], key)
    one, other = an_example(), an_example()
    for checkpoint in (one, one, other):
        target.send(checkpoint)
    found = client.list_objects_v2(Bucket="evidence")["Contents"]
    assert len(found) == 2
    bodies = {client.get_object(Bucket="evidence", Key=item["Key"])["Body"].read().strip() for item in found}
    assert bodies == {one.line, other.line}
    (stranger,) = parse_targets([url], replace(key, secret_key="x" * 40))
    with pytest.raises(TargetFailed, match="403"):
        stranger.send(one)


# Delivery


@pytest.mark.django_db(transaction=True)
def test_a_place_that_is_away_gets_everything_in_order_when_it_is_back(log: SinkConfig) -> None:
    port = free_port()
    targets = parse_targets([f"syslog+tcp://127.0.0.1:{port}"])
    made()
    assert deliver(targets, "me", at_once=True) == 0
    made()
    row = CheckpointTarget.objects.get()
    assert row.delivered == 0
    assert row.failures == 1
    assert row.error
    assert deliver(targets, "me") == 0, "it waits before it tries again"
    assert CheckpointTarget.objects.get().failures == 1
    made()
    with syslog_server("syslog+tcp", port) as (_, collector):
        assert deliver(targets, "me", at_once=True) == 3
        assert eventually(lambda: collector.numbers() == [1, 2, 3])
        made()
        assert deliver(targets, "me") == 1
        assert eventually(lambda: collector.numbers() == [1, 2, 3, 4])
    row = CheckpointTarget.objects.get()
    assert (row.failures, row.error, row.failing_since, row.delivered) == (0, "", None, 4)


@pytest.mark.django_db(transaction=True)
def test_one_process_delivers_at_a_time_and_a_dead_ones_turn_ends(log: SinkConfig, tmp_path: Path) -> None:
    targets = parse_targets([f"file://{tmp_path}/c"])
    made()
    deliver(targets, "a")
    made()
    CheckpointTarget.objects.update(holder="a", held_until=now() + timedelta(seconds=30))
    assert deliver(targets, "b") == 0
    CheckpointTarget.objects.update(held_until=now() - timedelta(seconds=1))
    assert deliver(targets, "b") == 1
    assert [read(line).number for line in (tmp_path / "c").read_text().splitlines()] == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_the_thread_makes_delivers_and_signs_once_more_at_the_end(log: SinkConfig, tmp_path: Path, settings: Any) -> None:
    settings.SWITCHYARD = replace(
        settings.SWITCHYARD,
        checkpoints=[f"file://{tmp_path}/c", f"syslog+tcp://127.0.0.1:{free_port()}"],
        checkpoint_seconds=1.0,
    )
    thread = CheckpointThread()
    thread.start()
    try:
        eventually(lambda: (tmp_path / "c").exists() and len((tmp_path / "c").read_text().splitlines()) >= 2)
        assert eventually(lambda: "has not taken" in thread.degraded)
        logs.write(log, [logs.note(), logs.note()])
    finally:
        thread.stop()
    last = read((tmp_path / "c").read_text().splitlines()[-1])
    assert last.heads[0][:2] == (0, 2)
    assert check_log(checkpoints=(tmp_path / "c").read_text().splitlines()).ok
    assert overview().degraded


@pytest.mark.django_db(transaction=True)
def test_a_place_that_hangs_holds_nothing_up(log: SinkConfig, settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/take"
        settings.SWITCHYARD = replace(settings.SWITCHYARD, checkpoints=[address], checkpoint_seconds=1.0)
        thread = CheckpointThread()
        thread.start()
        try:
            assert eventually(lambda: CheckpointTarget.objects.filter(name=address).exclude(holder="").exists())
            assert logs.write(log, [logs.note()]) == [1], "the log is written while it hangs"
        finally:
            started = time.monotonic()
            thread.stop()
        assert time.monotonic() - started < 6
    thread.join()
    assert eventually(lambda: CheckpointTarget.objects.get().failures >= 1)


@pytest.mark.django_db(transaction=True)
def test_old_checkpoints_go_and_a_place_that_never_got_them_is_named(log: SinkConfig, settings: Any) -> None:
    settings.SWITCHYARD = replace(settings.SWITCHYARD, checkpoints=["syslog+tcp://127.0.0.1:1"])
    made()
    made()
    AuditCheckpoint.objects.filter(number=1).update(time=now() - timedelta(days=31))
    CheckpointTarget.objects.create(name="syslog+tcp://127.0.0.1:1", delivered=0)
    assert prune_checkpoints() == 1
    assert list(AuditCheckpoint.objects.values_list("number", flat=True)) == [2]
    payload = OutboxEvent.objects.get(topic="audit").payload
    assert payload["event_type"] == "audit.checkpoints_dropped"
    assert payload["details"] == {"target": "syslog+tcp://127.0.0.1:1", "from": 1, "to": 1}


# What they show


@pytest.fixture
def kept(log: SinkConfig) -> tuple[SinkConfig, list[Checkpoint]]:
    """A log of ten rows with a checkpoint after each second one."""
    checkpoints = []
    for number in range(5):
        logs.write(log, [logs.note(object=f"thing {number}"), logs.note()])
        checkpoints.append(made())
    return log, checkpoints


def lines(checkpoints: list[Checkpoint]) -> list[str]:
    """Their lines, as a file has them."""
    return [checkpoint.line.decode() for checkpoint in checkpoints]


def cut(to: int, *, forget: bool = True) -> None:
    """Cut the tail together with the head, as somebody who owns the database could; and our own checkpoints with it."""
    tamper = Tamper()
    with logs.unguarded(tamper.connection):
        for table in ("audit_event", "audit_chain"):
            tamper.run(f"DELETE FROM {table} WHERE id > %s", to)
        tamper.run(
            "UPDATE audit_head SET seq = %s, digest = coalesce((SELECT digest FROM audit_chain WHERE id = %s), %s)",
            to,
            to,
            bytes(32),
        )
    if forget:
        AuditCheckpoint.objects.all().delete()


def test_a_whole_log_agrees(kept: Any) -> None:
    _, checkpoints = kept
    for text in (
        lines(checkpoints),
        lines(checkpoints)[::-1],
        [*lines(checkpoints), *lines(checkpoints)],
        ["junk", *lines(checkpoints)],
    ):
        report = check_log(checkpoints=text)
        assert report.ok, report.problems
        assert report.checkpoints is not None
        assert (report.checkpoints["read"], report.checkpoints["last"]) == (5, 5)


def test_a_cut_tail_is_found_with_its_head_gone_too(kept: Any) -> None:
    _, checkpoints = kept
    cut(7)
    assert check_log().ok, "nothing on this machine shows it"
    report = check_log(checkpoints=lines(checkpoints))
    assert report.first_bad == "0-8"
    assert "cut off" in report.what


def test_our_own_checkpoints_show_a_cut_tail_as_well(kept: Any) -> None:
    cut(7, forget=False)
    report = check_log(columns=False)
    assert report.first_bad == "0-8"
    assert "checkpoint 5" in report.what


def test_an_old_copy_that_went_on_is_found(kept: Any) -> None:
    log, checkpoints = kept
    cut(6)
    CheckpointState.objects.update(number=3, digest=checkpoints[2].digest)
    logs.write(log, [logs.note(object="another history") for _ in range(6)])
    report = check_log(checkpoints=lines(checkpoints))
    assert "0-8" in {problem.event_id for problem in report.problems}, report.problems
    assert any("older copy" in problem.what for problem in report.problems)
    following = made()
    assert following.number == 4
    report = check_log(checkpoints=[*lines(checkpoints), following.line.decode()])
    assert any("two different checkpoints" in problem.what for problem in report.problems)


def test_a_stretch_that_was_written_anew_is_found(kept: Any) -> None:
    log, checkpoints = kept
    cut(5)
    logs.write(log, [logs.note(object="forged") for _ in range(5)])
    report = check_log(checkpoints=lines(checkpoints))
    assert report.first_bad == "0-6"
    assert "checkpoint 3" in report.what


def test_a_log_made_anew_is_found(kept: Any) -> None:
    _, checkpoints = kept
    cut(0)
    CheckpointState.objects.all().delete()
    report = check_log(checkpoints=lines(checkpoints))
    assert any("another log" in problem.what for problem in report.problems)
    assert "0-1" in {problem.event_id for problem in report.problems}


def test_a_foreign_signature_is_found_here_and_there(kept: Any) -> None:
    _, checkpoints = kept
    forged = an_example(installation=checkpoints[0].installation, number=6, previous=checkpoints[-1].digest)
    altered = lines(checkpoints)[1].replace('"number":2', '"number":7')
    report = check_log(checkpoints=[*lines(checkpoints), forged.line.decode(), altered])
    assert {problem.event_id for problem in report.problems} == {"checkpoint 6", "checkpoint 7"}
    assert all("signature" in problem.what for problem in report.problems)
    AuditCheckpoint.objects.create(number=6, time=now(), key=forged.key, line=forged.line.decode())
    assert not check_log().ok
    stranger = CheckpointKeys.trusting([next(iter(CheckpointKeys.parse(new_checkpoint_key()).published.values()))])
    assert len(check_log(checkpoints=lines(checkpoints), keys=stranger).problems) >= 5


def test_a_replaced_and_a_missing_checkpoint_are_found(kept: Any) -> None:
    _, checkpoints = kept
    other = sign(
        configured_keys(), installation=checkpoints[1].installation, number=2, time=checkpoints[1].time,
        previous=checkpoints[0].digest, heads=checkpoints[0].heads,
    )  # fmt: skip
    replaced = check_log(checkpoints=lines([checkpoints[0], other, *checkpoints[2:]]))
    assert [problem.event_id for problem in replaced.problems] == ["checkpoint 3"]
    assert "replaced" in replaced.problems[0].what
    missing = check_log(checkpoints=lines([checkpoints[0], *checkpoints[3:]]))
    assert [(problem.event_id, problem.what) for problem in missing.problems] == [
        ("checkpoint 2", "checkpoints 2 to 3 are missing")
    ]
    assert not check_log(checkpoints=[]).ok, "an empty file proves nothing"


def run(*words: str) -> str:
    """What the command says."""
    out = io.StringIO()
    call_command("audit", *words, stdout=out)
    return out.getvalue()


def test_the_command_line_reads_files_directories_and_standard_input(kept: Any, tmp_path: Path, monkeypatch: Any) -> None:
    _, checkpoints = kept
    for number, line in enumerate(lines(checkpoints)):
        (tmp_path / f"{number}.json").write_text(line + "\n")
    (tmp_path / "all").write_text("\n".join(lines(checkpoints)))
    said = run("verify", "--checkpoints", str(tmp_path))
    assert "compared: stored bytes and columns" in said
    assert "signed checkpoints: 5, to 5" in said
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines(checkpoints))))
    name, public = run("keys").split()
    assert name == checkpoints[0].key
    assert len(base64.urlsafe_b64decode(public + "=")) == 32
    report = json.loads(run("verify", "--fast", "--checkpoints", "-", "--public-key", public, "--json"))
    assert (report["ok"], report["columns"], report["checkpoints"]["read"]) == (True, False, 5)
    with pytest.raises(CommandError, match="cannot be read"):
        run("verify", "--checkpoints", str(tmp_path / "nothing"))
    with pytest.raises(CommandError, match="public key"):
        run("verify", "--public-key", "x")
    cut(7)
    with pytest.raises(SystemExit):
        run("verify", "--checkpoints", str(tmp_path / "all"))


def test_the_command_line_shows_how_they_stand(log: SinkConfig, tmp_path: Path, settings: Any) -> None:
    assert "kept in the database alone" in run("checkpoints", "--make")
    settings.SWITCHYARD = replace(settings.SWITCHYARD, checkpoints=[f"file://{tmp_path}/c"])
    assert f"{tmp_path}/c: has up to 2, 0 to deliver" in run("checkpoints", "--make")
    settings.SWITCHYARD = replace(settings.SWITCHYARD, checkpoints=[f"file://{tmp_path}/no/c"])
    with pytest.raises(SystemExit):
        run("checkpoints", "--make")
    with pytest.raises(SystemExit):
        json.loads(run("checkpoints", "--json"))
