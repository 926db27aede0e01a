"""The inspector's pages: who sees that something was recorded, who sees what, and that each look stands in the log."""

import json
import re
from datetime import timedelta
from urllib.parse import unquote

import pytest
from django.core import signing
from django.urls import reverse

from apps.common.clock import now
from apps.gateway.models import RecordedMessage, Recording
from apps.gateway.services import recordings as services
from apps.gateway.services.recordings import record_messages
from apps.servers.models import Server
from tests.api.world import make_client
from tests.console.data import record_calls
from tests.console.pages import address
from tests.console.support import Recorded
from tests.factories import make_superuser
from tests.gateway.test_recordings import passed

pytestmark = pytest.mark.django_db
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def recording(world):
    return record_calls(world["servers"][0][0], 6)


def page(browser, recording: Recording, **query) -> str:
    answer = browser.get(address(Recording, "change", recording.pk), query)
    assert answer.status_code == 200
    return answer.content.decode()


def look_of(text: str) -> str:
    return unquote(re.search(r"look=([^&\"]+)", text).group(1))


def test_auditors_see_that_and_administrators_see_what(staff, stranger, recording):
    for role, (list_status, sees) in {
        "admin": (200, True),
        "operator": (200, False),
        "auditor": (200, False),
        "user": (403, False),
    }.items():
        assert staff[role].get(address(Recording, "changelist")).status_code == list_status, role
        answer = staff[role].get(address(Recording, "change", recording.pk))
        assert answer.status_code == list_status
        text = answer.content.decode()
        assert ("sy-exchange" in text) == sees, role
        assert ("Not for your eyes" in text) == (list_status == 200 and not sees)
        assert (address(Recording, "stop", recording.pk) in text) == sees
    assert stranger.get(address(Recording, "change", recording.pk)).status_code in (302, 404)


def test_each_look_is_an_event(boss, operator, recording):
    with Recorded() as recorded:
        text = page(boss, recording)
        live = boss.get(reverse("admin:recording_live", args=(recording.pk,)), {"look": look_of(text)})
        boss.get(reverse("admin:recording_file", args=(recording.pk,)))
        page(operator, recording)
    assert live.status_code == 200
    assert [event["details"]["how"] for event in recorded.events if event["event_type"] == "recording.read"] == [
        "page",
        "download",
    ]


def test_messages_are_asked_for_from_a_page_that_was_noted_alone(boss, staff, recording, world):
    text = page(boss, recording)
    message = RecordedMessage.objects.filter(recording=recording)[0]
    addresses = [
        reverse("admin:recording_live", args=(recording.pk,)),
        reverse("admin:recording_message", args=(recording.pk, message.pk)),
    ]
    other = record_calls(world["servers"][1][0], 1)
    looks = ["", "x", look_of(page(boss, other)), signing.dumps([str(recording.pk), "somebody"], salt="recording-look")]
    for where in addresses:
        assert boss.get(where, {"look": look_of(text)}).status_code == 200
        for look in looks:
            assert boss.get(where, {"look": look}).status_code == 403
        assert staff["operator"].get(where, {"look": look_of(text)}).status_code == 403
    foreign = reverse("admin:recording_message", args=(other.pk, message.pk))
    assert boss.get(foreign, {"look": look_of(page(boss, other))}).status_code == 404
    assert staff["operator"].get(reverse("admin:recording_file", args=(recording.pk,))).status_code == 403


def test_both_sides_stand_side_by_side_by_call(boss, recording):
    text = page(boss, recording)
    assert text.count('class="sy-exchange"') == 6
    first = text.split('class="sy-exchange"')[1]
    sides = re.findall(r"sy-message-(client|server)\" id=", first)
    assert sides == ["client", "server", "server", "client", "server", "client"]
    assert "from the client" in first
    assert "data-refresh=" in text
    pk = re.search(r'id="m-(\d+)"', text).group(1)
    body = boss.get(reverse("admin:recording_message", args=(recording.pk, pk)), {"look": look_of(text)}).content.decode()
    assert "search_issue" in body
    assert "[redacted]" in body


def test_filters_and_pages(boss, recording, monkeypatch):
    only = page(boss, recording, side="server", method="elicitation/create")
    assert only.count('id="m-') == 2
    assert "that fit" in only
    assert page(boss, recording, kind="error").count('id="m-') == 0
    assert "No message fits" in page(boss, recording, find="nothing of the kind")
    assert page(boss, recording, find="Which repository").count('id="m-') == 2
    monkeypatch.setattr("config.console.messages.PAGE", 10)
    last = page(boss, recording)
    assert "page 4 of 4" in last
    assert "Earlier" in last
    first = page(boss, recording, page="1")
    assert first.count('id="m-') == 10
    assert "More has come: go on" in first
    for odd in ("0", "-1", "x", "999999999999", "²"):
        page(boss, recording, page=odd)
    page(boss, recording, find="a\x00", method="\x00", call="\x00", kind="\x00", side="x")


