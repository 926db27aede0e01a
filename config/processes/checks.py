"""What must hold before anything starts; each failure is one line."""

import errno
import fcntl
import os
import socket
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from config.environment import Environment
from config.processes.errors import CannotStart

CONNECT_SECONDS = 5
_ORPHAN_SECONDS = 12.0


def check_home(home: Path) -> None:
    """Make the directory of the installation and write to it. Raises CannotStart."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise CannotStart(f"SWITCHYARD_HOME: cannot write to {home}: {error.strerror}") from error


def take_home(home: Path, name: str) -> int:
    """Return a file descriptor that holds the lock `name` of the home for as long as it, or a copy of it, is open.

    The children of a supervisor that was killed end within seconds; until then the lock is waited for. Raises CannotStart
    when the lock's holder lives.
    """
    path = home / name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode().strip()
            if not holder or _lives(int(holder)) or time.monotonic() > deadline:
                os.close(descriptor)
                raise CannotStart(
                    f"SWITCHYARD_HOME: another Switchyard (process {holder or 'unknown'}) already runs on {home}"
                ) from None
            time.sleep(0.05)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address, not yet listening. Raises CannotStart."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise CannotStart(f"HOST: {host} is not an address of this machine: {error.strerror}") from error
    listener = socket.socket(family, kind, proto)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        # a port that is only bound is not yet taken from others that share addresses: listening is what fails for the second
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(f"PORT: {port} on {host} is in use; stop the other program or choose another PORT") from error
        if error.errno == errno.EACCES:
            raise CannotStart(f"PORT: {port} needs more rights; choose a PORT from 1024 on") from error
        raise CannotStart(f"HOST: cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def check_database(environment: Environment) -> None:
    """Connect to each database once. Raises CannotStart."""
    from django.db import Error, connections
    from django.db.utils import load_backend

    for alias in connections:
        settings = dict(connections.settings[alias])
        settings["OPTIONS"] = {name: value for name, value in settings["OPTIONS"].items() if name != "pool"}
        if environment.postgres:
            settings["OPTIONS"]["connect_timeout"] = CONNECT_SECONDS
        connection = load_backend(settings["ENGINE"]).DatabaseWrapper(settings, alias)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except Error as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if environment.postgres:
                where = f"{settings['HOST'] or 'localhost'}:{settings['PORT'] or 5432}"
                raise CannotStart(f"DATABASE_URL: cannot use the database at {where}: {reason}") from error
            raise CannotStart(f"SWITCHYARD_HOME: cannot use the database {settings['NAME']}: {reason}") from error
        finally:
            connection.close()


def check_redis(url: str) -> None:
    """Ask Redis for a sign of life. Raises CannotStart."""
    if not url:
        return
    import redis

    try:
        client = redis.Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS, socket_timeout=CONNECT_SECONDS)
    except ValueError as error:
        raise CannotStart("REDIS_URL: not a Redis address; use redis://host:6379/0") from error
    try:
        client.ping()
    except redis.RedisError as error:
        parts = urlsplit(url)
        raise CannotStart(f"REDIS_URL: cannot use Redis at {parts.hostname}:{parts.port or 6379}: {error}") from error
    finally:
        client.close()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
