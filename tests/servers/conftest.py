"""Fixtures of the registry's tests."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.factories import make_tenant


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
