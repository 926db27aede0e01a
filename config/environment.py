"""Reads the environment into typed values, once. Every secret may also come from `<NAME>_FILE`.

What is wrong is said in one line that names the variable: ConfigurationError. `docs/operations.md` lists the variables.
"""

import base64
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from apps.audit.checkpoints.keys import CheckpointKeys, new_checkpoint_key
from apps.audit.checkpoints.target import AwsCredentials
from apps.audit.checkpoints.targets import parse_targets
from apps.common.crypto.keyring import Keyring, new_key_text
from apps.common.crypto.tokens import parse_prefix
from apps.common.http.addresses import NetworkPolicy
from apps.common.http_address import parse_networks

SQLITE_INIT = (
    "PRAGMA journal_mode=WAL;PRAGMA synchronous={sync};PRAGMA mmap_size=134217728;"
    "PRAGMA journal_size_limit=27103364;PRAGMA cache_size=-20000;PRAGMA foreign_keys=ON;"
)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_SMTP = {"smtp": (25, False, False), "smtp+tls": (587, True, False), "smtps": (465, False, True)}
"""Scheme of EMAIL_URL: default port, STARTTLS, TLS from the first byte."""


class ConfigurationError(Exception):
    """A variable is wrong; the message is one line that says which and how to mend it."""


@dataclass(frozen=True)
class Environment:
    """What the variables of the installation say."""

    home: Path
    host: str
    port: int
    public_url: str
    secret_key: str = field(repr=False)
    encryption_keys: str = field(repr=False)
    checkpoint_keys: str = field(repr=False)
    databases: dict[str, dict[str, Any]] = field(repr=False)
    redis_url: str = field(repr=False)
    redis_timeout: float = 5.0
    email: dict[str, Any] = field(default_factory=dict, repr=False)
    allowed_hosts: list[str] = field(default_factory=list)
    allowed_origins: list[str] = field(default_factory=list)
    allowed_networks: list[str] = field(default_factory=list)
    trusted_proxies: list[str] = field(default_factory=list)
    stdio: str = "on"
    servers_file: str = ""
    hooks: list[str] = field(default_factory=list)
    """Hooks around calls, `package.module:Name`; from the environment alone, never over HTTP."""
    checkpoints: list[str] = field(default_factory=list, repr=False)
    """Where signed checkpoints of the audit log go; from the environment alone, never over HTTP."""
    checkpoint_seconds: float = 30.0
    aws: AwsCredentials | None = field(default=None, repr=False)
    client_metadata_url: str = ""
    """Where authorization servers of MCP servers read who Switchyard is; empty: at the public URL, `off`: nowhere."""
    admin_user: str = "admin"
    admin_password: str = field(default="", repr=False)
    admin_key: str = field(default="", repr=False)

    @property
    def https(self) -> bool:
        """Tell whether people reach this installation by HTTPS."""
        return self.public_url.startswith("https://")

    @property
    def csrf_trusted_origins(self) -> list[str]:
        """Return the origins from which forms may be sent."""
        parts = urlsplit(self.public_url)
        return [f"{parts.scheme}://{parts.netloc}"]

    @property
    def postgres(self) -> bool:
        """Tell whether the database is PostgreSQL."""
        return str(self.databases["default"]["ENGINE"]).endswith("postgresql")


def read(name: str, default: str = "") -> str:
    """Return a variable, or the content of the file that `<name>_FILE` names. Raises ConfigurationError."""
    path = os.environ.get(f"{name}_FILE")
    if path:
        if os.environ.get(name):
            raise ConfigurationError(f"{name}: set either {name} or {name}_FILE, not both")
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{name}_FILE: {path} is not text") from error
        except OSError as error:
            raise ConfigurationError(f"{name}_FILE: cannot read {path}: {error.strerror}") from error
    return os.environ.get(name, "").strip() or default


def _list(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in read(name, default).split(",") if part.strip()]


def _number(name: str, default: str, *, least: float, most: float, whole: bool = False) -> float:
    text = read(name, default)
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = -1
    if not least <= value <= most:
        raise ConfigurationError(f"{name}: use a {'whole ' if whole else ''}number from {least:g} to {most:g}")
    return value


def _made_once(home: Path, name: str, make: Callable[[], str]) -> str:
    """Return the content of a file in the home, made at first start and readable by its owner alone."""
    path = home / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigurationError(f"SWITCHYARD_HOME: cannot read {path}: {error.strerror}") from error
    value = make()
    temporary = home / f".{name}.{os.getpid()}"
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value + "\n")
        try:
            os.link(temporary, path)
        finally:
            os.unlink(temporary)
    except FileExistsError:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"SWITCHYARD_HOME: cannot write to {home}: {error.strerror}") from error
    return value


