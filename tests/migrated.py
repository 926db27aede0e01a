"""Databases that already have their tables, so that each product of the suite need not make them again.

They are made once for all processes of a run, by the product's own migrations, and copied: a file on SQLite, a template
database on PostgreSQL. The tests of the start itself ask for an empty database.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.engines import Postgres

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "switchyard_migrated"


def _once(directory: Path, name: str, make: Callable[[Path], None]) -> Path:
    place, done = directory / name, directory / f"{name}.done"
    with (directory / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            make(place)
            done.touch()
    return place


def _migrate(home: Path, aliases: tuple[str, ...], **variables: str) -> None:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "SWITCHYARD_HOME": str(home)}
    for alias in aliases:
        done = subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0", "--database", alias],
            cwd=ROOT, env={**environment, "DJANGO_SETTINGS_MODULE": "config.settings.development", **variables},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]


def fill_home(home: Path, shared: Path) -> None:
    """Put migrated SQLite files into a new home; `shared` is a directory that all processes of the run have in common."""
    made = _once(shared, "migrated-sqlite", lambda place: _migrate(place, ("default", "audit")))
    home.mkdir(parents=True, exist_ok=True)
    for path in made.glob("*.sqlite3"):
        shutil.copy(path, home)


def create(postgres: Postgres, database: str, shared: Path) -> str:
    """Make a migrated database on PostgreSQL; return its address."""

    def make(place: Path) -> None:
        postgres.drop(TEMPLATE)
        _migrate(place, ("default",), DATABASE_URL=postgres.create(TEMPLATE))

    _once(shared, f"migrated-postgres-{postgres.port}", make)
    return postgres.create(database, template=TEMPLATE)
