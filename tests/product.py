"""A real Switchyard in processes of its own, for end-to-end tests and benchmarks."""

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.engines import end_with_parent, free_port

ROOT = Path(__file__).resolve().parent.parent
READY = "Switchyard is ready"
STOP_SECONDS = 10.0
"""SIGTERM must end every process of the product within this time."""


class Product:
    """`manage.py serve`, started with an environment of its own.

    Several of them with the same `home`, `key` and database make one installation with several roles; start the first
    and wait until it is ready before the others, as it makes the database.
    """

    def __init__(
        self,
        home: Path,
        *,
        role: str = "all",
        database_url: str = "",
        redis_url: str = "",
        settings: str = "config.settings.development",
        port: int | None = None,
        key: str = "",
        password: str = "",
        environment: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.home = Path(home)
        self.role = role
        self.port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.username = "admin"
        self.password = password or secrets.token_urlsafe(12)
        self.key = key or f"sy_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        self.headers = {"Authorization": f"Bearer {self.key}"}
        self.log_path = self.home.parent / f"{self.home.name}-{role}-{self.port}.log"
        self.mark = secrets.token_hex(8)
        self.arguments = arguments
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": os.environ.get("HOME", str(self.home)),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": settings,
            "SWITCHYARD_HOME": str(self.home),
            "SWITCHYARD_ADMIN_PASSWORD": self.password,
            "SWITCHYARD_ADMIN_KEY": self.key,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "SWITCHYARD_TEST_MARK": self.mark,
        }
        if database_url:
            self.environment["DATABASE_URL"] = database_url
        if redis_url:
            self.environment["REDIS_URL"] = redis_url
        self.environment.update(environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: dict[int, psutil.Process] = {}

    def start(self, *, wait: bool = True, within: float = 120.0) -> "Product":
        """Start it; with `wait`, return when it says that it is ready. Raises AssertionError with the log."""
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "serve", "--role", self.role, *self.arguments],
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGTERM),
            )
        if wait:
            self.wait_ready(within=within)
        return self

    @property
    def pid(self) -> int:
        """The process that was started; the others are its descendants."""
        assert self.process is not None, "the product was not started"
        return self.process.pid

    def wait_ready(self, *, within: float = 120.0) -> None:
        """Wait for the line that starts with `Switchyard is ready`. Raises AssertionError with the log."""
        assert self.process is not None
        deadline = time.monotonic() + within
        while not any(line.startswith(READY) for line in self.log().splitlines()):
            assert self.process.poll() is None, f"serve ended with {self.process.returncode}:\n{self.log()[-4000:]}"
            assert time.monotonic() < deadline, f"not ready within {within} s:\n{self.log()[-4000:]}"
            time.sleep(0.03)

    def log(self) -> str:
        """Return all that it printed so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of this product: descendants, and whoever was ever one or carries its mark."""
        if self.process is None:
            return []
        try:
            own = psutil.Process(self.process.pid)
            found = [own, *own.children(recursive=True)]
        except psutil.NoSuchProcess:
            found = []
        needle = f"SWITCHYARD_TEST_MARK={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if needle in (entry / "environ").read_bytes():
                        found.append(psutil.Process(int(entry.name)))
                except (OSError, psutil.NoSuchProcess):
                    continue
        self._seen |= {process.pid: process for process in found}
        return [process for process in self._seen.values() if _alive(process)]

    def terminate(self) -> None:
        """Send SIGTERM and return at once."""
        self.processes()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self, *, within: float = STOP_SECONDS) -> int:
        """Send SIGTERM, wait for the end, and require that no process is left; return the exit code."""
        if self.process is None:
            return 0
        self.terminate()
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.destroy()
            raise AssertionError(f"still running {within} s after SIGTERM:\n{self.log()[-4000:]}") from None
        left = psutil.wait_procs(self.processes(), timeout=1)[1]
        described = [(process.pid, _name(process)) for process in left]
        self.destroy()
        assert not left, f"left behind: {described}\n{self.log()[-2000:]}"
        return code

    def __enter__(self) -> "Product":
        """Start, and wait until it is ready."""
        return self.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    def destroy(self) -> None:
        """Kill every process of the product."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        if self.process is not None:
            self.process.wait(10)
        psutil.wait_procs(self.processes(), timeout=5)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return "?"