def _sqlite(path: Path, sync: str) -> dict[str, Any]:
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": SQLITE_INIT.format(sync=sync)},
    }


def _databases(home: Path) -> dict[str, dict[str, Any]]:
    url = read("DATABASE_URL")
    if not url:
        return {"default": _sqlite(home / "switchyard.sqlite3", "NORMAL"), "audit": _sqlite(home / "audit.sqlite3", "FULL")}
    shape = "use postgresql://user:password@host:5432/name?sslmode=verify-full, or leave it empty for SQLite"
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
        name = unquote(parts.path.removeprefix("/"))
    except ValueError as error:
        raise ConfigurationError(f"DATABASE_URL: not a database address; {shape}") from error
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigurationError(f"DATABASE_URL: only PostgreSQL is supported; {shape}")
    if not name or "/" in name:
        raise ConfigurationError(f"DATABASE_URL: the name of the database is missing; {shape}")
    pool = int(_number("DATABASE_POOL_SIZE", "10", least=1, most=1000, whole=True))
    return {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": unquote(parts.hostname or ""),
            "PORT": str(port),
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": {
                "connect_timeout": int(_number("DATABASE_CONNECT_TIMEOUT", "5", least=1, most=300, whole=True)),
                # sslmode, sslrootcert, target_session_attrs, application_name …, in libpq's own words
                **dict(parse_qsl(parts.query)),
                "pool": {
                    "min_size": 1,
                    "max_size": pool,
                    "timeout": _number("DATABASE_POOL_TIMEOUT", "10", least=0.1, most=300),
                },
            },
        }
    }


def _redis() -> str:
    url = read("REDIS_URL")
    if url and (urlsplit(url).scheme not in ("redis", "rediss", "unix") or not (urlsplit(url).netloc or urlsplit(url).path)):
        raise ConfigurationError("REDIS_URL: use redis://host:6379/0, or rediss:// for TLS")
    return url


def _email() -> dict[str, Any]:
    url = read("EMAIL_URL")
    if not url:
        return {"EMAIL_BACKEND": "django.core.mail.backends.dummy.EmailBackend"}
    try:
        parts = urlsplit(url)
        port, starttls, tls = _SMTP[parts.scheme]
        port = parts.port or port
        if not parts.hostname:
            raise ValueError
    except (KeyError, ValueError):
        raise ConfigurationError(
            "EMAIL_URL: use smtp://host:25, smtp+tls://user:password@host:587 or smtps://user:password@host:465"
        ) from None
    sender = dict(parse_qsl(parts.query)).get("from", f"switchyard@{parts.hostname}")
    return {
        "EMAIL_BACKEND": "django.core.mail.backends.smtp.EmailBackend",
        "EMAIL_HOST": parts.hostname,
        "EMAIL_PORT": port,
        "EMAIL_HOST_USER": unquote(parts.username or ""),
        "EMAIL_HOST_PASSWORD": unquote(parts.password or ""),
        "EMAIL_USE_TLS": starttls,
        "EMAIL_USE_SSL": tls,
        "EMAIL_TIMEOUT": 10,
        "DEFAULT_FROM_EMAIL": sender,
        "SERVER_EMAIL": sender,
    }


