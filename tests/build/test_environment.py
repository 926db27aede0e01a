"""What the variables of the installation mean, and the one line that names a wrong one."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from config.environment import ConfigurationError, load
from tests.support import free_port

pytestmark = pytest.mark.once

ROOT = Path(__file__).resolve().parents[2]
KEY = "sy_abcd1234_" + "x" * 43


@pytest.fixture
def variables(monkeypatch, tmp_path):
    """A function that reads the given variables and nothing else; the home is a temporary one."""

    def read(**given: str):
        for name in list(os.environ):
            if name.startswith(("SWITCHYARD_", "DATABASE_", "REDIS_", "EMAIL_")) or name in ("PORT", "HOST"):
                monkeypatch.delenv(name)
        for name, value in {"SWITCHYARD_HOME": str(tmp_path / "home"), **given}.items():
            monkeypatch.setenv(name, value)
        return load(tmp_path)

    return read


def test_nothing_set_gives_sqlite_on_loopback_with_the_audit_log_in_a_file_of_its_own(variables, tmp_path):
    environment = variables()
    assert (environment.host, environment.port) == ("127.0.0.1", 8000)
    assert environment.public_url == "http://localhost:8000"
    assert environment.allowed_hosts == ["localhost", "127.0.0.1", "[::1]"]
    assert environment.databases["default"]["NAME"] == str(tmp_path / "home" / "switchyard.sqlite3")
    assert environment.databases["audit"]["NAME"] == str(tmp_path / "home" / "audit.sqlite3")
    assert "synchronous=FULL" in environment.databases["audit"]["OPTIONS"]["init_command"]
    assert (environment.stdio, environment.redis_url, environment.https) == ("on", "", False)
    assert environment.email["EMAIL_BACKEND"].endswith("dummy.EmailBackend")


def test_secrets_are_made_once_and_only_their_owner_may_read_them(variables, tmp_path):
    first = variables()
    second = variables()
    assert (first.secret_key, first.encryption_keys) == (second.secret_key, second.encryption_keys)
    for name in ("secret_key", "encryption_keys"):
        assert stat.S_IMODE((tmp_path / "home" / name).stat().st_mode) == 0o600


def test_no_secret_is_in_the_representation(variables):
    environment = variables(
        SWITCHYARD_ADMIN_PASSWORD="pass-word-1", SWITCHYARD_ADMIN_KEY=KEY,
        DATABASE_URL="postgresql://u:data-secret@h/d", REDIS_URL="redis://:redis-secret@h/0", EMAIL_URL="smtp://u:mail-secret@h",
    )  # fmt: skip
    shown = repr(environment)
    for secret in (
        "pass-word-1",
        KEY,
        "data-secret",
        "redis-secret",
        "mail-secret",
        environment.secret_key,
        environment.encryption_keys,
    ):
        assert secret not in shown


@pytest.mark.parametrize(
    "name",
    ["SWITCHYARD_SECRET_KEY", "SWITCHYARD_ADMIN_PASSWORD", "SWITCHYARD_ADMIN_KEY", "DATABASE_URL", "REDIS_URL", "EMAIL_URL"],
)
def test_every_secret_may_come_from_a_file(variables, tmp_path, name):
    values = {
        "SWITCHYARD_SECRET_KEY": "s" * 50,
        "SWITCHYARD_ADMIN_PASSWORD": "from a file",
        "SWITCHYARD_ADMIN_KEY": KEY,
        "DATABASE_URL": "postgresql://u:p@db.example/switchyard",
        "REDIS_URL": "rediss://cache.example/1",
        "EMAIL_URL": "smtps://mail.example",
    }
    (tmp_path / "secret").write_text(values[name] + "\n")
    from_file = variables(**{f"{name}_FILE": str(tmp_path / "secret")})
    direct = variables(**{f"{name}_FILE": "", name: values[name]})
    assert from_file == direct


def test_a_postgres_address_is_read_whole(variables):
    environment = variables(
        DATABASE_URL="postgresql://sw%40x:p%2Fq@db.example:6000/switchyard?sslmode=verify-full&sslrootcert=/ca.pem",
        DATABASE_POOL_SIZE="33", DATABASE_POOL_TIMEOUT="2.5", DATABASE_CONNECT_TIMEOUT="7",
    )  # fmt: skip
    assert environment.postgres
    assert list(environment.databases) == ["default"]
    database = environment.databases["default"]
    assert (database["USER"], database["PASSWORD"], database["HOST"], database["PORT"], database["NAME"]) == (
        "sw@x", "p/q", "db.example", "6000", "switchyard",
    )  # fmt: skip
    assert database["OPTIONS"] == {
        "connect_timeout": 7,
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
        "pool": {"min_size": 1, "max_size": 33, "timeout": 2.5},
    }


def test_the_public_address_is_a_host_one_may_ask_for_and_an_origin_forms_may_come_from(variables):
    environment = variables(
        SWITCHYARD_PUBLIC_URL="https://Switchyard.Example/", SWITCHYARD_ALLOWED_HOSTS="a.example, .b.example"
    )
    assert environment.public_url == "https://switchyard.example"
    assert environment.https
    assert environment.allowed_hosts == ["a.example", ".b.example", "switchyard.example"]
    assert environment.csrf_trusted_origins == ["https://switchyard.example"]


def test_mail_by_starttls(variables):
    email = variables(EMAIL_URL="smtp+tls://post%40x:geheim@mail.example?from=ops@x.example").email
    assert (email["EMAIL_HOST"], email["EMAIL_PORT"], email["EMAIL_USE_TLS"], email["EMAIL_USE_SSL"]) == (
        "mail.example",
        587,
        True,
        False,
    )
    assert (email["EMAIL_HOST_USER"], email["EMAIL_HOST_PASSWORD"]) == ("post@x", "geheim")
    assert email["DEFAULT_FROM_EMAIL"] == "ops@x.example"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "80.5"),
        ("SWITCHYARD_PUBLIC_URL", "switchyard.example"),
        ("SWITCHYARD_PUBLIC_URL", "https://switchyard.example/gateway"),
        ("SWITCHYARD_PUBLIC_URL", "https://user@switchyard.example"),
        ("SWITCHYARD_PUBLIC_URL", "https://[::1"),
        ("SWITCHYARD_ALLOWED_HOSTS", "*"),
        ("SWITCHYARD_ALLOWED_HOSTS", "https://a.example"),
        ("SWITCHYARD_ALLOWED_ORIGINS", "*"),
        ("SWITCHYARD_ALLOWED_ORIGINS", "https://*.example"),
        ("SWITCHYARD_ALLOWED_NETWORKS", "10.0.0.0/99"),
        ("SWITCHYARD_ALLOWED_NETWORKS", "everything"),
        ("SWITCHYARD_TRUSTED_PROXIES", "proxy.example"),
        ("SWITCHYARD_STDIO", "yes"),
        ("SWITCHYARD_SECRET_KEY", "short"),
        ("SWITCHYARD_ENCRYPTION_KEYS", "k1:AAAA"),
        ("SWITCHYARD_ENCRYPTION_KEYS", "no key"),
        ("SWITCHYARD_ADMIN_KEY", "sy_abc_short"),
        ("DATABASE_URL", "mysql://u:geheim@h/d"),
        ("DATABASE_URL", "postgresql://u:geheim@h"),
        ("DATABASE_URL", "postgresql://u:geheim@h:port/d"),
        ("REDIS_URL", "http://h"),
        ("REDIS_URL", "redis"),
        ("REDIS_TIMEOUT", "never"),
        ("EMAIL_URL", "mail.example"),
        ("EMAIL_URL", "smtp://"),
        ("EMAIL_URL", "smtp://h:port"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_names_the_variable(variables, name, value):
    with pytest.raises(ConfigurationError) as refused:
        variables(**{name: value})
    message = str(refused.value)
    assert message.startswith(f"{name}: ")
    assert "\n" not in message
    assert "geheim" not in message


@pytest.mark.parametrize("name", ["DATABASE_POOL_SIZE", "DATABASE_POOL_TIMEOUT", "DATABASE_CONNECT_TIMEOUT"])
def test_a_wrong_limit_of_the_database_is_refused(variables, name):
    with pytest.raises(ConfigurationError, match=rf"^{name}: use a "):
        variables(**{"DATABASE_URL": "postgresql://h/d", name: "-1"})


def test_a_secret_twice_is_refused(variables, tmp_path):
    (tmp_path / "secret").write_text("x")
    with pytest.raises(ConfigurationError, match="not both"):
        variables(SWITCHYARD_ADMIN_PASSWORD="y", SWITCHYARD_ADMIN_PASSWORD_FILE=str(tmp_path / "secret"))


def test_a_secret_file_that_is_missing_is_named(variables, tmp_path):
    with pytest.raises(ConfigurationError, match=r"SWITCHYARD_ADMIN_KEY_FILE: cannot read .*/nowhere: No such file"):
        variables(SWITCHYARD_ADMIN_KEY_FILE=str(tmp_path / "nowhere"))


def test_a_home_that_is_a_file_is_refused(variables, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"^SWITCHYARD_HOME: cannot "):
        variables(SWITCHYARD_HOME=str(tmp_path / "file"))


def manage(tmp_path, *arguments, settings="config.settings.production", **variables):
    """Run manage.py with nothing but these variables."""
    environment = {"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": settings, "SWITCHYARD_HOME": str(tmp_path / "home")}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT, env={**environment, **variables}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_command_line_says_it_in_one_line_too(tmp_path):
    done = manage(tmp_path, "check", PORT="eighty")
    assert done.returncode == 1
    assert done.stderr == "switchyard: PORT: use a whole number from 1 to 65535\n"


def test_production_by_https_wants_to_know_its_proxy(tmp_path):
    done = manage(tmp_path, "check", SWITCHYARD_PUBLIC_URL="https://switchyard.example")
    assert done.returncode == 1
    assert done.stderr.startswith("switchyard: SWITCHYARD_TRUSTED_PROXIES: ")
    assert done.stderr.count("\n") == 1


def test_production_passes_the_deployment_check_without_a_warning(tmp_path):
    done = manage(
        tmp_path, "check", "--deploy", "--fail-level", "WARNING",
        SWITCHYARD_PUBLIC_URL="https://switchyard.example", SWITCHYARD_TRUSTED_PROXIES="loopback",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "no issues (0 silenced)" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_may_not_be_written_is_one_line(tmp_path):
    (tmp_path / "home").mkdir(mode=0o555)
    done = manage(tmp_path, "check", PORT=str(free_port()))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Permission denied" in done.stderr
