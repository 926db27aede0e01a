"""Fixtures: fresh logs on both databases."""

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from apps.audit.sink.config import SinkConfig
from tests import services
from tests.audit import logs


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty log in a file."""
    path = tmp_path_factory.mktemp("audit-template") / "audit.sqlite3"
    logs.migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_config(tmp_path: Path, sqlite_template: Path) -> SinkConfig:
    """A log of this test's own on SQLite."""
    shutil.copy(sqlite_template, tmp_path / "audit.sqlite3")
    return SinkConfig(sqlite=tmp_path / "audit.sqlite3", locks=tmp_path / "locks")


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    """The name of a PostgreSQL database with an empty log, to make others from."""
    name = f"audit_{secrets.token_hex(5)}"
    logs.migrate(services.postgres().create(name))
    yield name
    services.postgres().drop(name)


@pytest.fixture
def postgres_config(postgres_template: str) -> Iterator[SinkConfig]:
    """A log of this test's own on PostgreSQL."""
    engine = services.postgres()
    name = f"a_{secrets.token_hex(6)}"
    with psycopg.connect(engine.url("postgres"), autocommit=True) as connection:
        made = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(made.format(sql.Identifier(name), sql.Identifier(postgres_template)))
    yield SinkConfig(postgres=engine.url(name))
    engine.drop(name)


@pytest.fixture(params=["sqlite", "postgres"])
def config(request: pytest.FixtureRequest) -> SinkConfig:
    """A log of this test's own, on each database in turn."""
    return request.getfixturevalue(f"{request.param}_config")


@pytest.fixture
def log(transactional_db: None) -> Iterator[SinkConfig]:
    """The log of the test database, which Django sees too; emptied afterwards."""
    from apps.audit.runtime import sink_config_from_settings

    logs.wipe()
    yield sink_config_from_settings()
    logs.wipe()