def _origin(name: str, text: str) -> str:
    """Return `scheme://host[:port]` of an address that has nothing more. Raises ConfigurationError."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc or "*" in parts.netloc:
        raise ConfigurationError(f"{name}: “{text}” is not an origin; use https://switchyard.example, without a path")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _hosts(public_url: str) -> list[str]:
    hosts = _list("SWITCHYARD_ALLOWED_HOSTS")
    for host in hosts:
        if host.startswith("*") or "/" in host:
            raise ConfigurationError(
                "SWITCHYARD_ALLOWED_HOSTS: name each host, as in switchyard.example,.example.org; * is refused"
            )
    public = urlsplit(public_url).hostname or ""
    return list(dict.fromkeys([*(hosts or LOOPBACK_NAMES), f"[{public}]" if ":" in public else public]))


def _checked(name: str, texts: list[str], parse: Callable[[list[str]], object]) -> list[str]:
    try:
        parse(texts)
    except ValueError as error:
        raise ConfigurationError(f"{name}: {error}; use networks such as 10.0.0.0/8, or loopback") from error
    return texts


def _admin_key() -> str:
    key = read("SWITCHYARD_ADMIN_KEY")
    if key and parse_prefix(key) is None:
        raise ConfigurationError(
            "SWITCHYARD_ADMIN_KEY: a key is sy_, 8 letters or digits, _ and 43 or more letters, digits, - or _"
        )
    return key


def _checkpoints() -> tuple[list[str], AwsCredentials | None]:
    named = [part for part in read("SWITCHYARD_CHECKPOINTS").replace(",", " ").split() if part]
    access, secret = read("AWS_ACCESS_KEY_ID"), read("AWS_SECRET_ACCESS_KEY")
    aws = AwsCredentials(access, secret, read("AWS_SESSION_TOKEN")) if access and secret else None
    try:
        parse_targets(named, aws)
    except ValueError as error:
        raise ConfigurationError(f"SWITCHYARD_CHECKPOINTS: {error}") from error
    return named, aws


def _checkpoint_keys(home: Path) -> str:
    keys = read("SWITCHYARD_CHECKPOINT_KEYS") or _made_once(home, "checkpoint_keys", new_checkpoint_key)
    try:
        CheckpointKeys.parse(keys)
    except ValueError as error:
        raise ConfigurationError(f"SWITCHYARD_CHECKPOINT_KEYS: {error}") from error
    return keys


def _client_metadata_url() -> str:
    text = read("SWITCHYARD_CLIENT_METADATA_URL")
    if text and text != "off" and not (text.startswith("https://") and urlsplit(text).path not in ("", "/")):
        raise ConfigurationError("SWITCHYARD_CLIENT_METADATA_URL: use an https address with a path, or off")
    return text


def load(base: Path) -> Environment:
    """Read every variable; makes the home and its three secret files when they are missing. Raises ConfigurationError."""
    home = Path(read("SWITCHYARD_HOME", str(base / "var"))).expanduser().absolute()
    port = int(_number("PORT", "8000", least=1, most=65535, whole=True))
    public_url = _origin("SWITCHYARD_PUBLIC_URL", read("SWITCHYARD_PUBLIC_URL", f"http://localhost:{port}"))
    stdio = read("SWITCHYARD_STDIO", "on")
    if stdio not in ("on", "files", "off"):
        raise ConfigurationError("SWITCHYARD_STDIO: use on, files or off")
    encryption = read("SWITCHYARD_ENCRYPTION_KEYS") or _made_once(home, "encryption_keys", lambda: new_key_text("k1"))
    try:
        Keyring.parse(encryption)
    except ValueError as error:
        raise ConfigurationError(f"SWITCHYARD_ENCRYPTION_KEYS: {error}") from error
    secret_key = read("SWITCHYARD_SECRET_KEY") or _made_once(
        home, "secret_key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(48)).decode()
    )
    if len(secret_key) < 32:
        raise ConfigurationError("SWITCHYARD_SECRET_KEY: use 32 or more random characters")
    checkpoints, aws = _checkpoints()
    return Environment(
        home=home,
        host=read("HOST", "127.0.0.1"),
        port=port,
        public_url=public_url,
        secret_key=secret_key,
        encryption_keys=encryption,
        checkpoint_keys=_checkpoint_keys(home),
        databases=_databases(home),
        redis_url=_redis(),
        redis_timeout=_number("REDIS_TIMEOUT", "5", least=0.1, most=300),
        email=_email(),
        allowed_hosts=_hosts(public_url),
        allowed_origins=[_origin("SWITCHYARD_ALLOWED_ORIGINS", text) for text in _list("SWITCHYARD_ALLOWED_ORIGINS")],
        allowed_networks=_checked("SWITCHYARD_ALLOWED_NETWORKS", _list("SWITCHYARD_ALLOWED_NETWORKS"), NetworkPolicy.parse),
        trusted_proxies=_checked("SWITCHYARD_TRUSTED_PROXIES", _list("SWITCHYARD_TRUSTED_PROXIES"), parse_networks),
        stdio=stdio,
        servers_file=read("SWITCHYARD_SERVERS"),
        hooks=_list("SWITCHYARD_HOOKS", ""),
        client_metadata_url=_client_metadata_url(),
        checkpoints=checkpoints,
        checkpoint_seconds=_number("SWITCHYARD_CHECKPOINT_SECONDS", "30", least=1, most=60),
        aws=aws,
        admin_user=read("SWITCHYARD_ADMIN_USER", "admin"),
        admin_password=read("SWITCHYARD_ADMIN_PASSWORD"),
        admin_key=_admin_key(),
    )
