"""Installations that need not be made anew for each product of the suite.

They are made once for all processes of a run, by the product itself, and copied: files on SQLite, a template database on
PostgreSQL. One kind has its tables and nothing else; the other was served once and stopped, so its operator is made and its
built-in server discovered. The tests of the start itself ask for an empty database, or for one with tables alone.
"""

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg

from tests import services
from tests.product import ROOT, Product
from tests.support import eventually

NOTHING, TABLES, ALL = "nothing", "tables", "all"
"""What an installation has at first; `all` is what a start makes of an empty one."""


def on_sqlite(home: Path, shared: Path, *, has: str = ALL) -> dict[str, str]:
    """Fill a new home; return what `Product` is given for it. `shared` is a directory that all processes of the run have in common."""
    if has == TABLES:
        shutil.copytree(_once(shared, "migrated-sqlite", lambda place: _migrate(place, ("default", "audit"))), home)
    elif has == ALL:
        return _copy(_once(shared, "served-sqlite", lambda place: _serve(Product(place / "home"))), home)
    return {}


def on_postgres(home: Path, database: str, shared: Path, *, has: str = ALL) -> dict[str, str]:
    """Make a database of this name on the run's PostgreSQL and fill a new home; return what `Product` is given for them."""
    postgres = services.postgres()
    given: dict[str, str] = {}
    if has == NOTHING:
        return {"database_url": postgres.create(database)}

    def make(place: Path) -> None:
        postgres.drop(template)
        url = postgres.create(template)
        _migrate(place, ("default",), DATABASE_URL=url) if has == TABLES else _serve(Product(place / "home", database_url=url))

    template = f"template_{has}"
    made = _once(shared, f"{template}-{postgres.port}", make)
    if has == ALL:
        given = _copy(made, home)
    return {**given, "database_url": postgres.create(database, template=template)}


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
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "DJANGO_SETTINGS_MODULE": "config.settings.development",
        "SWITCHYARD_HOME": str(home),
    }
    for alias in aliases:
        done = subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity", "0", "--database", alias],
            cwd=ROOT, env={**environment, **variables}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    for path in home.iterdir():
        if path.suffix != ".sqlite3":
            path.unlink()


def _serve(product: Product) -> None:
    with product:
        eventually(lambda: _nothing_waits(product), within=60, because="tasks or events of the first start are left")
    (product.home.parent / "credentials.json").write_text(json.dumps({"key": product.key, "password": product.password}))


def _copy(made: Path, home: Path) -> dict[str, str]:
    shutil.copytree(made / "home", home)
    credentials: dict[str, str] = json.loads((made / "credentials.json").read_text())
    return credentials


def _nothing_waits(product: Product) -> bool:
    """Tell whether tasks are done and events chained: what is left would be done again in each copy."""
    url = product.environment.get("DATABASE_URL")
    if url:
        with psycopg.connect(url) as database:
            return _settled(database, database)
    files = (f"file:{product.home / name}.sqlite3?mode=ro" for name in ("switchyard", "audit"))
    with closing(sqlite3.connect(next(files), uri=True)) as database, closing(sqlite3.connect(next(files), uri=True)) as log:
        return _settled(database, log)


def _settled(database: psycopg.Connection | sqlite3.Connection, log: psycopg.Connection | sqlite3.Connection) -> bool:
    (tasks,) = database.execute("SELECT count(*) FROM common_queuemessage").fetchone()
    (newest,) = database.execute("SELECT coalesce(max(id), 0) FROM common_outboxevent").fetchone()
    (chained,) = log.execute("SELECT coalesce(max(outbox_id), 0) FROM audit_relay").fetchone()
    return not tasks and chained >= newest
