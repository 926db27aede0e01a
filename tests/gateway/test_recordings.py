"""Recordings as they are kept: who may switch one on and look, what each leaves in the log, bounds, the end, and the day after it."""

from datetime import timedelta

import pytest

from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.errors import Conflict, NotFound, PermissionDenied, ValidationFailed
from apps.gateway.models import ClientSeen, RecordedMessage, Recording
from apps.gateway.plane.ports import RecordedMessage as Message
from apps.gateway.selectors import get_recording, json_lines, messages_of, methods_of, recordings
from apps.gateway.services import recordings as services
from apps.gateway.services.recordings import (
    delete_recording,
    note_look,
    prune_recordings,
    record_messages,
    recordings_on,
    start_recording,
    stop_recording,
)
from tests.factories import as_user, make_key, make_role, make_superuser, make_tenant, make_user
from tests.tools.support import make_server, outbox

pytestmark = pytest.mark.django_db


@pytest.fixture
def tenant(db):
    return make_tenant()


@pytest.fixture
def server(tenant):
    return make_server(tenant, "github")


def begun(tenant, server, **changes) -> Recording:
    with tenant_scope(tenant.pk, SYSTEM):
        return start_recording(**{"kind": "server", "ref": server.slug, "minutes": 15, **changes})


def passed(*recordings_: Recording, **changes) -> Message:
    fields = {
        "at_us": int(now().timestamp() * 1e6), "side": "client", "direction": "in", "kind": "request", "method": "tools/call", "rpc_id": "1", "size": 20,
        "revision": "2026-07-28", "client": "agent 1", "text": '{"id":1}', "cut": False, "recordings": [str(one.pk) for one in recordings_],
    }  # fmt: skip
    return Message(**{**fields, **changes})


def test_switching_on_and_off_and_every_look_are_events_and_told_to_every_process(tenant, server):
    with outbox() as notices:
        row = begun(tenant, server)
        with tenant_scope(tenant.pk, SYSTEM):
            note_look(row, "page")
            note_look(row, "download")
            stop_recording(row)
            stop_recording(row)
            delete_recording(row)
    names = ["recording.started", "recording.read", "recording.read", "recording.stopped", "recording.deleted"]
    assert [event["event_type"] for event in notices.events()] == names
    assert {event["object_id"] for event in notices.events()} == {str(row.pk)}
    assert [event["details"].get("how") for event in notices.events("recording.read")] == ["page", "download"]
    orders = [notice.payload["order"] for notice in notices if notice.topic == "control"]
    assert orders == ["recordings-changed"] * 3, "a second stop changes nothing"
    assert not Recording.unscoped.filter(pk=row.pk).exists()


@pytest.mark.parametrize("missing", ["audit.read", "server.write", "audit.admin"])
def test_it_takes_all_three_rights(tenant, server, missing):
    row = begun(tenant, server)
    rights = [right for right in services.RIGHTS if right != missing]
    person = make_user(tenant, make_role(tenant, *rights, "server.read"))
    whole = make_user(tenant, make_role(tenant, *services.RIGHTS, "server.read"))
    with tenant_scope(tenant.pk, as_user(person)):
        assert not services.may_record(tenant.pk)
        for refused in (
            lambda: start_recording(kind="server", ref="github", minutes=5), lambda: note_look(row, "page"), lambda: stop_recording(row),
            lambda: delete_recording(row),
        ):  # fmt: skip
            with pytest.raises(PermissionDenied, match=missing.replace(".", r"\.")):
                refused()
    with tenant_scope(tenant.pk, as_user(whole)):
        note_look(row, "page")
        stop_recording(row)


@pytest.mark.parametrize(
    ("role", "may"), [("admin", True), ("operator", False), ("user", False), ("guest", False), ("auditor", False)]
)
def test_of_the_built_in_roles_administrators_may(tenant, server, role, may):
    with tenant_scope(tenant.pk, as_user(make_user(tenant, role))):
        assert services.may_record(tenant.pk) == may
    with tenant_scope(tenant.pk, as_user(make_superuser())):
        assert services.may_record(tenant.pk)


def test_each_kind_is_named_in_its_way_and_only_in_its_tenant(tenant, server):
    key = make_key(make_user(tenant), tenant)[0]
    ClientSeen.unscoped.create(
        tenant=tenant, api_key=key, revision="2025-11-25", session="abc", first_seen_at=now(), last_seen_at=now()
    )
    names = {
        "server": (server.slug, str(server.pk)),
        "toolset": ("github",),
        "api_key": (key.prefix, str(key.pk)),
        "session": ("abc",),
    }
    for kind, refs in names.items():
        for ref in refs:
            row = begun(tenant, server, kind=kind, ref=ref)
            assert (row.kind, str(row.tenant_id)) == (kind, str(tenant.pk))
            with tenant_scope(tenant.pk, SYSTEM):
                delete_recording(row)
        for ref in ("", "none", "\x00", "01980000-0000-7000-8000-0000000000ff"):
            with pytest.raises(NotFound):
                begun(tenant, server, kind=kind, ref=ref)
        with pytest.raises(NotFound):
            begun(make_tenant(), server, kind=kind, ref=refs[0])


@pytest.mark.parametrize("changes", [{"minutes": 4}, {"minutes": 61}, {"minutes": -1}, {"kind": "tenant"}, {"kind": ""}])
def test_bad_input_is_refused(tenant, server, changes):
    with pytest.raises(ValidationFailed):
        begun(tenant, server, **changes)


