"""A pytest plugin that prepares each process of the suite before Django's settings are read.

It gives the process a `SWITCHYARD_HOME` of its own and clears what the caller's shell says about Switchyard, so that a
result depends on the tree alone. With `SWITCHYARD_TEST_DATABASE=postgres`, and with `SWITCHYARD_TEST_ENGINES=shared`, it starts
real PostgreSQL and Valkey, once per run: the workers of pytest-xdist inherit their addresses from the controller. Tests that need
an engine in either pass ask for the fixtures `postgres_url` and `redis_url`, which start one when it is first wanted.
"""

import atexit
import gc
import itertools
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.engines import Postgres, Valkey

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
"""Name of this xdist worker, empty in the controller and without xdist."""
DATABASE = os.environ.get("SWITCHYARD_TEST_DATABASE", "sqlite")
"""What the pass runs on: `sqlite`, or `postgres` (with Valkey)."""

_PRODUCT_VARIABLES = ("DATABASE_URL", "REDIS_URL", "EMAIL_URL", "PORT", "HOST")
_FIRST_NUMBER, _NUMBERS = 16, 96
"""Numbered databases of Redis: below the first are those of the workers' own settings, then so many for each worker (at most 4)."""
_numbers = itertools.count()
_root: Path | None = None
_postgres: Postgres | None = None
_valkey: Valkey | None = None


def postgres() -> Postgres:
    """Return this run's PostgreSQL, started when first asked for."""
    global _postgres
    if _postgres is None:
        shared = os.environ.get("SWITCHYARD_TEST_POSTGRES")
        if shared:
            port, _, password = shared.partition(":")
            _postgres = Postgres()
            _postgres.port, _postgres.password = int(port), password
        else:
            _postgres = Postgres().start()
    return _postgres


def valkey() -> Valkey:
    """Return this run's Valkey, started when first asked for."""
    global _valkey
    if _valkey is None:
        shared = os.environ.get("SWITCHYARD_TEST_VALKEY")
        if shared:
            _valkey = Valkey()
            _valkey.port = int(shared)
        else:
            _valkey = Valkey().start()
    return _valkey


def worker_number() -> int:
    """Return a small number that no other process of the run has."""
    return int(WORKER.removeprefix("gw")) + 1 if WORKER else 0


def empty_redis() -> str:
    """Return the address of an empty database on this run's Valkey that no other product or test of the run uses."""
    import redis

    number = _FIRST_NUMBER + worker_number() * _NUMBERS + next(_numbers) % _NUMBERS
    url = valkey().url(number)
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def common_directory(factory: pytest.TempPathFactory) -> Path:
    """Return a directory that all processes of the run have in common."""
    return factory.getbasetemp().parent if WORKER else factory.getbasetemp()


def _prepare() -> None:
    global _root
    if DATABASE not in ("sqlite", "postgres"):
        raise SystemExit("SWITCHYARD_TEST_DATABASE: use sqlite or postgres")
    for name in list(os.environ):
        if name in _PRODUCT_VARIABLES or (name.startswith("SWITCHYARD_") and not name.startswith("SWITCHYARD_TEST_")):
            del os.environ[name]
    _root = Path(tempfile.mkdtemp(prefix=f"switchyard-test-{WORKER or 'main'}-"))
    os.environ["SWITCHYARD_HOME"] = str(_root / "home")
    (_root / "home").mkdir()
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings.test"
    if DATABASE == "postgres" or os.environ.get("SWITCHYARD_TEST_ENGINES") == "shared":
        engine, store = postgres(), valkey()
        os.environ["SWITCHYARD_TEST_POSTGRES"] = f"{engine.port}:{engine.password}"
        os.environ["SWITCHYARD_TEST_VALKEY"] = str(store.port)
    if DATABASE == "postgres":
        os.environ["DATABASE_URL"] = engine.url("switchyard")
        os.environ["REDIS_URL"] = store.url(worker_number())


def _clean() -> None:
    for engine in (_postgres, _valkey):
        if engine is not None and engine.process is not None:
            engine.stop()
    if _root is not None:
        shutil.rmtree(_root, ignore_errors=True)


atexit.register(_clean)
_prepare()
gc.set_threshold(20_000, 20, 20)  # as the product has it: thousands of tests are many objects to go through again and again


def pytest_report_header() -> str:
    """Say which database the pass runs on."""
    return f"switchyard: database {DATABASE}" + (", redis protocol Valkey" if DATABASE == "postgres" else "")


def pytest_unconfigure() -> None:
    """End the engines that this process started and remove its files."""
    _clean()
