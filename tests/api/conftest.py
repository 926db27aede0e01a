"""Fixtures of the API's tests."""

from dataclasses import replace
from typing import Any

import pytest

from tests.accounts.client import Api
from tests.api.people import make_person
from tests.api.world import World, make_world


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings: Any) -> None:
    settings.SWITCHYARD = replace(settings.SWITCHYARD, allowed_networks=("loopback",))


@pytest.fixture
def world(db: None) -> World:
    """One of everything in a tenant of this test's own."""
    return make_world()


@pytest.fixture
def admin(world: World) -> Api:
    """A client of the tenant's administrator."""
    return make_person("admin", world)


@pytest.fixture
def root(world: World) -> Api:
    """A client of a superuser, whose key is of the tenant."""
    return make_person("root", world)
