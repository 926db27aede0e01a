"""Whatever is done to a log behind its back is found, and the first row that is not as it was written is named."""

import secrets
import shutil
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connections

from apps.audit.services.verify import check_log
from apps.audit.sink.config import SinkConfig
from tests.audit import logs, tampering


def test_random_tampering_is_found_and_named(log: SinkConfig) -> None:
    lines = tampering.write(log)
    assert check_log(checkpoints=lines).ok
    seed = secrets.randbelow(2**31)
    result = tampering.run(lines, 84, seed)
    assert result.missed == []
    assert result.misnamed == []
    assert min(result.done.values()) >= 3
    assert check_log(checkpoints=lines).ok, "everything was taken back"


def test_an_old_file_of_the_log_in_place_of_the_new_one_is_found(log: SinkConfig, tmp_path: Path) -> None:
    if log.sqlite is None:
        pytest.skip("PostgreSQL has no file to put back; the tables are, in the test above")
    logs.write(log, [logs.note() for _ in range(4)])
    connections[settings.AUDIT_DATABASE].close()
    with logs.raw(log) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(log.sqlite, tmp_path / "old")
    lines = tampering.write(log)
    assert check_log(checkpoints=lines).ok
    connections[settings.AUDIT_DATABASE].close()
    with logs.raw(log) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        Path(f"{log.sqlite}{suffix}").unlink(missing_ok=True)
    shutil.copy(tmp_path / "old", log.sqlite)
    report = check_log(checkpoints=lines)
    assert not report.ok
    assert report.first_bad == "0-5"
    assert not check_log().ok, "our own checkpoints stand in the other file"
