"""The parent of every process: starts them, says when all are ready, restarts what dies, ends everything.

It runs without Django (about 15 MB) in the process that `manage.py serve` was started as, and is single-threaded: one loop over
signals, the pipes on which children report, and deadlines.
"""

import http.client
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psutil

from config.processes import tree
from config.processes.plan import ChildPlan, Plan
from config.processes.roles import VARIABLE

STOP_SECONDS = 9.0
"""After a signal to stop, children have this long; then they are killed, so that all is over within 10 s."""
BACKOFF_SECONDS = (0.2, 0.5, 1.0, 2.0)
"""The last one repeats. It is short, because a process that is killed again and again must serve within 10 s each time."""
STEADY_SECONDS = 60.0
"""A child that ran this long starts its next backoff from the beginning."""
PROBE_SECONDS = 0.05
SWEEP_SECONDS = 5.0
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_READY = b"ready"


@dataclass(slots=True, eq=False)
class Child:
    """A process to keep running, and its present run."""

    plan: ChildPlan
    process: subprocess.Popen[bytes] | None = None
    report_fd: int = -1
    lifeline_fd: int = -1
    ready: bool = False
    started: float = 0.0
    deaths: int = 0
    restart_at: float | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the present run, if there is one."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)


@dataclass(slots=True)
class Supervisor:
    """Carries out a plan until a signal ends it."""

    plan: Plan
    say: Callable[[str], None]
    complain: Callable[[str], None]
    _children: list[Child] = field(default_factory=list)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _signals: list[int] = field(default_factory=list)
    _strays: set[psutil.Process] = field(default_factory=set)
    _announced: bool = False
    _secrets_shown: bool = False
    _next_probe: float = 0.0
    _next_sweep: float = 0.0
    _last_probe: str = ""

    def run(self) -> int:
        """Run until told to stop; returns the exit code: 0 after a clean stop, 1 when the start failed or somebody had to be killed."""
        tree.adopt_orphans()
        self._catch_signals()
        self._children = [Child(plan) for plan in self.plan.children]
        for child in self._children:
            self._start(child)
        deadline = time.monotonic() + self.plan.start_seconds
        try:
            while True:
                self._wait()
                if self._signals:
                    return self._stop()
                for child in self._reap():
                    if not self._announced:
                        return self._give_up(f"the process {child.plan.name} ended while it started")
                    self._bury(child)
                if not self._announced and time.monotonic() > deadline:
                    waited = f"not ready within {self.plan.start_seconds:.0f} s"
                    return self._give_up(f"{waited}: {self._last_probe}" if self._last_probe else waited)
                self._proceed()
        finally:
            self._show_secrets()

    # --- start -----------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        reading, report = os.pipe()
        lifeline, holding = os.pipe()
        passed = [report, lifeline, *self.plan.keep_fds]
        arguments = ["--kind", child.plan.kind, "--name", child.plan.name, "--report", str(report), "--lifeline", str(lifeline)]
        if child.plan.kind == "serving":
            passed.append(self.plan.listen_fd)
            arguments += ["--listen", str(self.plan.listen_fd)]
        child.process = subprocess.Popen(
            [*self.plan.program, *arguments],
            env={**os.environ, VARIABLE: child.plan.roles},
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(report)
        os.close(lifeline)
        os.set_blocking(reading, False)
        child.report_fd, child.lifeline_fd = reading, holding
        child.ready, child.restart_at, child.started = False, None, time.monotonic()
        self._selector.register(reading, selectors.EVENT_READ, child)

    def _proceed(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.restart_at is not None and now >= child.restart_at:
                self._start(child)
        if not self._announced and all(child.ready for child in self._children) and now >= self._next_probe and self._probe():
            self._announce()
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_SECONDS
            if all(child.process is not None for child in self._children):
                self._strays = self._orphans()

    def _probe(self) -> bool:
        if not self.plan.probe:
            return True
        parts = urlsplit(self.plan.probe)
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=2)
        try:
            connection.request("GET", parts.path)
            answer = connection.getresponse()
            body = answer.read(300).decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            self._last_probe = f"{self.plan.probe} does not answer ({error})"
        else:
            if answer.status == 200:
                return True
            self._last_probe = f"{self.plan.probe} answers {answer.status} {body}"
        finally:
            connection.close()
        self._next_probe = time.monotonic() + PROBE_SECONDS
        return False

    def _announce(self) -> None:
        self._announced = True
        for line in self.plan.banner:
            self.say(line)
        self._show_secrets()
        self.say(self.plan.ready)

    def _show_secrets(self) -> None:
        if not self._secrets_shown:
            self._secrets_shown = True
            for line in self.plan.secrets:
                self.say(line)

    def _give_up(self, why: str) -> int:
        self._stop()
        self.complain(f"switchyard: cannot start: {why}")
        return 1

    # --- watch -----------------------------------------------------------------------------------

    def _catch_signals(self) -> None:
        reading, writing = os.pipe()
        for end in (reading, writing):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) means it
                signal.signal(number, lambda number, _: self._signals.append(number))
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, so that it wakes the loop
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        self._selector.register(reading, selectors.EVENT_READ, None)

    def _wait(self) -> None:
        now = time.monotonic()
        times = [self._next_sweep, *(child.restart_at for child in self._children if child.restart_at is not None)]
        if not self._announced and all(child.ready for child in self._children):
            times.append(self._next_probe)
        for key, _ in self._selector.select(max(0.0, min(times) - now)):
            child: Child | None = key.data
            text = os.read(key.fd, 4096)
            if child is None:
                continue
            if text.startswith(_READY):
                child.ready = True
            if not text:
                self._forget_report(child)

    def _reap(self) -> list[Child]:
        """Collect what ended, orphans of ours included; return the children among them."""
        ended = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                for child in self._running():
                    # nothing is left below us, so whoever collected it, it has ended
                    child.process.returncode = -signal.SIGKILL  # type: ignore[union-attr]
                    ended.append(child)
                break
            if pid == 0:
                break
            for child in self._children:
                if child.process is not None and child.process.pid == pid:
                    child.process.returncode = os.waitstatus_to_exitcode(status)
                    ended.append(child)
        for child in ended:
            self._close(child)
        return ended

    def _bury(self, child: Child) -> None:
        """Say that a child died, end what it left behind, and plan its restart."""
        assert child.process is not None
        code = child.process.returncode
        child.process = None
        if time.monotonic() - child.started > STEADY_SECONDS:
            child.deaths = 0
        pause = BACKOFF_SECONDS[min(child.deaths, len(BACKOFF_SECONDS) - 1)]
        child.deaths += 1
        child.restart_at = time.monotonic() + pause
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        self.complain(f"switchyard: the process {child.plan.name} ended {how}; starting it again in {pause:g} s")
        tree.end(self._orphans() - self._strays)

    def _running(self) -> list[Child]:
        return [child for child in self._children if child.process is not None and child.process.returncode is None]

    def _orphans(self) -> set[psutil.Process]:
        """Return direct children that we did not start: what a dead child of ours had started."""
        own = {child.process.pid for child in self._children if child.process is not None}
        return {process for process in tree.below(recursive=False) if process.pid not in own}

    def _close(self, child: Child) -> None:
        self._forget_report(child)
        if child.lifeline_fd >= 0:
            os.close(child.lifeline_fd)
            child.lifeline_fd = -1

    def _forget_report(self, child: Child) -> None:
        if child.report_fd >= 0:
            self._selector.unregister(child.report_fd)
            os.close(child.report_fd)
            child.report_fd = -1

    # --- stop ------------------------------------------------------------------------------------

    def _stop(self) -> int:
        """End everything: children by SIGTERM, whoever is left at the deadline or after a second signal by SIGKILL."""
        if self.plan.listen_fd >= 0:
            os.close(self.plan.listen_fd)
        self._signals.clear()
        known = tree.below(recursive=True)
        running = self._running()
        for child in running:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        forced = False
        while running:
            self._reap()
            running = self._running()
            if not running:
                break
            if time.monotonic() > deadline or self._signals:
                forced = True
                names = ", ".join(child.plan.name for child in running)
                self.complain(f"switchyard: ended at once: {names}")
                known |= tree.below(recursive=True)
                tree.kill(known)
                deadline = time.monotonic() + 1.0
                self._signals.clear()
            for key, _ in self._selector.select(0.05):
                if not os.read(key.fd, 4096) and key.data is not None:
                    self._forget_report(key.data)
        tree.end(tree.alive(self._orphans() | known))
        self._reap()
        return 1 if forced else 0


def main(fd: int) -> int:
    """Read the plan from a pipe and carry it out."""

    def say(line: str) -> None:
        try:
            print(line, flush=True)  # noqa: T201 - the terminal is where a start is reported
        except OSError:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - nobody reads it any more

    def complain(line: str) -> None:
        try:
            print(line, file=sys.stderr, flush=True)  # noqa: T201
        except OSError:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115

    return Supervisor(Plan.from_pipe(fd), say=say, complain=complain).run()
