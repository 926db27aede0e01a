"""`manage.py audit …`."""

import io
import json

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections

from apps.audit import selectors
from apps.audit.models import AuditEvent, CallRollup
from apps.audit.sink.config import SinkConfig
from apps.common.context import every_tenant
from apps.common.models import OutboxEvent
from apps.common.shell import operator
from tests.audit import logs


def run(*words: str) -> str:
    """Run the command and return what it says."""
    out = io.StringIO()
    call_command("audit", *words, stdout=out)
    return out.getvalue()


def test_verify_relay_and_the_last_result(log: SinkConfig) -> None:
    logs.write(log, [logs.intent("c"), logs.outcome("c")])
    assert "2 rows" in run("verify")
    assert "Chained 1 events" in run("relay")
    with every_tenant():
        last = selectors.last_verification()
    assert last is not None
    assert (last.outcome, last.actor, last.origin) == ("ok", operator().label, "cli")
    assert last.details["rows"] == 2
    report = json.loads(run("verify", "--fast", "--json"))
    assert (report["ok"], report["rows"], report["first_bad"]) == (True, 3, None)


@pytest.mark.parametrize("words", [("--fast",), (), ("--json",)])
def test_verify_names_the_first_bad_row_and_fails(log: SinkConfig, capsys: pytest.CaptureFixture, words: tuple) -> None:
    logs.write(log, [logs.note() for _ in range(5)])
    connection = connections[settings.AUDIT_DATABASE]
    with logs.unguarded(connection), connection.cursor() as cursor:
        cursor.execute("UPDATE audit_event SET body = %s WHERE id = 3", [b'{"event_type":"x","time_us":1}'])
    out = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("audit", "verify", *words, stdout=out)
    assert ended.value.code == 1
    assert "0-3" in out.getvalue()
    assert OutboxEvent.objects.get().payload["outcome"] == "failed"


def test_rollups_and_sweep(log: SinkConfig) -> None:
    logs.write(log, [logs.intent("done"), logs.outcome("done"), logs.intent("open")])
    assert "Closed 1" in run("sweep")
    assert AuditEvent.objects.get(outcome="unknown").call_id == "open"
    assert "Closed 0" in run("sweep")
    run("rollups")
    before = CallRollup.objects.filter(span="day").values_list("calls", flat=True)[0]
    run("rollups", "--rebuild")
    assert CallRollup.objects.filter(span="day").values_list("calls", flat=True)[0] == before == 2
