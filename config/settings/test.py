"""Settings for the test suite: a real database in a file (or real PostgreSQL), cheap password hashes."""

from config.settings.base import *

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

if not ENV.postgres:
    for _alias, _database in DATABASES.items():
        # a file, as several threads with connections of their own use it; each process of the suite has its own home
        _database["TEST"] = {"NAME": str(ENV.home / f"test-{_alias}.sqlite3")}
