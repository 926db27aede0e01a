"""Fixtures: people of every role with a client each, and a small world to look at."""

from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from tests.console.data import fill
from tests.factories import make_superuser, make_tenant, make_user

ROLES = ("admin", "operator", "user", "guest", "auditor")


@pytest.fixture(autouse=True)
def _no_remembered_badges() -> None:
    cache.clear()


@pytest.fixture
def tenant(db: None) -> Any:
    """A tenant of this test's own."""
    return make_tenant()


@pytest.fixture
def world(tenant: Any) -> dict[str, Any]:
    """Two servers with tools (some held), keys, grants and a toolset in `tenant`."""
    return fill("little", tenant=tenant)


def client_of(user: Any) -> Client:
    """Return a client that is signed in."""
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def superuser(db: None) -> Any:
    """A superuser."""
    return make_superuser()


@pytest.fixture
def root(superuser: Any) -> Client:
    """A superuser's client, with every tenant in view."""
    make_tenant()
    make_tenant()
    return client_of(superuser)


class Staff(dict[str, Client]):
    """A client for each built-in role of a tenant, made when it is first wanted."""

    def __init__(self, tenant: Any) -> None:
        super().__init__()
        self._tenant = tenant

    def __missing__(self, role: str) -> Client:
        self[role] = client_of(make_user(self._tenant, role))
        return self[role]


@pytest.fixture
def staff(tenant: Any) -> Staff:
    """A client for each built-in role of `tenant`."""
    return Staff(tenant)


@pytest.fixture
def stranger(db: None) -> Client:
    """The administrator of another tenant."""
    return client_of(make_user(make_tenant(), "admin"))


@pytest.fixture
def operator(staff: dict[str, Client]) -> Client:
    """An operator of `tenant`."""
    return staff["operator"]


@pytest.fixture
def boss(staff: dict[str, Client]) -> Client:
    """An administrator of `tenant`."""
    return staff["admin"]
