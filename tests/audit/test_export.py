"""Exports: every form, harmless cells, flat memory, what is noted, and nobody else's rows."""

import csv
import io
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.formats import FORMATS
from apps.audit.formats.csvtext import COLUMNS, csv_line, harmless
from apps.audit.formats.ocsf import class_of, ocsf
from apps.audit.models import AuditEvent
from apps.audit.services import export as service
from apps.audit.services.export import Export
from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import AuditRecord, encode
from apps.common import authorise
from apps.common.context import SYSTEM, Actor, every_tenant, tenant_scope
from apps.common.errors import Overloaded, PermissionDenied, ValidationFailed
from apps.common.models import OutboxEvent
from apps.common.policy import Principal
from tests.audit import logs

TENANT, OTHER = "0193b1f2-aaaa-7bbb-8ccc-1234567890ab", "0193b1f2-aaaa-7bbb-8ccc-1234567890ac"
ANN = Actor(kind="user", id="u", label="ann", origin="rest")


def told() -> list[dict]:
    """What was noted, oldest first."""
    return [row.payload for row in OutboxEvent.objects.filter(topic="audit").order_by("id")]


def take(name: str, **filters) -> bytes:
    """The whole file."""
    return b"".join(Export(name, filters).chunks())


@pytest.fixture
def filled(log: SinkConfig) -> SinkConfig:
    """Calls of two tenants, a change, a sign-in."""
    logs.write(
        log,
        [
            logs.intent("c1", tenant=TENANT), logs.outcome("c1", tenant=TENANT), logs.intent("c2", tenant=OTHER, tool="=cmd"),
            logs.note("server.updated", tenant=TENANT, object_kind="server", object_id="s", object="=HYPERLINK(1)", actor="@ann",
                      details={"before": {"a": 1}, "after": {"a": "+2"}}, outcome="ok"),
            logs.note("auth.login_failed", actor="bob", outcome="refused", details={"address": "10.1.2.3", "reason": "no"}),
        ],
    )  # fmt: skip
    return log


def test_every_form_has_every_row_newest_first_and_is_noted(filled: SinkConfig) -> None:
    stored = list(AuditEvent.objects.order_by("-time", "-id"))
    with every_tenant(SYSTEM):
        for name in FORMATS:
            text = take(name).decode()
            if name == "csv":
                head, *rows = csv.reader(io.StringIO(text))
                assert tuple(head) == COLUMNS
                assert [row[0] for row in rows] == [row.event_id for row in stored]
                assert rows[-1][0] == "0-1"
            else:
                found = [json.loads(line) for line in text.splitlines()]
                identity = (lambda one: one["metadata"]["uid"]) if name == "ocsf" else (lambda one: one["event_id"])
                assert [identity(one) for one in found] == [row.event_id for row in stored]
    events = told()
    assert [event["event_type"] for event in events] == ["audit.export_started", "audit.exported"] * 3
    assert [event["details"].get("rows") for event in events] == [None, 5] * 3
    assert {event["details"]["format"] for event in events} == set(FORMATS)


def test_json_lines_say_what_is_stored(filled: SinkConfig) -> None:
    with every_tenant(SYSTEM):
        (line,) = take("jsonl", event_type="server.updated").splitlines()
    found = json.loads(line)
    row = AuditEvent.objects.get(event_type="server.updated")
    assert found["time"] == row.time.isoformat().replace("+00:00", "Z")
    assert {key: value for key, value in found.items() if key not in ("event_id", "time")} == json.loads(bytes(row.body))
    assert told()[-1]["details"]["filters"]["event_type"] == "server.updated"


