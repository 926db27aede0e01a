"""Fixtures of the catalogue's tests."""

from collections.abc import Iterator

import pytest

from apps.common.context import SYSTEM, tenant_scope
from tests.factories import make_tenant


@pytest.fixture
def tenant(db):
    """A new tenant."""
    return make_tenant()


@pytest.fixture
def inside(tenant) -> Iterator[None]:
    """The scope of that tenant, as the system."""
    with tenant_scope(tenant.pk, SYSTEM):
        yield
