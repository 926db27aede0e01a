"""The proofs at full scale; `make proof` writes what they found to benchmarks/PROOF.md.

Kills: the serving process is killed (SIGKILL) in random moments under load, on SQLite and on PostgreSQL. See
tests/e2e/crashing.py for what is compared. Canaries: clients with the same ids at the same time, see tests/e2e/canaries.py.
Tampering: random changes of the audit log behind its back, see tests/audit/tampering.py.
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.installation import api, register
from tests.e2e.canaries import choir, concert
from tests.e2e.crashing import Report, crash
from tests.engines import Postgres, Valkey
from tests.product import ROOT, Product

KILLS = 200
CLIENTS = 1000
KEYS = 10
MUTATIONS = 1000
SETTLE_SECONDS = 4
RESULT = ROOT / "benchmarks" / "PROOF.md"


def kills_on(database: str, kills: int, seed: int) -> Report:
    """Run the proof on one database."""

    def say(line: str) -> None:
        print(f"{database}: {line}", flush=True)

    with tempfile.TemporaryDirectory(prefix="switchyard-proof-") as directory:
        home = Path(directory) / "home"
        if database == "sqlite":
            return _run(Product(home), Path(directory), kills, seed, say)
        with Postgres(durable=True) as engine, Valkey() as store:
            Path(directory).chmod(0o711)
            return _run(
                Product(home, database_url=engine.create("proof"), redis_url=store.url()), Path(directory), kills, seed, say
            )


def _run(product: Product, directory: Path, kills: int, seed: int, say) -> Report:
    try:
        product.start(within=120)
        report = crash(product, directory, kills=kills, callers=8, seed=seed, say=say)
        product.stop()
        return report
    finally:
        product.destroy()


def line_of(database: str, report: Report) -> str:
    """Return a row of the table."""
    cells = (
        database, report.kills, report.asked, report.answered, report.arrived, report.unknown, len(report.unrecorded_answers),
        len(report.unrecorded_calls), len(report.twice), len(report.open_intents), len(report.orphans),
        f"{report.slowest_ready:.1f} s", "yes" if report.verified else "NO", f"{report.seconds:.0f} s",
    )  # fmt: skip
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def canaries(clients: int) -> tuple[str, list[str]]:
    """Have many clients with the same ids call at once; return a line for the report and what does not hold."""
    with (
        tempfile.TemporaryDirectory(prefix="switchyard-proof-") as directory,
        choir("modern") as modern,
        choir("legacy") as legacy,
        Product(Path(directory) / "home") as product,
    ):
        slugs = {"modern": "choir-modern", "legacy": "choir-legacy"}
        for era, url in (("modern", modern), ("legacy", legacy)):
            register(product, slugs[era], transport="http", url=url, max_concurrency=clients)
        keys = [
            api(product, "POST", "api-keys/", {"name": f"singer {number}", "inherits_owner": True})["key"]
            for number in range(KEYS)
        ]
        time.sleep(SETTLE_SECONDS)
        started = time.monotonic()
        report = asyncio.run(concert(product.base_url, keys, slugs, clients))
        seconds = time.monotonic() - started
    line = (
        f"{clients:,} clients of {KEYS} keys at once, all with request id 0 and progress token 0, in the four pairs of eras: "
        f"{report.answered:,} answered, {report.notices:,} notices, {len(report.crossed)} messages crossed, "
        f"{len(report.failed)} clients failed, {seconds:.0f} s."
    )
    print(line, flush=True)
    wrong = [*report.crossed[:3], *report.failed[:3]]
    if report.answered != clients and not wrong:
        wrong.append(f"{clients - report.answered} clients without an answer")
    return line, wrong


def tampering(databases: list[str], count: int, seed: int) -> tuple[list[str], list[str]]:
    """Tamper with a log on each database; return lines for the report and what does not hold."""
    lines, wrong = [], []
    for database in databases:
        command = [
            sys.executable,
            "-m",
            "benchmarks.tampering",
            "--count",
            str(count),
            "--database",
            database,
            "--seed",
            str(seed),
        ]
        found = json.loads(
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        )
        lines.append(
            f"{database}: {found['mutations']:,} mutations of {found['kinds']} kinds, {len(found['missed'])} missed, "
            f"{len(found['misnamed'])} found but the row misnamed, {found['seconds']} s."
        )
        print(lines[-1], flush=True)
        wrong += [*found["missed"][:3], *found["misnamed"][:3]]
        if not found["whole afterwards"]:
            wrong.append(f"{database}: the log was not whole when every mutation was taken back")
    return lines, wrong


def main() -> int:
    """Run, print, write; the exit code is 0 only when everything holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--clients", type=int, default=CLIENTS, help="clients of the canaries; 0 leaves them out")
    parser.add_argument(
        "--mutations", type=int, default=MUTATIONS, help="of the audit log, on each database; 0 leaves them out"
    )
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--seed", type=int, default=0, help="repeat the same moments; 0 = new ones")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    seed = options.seed or secrets.randbelow(2**31) + 1
    rows, wrong = [], []
    for database in options.databases.split(","):
        report = kills_on(database, options.kills, seed)
        rows.append(line_of(database, report))
        try:
            report.require()
        except AssertionError as error:
            wrong.append(f"{database}: {error}")
    tampered: list[str] = []
    if options.mutations:
        tampered, unfound = tampering(options.databases.split(","), options.mutations, seed)
        wrong += unfound
    sung = ["", "## Many clients with the same ids", "", ""]
    if options.clients:
        sung[-1], crossed = canaries(options.clients)
        wrong += crossed
    heads = (
        "database", "kills", "calls asked", "answered", "reached a server", "closed as unknown", "answers not in the log",
        "calls without intent", "calls sent twice", "intents left open", "orphans", "slowest ready", "chain verifies", "time",
    )  # fmt: skip
    command = f"python -m benchmarks.proof --kills {options.kills} --clients {options.clients} --mutations {options.mutations} --databases {options.databases} --seed {seed}"
    moment = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    machine = f"{platform.system()} {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores"
    how = f"`{command}`, {moment}, {machine}."
    text = "\n".join(
        [
            "# Proofs",
            "",
            how,
            "",
            "## `kill -9` of the serving process under load",
            "",
            "Eight clients call without pause, in both eras, before an HTTP server and a stdio program that keep ledgers of what",
            "reaches them; the clients keep one of what was answered. Answers not in the log, calls without intent, calls sent",
            "twice, intents left open and orphans must be 0, and the product ready again within 10 s.",
            "",
            "| " + " | ".join(heads) + " |",
            "|" + "-|" * len(heads),
            *rows,
            *(sung if options.clients else []),
            *(["", "## Tampering with the audit log", "", *(f"* {line}" for line in tampered)] if tampered else []),
            "",
            *([f"**Does not hold:** {line}" for line in wrong] or ["All of it holds."]),
            "",
        ]
    )
    options.output.write_text(text)
    print(text)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
