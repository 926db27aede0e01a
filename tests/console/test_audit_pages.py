"""The audit pages: a timeline to read, filters, one event with everything, and the seal."""

import json
import re

import pytest
from django.urls import reverse

from apps.audit.models import AuditChain, AuditEvent
from apps.common.clock import now
from apps.common.models import OutboxEvent
from tests.console.conftest import client_of
from tests.factories import make_superuser


def write(tenant, number: int, **fields) -> AuditEvent:
    """Put a row into the log as the sink stores it; the chain is not what these tests are about."""
    details = fields.pop("details", None)
    record = {
        "event_type": "call.outcome",
        "tenant": str(tenant.pk),
        "actor": "agent",
        "actor_kind": "api_key",
        "server": "github",
        "tool": "list_issues",
        "outcome": "ok",
        **fields,
    }
    body = json.dumps({"event_type": record["event_type"], "time_us": 1, **({"details": details} if details else {})}).encode()
    return AuditEvent.objects.create(id=number, time=now(), body=body, **record)


@pytest.fixture
def log(tenant):
    write(tenant, 1, event_type="call.intent", outcome=None, call_id="c-1")
    write(tenant, 2, event_type="call.outcome", call_id="c-1", duration_us=1500)
    write(
        tenant,
        3,
        event_type="call.refused",
        outcome="refused",
        error_type="permission-denied",
        actor="mallory",
        details={"rule": "default-deny", "reason": "no grant allows it"},
    )
    write(
        tenant,
        4,
        event_type="server.paused",
        actor="olga",
        actor_kind="user",
        object_kind="server",
        object_id="x",
        object="github",
        server=None,
        tool=None,
        origin="admin",
    )
    AuditChain.objects.create(id=2, writer=0, seq=2, previous=b"\x01" * 32, digest=b"\x02" * 32, form=1)
    return tenant


def test_the_timeline_reads_as_sentences_without_the_steps(log, staff):
    page = staff["auditor"].get(reverse("admin:audit_auditevent_changelist")).content.decode()
    words = re.sub(r"<[^>]+>|\s+", " ", page)
    assert re.search(r"olga\s+paused the server\s+github", words)
    assert "mallory" in words
    assert reverse("admin:audit_auditevent_change", args=("0-2",)) in page
    assert reverse("admin:audit_auditevent_change", args=("0-1",)) not in page
    page = staff["auditor"].get(reverse("admin:audit_auditevent_changelist"), {"view": "rows"}).content.decode()
    assert reverse("admin:audit_auditevent_change", args=("0-1",)) in page


@pytest.mark.parametrize(
    ("query", "there", "gone"),
    [
        ({"view": "calls"}, "0-2", "0-4"),
        ({"view": "problems"}, "0-3", "0-2"),
        ({"view": "changes"}, "0-4", "0-2"),
        ({"outcome": "refused"}, "0-3", "0-2"),
        ({"actor": "olga"}, "0-4", "0-3"),
        ({"object_kind": "server", "object_id": "x"}, "0-4", "0-3"),
        ({"text": "mallory"}, "0-3", "0-4"),
        ({"period": "1h"}, "0-4", "0-9"),
        ({"call_id": "c-1"}, "0-1", "0-4"),
        ({"since": "2999-01-01T00:00"}, "", "0-2"),
    ],
)
def test_filters(query, there, gone, log, staff):
    page = staff["auditor"].get(reverse("admin:audit_auditevent_changelist"), query).content.decode()
    if there:
        assert reverse("admin:audit_auditevent_change", args=(there,)) in page
    assert reverse("admin:audit_auditevent_change", args=(gone,)) not in page


@pytest.mark.parametrize("query", [{"cursor": "rubbish"}, {"view": "nothing"}, {"since": "never"}, {"period": "x"}])
def test_odd_addresses_are_answered(query, log, staff):
    assert staff["auditor"].get(reverse("admin:audit_auditevent_changelist"), query).status_code == 200


def test_one_event_with_everything(log, staff):
    page = staff["auditor"].get(reverse("admin:audit_auditevent_change", args=("0-2",))).content.decode()
    assert "02" * 32 in page
    assert "01" * 32 in page
    assert "step by step" in page
    page = staff["auditor"].get(reverse("admin:audit_auditevent_change", args=("0-3",))).content.decode()
    assert "no grant allows it" in page


@pytest.mark.parametrize("name", ["0-999", "x", "0", "-", "99999999999-1"])
def test_an_unknown_event_is_not_found(name, log, staff):
    assert staff["auditor"].get(reverse("admin:audit_auditevent_change", args=(name,))).status_code == 404


