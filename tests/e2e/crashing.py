"""Kills the serving process at random moments under load and compares three ledgers: the clients', the servers', and the audit log.

`tests/e2e/test_crash.py` does it a few times, `benchmarks/proof.py` at full scale.
"""

import contextlib
import http.client
import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.rogue import Rogue
from tests.e2e.support import META, MODERN, Client, audit_connection, connect, exchange, made, rest
from tests.product import ROOT, Product
from tests.support import eventually

PROGRAM = Path(__file__).with_name("rogue_stdio.py")
READY_SECONDS = 10.0
_MARK = re.compile(r'mark\\*":\\*"([^"\\]+)')
"""The mark in a row's sample of the arguments, which is JSON within JSON."""


@dataclass
class Ledgers:
    """What each side knows of the calls, by mark."""

    answered: dict[str, bool] = field(default_factory=dict)
    """The clients': marks whose answer arrived → whether it was a result."""
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class Report:
    """What a run found; every list must be empty."""

    kills: int = 0
    asked: int = 0
    answered: int = 0
    arrived: int = 0
    intents: int = 0
    unknown: int = 0
    slowest_ready: float = 0.0
    seconds: float = 0.0
    unrecorded_answers: list[str] = field(default_factory=list)
    unrecorded_calls: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    open_intents: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    verification: str = ""
    verified: bool = False

    def require(self) -> None:
        """Raise AssertionError with all that is wrong."""
        wrong = {
            name: getattr(self, name)[:5]
            for name in ("unrecorded_answers", "unrecorded_calls", "twice", "open_intents", "orphans", "late")
            if getattr(self, name)
        }
        if not self.verified:
            wrong["verification"] = self.verification
        assert not wrong, f"{wrong} in {self}"
        assert self.arrived >= self.kills, "there was hardly any load"


