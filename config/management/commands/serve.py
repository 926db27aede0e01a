"""Starts an installation: checks, prepares, then hands over to the supervisor."""

import os
import signal
import sys
from argparse import ArgumentParser
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connections

from config.environment import Environment
from config.processes import checks, tree
from config.processes.banner import banner, local_address, once
from config.processes.plan import Plan, children_for
from config.processes.preparation import Prepared, prepare
from config.processes.roles import ALL, ROLES, SERVING, check_scale, parse_roles


class Command(BaseCommand):
    """`manage.py serve`: everything in one serving process, or one or several roles of a larger installation."""

    help = "Starts Switchyard and keeps it running until a signal ends it."
    requires_system_checks: list[str] = []
    _made: Prepared | None = None

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--role", default=ALL, help=f"One of {', '.join(ROLES)}, or several with commas between.")
        parser.add_argument("--workers", type=int, default=1, help="Number of serving (else of worker) processes.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Check, prepare, and become the supervisor: this call does not return."""
        signal.signal(signal.SIGTERM, _leave)
        try:
            self._start(options)
        except BaseException:
            if self._made is not None:
                for line in once(settings.SWITCHYARD, self._made, serves=frozenset()):
                    self._say(line)
            raise
        finally:
            tree.end(tree.below(recursive=True))

    def _start(self, options: dict[str, Any]) -> None:
        environment: Environment = settings.SWITCHYARD
        roles = parse_roles(options["role"])
        workers = int(options["workers"])
        check_scale(roles, workers, postgres=environment.postgres, redis=bool(environment.redis_url))
        checks.check_home(environment.home)
        serving = bool(roles & {ALL, *SERVING})
        keep = []
        if not environment.postgres:
            keep.append(checks.take_home(environment.home, "serve.lock"))
        elif serving:
            keep.append(checks.take_home(environment.home, f"serve-{environment.port}.lock"))
        listen_fd = checks.bind(environment.host, environment.port).detach() if serving else -1
        checks.check_database(environment)
        checks.check_redis(environment.redis_url)
        prepared = prepare(environment, self._say, self._remember)
        plan = self._plan(environment, roles, workers, prepared, listen_fd=listen_fd, keep=tuple(keep))
        self._become_supervisor(plan)

    def _plan(
        self,
        environment: Environment,
        roles: frozenset[str],
        workers: int,
        prepared: Prepared,
        *,
        listen_fd: int,
        keep: tuple[int, ...],
    ) -> Plan:
        address = local_address(environment)
        what = f"at {environment.public_url}" if listen_fd >= 0 else f"({', '.join(sorted(roles))})"
        return Plan(
            children=children_for(roles, workers),
            program=(sys.executable, _manage(), "run_process"),
            listen_fd=listen_fd,
            keep_fds=keep,
            probe=f"{address}/health/ready" if listen_fd >= 0 else "",
            banner=banner(environment, settings.SWITCHYARD_VERSION, prepared, serves=roles),
            secrets=once(environment, prepared, serves=roles),
            ready=f"Switchyard is ready {what} (process {os.getpid()}; Ctrl-C stops it)",
        )

    def _become_supervisor(self, plan: Plan) -> None:
        """Replace this program by the supervisor: same process, same open sockets and locks, none of Django's threads and memory."""
        connections.close_all()
        for fd in (plan.listen_fd, *plan.keep_fds):
            if fd >= 0:
                os.set_inheritable(fd, True)
        arguments = [sys.executable, _manage(), "supervise", str(plan.to_pipe())]
        os.environ["SWITCHYARD_HOME"] = str(settings.SWITCHYARD.home)
        sys.stdout.flush()
        sys.stderr.flush()
        # a signal that comes from here on is kept for the supervisor
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
        os.execv(sys.executable, arguments)  # noqa: S606 - our own program

    def _remember(self, prepared: Prepared) -> None:
        self._made = prepared

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End cleanly when told to stop while still preparing."""
    sys.stderr.write("switchyard: stopped by a signal before it was ready\n")
    sys.exit(0)


def _manage() -> str:
    return str(Path(settings.BASE_DIR) / "manage.py")
