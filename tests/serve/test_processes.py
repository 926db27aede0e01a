"""One machine's processes: started, watched, drained and ended, with nothing left behind."""

import http.client
import os
import signal
import threading
import time

import psutil
import pytest

from tests.product import Product
from tests.support import eventually

pytestmark = pytest.mark.once


def serving_child(product: Product) -> psutil.Process:
    (child,) = [process for process in psutil.Process(product.pid).children() if "run_process" in process.cmdline()]
    return child


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_start_is_announced_once_and_a_stop_is_clean(start_trial, get):
    """The fixture's stop requires that SIGTERM ends everything within 10 s; here also exit code 0."""
    product = start_trial()
    ready = [line for line in product.log().splitlines() if line.startswith("Switchyard is ready")]
    assert len(ready) == 1
    assert get(product, "/health/ready") == "ok"
    child = serving_child(product)
    assert product.stop() == 0
    assert gone(child.pid)


def test_the_second_start_is_quick_and_says_no_secret_again(start_trial, tmp_path, record_property):
    environment = {"SWITCHYARD_ADMIN_PASSWORD": "", "SWITCHYARD_ADMIN_KEY": ""}
    first = start_trial(home=tmp_path / "home", environment=environment)
    said = first.log()
    (password,) = [line.split()[-1] for line in said.splitlines() if line.strip().startswith("Password")]
    (key,) = [line.split()[-1] for line in said.splitlines() if line.strip().startswith("API key")]
    assert key.startswith("sy_")
    assert first.stop() == 0
    before = time.monotonic()
    second = start_trial(home=tmp_path / "home", environment=environment)
    took = time.monotonic() - before
    record_property("second_start_seconds", round(took, 2))
    assert took < 20, "5 s on an idle machine; tests share theirs"
    assert password not in second.log()
    assert key not in second.log()
    assert "sy_" not in second.log()


def test_what_the_operator_gave_is_not_printed(start_trial, tmp_path):
    product = start_trial(home=tmp_path / "home")
    assert product.password not in product.log()
    assert product.key not in product.log()
    assert "as given in SWITCHYARD_ADMIN_PASSWORD" in product.log()


def test_requests_in_flight_are_finished_and_streams_told_when_it_stops(start_trial):
    product = start_trial()
    answers: dict[str, bytes] = {}
    began = threading.Barrier(3)

    def ask(path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", product.port, timeout=30)
        connection.request("GET", path)
        response = connection.getresponse()
        answers[path] = response.read(6)
        began.wait(30)
        answers[path] += response.read()

    threads = [threading.Thread(target=ask, args=(path,)) for path in ("/slow?seconds=1", "/stream")]
    for thread in threads:
        thread.start()
    began.wait(30)
    assert product.stop() == 0
    for thread in threads:
        thread.join(10)
    assert answers == {"/slow?seconds=1": b"began ended", "/stream": b"began drained"}


def test_a_second_signal_ends_it_at_once(start_trial):
    product = start_trial()
    connection = http.client.HTTPConnection("127.0.0.1", product.port, timeout=30)
    connection.request("GET", "/slow?seconds=60")
    connection.getresponse().read(6)
    child = serving_child(product)
    before = time.monotonic()
    product.process.send_signal(signal.SIGINT)
    eventually(lambda: _refuses(product.port))
    assert child.is_running()
    product.process.send_signal(signal.SIGINT)
    assert product.process.wait(5) == 1
    assert time.monotonic() - before < 6
    assert gone(child.pid)


def test_a_dead_child_is_started_again_and_its_own_children_are_ended(start_trial, get):
    product = start_trial()
    first = serving_child(product).pid
    stray = int(get(product, "/spawn"))
    os.kill(first, signal.SIGKILL)
    second = int(get(product, "/pid"))  # the supervisor keeps the socket, so the request waits for the next child
    assert second != first
    assert serving_child(product).pid == second
    eventually(lambda: gone(stray), within=5)
    assert "ended by signal 9; starting it again" in product.log()


def test_nothing_is_left_when_the_supervisor_is_killed(start_trial, get):
    product = start_trial()
    child, stray = serving_child(product).pid, int(get(product, "/spawn"))
    os.kill(product.pid, signal.SIGKILL)
    product.process.wait(10)
    eventually(lambda: gone(child), within=10)
    eventually(lambda: gone(stray) or psutil.Process(stray).ppid() != child, within=5)
    if not gone(stray):
        os.kill(stray, signal.SIGKILL)


def test_a_start_after_the_supervisor_was_killed_waits_for_its_child_to_end(start_trial):
    first = start_trial()
    os.kill(first.pid, signal.SIGKILL)
    first.process.wait(10)
    second = start_trial(home=first.home, key=first.key, password=first.password)
    assert second.stop() == 0


def test_a_child_that_cannot_start_ends_the_start_and_still_tells_the_secrets(start_trial, tmp_path):
    environment = {"TRIAL_FAILS": "1", "SWITCHYARD_ADMIN_PASSWORD": "", "SWITCHYARD_ADMIN_KEY": ""}
    product = start_trial(home=tmp_path / "home", environment=environment, wait=False)
    assert product.process.wait(60) == 1
    log = product.log()
    assert "switchyard: cannot start: the process serve ended while it started" in log
    assert "API key   sy_" in log
    assert "Switchyard is ready" not in log
    assert "Traceback" not in log


def test_a_second_start_in_the_same_home_is_refused(start_trial):
    first = start_trial()
    second = start_trial(home=first.home, wait=False)
    assert second.process.wait(60) == 1
    assert f"another Switchyard (process {first.pid}) already runs" in second.log()
    assert "Traceback" not in second.log()


def _refuses(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.connect()
    except OSError:
        return True
    finally:
        connection.close()
    return False


def test_a_stop_while_it_prepares_is_clean(start_trial, tmp_path):
    product = start_trial(home=tmp_path / "home", wait=False)
    eventually(lambda: "Discovering the built-in server" in product.log(), within=60)
    assert product.stop() == 0
    assert "Traceback" not in product.log()