class Caller(threading.Thread):
    """Calls again and again over one kept connection, whatever happens, and writes down each answer."""

    def __init__(
        self, product: Product, path: str, tool: str, era: str, ledgers: Ledgers, stop: threading.Event, number: int
    ) -> None:
        super().__init__(daemon=True)
        self.product, self.path, self.tool, self.era = product, path, tool, era
        self.ledgers, self.stop, self.number = ledgers, stop, number
        self._session = ""

    def run(self) -> None:
        connection: http.client.HTTPConnection | None = None
        for count in itertools.count():
            if self.stop.is_set():
                return
            mark = f"m{self.number}-{count}-"
            try:
                if connection is None:
                    if self.era == "legacy" and not self._session:
                        self._session = connect(self.product, "legacy", self.path).session
                    connection = http.client.HTTPConnection("127.0.0.1", self.product.port, timeout=15)
                body, headers = self._call(mark)
                with self.ledgers.lock:
                    self.ledgers.asked += 1
                connection.request("POST", self.path, body, headers)
                answer = connection.getresponse()
                raw = answer.read()
                with self.ledgers.lock:
                    self.ledgers.answered[mark] = answer.status == 200 and b'"result"' in raw
                if answer.status >= 500:
                    time.sleep(0.02)
                elif answer.status == 404 and self._session:  # it ended with its process: initialize again
                    self._session = connect(self.product, "legacy", self.path).session
            except (OSError, http.client.HTTPException, AssertionError, KeyError, ValueError):
                if connection is not None:
                    connection.close()
                    connection = None
                time.sleep(0.02)

    def _call(self, mark: str) -> tuple[bytes, dict[str, str]]:
        params: dict[str, Any] = {"name": self.tool, "arguments": {"how": "ok", "mark": mark}}
        headers = {**self.product.headers, "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.era == "modern":
            params["_meta"] = META
            headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": self.tool}
        else:
            headers |= {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": self._session}
        return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode(), headers


def serving_process(product: Product) -> psutil.Process | None:
    """Return the process that serves, if it runs now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(product.pid).children():
            with contextlib.suppress(psutil.Error):
                if "run_process" in " ".join(child.cmdline()):
                    return child
    return None


def crash(
    product: Product, home: Path, *, kills: int, callers: int = 6, seed: int = 0, say: Callable[[str], None] = lambda _: None
) -> Report:
    """Kill the serving process of a running product `kills` times under load, then compare the ledgers."""
    report, ledgers, stop = Report(kills=kills), Ledgers(), threading.Event()
    chance = random.Random(seed or None)
    began = time.monotonic()
    ledger = home / "stdio-ledger"
    with Rogue() as rogue:
        for slug, settings in {
            "web": {"transport": "http", "url": rogue.url},
            "program": {"transport": "stdio", "command": sys.executable, "args": [str(PROGRAM), str(ledger)]},
        }.items():
            made(rest(product, "POST", "servers/", {"slug": slug, "timeout_seconds": 10, **settings}))
        for slug in ("web", "program"):
            client = Client(product, "modern", f"/mcp/{slug}")
            eventually(lambda client=client: "act" in client.names(), within=30)
        kinds = [("/mcp/web", "act", "modern"), ("/mcp", "web__act", "legacy"), ("/mcp/program", "act", "modern")]
        threads = [Caller(product, *kinds[number % len(kinds)], ledgers, stop, number) for number in range(callers)]
        for thread in threads:
            thread.start()
        for number in range(kills):
            time.sleep(chance.uniform(0.02, 0.8))
            victim = eventually(lambda: serving_process(product), within=15)
            below = _below(victim)
            with contextlib.suppress(psutil.NoSuchProcess):
                os.kill(victim.pid, signal.SIGKILL)
            killed = time.monotonic()
            # answers of the moment before: wait until one comes from the next process
            eventually(lambda victim=victim: not _runs(victim), within=10)
            waited = _ready(product, killed)
            report.slowest_ready = max(report.slowest_ready, waited)
            if waited > READY_SECONDS:
                report.late.append(round(waited, 1))
            _, left = psutil.wait_procs(below, timeout=max(0.1, READY_SECONDS - waited))
            report.orphans += [f"{process.pid} after kill {number}" for process in left if _runs(process)]
            say(f"kill {number + 1}/{kills}: ready after {waited:.1f} s, {len(ledgers.answered)} answers")
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join(20)
        arrived = [one.arguments["mark"] for one in rogue.calls()]
    arrived += [line.split(" ", 1)[1] for line in ledger.read_text().splitlines() if line.startswith("call ")]
    report.asked, report.answered, report.arrived = ledgers.asked, len(ledgers.answered), len(arrived)
    _compare(product, ledgers, arrived, report)
    verified = subprocess.run(
        [sys.executable, "manage.py", "audit", "verify"],
        cwd=ROOT,
        env=product.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    report.verified, report.verification = verified.returncode == 0, (verified.stdout + verified.stderr)[-1500:]
    report.seconds = time.monotonic() - began
    return report


def _below(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _ready(product: Product, killed: float) -> float:
    """Return how long after a kill the product said that it is ready again."""
    while time.monotonic() - killed < 60:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if exchange(product, "GET", "/health/ready", timeout=2).status == 200:
                return time.monotonic() - killed
        time.sleep(0.02)
    raise AssertionError(f"not ready 60 s after a kill:\n{product.log()[-3000:]}")


def _compare(product: Product, ledgers: Ledgers, arrived: list[str], report: Report) -> None:
    """Hold the clients' and the servers' ledgers against the log."""

    def read() -> tuple[dict[str, str], dict[str, str]]:
        statement = "SELECT event_type, call_id, outcome, body FROM audit_event WHERE event_type IN ('call.intent', 'call.outcome', 'call.refused')"
        marks: dict[str, str] = {}
        outcomes: dict[str, str] = {}
        with audit_connection(product) as connection:
            for event_type, call_id, outcome, body in connection.execute(statement):
                if event_type == "call.outcome":
                    outcomes[call_id] = outcome
                    continue
                text = bytes(body).decode()
                found = _MARK.search(text)
                mark = found[1] if found else f"none in {call_id}"
                if event_type == "call.refused":
                    outcomes[call_id] = "refused"
                marks[mark] = call_id
        return marks, outcomes

    # the sweep of the last process to start closes what the one before left open
    with contextlib.suppress(AssertionError):
        eventually(lambda: _no_open(read()), within=40, every=0.5)
    intents, outcomes = read()
    report.intents = len(intents)
    report.unknown = sum(1 for outcome in outcomes.values() if outcome == "unknown")
    report.open_intents = [mark for mark, call_id in intents.items() if call_id not in outcomes]
    report.unrecorded_calls = [mark for mark in arrived if mark not in intents]
    report.unrecorded_answers = [
        mark for mark, result in ledgers.answered.items() if result and outcomes.get(intents.get(mark, "")) != "ok"
    ]
    report.twice = sorted({mark for mark in arrived if arrived.count(mark) > 1}) if len(arrived) < 5000 else _repeated(arrived)


def _no_open(found: tuple[dict[str, str], dict[str, str]]) -> bool:
    return all(call_id in found[1] for call_id in found[0].values())


def _repeated(marks: list[str]) -> list[str]:
    seen: set[str] = set()
    return [mark for mark in marks if mark in seen or seen.add(mark)]  # type: ignore[func-returns-value]
