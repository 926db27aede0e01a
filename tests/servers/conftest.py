"""Fixtures of the registry's tests."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from apps.servers.models import Server
from tests.factories import make_tenant, make_user
from tests.servers.oauth_world import World
from tests.servers.support import make_server


@pytest.fixture
def tenant(db):
    """A tenant with its built-in roles."""
    return make_tenant()


@pytest.fixture
def configure(settings) -> Callable[..., None]:
    """Change what the environment said: `configure(stdio="off")`."""

    def change(**fields) -> None:
        settings.SWITCHYARD = replace(settings.SWITCHYARD, **fields)

    return change


@pytest.fixture
def world(configure):
    """An authorization server and a protected MCP server, which may be reached."""
    configure(allowed_networks=["loopback"], public_url="http://localhost:8000", client_metadata_url="")
    with World() as it:
        yield it


@pytest.fixture
def operator(tenant):
    """A person who may connect servers."""
    return make_user(tenant, "operator")


@pytest.fixture
def server(tenant, world) -> Server:
    """The protected server, registered and not connected yet."""
    return make_server(tenant, url=world.url, auth="oauth")


@pytest.fixture
def personal(tenant, world) -> Server:
    """The protected server, with which each user has their own account."""
    return make_server(tenant, url=world.url, auth="oauth-user")
