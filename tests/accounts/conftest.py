"""Fixtures of the tests of accounts."""

import pytest

from tests.accounts.client import Api
from tests.factories import make_key, make_tenant, make_user


@pytest.fixture
def tenant():
    return make_tenant()


@pytest.fixture
def api(tenant):
    """A client of a tenant's administrator."""
    return Api(make_key(make_user(tenant, "admin"), tenant, inherits_owner=True)[1])


@pytest.fixture
def root():
    """A client of a superuser whose key is of the tenant `default`."""
    return Api(make_key()[1])
