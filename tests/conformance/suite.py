"""The official MCP conformance suite, run against a URL.

The suite is the npm package named in `package.json`, installed by the npm of `.venv` into a cache directory. It has no option
for headers, so `inject-headers.mjs` is preloaded. Each revision has a list of required scenarios; the others are reported, too.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests import npm
from tests.engines import end_with_parent, free_port
from tests.support import eventually

HERE = Path(__file__).resolve().parent
REVISIONS = ("2025-11-25", "2026-07-28")
_PREFLIGHT = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": REVISIONS[0], "capabilities": {}, "clientInfo": {"name": "preflight", "version": "1"}},
}


class SuiteUnavailable(Exception):
    """The suite cannot be installed or run here; the message says why."""


@dataclass
class Scenario:
    """What came of one scenario."""

    name: str
    required: bool
    passed: int = 0
    total: int = 0
    warnings: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """A scenario passes when it checked something and nothing failed."""
        return self.total > 0 and not self.failures


@dataclass
class Result:
    """What came of one revision."""

    revision: str
    scenarios: list[Scenario]

    def required(self) -> tuple[int, int]:
        """Return how many required scenarios passed, and how many there are."""
        return self._passed(required=True)

    def others(self) -> tuple[int, int]:
        """Return how many of the scenarios that are run and not scored passed, and how many there are."""
        return self._passed(required=False)

    def _passed(self, *, required: bool) -> tuple[int, int]:
        wanted = [each for each in self.scenarios if each.required is required]
        return sum(each.ok for each in wanted), len(wanted)

    def lines(self) -> Iterator[str]:
        """Describe each scenario, and the totals last."""
        for each in self.scenarios:
            mark = "PASS" if each.ok else "FAIL" if each.failures else "SKIP"
            yield f"{each.passed:3}/{each.total:<3} {mark} {each.name}{'' if each.required else '  [not required]'}"
            yield from (f"            - {failure}" for failure in each.failures)
        passed, total = self.required()
        others, unscored = self.others()
        yield (
            f"{self.revision}: {passed}/{total} required scenarios, {others}/{unscored} others, "
            f"{sum(each.passed for each in self.scenarios)}/{sum(each.total for each in self.scenarios)} checks"
        )


def install() -> Path:
    """Return the directory of the installed suite. Raises SuiteUnavailable."""
    try:
        return npm.install(HERE) / "@modelcontextprotocol" / "conformance"
    except npm.NpmUnavailable as error:
        raise SuiteUnavailable(str(error)) from error


@contextmanager
def fixture(*arguments: str) -> Iterator[str]:
    """Run the suite's server on a free port; gives its URL. `arguments` are those of fixture.py."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, HERE / "fixture.py", str(port), *arguments],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent(signal.SIGKILL),
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}/mcp"
        try:
            eventually(lambda: answers(url), within=30, because="the conformance fixture does not answer")
            yield url
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answers(url: str, headers: dict[str, str] | None = None) -> bool:
    """Tell whether a URL answers `initialize`, or says in the words of 2026-07-28 that it does not. A dead URL would score: some
    checks pass vacuously.
    """
    request = urllib.request.Request(
        url,
        json.dumps(_PREFLIGHT).encode(),
        {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return b'"result"' in answer.read()
    except urllib.error.HTTPError as refused:
        return b"-32022" in refused.read()
    except (OSError, urllib.error.URLError):
        return False


def run(url: str, revision: str, headers: dict[str, str], *, results: Path, seconds: float = 280) -> Result:
    """Run every scenario of a revision against a URL on localhost. Raises SuiteUnavailable."""
    suite = install()
    if not answers(url, headers):
        raise SuiteUnavailable(f"{url} does not answer initialize")
    parts = urlsplit(url)
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    environment = {
        **npm.environment(),
        "CONF_HEADERS": json.dumps(headers),
        "CONF_SUITE_DIR": str(suite),
        "CONF_TARGET_ORIGIN": f"{parts.scheme}://{parts.netloc}",
    }
    command = [
        npm.BIN / "node", "--import", HERE / "inject-headers.mjs", suite / "dist" / "index.js", "server",
        "--url", url, "--requirements", revision, "--timeout", "15000", "-o", results,
    ]  # fmt: skip
    with (results / "run.log").open("wb") as log:
        try:
            subprocess.run(
                command,
                cwd=results,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            log.write(b"\nended: out of time\n")
    return Result(revision, _scenarios(suite, revision, results))


def run_clients(
    revision: str, *, results: Path, switchyard: tuple[str, str, str] | None = None, only: str = "", at_once: int = 2
) -> Result:
    """Run every scenario for clients of a revision, each in processes of its own, a few at a time. Raises SuiteUnavailable.

    With `switchyard`, the URL, an API key and the operator's password of one, the clients call through it; else the SDK's client stands before the
    scenario's server. `only` is a regular expression that chooses scenarios by name. A scenario passes where the suite's own program says so.
    """
    suite = install()
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    requirements = _requirements(suite, revision)
    names = dict.fromkeys(requirements["client"], True)
    names |= {
        row["scenario"]: False for row in requirements["not_scored"] if row["leg"] == "client" and row["reason"] != "extension"
    }
    environment = {**npm.environment(), "PYTHONPATH": str(HERE.parent.parent)}
    if switchyard is not None:
        environment |= {"SWITCHYARD_CONFORMANCE_URL": switchyard[0], "SWITCHYARD_CONFORMANCE_KEY": switchyard[1]}
        environment["SWITCHYARD_CONFORMANCE_PASSWORD"] = switchyard[2]

    def play(name: str) -> Scenario:
        place = results / name.replace("/", "-")
        place.mkdir()
        command = [
            npm.BIN / "node", suite / "dist" / "index.js", "client", "--command", f"{sys.executable} -m tests.conformance.client",
            "--scenario", name, "--spec-version", revision, "--force", "--timeout", "60000", "-o", place,
        ]  # fmt: skip
        scenario = Scenario(name, required=names[name])
        try:
            done = subprocess.run(
                command,
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=120,
                check=False,
            )
        except subprocess.TimeoutExpired:
            scenario.failures.append("out of time")
            return scenario
        (place / "run.log").write_bytes(done.stdout)
        for path in place.rglob("checks.json"):
            _count(scenario, json.loads(path.read_text()))
        if done.returncode and not scenario.failures:
            said = " ".join(line for path in place.rglob("stderr.txt") for line in path.read_text().splitlines()[:3])
            scenario.failures.append(said[:300] or f"{scenario.warnings} warnings")
        return scenario

    with ThreadPoolExecutor(at_once) as pool:
        played = list(pool.map(play, [name for name in names if re.search(only, name)]))
    return Result(revision, played)


def _requirements(suite: Path, revision: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((suite / "requirements" / f"{revision}.yaml").read_text())
    return found


def _count(scenario: Scenario, checks: list[dict[str, Any]]) -> None:
    counted = Counter(check["status"] for check in checks)
    scenario.passed += counted["SUCCESS"]
    scenario.total += counted["SUCCESS"] + counted["FAILURE"]
    scenario.warnings += counted["WARNING"]
    scenario.failures += [
        f"{check['id']}: {(check.get('errorMessage') or '')[:200]}" for check in checks if check["status"] == "FAILURE"
    ]


def _scenarios(suite: Path, revision: str, results: Path) -> list[Scenario]:
    requirements = _requirements(suite, revision)
    scenarios = {name: Scenario(name, required=True) for name in requirements["server"]}
    unscored = (row["scenario"] for row in requirements["not_scored"] if row["leg"] == "server")
    scenarios |= {name: Scenario(name, required=False) for name in unscored}
    for path in sorted(results.glob("*/checks.json")):
        name = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", path.parent.name.removeprefix("server-"))
        if name not in scenarios and f"server-{name}" in scenarios:
            name = f"server-{name}"
        _count(scenarios.setdefault(name, Scenario(name, required=False)), json.loads(path.read_text()))
    for scenario in scenarios.values():
        if scenario.required and not scenario.total and not scenario.failures:
            scenario.failures.append("did not run, or checked nothing")
    return list(scenarios.values())
