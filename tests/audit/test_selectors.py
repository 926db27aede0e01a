"""Reading the log: filters, pages, timelines, the story of a call, and the wall between tenants."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.audit import selectors
from apps.audit.sink.config import SinkConfig
from apps.audit.sink.record import AuditRecord
from apps.common.context import every_tenant, tenant_scope
from apps.common.errors import NotFound, TenantRequired, ValidationFailed
from tests.audit import logs

START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


@pytest.fixture
def written(log: SinkConfig) -> SinkConfig:
    """A log with calls of two tenants and control-plane events, a second apart, and some at the same time."""
    records = []
    for number in range(30):
        begun = logs.intent(f"c{number}", tenant=f"t{number % 2}", tool=f"tool{number % 3}", details={"n": number})
        ended = logs.outcome(f"c{number}", tenant=f"t{number % 2}", tool=f"tool{number % 3}")
        begun.time_us = ended.time_us = int((START + timedelta(seconds=number)).timestamp()) * 1_000_000
        records += [begun, ended]
    for number in range(5):
        records.append(
            AuditRecord(
                "server.changed", int(START.timestamp()) * 1_000_000 + number, tenant="t0", actor="Ann", object_kind="server",
                object_id="s1", object="Echo", details={"n": number},
            )
        )  # fmt: skip
    logs.write(log, records)
    return log


def all_pages(**filters) -> list[int]:
    """The ids of every page."""
    found, cursor = [], None
    while True:
        page = selectors.events(cursor=cursor, limit=7, **filters)
        found += [event.id for event in page.events]
        cursor = page.next_cursor
        if cursor is None:
            return found


def test_pages_hold_every_event_once_newest_first(written: SinkConfig) -> None:
    with every_tenant():
        found = all_pages()
        assert len(found) == len(set(found)) == 65
        times = [selectors.event(identity).time for identity in found]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"tool": "tool1"}, 20), ({"tool": ["tool1", "tool2"]}, 40), ({"event_type": "call.intent"}, 30), ({"event_type": "call."}, 60),
        ({"outcome": "ok"}, 30), ({"call_id": "c3"}, 2), ({"tenant": "t1"}, 30), ({"actor": "Ann"}, 5), ({"text": "An"}, 5),
        ({"text": "c1"}, 22), ({"text": "0-4"}, 1), ({"text": "zz"}, 0), ({"tool": ""}, 65), ({"since": START + timedelta(seconds=29)}, 2),
        ({"until": START}, 0), ({"since": START, "until": START + timedelta(seconds=1)}, 7), ({"object_kind": "server", "object_id": "s1"}, 5),
    ],
)  # fmt: skip
def test_filters(written: SinkConfig, filters: dict, count: int) -> None:
    with every_tenant():
        assert len(all_pages(**filters)) == count


def test_a_tenant_sees_its_own_alone(written: SinkConfig) -> None:
    with tenant_scope("t1"):
        assert len(all_pages()) == 30
        assert all_pages(tenant="t0") == []
        with pytest.raises(NotFound):
            selectors.event("0-1")
        with pytest.raises(NotFound):
            selectors.call_story("c0")
        assert selectors.object_events(("server",), "s1").events == ()
        assert selectors.event("0-3").call_id == "c1"
    with pytest.raises(TenantRequired):
        selectors.events()


def test_one_event_is_given_whole(written: SinkConfig) -> None:
    with every_tenant():
        event = selectors.event("0-3")
        assert event.event_id == "0-3"
        assert event.details == {"n": 1}
        assert event.previous == selectors.event("0-2").digest
        assert len(event.digest) == 64
        for name in ("", "x", "0-999", "9-1"):
            with pytest.raises(NotFound):
                selectors.event(name)


def test_the_story_of_a_call_and_the_timeline_of_an_object(written: SinkConfig) -> None:
    with every_tenant():
        story = selectors.call_story("c7")
        assert [event.event_type for event in story] == ["call.intent", "call.outcome"]
        assert [event.details["n"] for event in selectors.object_events(("server",), "s1").events] == [4, 3, 2, 1, 0]
        assert selectors.last_verification() is None


@pytest.mark.parametrize("cursor", ["x", "!!", "AAAA", "ü", "MjAyNi0xMS0yMHw"])
def test_a_foreign_cursor_is_refused(written: SinkConfig, cursor: str) -> None:
    with every_tenant(), pytest.raises(ValidationFailed):
        selectors.events(cursor=cursor)


def test_an_unknown_filter_is_refused(written: SinkConfig) -> None:
    with every_tenant(), pytest.raises(ValidationFailed) as raised:
        selectors.events(body="x")
    assert "body" in raised.value.extra["errors"]


def test_a_search_that_no_index_leads_to_is_bounded_and_leads_on(written: SinkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    with every_tenant():
        everything = [event.event_id for event in selectors.events(text="c1", limit=500).events]
        assert everything
        monkeypatch.setitem(selectors.events.__globals__, "LOOKED_AT", 7)
        found, cursor, pages = [], None, 0
        while True:
            page = selectors.events(text="c1", limit=500, cursor=cursor)
            found += [event.event_id for event in page.events]
            pages, cursor = pages + 1, page.next_cursor
            if cursor is None:
                break
        assert found == everything
        assert pages > 2
