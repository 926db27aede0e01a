"""`manage.py audit …`: the log from the command line."""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.audit.domain import VerificationReport
from apps.common.context import Actor, every_tenant
from apps.common.errors import SwitchyardError

_OPERATOR = Actor(kind="system", id="cli", label="command line", is_superuser=True, origin="cli")


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
        verify.add_argument("--json", action="store_true", help="print the report as JSON")
        verbs.add_parser("relay", help="chain now what waits in the outbox")
        rollups = verbs.add_parser("rollups", help="bring the roll-ups up to date")
        rollups.add_argument("--rebuild", action="store_true", help="throw them away and make them anew from the log")
        verbs.add_parser("sweep", help="close the open calls of writers whose process is gone")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what the verb says, as the system."""
        with every_tenant(_OPERATOR):
            try:
                getattr(self, f"_{options['verb']}")(options)
            except SwitchyardError as error:
                raise CommandError(str(error)) from error

    def _verify(self, options: dict[str, Any]) -> None:
        from apps.audit.services.verify import verify_log

        shown = not options["json"] and sys.stderr.isatty()
        report = verify_log(columns=not options["fast"], progress=self._progress if shown else None)
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
        chains = len(report.writers) + len(report.problems)
        took = f"{report.rows:,} row{'s'[: report.rows != 1]} of {chains} chain{'s'[: chains != 1]} in {report.seconds:.1f} s"
        if report.ok and not report.columns:
            self.stdout.write(self.style.SUCCESS(f"The chains and stored bytes are whole; columns were not compared: {took}."))
            return
        if report.ok:
            self.stdout.write(self.style.SUCCESS(f"The audit log is whole: {took}."))
            return
        self.stdout.write(self.style.ERROR(f"The audit log is NOT whole ({took})."))
        for problem in report.problems:
            self.stdout.write(f"  {problem.event_id}: {problem.what}")

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

    def _sweep(self, options: dict[str, Any]) -> None:
        from apps.audit.runtime import sink_config_from_settings
        from apps.audit.sink.store import StoreFailed
        from apps.audit.sink.sweep import sweep_dead_writers

        try:
            closed = sweep_dead_writers(sink_config_from_settings())
        except StoreFailed as failure:
            raise CommandError(f"The audit log cannot be written: {failure}") from failure
        self.stdout.write(f"Closed {closed} open calls as unknown.")
