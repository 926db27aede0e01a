"""Runs the whole suite twice, on SQLite and on real PostgreSQL + Redis, and sums the two up in its last line.

    python scripts/run_tests.py [pytest arguments]

The last line is `N passed, N failed[, N errors][, N skipped] in N s`; the exit code is 0 only when both passes ended with 0.
Both must end within SWITCHYARD_TEST_SECONDS (default 3000); a pass that is cut off counts as one error. SWITCHYARD_TEST_WORKERS is
the number of processes of a pass.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
PASSES = {"sqlite": ("SQLite", ()), "postgres": ("PostgreSQL + Redis", ("-m", "not once"))}
WORKERS = os.environ.get("SWITCHYARD_TEST_WORKERS", "3")
"""Processes of a pass, at most 4. One more than the processors of a small machine, as tests of real servers wait a good part of their time."""
FAILED = 1
"""pytest's exit code when tests failed."""
NO_TESTS = 5
"""pytest's exit code when nothing was selected."""


def count(report: Path) -> Counter[str]:
    """Return how many tests a JUnit report calls passed, failed, in error and skipped; one error when it is not there."""
    try:
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return Counter(errors=1)
    totals: Counter[str] = Counter()
    for suite in suites:
        numbers = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
        totals["failed"] += numbers["failures"]
        totals["errors"] += numbers["errors"]
        totals["skipped"] += numbers["skipped"]
        totals["passed"] += numbers["tests"] - numbers["failures"] - numbers["errors"] - numbers["skipped"]
    return totals


def run_pass(database: str, arguments: list[str], report: Path, seconds: float) -> int:
    """Run pytest on one database; return its exit code, or 124 when its time was up."""
    title, selection = PASSES[database]
    print(f"\n--- {title} ---", flush=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        WORKERS,
        "--dist",
        "loadscope",
        "--no-loadscope-reorder",  # tests/conftest.py puts first what takes long
        "--durations=10",
        "--durations-min=5",
    ]
    # what failed is remembered for this pass alone: others may run tests in the same tree at the same time
    command += ["-o", f"cache_dir={report.parent / 'cache'}", f"--junitxml={report}", *selection, *arguments]
    # temporary files of a pass go with it, however it ends; others may pass through, as PostgreSQL runs as another user for root
    report.parent.chmod(0o711)
    environment = {**os.environ, "SWITCHYARD_TEST_DATABASE": database, "TMPDIR": str(report.parent)}
    environment["SWITCHYARD_TEST_ENGINES"] = "shared"  # tests of several processes need them in either pass
    # without kept bytecode each process of each pass would compile every test anew
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    process = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"the pass on {title} took longer than {seconds:.0f} s and was ended", flush=True)
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        report.unlink(missing_ok=True)
        return 124
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
        raise


def run_again(
    database: str, arguments: list[str], report: Path, deadline: float, first: Counter[str]
) -> tuple[int, Counter[str]]:
    """Run what failed once more, apart from the rest; return the exit code and the counts that hold then.

    Tests of real processes against the clock can starve on a busy machine; what fails apart as well has failed. What passed only
    then is named, so that it is looked at.
    """
    again = [*arguments, "--last-failed", "--last-failed-no-failures", "none", "-rA"]
    print("\n--- once more, what failed ---", flush=True)
    code = run_pass(database, again, report, max(1.0, deadline - time.monotonic()))
    second = count(report)
    if code != 0 or second["failed"] or second["errors"]:
        return FAILED, first
    print(f"{second['passed']} passed only when run apart", flush=True)
    return 0, Counter(passed=first["passed"] + second["passed"], skipped=first["skipped"])


def main(arguments: list[str]) -> int:
    """Run both passes; return the exit code."""
    started = time.monotonic()
    deadline = started + float(os.environ.get("SWITCHYARD_TEST_SECONDS", "3000"))
    totals: Counter[str] = Counter()
    codes = []
    if not arguments:  # here and not where they are first used, so that what takes long is seen; without them tests say so
        subprocess.run([sys.executable, "-m", "tests.npm"], cwd=ROOT, check=False)
    try:
        for database in PASSES:
            with tempfile.TemporaryDirectory(prefix="switchyard-tests-", ignore_cleanup_errors=True) as directory:
                report = Path(directory) / "report.xml"
                code = run_pass(database, arguments, report, max(1.0, deadline - time.monotonic()))
                counted = count(report)
                if code == FAILED:
                    code, counted = run_again(database, arguments, Path(directory) / "again.xml", deadline, counted)
                codes.append(0 if code == NO_TESTS and arguments else code)
                totals += counted
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    line = f"{totals['passed']} passed, {totals['failed']} failed"
    line += "".join(f", {totals[name]} {name}" for name in ("errors", "skipped") if totals[name])
    print(f"\n{line} in {time.monotonic() - started:.0f} s", flush=True)
    return max(abs(code) for code in codes)  # negative: ended by a signal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
