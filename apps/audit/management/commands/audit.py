"""`manage.py audit …`: the log from the command line."""

import contextlib
import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.domain import FAMILIES, VerificationReport
from apps.audit.formats import FORMATS
from apps.common.context import every_tenant
from apps.common.errors import SwitchyardError
from apps.common.shell import operator


class Command(BaseCommand):
    """Checks the log, chains what waits in the outbox, makes roll-ups, closes calls of dead writers."""

    help = "Check and look after the audit log."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the verbs."""
        verbs = parser.add_subparsers(dest="verb", required=True)
        verify = verbs.add_parser("verify", help="walk every chain and name the first bad row; exit code 1 if there is one")
        verify.add_argument(
            "--fast",
            action="store_true",
            help="the stored bytes and the chain alone, not the columns that lists and filters show",
        )
        verify.add_argument(
            "--checkpoints",
            metavar="FILE",
            help="hold the log against signed checkpoints that were kept elsewhere: a file of lines, a directory, or - for standard input",
        )
        verify.add_argument(
            "--public-key",
            action="append",
            default=[],
            metavar="KEY",
            help="trust these keys instead of the installation's own (as `audit keys` prints them); may stand several times",
        )
        verify.add_argument("--json", action="store_true", help="print the report as JSON")
        checkpoints = verbs.add_parser(
            "checkpoints", help="show how the signed checkpoints stand; exit code 1 if one cannot be delivered"
        )
        checkpoints.add_argument("--make", action="store_true", help="sign the heads now and deliver first")
        checkpoints.add_argument("--json", action="store_true", help="print it as JSON")
        verbs.add_parser("keys", help="print the ids and public halves of the keys that sign checkpoints, the newest first")
        verbs.add_parser("relay", help="chain now what waits in the outbox")
        rollups = verbs.add_parser("rollups", help="bring the roll-ups up to date")
        rollups.add_argument("--rebuild", action="store_true", help="throw them away and make them anew from the log")
        export = verbs.add_parser("export", help="write events to a file, newest first")
        export.add_argument("form", choices=sorted(FORMATS))
        export.add_argument("file", help="- is standard output")
        export.add_argument("--since", type=_moment, default=None, metavar="TIME", help="inclusive, RFC 3339")
        export.add_argument("--until", type=_moment, default=None, metavar="TIME", help="exclusive")
        export.add_argument("--filter", action="append", default=[], metavar="NAME=VALUE", help="as the list's: server=weather")
        grant = verbs.add_parser("grant", help="PostgreSQL: let a role serve that cannot change the log")
        grant.add_argument("role")
        retention = verbs.add_parser("retention", help="show or set after how many days payloads go, and let them go now")
        retention.add_argument(
            "--set", action="append", default=[], metavar="FAMILY=DAYS", help=f"{', '.join(FAMILIES)}; `calls=keep` for good"
        )
        retention.add_argument("--tenant", default="", metavar="ID", help="the rule is for this tenant alone")
        retention.add_argument(
            "--apply", action="store_true", help="announce and remove now what has come of age (also done every minute)"
        )
        verbs.add_parser("sweep", help="close the open calls of writers whose process is gone")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what the verb says, as the system."""
        with every_tenant(operator()):
            try:
                getattr(self, f"_{options['verb']}")(options)
            except SwitchyardError as error:
                raise CommandError(str(error)) from error

    def _verify(self, options: dict[str, Any]) -> None:
        from apps.audit.services.verify import verify_log

        shown = not options["json"] and sys.stderr.isatty()
        try:
            lines = _lines(options["checkpoints"]) if options["checkpoints"] else None
            report = verify_log(
                columns=not options["fast"],
                progress=self._progress if shown else None,
                checkpoints=lines,
                public_keys=options["public_key"],
            )
        except (OSError, UnicodeError) as error:
            raise CommandError(f"The checkpoints cannot be read: {error}") from error
        if shown:
            self.stderr.write("")
        if options["json"]:
            found = {**asdict(report), "first_bad": report.first_bad, "what": report.what}
            self.stdout.write(json.dumps(found, indent=2))
        else:
            self._tell(report)
        if not report.ok:
            sys.exit(1)

    def _progress(self, done: int, total: int) -> None:
        self.stderr.write(f"\r{done:,} of {total:,} rows", ending="")

    def _tell(self, report: VerificationReport) -> None:
        chains = len(report.writers) + len({problem.event_id for problem in report.problems if "-" in problem.event_id})
        took = f"{report.rows:,} row{'s'[: report.rows != 1]} of {chains} chain{'s'[: chains != 1]} in {report.seconds:.1f} s"
        if report.ok and not report.columns:
            self.stdout.write(self.style.SUCCESS(f"The chains and stored bytes are whole; columns were not compared: {took}."))
        elif report.ok:
            self.stdout.write(self.style.SUCCESS(f"The audit log is whole: {took}."))
        else:
            self.stdout.write(self.style.ERROR(f"The audit log is NOT whole ({took})."))
            for problem in report.problems:
                self.stdout.write(f"  {problem.event_id}: {problem.what}")
        self.stdout.write(f"  compared: {report.mode}")
        if report.payloads_gone:
            self.stdout.write(f"  payload gone by retention: {report.payloads_gone:,} (last event {report.removals[-1]})")
        found = report.checkpoints
        if found is None:
            self.stdout.write("  signed checkpoints: none")
            return
        gap = f", longest gap {found['longest_gap_seconds']:.0f} s" if found["longest_gap_seconds"] is not None else ""
        unreadable = f", {found['unreadable_lines']} lines that are none" if found["unreadable_lines"] else ""
        self.stdout.write(
            f"  signed checkpoints: {found['read']:,}, to {found['last']} of {found['last_time']}{gap}{unreadable}"
        )

    def _checkpoints(self, options: dict[str, Any]) -> None:
        from apps.audit.services.checkpoints import configured_keys, configured_targets, deliver, make_checkpoint, overview

        if options["make"]:
            make_checkpoint(configured_keys())
            deliver(configured_targets(), f"cli-{os.getpid()}", at_once=True)
        state = overview()
        if options["json"]:
            self.stdout.write(json.dumps({**asdict(state), "degraded": state.degraded}, indent=2, default=str))
        else:
            self.stdout.write(f"Checkpoint {state.number} of {state.made_at or 'never'}, key {state.key}")
            for target in state.targets:
                how = f"waits with {target.waiting}: {target.error}" if target.failing_since else f"{target.waiting} to deliver"
                self.stdout.write(f"  {target.name}: has up to {target.delivered}, {how}")
            if not state.targets:
                self.stdout.write("  SWITCHYARD_CHECKPOINTS names no place: they are kept in the database alone")
        if state.degraded:
            sys.exit(1)

    def _keys(self, options: dict[str, Any]) -> None:
        from apps.audit.services.checkpoints import configured_keys

        for name, public in configured_keys().published.items():
            self.stdout.write(f"{name} {public}")

    def _relay(self, options: dict[str, Any]) -> None:
        from apps.audit.runtime import AuditThread
        from apps.audit.services.relay import Relay

        audit = AuditThread(background=False)
        try:
            count = Relay(audit.start().sink).run_until_empty()
        finally:
            audit.stop()
        self.stdout.write(f"Chained {count} events.")

    def _rollups(self, options: dict[str, Any]) -> None:
        from apps.audit.services.rollups import prune, rebuild, roll_up_all

        seen = rebuild() if options["rebuild"] else roll_up_all()
        prune()
        self.stdout.write(f"Rolled up {seen:,} rows.")

    def _export(self, options: dict[str, Any]) -> None:
        from apps.audit.services.export import Export

        filters = dict(text.partition("=")[::2] for text in options["filter"])
        shown = sys.stderr.isatty()
        export = Export(
            options["form"],
            {**filters, "since": options["since"], "until": options["until"]},
            progress=(lambda rows: self.stderr.write(f"\r{rows:,} rows", ending="")) if shown else None,
        )
        try:
            with contextlib.ExitStack() as stack:
                to_output = options["file"] == "-"
                file = sys.stdout.buffer if to_output else stack.enter_context(Path(options["file"]).open("wb"))
                chunks = stack.enter_context(contextlib.closing(export.chunks()))
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
        except OSError as error:
            raise CommandError(f"The file cannot be written: {error}") from error
        self.stderr.write(f"{chr(13) * shown}Exported {export.rows:,} events.")

    def _grant(self, options: dict[str, Any]) -> None:
        from apps.audit.services.roles import grant_role

        grant_role(options["role"])
        self.stdout.write(f"The role {options['role']} may serve; in the audit log it may read and append alone.")

    def _retention(self, options: dict[str, Any]) -> None:
        from apps.audit.services.retention import retention_rules, set_retention

        for text in options["set"]:
            family, _, days = text.partition("=")
            if days != "keep" and not (days.isascii() and days.isdigit()):
                raise CommandError(f"{text}: use FAMILY=DAYS, as in calls=90, or FAMILY=keep")
            set_retention(family, None if days == "keep" else int(days), tenant=options["tenant"])
        rules = retention_rules()
        for rule in rules:
            self.stdout.write(f"{rule.family}: {rule.days} days" + (f" (tenant {rule.tenant})" if rule.tenant else ""))
        if not rules:
            self.stdout.write("Every payload stays for good.")
        if options["apply"]:
            self.stdout.write(f"Removed {self._retain():,} payloads.")

    def _retain(self) -> int:
        """Announce, chain and remove until nothing is left."""
        from apps.audit.runtime import AuditThread
        from apps.audit.services.relay import Relay
        from apps.audit.services.retention import retain
        from apps.audit.services.rollups import roll_up_all

        audit = AuditThread(background=False)
        total = 0
        try:
            relay = Relay(audit.start().sink)
            while True:
                roll_up_all()
                relay.run_until_empty()
                removed, waiting = retain()
                total += removed
                if not removed and not waiting:
                    return total
        finally:
            audit.stop()

    def _sweep(self, options: dict[str, Any]) -> None:
        from apps.audit.runtime import sink_config_from_settings
        from apps.audit.sink.store import StoreFailed
        from apps.audit.sink.sweep import sweep_dead_writers

        try:
            closed = sweep_dead_writers(sink_config_from_settings())
        except StoreFailed as failure:
            raise CommandError(f"The audit log cannot be written: {failure}") from failure
        self.stdout.write(f"Closed {closed} open calls as unknown.")


def _moment(text: str) -> datetime:
    """Read a time; one without a zone is UTC."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _lines(named: str) -> Iterator[str]:
    """Give the lines of a file, of every file of a directory in the order of names, or of standard input."""
    if named == "-":
        yield from sys.stdin
        return
    path = Path(named)
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_dir():
            with file.open(encoding="utf-8") as lines:
                yield from lines
