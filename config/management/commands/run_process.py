"""One process of `serve`; started by the supervisor, not by people."""

import logging
import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from apps.common import telemetry
from config.processes import lifeline


class Command(BaseCommand):
    """`manage.py run_process`: the body of a child of the supervisor."""

    help = "Internal: runs one process of `serve`."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options; the numbers are file descriptors that the supervisor passed on."""
        parser.add_argument("--kind", choices=("serving", "worker", "beat"), required=True)
        parser.add_argument("--name", required=True)
        parser.add_argument("--report", type=int, required=True)
        parser.add_argument("--lifeline", type=int, required=True)
        parser.add_argument("--listen", type=int, default=-1)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal, then leave with an exit code."""
        os.environ["CELERY_SKIP_CHECKS"] = "1"
        os.set_inheritable(options["report"], False)
        lifeline.watch(options["lifeline"])
        telemetry.log_to_file(settings.SWITCHYARD.home / "logs" / f"{options['name']}.log")
        match options["kind"]:
            case "serving":
                from config.processes import serving

                code = serving.run(listen_fd=options["listen"], report_fd=options["report"])
            case "worker":
                from config.processes import tasks

                code = tasks.run(report_fd=options["report"])
            case _:
                from config.processes import beat

                code = beat.run(report_fd=options["report"])
        _end_discoveries()
        # not waiting for threads: all that had to end has, and a task that outlived its grace is done again
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end_discoveries() -> None:
    """Give back the claims of discoveries that outlived the grace, so that others need not find out that we are gone."""
    from apps.tools.services.discovery import end_discoveries

    try:
        end_discoveries()
    except Exception:
        logging.getLogger(__name__).warning("Discoveries in progress could not be given back.", exc_info=True)