def test_other_tenants_events_do_not_exist(log, stranger):
    assert stranger.get(reverse("admin:audit_auditevent_change", args=("0-2",))).status_code == 404
    assert "olga" not in stranger.get(reverse("admin:audit_auditevent_changelist")).content.decode()


def test_nothing_can_be_added_changed_or_deleted(log, root):
    assert root.get(reverse("admin:audit_auditevent_add")).status_code == 403
    assert root.post(reverse("admin:audit_auditevent_change", args=("0-2",)), {"actor": "nobody"}).status_code == 200
    assert AuditEvent.objects.get(id=2).actor == "agent"
    assert root.post(reverse("admin:audit_auditevent_delete", args=("0-2",))).status_code in (302, 403)
    assert AuditEvent.objects.filter(id=2).exists()


def test_verifying_asks_first_and_is_a_superusers(db, staff):
    url = reverse("admin:audit_verify")
    assert staff["admin"].post(url).status_code == 403
    client = client_of(make_superuser())
    before = OutboxEvent.objects.count()
    page = client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert "Verify now" in page
    assert OutboxEvent.objects.count() == before
    answer = client.post(url)
    assert answer.status_code == 302
    event = OutboxEvent.objects.filter(topic="audit").order_by("-id").first()
    assert event.payload["event_type"] == "audit.verified"


def test_a_broken_log_is_said_to_be_broken(log, db):
    client = client_of(make_superuser())
    page = client.post(reverse("admin:audit_verify"), follow=True).content.decode()
    assert "NOT whole" in page


def test_results_in_samples_are_text(tenant, staff):
    write(tenant, 9, details={"result": "<script>alert(1)</script>"})
    page = staff["auditor"].get(reverse("admin:audit_auditevent_change", args=("0-9",))).content.decode()
    assert "<script>alert(1)" not in page


def test_an_objects_history_goes_on_page_by_page(boss, tenant):
    for number in range(100, 160):
        write(
            tenant, number, event_type="role.updated", actor="olga", object_kind="role", object_id="r-1", object="role", server=None,
            tool=None, details={"before": {"name": f"old {number}"}, "after": {"name": f"new {number}"}},
        )  # fmt: skip
    address, seen = "/admin/audit-log/history/role/r-1/", []
    while address:
        answer = boss.get(address, headers={"HX-Request": "true"})
        assert answer.status_code == 200
        text = answer.content.decode()
        seen += re.findall(r"new (\d+)", text)
        assert len(re.findall("<li", text)) <= 26
        found = re.search(r'hx-get="([^"]+)"', text)
        address = found.group(1).replace("&amp;", "&") if found else ""
    assert [int(number) for number in seen] == list(range(159, 99, -1))
    assert boss.get("/admin/audit-log/history/role/r-1/?cursor=x", headers={"HX-Request": "true"}).status_code == 404
    plain = boss.get("/admin/audit-log/history/role/r-1/")
    assert plain["Location"].endswith("?object_kind=role&object_id=r-1")


def test_events_are_exported_as_the_list_is_filtered(boss, log):
    page = boss.get("/admin/audit/auditevent/?view=refusals").content.decode()
    address = re.search(r'href="(/admin/audit-log/export/[^"]*)"', page).group(1)
    asked = boss.get(address).content.decode()
    assert "outcome refused" in asked
    identity = re.search(r'name="export" value="([0-9a-f]{16})"', asked).group(1)
    answer = boss.post(address, {"format": "csv", "export": identity})
    assert answer["Content-Disposition"].startswith("attachment; ")
    lines = b"".join(answer.streaming_content).decode().splitlines()
    assert len(lines) == 2
    progress = boss.get(f"/admin/audit-log/export/progress/?export={identity}")
    assert progress.status_code == 286, "htmx stops to ask"
    assert "Done: 1 row" in progress.content.decode()
    noted = [row.payload for row in OutboxEvent.objects.filter(topic="audit").order_by("id")]
    assert [event["event_type"] for event in noted][-2:] == ["audit.export_started", "audit.exported"]
    assert noted[-1]["details"]["rows"] == 1
    assert noted[-1]["details"]["filters"]["outcome"] == ["refused"]
    assert boss.post(address, {"format": "xls"}).status_code == 400


def test_the_log_can_be_held_against_a_file_of_checkpoints(db):
    from django.core.files.uploadedfile import SimpleUploadedFile

    root = client_of(make_superuser())
    junk = SimpleUploadedFile("c.jsonl", b"no checkpoint\n")
    text = root.post("/admin/audit-log/verify/", {"checkpoints": junk}, follow=True).content.decode()
    assert "there is no checkpoint in what was given" in text
    long = SimpleUploadedFile("c.jsonl", b"x" * 1_100_000)
    assert "more than 1 MB" in root.post("/admin/audit-log/verify/", {"checkpoints": long}).content.decode()
