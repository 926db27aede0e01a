"""What the data plane's snapshot is built from."""

import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.accounts import selectors
from apps.accounts.models import APIKey
from apps.accounts.services.api_keys import revoke_api_key
from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.crypto.tokens import digest_key, new_api_key
from apps.common.errors import NotFound, TenantRequired
from tests.factories import builtin_role, make_key, make_member, make_superuser, make_tenant, make_user

pytestmark = pytest.mark.django_db


def test_facts_say_what_the_rows_say():
    tenant, other = make_tenant(sample_payloads=False), make_tenant()
    user = make_user(tenant, "operator")
    make_member(user, other, "guest")
    expires = now() + timedelta(hours=1)
    key, text = make_key(user, tenant, inherits_owner=True, scopes=["tool.call"], loopback_only=True, expires_at=expires)
    with every_tenant(SYSTEM):
        (facts,) = selectors.plane_tenants([tenant.pk])
        assert (facts.id, facts.slug, facts.active, facts.sample_payloads) == (str(tenant.pk), tenant.slug, True, False)
        (facts,) = selectors.plane_users([user.pk])
        assert (facts.id, facts.username, facts.active, facts.is_superuser) == (str(user.pk), user.username, True, False)
        assert set(facts.roles) == {
            (str(tenant.pk), str(builtin_role(tenant, "operator").pk)),
            (str(other.pk), str(builtin_role(other, "guest").pk)),
        }
        (facts,) = selectors.plane_keys([str(key.pk)])
    assert facts.digest == digest_key(text)
    assert (facts.id, facts.tenant_id, facts.owner_id) == (str(key.pk), str(tenant.pk), str(user.pk))
    assert (facts.name, facts.prefix) == (key.name, key.prefix)
    assert (facts.inherits_owner, facts.loopback_only, facts.scopes) == (True, True, frozenset(["tool.call"]))
    assert facts.expires_us == int(expires.timestamp() * 1_000_000)


def test_revoked_and_unknown_are_not_there():
    key, _ = make_key()
    with every_tenant(SYSTEM):
        assert selectors.plane_keys([key.pk, make_tenant().pk])[0].id == str(key.pk)
        revoke_api_key(key)
        assert selectors.plane_keys([key.pk]) == []
        assert selectors.plane_keys([]) == []
        assert selectors.plane_users([]) == []


def test_rows_of_a_tenant_need_a_scope():
    key, _ = make_key()
    with pytest.raises(TenantRequired):
        selectors.plane_keys()
    with tenant_scope(make_tenant().pk, SYSTEM):
        assert selectors.plane_keys() == []
        with pytest.raises(NotFound):
            selectors.api_key(key.pk)
    with tenant_scope(key.tenant_id, SYSTEM):
        assert selectors.api_key(key.prefix) == key


def test_ten_thousand_keys_load_within_a_second():
    tenant = make_tenant()
    owner = make_superuser()
    made = [new_api_key() for _ in range(10_000)]
    APIKey.unscoped.bulk_create(
        [
            APIKey(
                tenant=tenant, owner=owner, name=f"k{number}", prefix=f"{number:08d}", digest=key.digest, scopes=["tool.call"]
            )
            for number, key in enumerate(made)
        ],
        batch_size=1000,
    )
    with (
        every_tenant(SYSTEM),
        CaptureQueriesContext(
            connection,
        ) as queries,
    ):
        started = time.process_time()
        keys = selectors.plane_keys()
        took = time.process_time() - started
    assert len(keys) == 10_000
    assert len(queries) <= 2
    assert took < 10
    with every_tenant(SYSTEM):
        assert len(selectors.plane_keys([key.id for key in keys[:6000]])) == 6000


def test_users_take_two_queries_however_many():
    tenant = make_tenant()
    for _ in range(5):
        make_user(tenant)
    with every_tenant(SYSTEM), CaptureQueriesContext(connection) as queries:
        assert len(selectors.plane_users()) == 5
    assert len(queries) == 2


def test_which_tenants_somebody_may_work_in():
    open_one, shut = make_tenant("a-open"), make_tenant("b-shut")
    user = make_user(open_one)
    make_member(user, shut)
    shut.active = False
    shut.save()
    assert list(selectors.tenants_of(user)) == [open_one]
    assert {open_one, shut} <= set(selectors.tenants_of(make_superuser()))
    user.is_active = False
    assert list(selectors.tenants_of(user)) == []
    assert selectors.permissions_in(user.pk, shut.pk) == frozenset()


@pytest.mark.parametrize("named", ["nobody", "", "0" * 32, "a/b", "%", "\x01"])
def test_looking_for_what_is_not_there(named):
    tenant = make_tenant()
    with tenant_scope(tenant.pk, SYSTEM):
        for look in (selectors.tenant, selectors.user, selectors.role, selectors.api_key):
            with pytest.raises(NotFound):
                look(named)
