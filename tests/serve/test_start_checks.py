"""What keeps Switchyard from starting: one clear line, an exit code other than 0, no traceback."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from config.environment import ConfigurationError, load
from config.processes import checks
from config.processes.errors import CannotStart
from config.processes.plan import children_for
from config.processes.preparation import read_servers_file
from config.processes.roles import check_scale, parse_roles
from tests.engines import free_port
from tests.product import ROOT

pytestmark = pytest.mark.once


def serve(home, *arguments, **variables) -> subprocess.CompletedProcess:
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "config.settings.development",
        "SWITCHYARD_HOME": str(home),
        "PORT": str(free_port()),
        "PYTHONWARNINGS": "ignore",
        **variables,
    }
    return subprocess.run(
        [sys.executable, "manage.py", "serve", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def assert_one_line(ended: subprocess.CompletedProcess, *parts: str) -> None:
    lines = [line for line in ended.stderr.splitlines() if line]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("switchyard: ")
    for part in parts:
        assert part in lines[0]
    assert ended.returncode != 0
    assert "Switchyard is ready" not in ended.stdout


def test_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(serve(tmp_path, PORT=str(port)), f"PORT: {port} on 127.0.0.1 is in use", "choose another PORT")


def test_a_host_that_is_not_of_this_machine(tmp_path):
    assert_one_line(serve(tmp_path, HOST="192.0.2.1"), "HOST: cannot listen on 192.0.2.1")


def test_a_home_that_cannot_be_made():
    assert_one_line(serve("/dev/null/switchyard"), "SWITCHYARD_HOME: cannot", "/dev/null/switchyard")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_became_unwritable(prepared, tmp_path):
    """Its files can be read, so that the settings load; writing fails."""
    home = shutil.copytree(prepared.home, tmp_path / "home")
    home.chmod(0o500)
    try:
        assert_one_line(serve(home), "SWITCHYARD_HOME: cannot write")
    finally:
        home.chmod(0o700)


def test_nothing_is_written_where_nothing_can_be():
    with pytest.raises(CannotStart, match="SWITCHYARD_HOME: cannot write to /proc/self"):
        checks.check_home(Path("/proc/self"))


@pytest.mark.parametrize(
    ("variables", "said"),
    [({"PORT": "eighty"}, "PORT: "), ({"SWITCHYARD_ADMIN_KEY": "secret-but-wrong"}, "key")],
)
def test_a_wrong_variable(tmp_path, variables, said):
    ended = serve(tmp_path, **variables)
    assert_one_line(ended, said)
    assert "secret-but-wrong" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DATABASE_URL", "mysql://u:p@h/d", "DATABASE_URL: "),
        ("SWITCHYARD_STDIO", "maybe", "SWITCHYARD_STDIO: "),
        ("SWITCHYARD_SECRET_KEY_FILE", "/nowhere/key", "SWITCHYARD_SECRET_KEY_FILE: cannot read /nowhere/key"),
        ("SWITCHYARD_ENCRYPTION_KEYS", "k1:short", "SWITCHYARD_ENCRYPTION_KEYS: "),
    ],
)
def test_other_wrong_variables_are_of_the_same_kind(monkeypatch, tmp_path, variable, value, said):
    monkeypatch.setenv("SWITCHYARD_HOME", str(tmp_path))
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=said):
        load(tmp_path)


def test_a_database_that_does_not_answer(tmp_path):
    ended = serve(tmp_path, DATABASE_URL="postgresql://somebody:hidden-word@127.0.0.1:1/there")
    assert_one_line(ended, "DATABASE_URL: cannot use the database at 127.0.0.1:1")
    assert "hidden-word" not in ended.stdout + ended.stderr


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://localhost"])
def test_a_redis_that_cannot_be_used(url):
    with pytest.raises(CannotStart, match="REDIS_URL: "):
        checks.check_redis(url)


def test_a_servers_file_that_cannot_be_used(tmp_path):
    path = tmp_path / "servers.json"
    path.write_text('{"mcpServers": ')
    assert_one_line(serve(tmp_path / "home", SWITCHYARD_SERVERS=str(path)), f"SWITCHYARD_SERVERS: {path} is not JSON")
    path.write_text(json.dumps(["not", "an", "object"]))
    with pytest.raises(CannotStart, match="must be an object"):
        read_servers_file(str(path))
    with pytest.raises(CannotStart, match="cannot read /nowhere"):
        read_servers_file("/nowhere")


def test_roles_that_need_more_than_sqlite(tmp_path):
    ended = serve(tmp_path, "--role", "gateway")
    assert_one_line(ended, "--role gateway: several processes need PostgreSQL and Redis; missing: PostgreSQL")


@pytest.mark.parametrize(
    ("role", "workers", "postgres", "redis", "said"),
    [
        ("web,worker", 1, False, True, "--role web,worker: several processes need .* missing: PostgreSQL"),
        ("all", 2, True, False, "--workers 2: several processes need .* missing: Redis"),
        ("all", 0, True, True, "--workers: use a number from 1"),
        ("router", 1, True, True, "--role: router is not a role; use all, web"),
        ("all,web", 1, True, True, "--role: all already has every role"),
        (",", 1, True, True, "--role: nothing is not a role"),
    ],
)
def test_roles_that_cannot_be(role, workers, postgres, redis, said):
    with pytest.raises(CannotStart, match=said):
        check_scale(parse_roles(role), workers, postgres=postgres, redis=redis)


@pytest.mark.parametrize(
    ("role", "workers", "expected"),
    [
        ("all", 1, {"serve": "all"}),
        ("all", 2, {"web-gateway-1": "web,gateway", "web-gateway-2": "web,gateway", "worker": "worker", "beat": "beat"}),
        ("gateway", 1, {"gateway": "gateway"}),
        ("worker", 2, {"worker-1": "worker", "worker-2": "worker"}),
        ("web,gateway,beat", 1, {"web-gateway": "web,gateway", "beat": "beat"}),
    ],
)
def test_roles_are_carried_out_by_these_processes(role, workers, expected):
    assert {child.name: child.roles for child in children_for(parse_roles(role), workers)} == expected
