"""Units of work: what is announced, and what is recorded even when the work is undone."""

import pytest

from apps.common.context import SYSTEM, every_tenant
from apps.common.errors import PermissionDenied
from apps.common.events import ControlEvent
from apps.common.models import OutboxEvent
from apps.common.outbox import audit, audit_apart, changed, unit_of_work

pytestmark = pytest.mark.django_db


def rows():
    return list(OutboxEvent.objects.order_by("id").values_list("topic", "payload"))


def refuse():
    with unit_of_work():
        changed("server", "undone")
        audit_apart(ControlEvent("access.refused", "server.write", object_label="x", outcome="refused"))
        raise PermissionDenied("no")


def test_a_refusal_outlives_the_work_that_it_ends():
    with every_tenant(SYSTEM), pytest.raises(PermissionDenied):
        refuse()
    ((topic, payload),) = rows()
    assert (topic, payload["event_type"]) == ("audit", "access.refused")


def test_an_inner_unit_that_fails_takes_only_its_own_notices_back():
    with every_tenant(SYSTEM), unit_of_work():
        changed("server", "outer")
        with pytest.raises(PermissionDenied):
            refuse()
    assert [(topic, payload.get("id", payload.get("event_type"))) for topic, payload in rows()] == [
        ("changed", "outer"), ("audit", "access.refused"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["a\x00b", "half \ud800", "é\x00\udfff", "fine é 😀"])
def test_what_a_database_cannot_store_does_not_keep_an_event_out(text):
    with every_tenant(SYSTEM), unit_of_work():
        audit(ControlEvent("x.done", "x.write", object_label=text, details={text: [text, {"deep": text}], "n": 1}))
    ((_, payload),) = rows()
    assert payload["details"]["n"] == 1
    assert payload["object_label"][0] == text[0]
    assert "\x00" not in repr(payload)


def test_nobody_publishes_outside_a_unit():
    with pytest.raises(RuntimeError):
        changed("server", "x")
