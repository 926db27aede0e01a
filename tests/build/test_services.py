"""The engines and fixtures the suite stands on are real."""

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from django.db import connections

from tests import services
from tests.engines import Postgres, Valkey
from tests.support import eventually


@pytest.mark.once
def test_postgres_is_the_real_one_and_each_test_gets_an_empty_database(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        assert connection.info.server_version >= 180000
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)


@pytest.mark.once
def test_redis_is_empty_and_blocks_on_an_empty_list(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.lpush("queue", "one")
        assert client.brpop("queue", timeout=1) == (b"queue", b"one")


@pytest.mark.once
@pytest.mark.parametrize("engine", [Postgres, Valkey])
def test_an_engine_leaves_neither_process_nor_file(engine):
    with engine() as running:
        process = psutil.Process(running.process.pid)
        directory = running.directory
        children = process.children(recursive=True)
        assert process.is_running()
    assert not directory.exists()
    assert not [each for each in [process, *children] if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.once
def test_an_engine_ends_when_whoever_started_it_is_killed():
    script = (
        "from tests.engines import Postgres; e = Postgres().start(); print(e.process.pid, e.directory, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    ) as starter:
        pid, directory = starter.stdout.readline().split()
        engine = psutil.Process(int(pid))
        starter.kill()
    eventually(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)
    shutil.rmtree(directory)


@pytest.mark.django_db(transaction=True)
def test_every_database_of_the_settings_may_be_used_and_is_shared_by_threads():
    seen = {}

    def other() -> None:
        for alias in connections:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT count(*) FROM django_migrations")
                seen[alias] = cursor.fetchone()[0]
            connections[alias].close()

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(10)
    assert set(seen) == set(connections)
    assert all(seen.values())


@pytest.mark.django_db
def test_the_pass_runs_on_the_database_it_names():
    assert connections["default"].vendor == {"sqlite": "sqlite", "postgres": "postgresql"}[services.DATABASE]