def test_a_tenant_gets_its_own_rows_alone(filled: SinkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Principal(kind="user", id="u", label="ann", tenant_id=TENANT, permissions=frozenset({"audit.read"}))
    monkeypatch.setattr(authorise, "_source", lambda: reader)
    with tenant_scope(TENANT, ANN):
        for filters in ({}, {"tenant": OTHER}, {"tool": "=cmd"}):
            tenants = {json.loads(line).get("tenant") for line in take("jsonl", **filters).splitlines()}
            assert tenants <= {TENANT}
        assert len(take("jsonl").splitlines()) == 3
    bare = Principal(kind="user", id="u", label="ann", tenant_id=TENANT, permissions=frozenset({"server.read"}))
    monkeypatch.setattr(authorise, "_source", lambda: bare)
    with tenant_scope(TENANT, ANN), pytest.raises(PermissionDenied):
        Export("csv", {})
    assert told()[-1]["event_type"] == "access.refused"


def test_what_is_refused_leaves_nothing_behind(filled: SinkConfig) -> None:
    with every_tenant(SYSTEM):
        for name, filters in (("xlsx", {}), ("csv", {"user__password__startswith": "p"})):
            with pytest.raises(ValidationFailed):
                Export(name, filters)
        assert told() == []
        running = [Export("csv", {}) for _ in range(service.AT_ONCE)]
        with pytest.raises(Overloaded):
            Export("csv", {})
        running.clear()  # nobody read them
        assert take("csv")


def test_one_that_is_broken_off_says_so(filled: SinkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_FLUSH", 1)
    with every_tenant(SYSTEM):
        chunks = Export("jsonl", {}).chunks()
        next(chunks)
        next(chunks)
        chunks.close()
    last = told()[-1]
    assert (last["event_type"], last["outcome"], last["details"]["rows"]) == ("audit.exported", "cancelled", 2)
    with every_tenant(SYSTEM):
        assert len([Export("csv", {}) for _ in range(service.AT_ONCE)]) == service.AT_ONCE  # its place was given back


def test_pages_meet_without_a_gap_and_memory_stays_flat(log: SinkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_ROWS", 7)
    same = logs.note(details={"x": "y" * 2000})
    logs.write(log, [same for _ in range(400)])  # all of one moment
    with every_tenant(SYSTEM):
        seen: list[str] = []
        tracemalloc.start()
        chunks = Export("jsonl", {}).chunks()
        for chunk in chunks:
            seen += [json.loads(line)["event_id"] for line in chunk.splitlines()]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert seen == [f"0-{number}" for number in range(400, 0, -1)]
    assert peak < 2_000_000


def test_a_row_that_was_tampered_with_is_not_left_out(filled: SinkConfig) -> None:
    from tests.audit.test_verify import Tamper

    tamper = Tamper()
    with logs.unguarded(tamper.connection):
        tamper.run("UPDATE audit_event SET body = %s WHERE id = 2", b"junk")
    with every_tenant(SYSTEM):
        assert json.loads(take("jsonl").splitlines()[-2]) == {"event_id": "0-2", "unreadable": True}
        assert b"0-2,unreadable" in take("csv")


@pytest.mark.once
@given(text=st.text(max_size=20))
def test_no_text_becomes_a_formula(text: str) -> None:
    cell = harmless(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.removeprefix("'") == text.removeprefix("'") or cell == text
    _, body = encode(AuditRecord("x", 5, actor=text, object=text, details={"k": text}))
    (row,) = csv.reader(io.StringIO(csv_line(3, body).decode(), newline=""))
    assert len(row) == len(COLUMNS)
    assert not [value for value in row if value[:1] in "=+-@\t\r" and value]


@pytest.mark.once
@pytest.mark.parametrize(
    ("event_type", "uid", "activity"),
    [
        ("call.outcome", 6003, 99), ("access.refused", 6003, 99), ("audit.exported", 6003, 2), ("auth.login", 3002, 1),
        ("auth.logout", 3002, 2), ("auth.login_failed", 3002, 1), ("user.created", 3001, 1), ("user.password_changed", 3001, 3),
        ("api_key.revoked", 3001, 5), ("grant.created", 3005, 1), ("membership.removed", 3005, 2), ("role.updated", 3004, 3),
        ("server.registered", 3004, 1), ("server.updated", 3004, 3), ("toolset.deleted", 3004, 4), ("server.paused", 3004, 12),
        ("tool.approved", 3004, 99),
    ],
)  # fmt: skip
def test_ocsf_classes(event_type: str, uid: int, activity: int) -> None:
    found = ocsf(1 << 40 | 5, AuditRecord(event_type, 1_700_000_000_123_456, actor="a", actor_kind="user", outcome="refused"))
    assert class_of(event_type) == found["class_uid"] == uid
    assert (found["activity_id"], found["type_uid"]) == (activity, uid * 100 + activity)
    assert found["category_uid"] == uid // 1000
    assert (found["time"], found["metadata"]["uid"], found["status_id"]) == (1_700_000_000_123, "1-5", 2)
    wanted = {
        6003: ("api", "src_endpoint"),
        3002: ("user", "service"),
        3001: ("user",),
        3004: ("entity",),
        3005: ("user", "privileges"),
    }
    for member in wanted[uid]:
        assert found[member], member