def test_so_many_at_once(tenant, server, monkeypatch):
    rows = [begun(tenant, server) for _ in range(services.AT_ONCE)]
    with pytest.raises(Conflict, match="in this tenant"):
        begun(tenant, server)
    with tenant_scope(tenant.pk, SYSTEM):
        stop_recording(rows[0])
    begun(tenant, server)
    other = make_tenant()
    on = Recording.unscoped.filter(stopped_at__isnull=True, until__gt=now()).count()
    monkeypatch.setattr(services, "AT_ONCE_IN_ALL", on)
    with pytest.raises(Conflict, match="in this installation"):
        begun(other, make_server(other, "another"))


def test_what_the_data_plane_is_told(tenant, server):
    row, stopped, over = (begun(tenant, server) for _ in range(3))
    with tenant_scope(tenant.pk, SYSTEM):
        stop_recording(stopped)
    Recording.unscoped.filter(pk=over.pk).update(until=now() - timedelta(seconds=1))
    record_messages([passed(row)] * 3, {})
    with every_tenant(SYSTEM):
        (facts,) = [one for one in recordings_on() if one.tenant_id == str(tenant.pk)]
    assert (facts.id, facts.kind, facts.object_id, facts.label) == (str(row.pk), "server", str(server.pk), "github")
    assert facts.messages_left == services.MOST_MESSAGES - 3
    assert facts.until_us == int(row.until.timestamp() * 1e6)


def test_messages_are_written_to_each_of_their_recordings_until_it_is_full(tenant, server, monkeypatch):
    first, second = begun(tenant, server), begun(tenant, server, kind="toolset", ref="github")
    assert record_messages([passed(first, second), passed(first)], {str(second.pk): 4}) == 3
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.messages, first.dropped, first.bytes) == (2, 0, 16)
    assert (second.messages, second.dropped) == (1, 4)
    monkeypatch.setattr(services, "MOST_MESSAGES", 5)
    record_messages([passed(first)] * 10, {})
    first.refresh_from_db()
    assert (first.messages, first.dropped) == (5, 7)
    monkeypatch.setattr(services, "MOST_BYTES", 10)
    record_messages([passed(second, text="x" * 11)], {})
    second.refresh_from_db()
    assert (second.messages, second.dropped) == (1, 5)
    assert (
        record_messages(
            [passed(first, recordings=["01980000-0000-7000-8000-0000000000ff"])], {"01980000-0000-7000-8000-0000000000ff": 2}
        )
        == 0
    )


def test_what_no_database_takes_is_written_all_the_same(tenant, server):
    row = begun(tenant, server)
    assert record_messages([passed(row, text="a\x00b", method="m" * 500, client="c" * 500, rpc_id="i" * 500)], {}) == 1
    assert RecordedMessage.objects.get(recording=row).text == "a\ufffdb"


def test_reading_filtering_and_taking(tenant, server):
    row = begun(tenant, server)
    record_messages([
        passed(row, call_id="c1"), passed(row, side="server", direction="out", call_id="c1", server="github"),
        passed(row, side="server", kind="error", call_id="c1", text='{"error":{"message":"late"}}'), passed(row, method="tools/list", rpc_id="7", text='{"cut…'),
    ], {})  # fmt: skip
    with tenant_scope(tenant.pk, SYSTEM):
        assert get_recording(row.pk).messages == 4
        assert [one.method for one in messages_of(row)] == ["tools/call"] * 3 + ["tools/list"]
        for filters, number in [
            ({"side": "server"}, 2),
            ({"kind": "error"}, 1),
            ({"method": "tools/list"}, 1),
            ({"call_id": "c1"}, 3),
            ({"text": "late"}, 1),
            ({"text": "7"}, 1),
        ]:
            assert messages_of(row, **filters).count() == number, filters
        assert methods_of(row) == ["tools/call", "tools/list"]
    import json

    lines = [json.loads(line) for line in json_lines(row)]
    assert [line["message"] for line in lines] == [{"id": 1}, {"id": 1}, {"error": {"message": "late"}}, '{"cut…']
    assert set(lines[0]) >= {"at", "side", "direction", "method", "rpc_id", "call_id", "size", "revision"}
    with tenant_scope(make_tenant().pk, SYSTEM):
        assert not recordings()
        for ref in (row.pk, "x", "\x00"):
            with pytest.raises(NotFound):
                get_recording(ref)


def test_it_is_deleted_a_day_after_its_end(tenant, server, monkeypatch):
    monkeypatch.setattr(services, "_DELETED_AT_ONCE", 2)
    on, fresh, old, stopped = (
        begun(tenant, server),
        begun(tenant, server),
        begun(tenant, server, kind="toolset", ref="github"),
        None,
    )
    record_messages([passed(on, fresh, old)] * 5, {})
    day = services.KEPT
    Recording.unscoped.filter(pk=fresh.pk).update(until=now() - day + timedelta(minutes=1))
    Recording.unscoped.filter(pk=old.pk).update(until=now() - day - timedelta(minutes=1))
    stopped = begun(tenant, server)
    Recording.unscoped.filter(pk=stopped.pk).update(
        until=now() - day + timedelta(minutes=30), stopped_at=now() - day - timedelta(minutes=1)
    )
    with every_tenant(SYSTEM):
        assert prune_recordings() == 2
    assert set(Recording.unscoped.filter(tenant=tenant).values_list("pk", flat=True)) == {on.pk, fresh.pk}
    assert RecordedMessage.objects.filter(recording__in=(on, fresh)).count() == 10
    assert not RecordedMessage.objects.filter(recording_id=old.pk).exists()
