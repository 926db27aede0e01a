"""Log lines: their fields, their forms, and what must never be in them."""

import io
import json
import logging

import pytest
import structlog

from apps.common import telemetry
from apps.common.context import Actor, every_tenant

KEY = "sy_abcdefgh_0123456789012345678901234567890123456789012"


@pytest.fixture
def lines(tmp_path):
    """A function that returns the lines of a log file as objects."""
    path = tmp_path / "logs" / "trial.log"
    telemetry.log_to_file(path)
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    telemetry.close_file(path)


def test_a_line_has_the_fields_that_searches_rely_on(lines):
    with telemetry.correlated(request_id="abcdef0123456789", trace_id="4bf92f3577b34da6a3ce929d0e0e4736"):
        logging.getLogger("apps.trial").warning("%d of %s", 3, "them", extra={"server": "time"})
    (line,) = lines()
    assert list(line)[:4] == ["timestamp", "level", "logger", "message"]
    assert line["timestamp"].endswith("Z")
    assert (
        line
        | {
            "level": "warning",
            "logger": "apps.trial",
            "message": "3 of them",
            "server": "time",
            "request_id": "abcdef0123456789",
            "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        }
        == line
    )


def test_the_request_id_of_the_actor_in_force_is_on_the_line(lines):
    with every_tenant(Actor(kind="system", id="system", label="system", request_id="fedcba9876543210")):
        structlog.get_logger("apps.trial").info("something happened", count=2)
    (line,) = lines()
    assert (line["message"], line["count"], line["request_id"]) == ("something happened", 2, "fedcba9876543210")


def test_no_secret_reaches_a_file(lines):
    log = logging.getLogger("apps.trial")
    log.warning("refused %s", KEY, extra={"headers": {"Authorization": "Bearer abcdefghijkl"}, "password": "correct horse"})
    log.warning("connecting to postgresql://somebody:battery-staple@db.example/there")
    try:
        raise ValueError(f"the key {KEY} is unknown")
    except ValueError:
        log.exception("failed")
    text = json.dumps(lines())
    for secret in (KEY[12:], "abcdefghijkl", "correct horse", "battery-staple"):
        assert secret not in text
    assert "Traceback" in lines()[2]["exception"]


def test_a_file_is_rotated_and_old_ones_go(tmp_path, monkeypatch):
    monkeypatch.setattr(telemetry, "FILE_BYTES", 2_000)
    path = tmp_path / "small.log"
    telemetry.log_to_file(path)
    try:
        for number in range(200):
            logging.getLogger("apps.trial").warning("line %d", number)
    finally:
        telemetry.close_file(path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == telemetry.FILES_KEPT + 1
    assert all(file.stat().st_size <= 2_000 for file in files)


def test_a_terminal_gets_colours_and_a_pipe_gets_json():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    try:
        for stream, check in ((Terminal(), lambda text: "\x1b[" in text), (io.StringIO(), json.loads)):
            telemetry.configure({"level": "INFO", "stream": stream})
            logging.getLogger("apps.trial").warning("told")
            assert check(stream.getvalue())
    finally:
        telemetry.configure({"level": "INFO"})


def test_libraries_are_quiet():
    assert not logging.getLogger("kombu.connection").isEnabledFor(logging.INFO)
    assert logging.getLogger("apps.trial").isEnabledFor(logging.INFO)
