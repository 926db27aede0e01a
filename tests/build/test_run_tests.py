"""`scripts/run_tests.py` sums up both passes truthfully in its last line."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests import services
from tests.support import eventually

pytestmark = [pytest.mark.once, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = """
import pytest
from tests import services

def test_passes(): pass

@pytest.mark.once
def test_passes_once(): assert services.DATABASE == "sqlite"

def test_fails(): assert services.DATABASE == "none"

@pytest.mark.skip
def test_skipped(): pass

@pytest.fixture
def broken(): raise RuntimeError

def test_error(broken): pass
"""


def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "SWITCHYARD_", "DATABASE_"))
    }
    return subprocess.Popen(
        [sys.executable, "scripts/run_tests.py", "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"), *map(str, arguments)],
        cwd=ROOT, env={**environment, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def engines() -> dict[str, str]:
    """Return the variables with which a run uses the engines of this one."""
    postgres, valkey = services.postgres(), services.valkey()
    return {"SWITCHYARD_TEST_POSTGRES": f"{postgres.port}:{postgres.password}", "SWITCHYARD_TEST_VALKEY": str(valkey.port)}


def test_the_last_line_counts_both_passes_and_the_exit_code_follows(tmp_path):
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    process = start("-n", "0", tmp_path / "test_sample.py", **engines())
    output, _ = process.communicate(timeout=120)
    assert re.fullmatch(r"3 passed, 2 failed, 2 errors, 2 skipped in \d+ s", output.splitlines()[-1]), output
    assert process.returncode == 1


def test_what_passes_exits_with_0(tmp_path):
    (tmp_path / "test_sample.py").write_text("def test_passes(): pass\n")
    process = start("-n", "0", tmp_path / "test_sample.py", **engines())
    output, _ = process.communicate(timeout=120)
    assert re.fullmatch(r"2 passed, 0 failed in \d+ s", output.splitlines()[-1]), output
    assert process.returncode == 0


def test_a_pass_that_never_ends_is_ended_and_counts_as_an_error(tmp_path):
    (tmp_path / "test_sample.py").write_text("import time\ndef test_sleeps(): time.sleep(600)\n")
    process = start("-n", "0", tmp_path / "test_sample.py", SWITCHYARD_TEST_SECONDS="4")
    output, _ = process.communicate(timeout=120)
    assert re.fullmatch(r"0 passed, 0 failed, 2 errors in \d+ s", output.splitlines()[-1]), output
    assert process.returncode == 124


def test_an_interrupt_leaves_no_process(tmp_path):
    (tmp_path / "test_sample.py").write_text(
        "import pathlib, time\n"
        "from tests import services\n"
        "def test_sleeps():\n"
        "    services.postgres(), services.valkey()\n"
        f"    pathlib.Path({str(tmp_path / 'started')!r}).touch()\n"
        "    time.sleep(600)\n"
    )
    with start(tmp_path / "test_sample.py") as process:
        try:
            eventually((tmp_path / "started").exists, within=60)
            everyone = psutil.Process(process.pid).children(recursive=True)
            assert {"postgres", "valkey-server"} <= {each.name() for each in everyone}
        finally:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 130
    assert psutil.wait_procs(everyone, timeout=10)[1] == []


def test_a_report_that_is_missing_is_an_error(tmp_path):
    specification = importlib.util.spec_from_file_location("run_tests", ROOT / "scripts" / "run_tests.py")
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    assert script.count(tmp_path / "none.xml") == {"errors": 1}
