"""Who saw what a call carried is recorded; who looked at anything else is not."""

import pytest

from apps.audit import selectors
from apps.audit.services.reads import note_payloads_read
from apps.audit.sink.config import SinkConfig
from apps.common.context import Actor, every_tenant
from apps.common.models import OutboxEvent
from tests.audit import logs

TENANT = "0193b1f2-aaaa-7bbb-8ccc-1234567890ab"
ANN = Actor(kind="user", id="u", label="ann", origin="admin")


@pytest.mark.parametrize("details", [{"arguments": '{"city":"Bern"}'}, {"result": '{"text":"rain"}', "rule": "x"}])
def test_a_look_at_a_sample_is_an_event(log: SinkConfig, details: dict) -> None:
    logs.write(
        log, [logs.intent("c", tenant=TENANT, details={"path": "/mcp"}), logs.outcome("c", tenant=TENANT, details=details)]
    )
    with every_tenant(ANN):
        assert note_payloads_read(selectors.call_story("c"))
    payload = OutboxEvent.objects.get(topic="audit").payload
    assert (payload["event_type"], payload["actor_label"], payload["object_id"]) == ("audit.payload_read", "ann", "c")
    assert payload["details"] == {"events": ["0-2"]}
    assert payload["tenant_id"] == TENANT, "the tenant whose payload it was reads of it"


def test_a_look_at_anything_else_is_none(log: SinkConfig) -> None:
    logs.write(log, [logs.intent("c", details={"arguments_sha256": "a" * 64}), logs.note(details={"before": 1, "after": 2})])
    with every_tenant(ANN):
        assert not note_payloads_read([selectors.event("0-1"), selectors.event("0-2")])
    assert not OutboxEvent.objects.exists()
