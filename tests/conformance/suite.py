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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
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
        wanted = [each for each in self.scenarios if each.required]
        return sum(each.ok for each in wanted), len(wanted)

    def lines(self) -> Iterator[str]:
        """Describe each scenario, and the totals last."""
        for each in self.scenarios:
            mark = "PASS" if each.ok else "FAIL" if each.failures else "SKIP"
            yield f"{each.passed:3}/{each.total:<3} {mark} {each.name}{'' if each.required else '  [not required]'}"
            yield from (f"            - {failure}" for failure in each.failures)
        others = [each for each in self.scenarios if not each.required]
        passed, total = self.required()
        yield (
            f"{self.revision}: {passed}/{total} required scenarios, {sum(each.ok for each in others)}/{len(others)} others, "
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
    """Tell whether a URL answers `initialize` with JSON-RPC. A dead URL would score: some checks pass vacuously."""
    request = urllib.request.Request(
        url,
        json.dumps(_PREFLIGHT).encode(),
        {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return b'"result"' in answer.read()
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


def _scenarios(suite: Path, revision: str, results: Path) -> list[Scenario]:
    requirements = yaml.safe_load((suite / "requirements" / f"{revision}.yaml").read_text())
    scenarios = {name: Scenario(name, required=True) for name in requirements["server"]}
    for path in sorted(results.glob("*/checks.json")):
        name = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", path.parent.name.removeprefix("server-"))
        if name not in scenarios and f"server-{name}" in scenarios:
            name = f"server-{name}"
        scenario = scenarios.setdefault(name, Scenario(name, required=False))
        checks = json.loads(path.read_text())
        counted = Counter(check["status"] for check in checks)
        scenario.passed += counted["SUCCESS"]
        scenario.total += counted["SUCCESS"] + counted["FAILURE"]
        scenario.warnings += counted["WARNING"]
        scenario.failures += [
            f"{check['id']}: {(check.get('errorMessage') or '')[:200]}" for check in checks if check["status"] == "FAILURE"
        ]
    for scenario in scenarios.values():
        if scenario.required and not scenario.total and not scenario.failures:
            scenario.failures.append("did not run, or checked nothing")
    return list(scenarios.values())