def test_what_was_recorded_is_text(boss, recording):
    record_messages([
        passed(recording, method=EVIL, client=EVIL, server=EVIL[:40], text=json.dumps({"a": EVIL, "b": "x\u202ey"}), rpc_id=EVIL[:60]),
        passed(recording, text=f'{{"cut": "{EVIL}…'),
    ], {})  # fmt: skip
    text = page(boss, recording)
    assert EVIL not in text
    for pk in RecordedMessage.objects.filter(recording=recording).order_by("-pk").values_list("pk", flat=True)[:2]:
        body = boss.get(reverse("admin:recording_message", args=(recording.pk, pk)), {"look": look_of(text)}).content.decode()
        assert EVIL not in body
        assert "&lt;script&gt;" in body
        assert "\u202e" not in body


def test_one_that_ended_asks_for_nothing_more_and_says_when_it_is_deleted(boss, recording):
    Recording.unscoped.filter(pk=recording.pk).update(until=now() - timedelta(minutes=1), dropped=7)
    text = page(boss, recording)
    assert "data-refresh=" not in text
    assert "Ended" in text
    assert "7 messages" in text
    assert "no room for" in text
    assert address(Recording, "stop", recording.pk) not in re.sub(r"<nav.*?</nav>", "", text, flags=re.DOTALL)


def test_recording_from_the_console(boss, operator, world):
    server = world["servers"][0][0]
    menu = boss.get(address(Server, "change", server.pk)).content.decode()
    ask = address(Server, "inspect", server.pk)
    assert ask in menu
    assert ask not in operator.get(address(Server, "change", server.pk)).content.decode()
    where = boss.get(ask)["Location"]
    question = boss.get(where).content.decode()
    assert re.search(rf'<option value="{server.pk}" selected', question)
    assert "5,000 messages" in question
    given = {"kind": "server", "server": str(server.pk), "minutes": "5"}
    for wrong in ({"minutes": "61"}, {"minutes": ""}, {"server": ""}, {"kind": "tenant"}):
        assert boss.post(where, {**given, **wrong}).status_code == 200
    assert not Recording.unscoped.filter(tenant=world["tenant"]).exists()
    with Recorded() as recorded:
        answer = boss.post(where, given)
    made = Recording.unscoped.get(tenant=world["tenant"])
    assert answer["Location"] == address(Recording, "change", made.pk)
    assert "recording.started" in recorded.types
    assert operator.post(address(Recording, "start"), given).status_code == 403
    boss.post(address(Recording, "stop", made.pk))
    made.refresh_from_db()
    assert not made.on
    boss.post(address(Recording, "delete_it", made.pk))
    assert not Recording.unscoped.filter(pk=made.pk).exists()


def test_what_stands_behind_the_first_choices_can_be_recorded(boss, world, stranger, monkeypatch):
    monkeypatch.setattr("config.console.inspector.CHOICES", 1)
    servers = Server.unscoped.filter(tenant=world["tenant"]).order_by("slug")
    last = servers.last()
    where = boss.get(address(Server, "inspect", last.pk))["Location"]
    assert re.search(rf'<option value="{last.pk}" selected', boss.get(where).content.decode())
    given = {"kind": "server", "server": str(last.pk), "minutes": "5"}
    assert stranger.post(address(Recording, "start"), given).status_code == 200
    assert not Recording.unscoped.filter(object_id=str(last.pk)).exists()
    assert boss.post(address(Recording, "start"), given).status_code == 302
    assert Recording.unscoped.filter(object_id=str(last.pk)).exists()


def test_a_client_that_was_seen_leads_to_its_session(boss, operator, world):
    key = world["keys"][0]
    client = make_client(key, session="s" * 16)
    text = boss.get(reverse("admin:compatibility"), {"client": client.pk}).content.decode()
    assert "Record its messages" in text
    assert "Record its messages" not in operator.get(reverse("admin:compatibility"), {"client": client.pk}).content.decode()
    where = re.search(r'href="([^"]*recording/start/[^"]*)"', text).group(1).replace("&amp;", "&")
    assert "selected" in boss.get(where).content.decode()
    answer = boss.post(where, {"kind": "session", "session": "s" * 16, "minutes": "5"})
    assert answer.status_code == 302
    assert Recording.unscoped.get(tenant=world["tenant"]).object_id == "s" * 16


def test_the_file_holds_every_message(boss, recording):
    answer = boss.get(reverse("admin:recording_file", args=(recording.pk,)))
    lines = [json.loads(line) for line in answer.content.splitlines()]
    recording.refresh_from_db()
    assert len(lines) == recording.messages
    assert answer["Content-Type"] == "application/x-ndjson"
    assert "attachment" in answer["Content-Disposition"]
    assert any(isinstance(line["message"], dict) for line in lines)


def test_a_superuser_may(recording):
    from tests.console.conftest import client_of

    assert "sy-exchange" in page(client_of(make_superuser()), recording)
    assert services.MOST_MESSAGES == 5000
