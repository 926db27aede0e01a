"""A key gets a new text while the old one is good for a while; a key is accepted from its networks alone."""

from datetime import timedelta

import pytest

from apps.accounts.domain import is_within, parse_networks
from apps.accounts.models import APIKey
from apps.accounts.selectors import plane_keys
from apps.accounts.services.api_keys import create_api_key, revoke_api_key, rotate_api_key, update_api_key
from apps.accounts.services.authentication import authenticate_key
from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.crypto.tokens import digest_key
from apps.common.errors import AuthenticationRequired, Conflict, PermissionDenied, ValidationFailed
from tests.accounts.client import Api
from tests.accounts.support import audited, changes
from tests.factories import as_user, builtin_role, make_key, make_role, make_tenant, make_user

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture
def tenant():
    return make_tenant()


@pytest.fixture
def member(tenant):
    return make_user(tenant, builtin_role(tenant, "user"))


def accepted(text: str, address: str = "192.0.2.7") -> bool:
    try:
        authenticate_key(text, address=address)
    except AuthenticationRequired:
        return False
    return True


def rotated(key, **options):
    with tenant_scope(key.tenant_id, SYSTEM):
        return rotate_api_key(key, **options)


def facts(key):
    with every_tenant(SYSTEM):
        return plane_keys([key.pk])


def test_both_texts_are_good_until_the_overlap_ends(tenant, member):
    key, first = make_key(member, tenant)
    key, second = rotated(key, overlap_seconds=3600)
    assert first != second
    assert key.prefix == second[3:11]
    assert accepted(first)
    assert accepted(second)
    found = facts(key)
    assert [one.digest for one in found] == [digest_key(second), digest_key(first)]
    assert (found[0].expires_us, found[1].expires_us) == (None, int(key.former_until.timestamp() * 1_000_000))
    APIKey.unscoped.filter(pk=key.pk).update(former_until=now() - timedelta(seconds=1))
    assert not accepted(first)
    assert accepted(second)
    assert [one.digest for one in facts(key)] == [digest_key(second)]
    event = audited("api_key.rotated")[-1]
    assert event["details"]["overlap_seconds"] == 3600
    assert first not in str(event)
    assert second not in str(event)
    assert ("api_key", str(key.pk)) in changes()


def test_without_an_overlap_the_old_text_ends_at_once(tenant, member):
    key, first = make_key(member, tenant)
    key, second = rotated(key, overlap_seconds=0)
    assert not accepted(first)
    assert accepted(second)
    assert len(facts(key)) == 1


def test_a_second_rotation_ends_the_text_before_the_last(tenant, member):
    key, first = make_key(member, tenant)
    key, second = rotated(key)
    key, third = rotated(key)
    assert [accepted(text) for text in (first, second, third)] == [False, True, True]


def test_an_overlap_is_no_longer_than_the_key(tenant, member):
    key, _ = make_key(member, tenant, expires_at=now() + timedelta(minutes=5))
    key, _ = rotated(key)
    assert {one.expires_us for one in facts(key)} == {int(key.expires_at.timestamp() * 1_000_000)}


def test_a_revoked_key_takes_both_texts_with_it_and_is_not_rotated(tenant, member):
    key, first = make_key(member, tenant)
    key, second = rotated(key)
    with tenant_scope(tenant.pk, SYSTEM):
        revoke_api_key(key)
        with pytest.raises(Conflict):
            rotate_api_key(key)
    assert not accepted(first)
    assert not accepted(second)
    assert facts(key) == []


@pytest.mark.parametrize("seconds", [-1, 7 * 86_400 + 1])
def test_overlaps_that_cannot_be(tenant, member, seconds):
    key, first = make_key(member, tenant)
    with tenant_scope(tenant.pk, SYSTEM), pytest.raises(ValidationFailed):
        rotate_api_key(key, overlap_seconds=seconds)
    assert accepted(first)


def test_nobody_rotates_the_key_of_somebody_else(tenant, member):
    key, text = make_key(member, tenant)
    other = make_user(tenant, make_role(tenant, "api_key.write"))
    with tenant_scope(tenant.pk, as_user(other)), pytest.raises(PermissionDenied):
        rotate_api_key(key)
    assert accepted(text)


def test_a_narrowed_key_rotates_nothing_wider_than_itself(tenant):
    owner = make_user(tenant, builtin_role(tenant, "admin"))
    wide, text = make_key(owner, tenant, inherits_owner=True)
    _, narrow = make_key(owner, tenant, inherits_owner=True, scopes=["api_key.*"])
    assert Api(narrow).post(f"api-keys/{wide.pk}/rotate/", {}).status_code == 403
    assert accepted(text)


def test_rotation_over_the_api_shows_the_text_once(tenant):
    owner = make_user(tenant, builtin_role(tenant, "admin"))
    _, root = make_key(owner, tenant, inherits_owner=True)
    key, first = make_key(owner, tenant)
    answer = Api(root).post(f"api-keys/{key.prefix}/rotate/", {"overlap_seconds": 60})
    assert answer.status_code == 200, answer.content
    made = answer.json()
    assert accepted(made["key"])
    assert (made["former_prefix"], made["prefix"]) == (first[3:11], made["key"][3:11])
    shown = Api(root).get(f"api-keys/{key.pk}/").json()
    assert "key" not in shown
    assert shown["former_until"] == made["former_until"]


def test_a_key_is_accepted_from_its_networks_alone(tenant, member):
    key, text = make_key(member, tenant)
    with tenant_scope(tenant.pk, SYSTEM):
        update_api_key(key, allowed_networks=["192.0.2.0/28", "2001:db8::1"])
    assert accepted(text, "192.0.2.7")
    assert accepted(text, "2001:db8::1")
    assert accepted(text, "::ffff:192.0.2.7")
    for elsewhere in ("192.0.2.16", "2001:db8::2", "", "nonsense", "::1"):
        assert not accepted(text, elsewhere), elsewhere
    assert [str(network) for network in facts(key)[0].networks] == ["192.0.2.0/28", "2001:db8::1/128"]
    with tenant_scope(tenant.pk, SYSTEM):
        update_api_key(key, allowed_networks=[])
    assert accepted(text, "198.51.100.1")


@pytest.mark.parametrize("given", ["10.0.0.1/8", "10.0.0.0/33", "localhost", "", 7, None, "0x7f.1", "10.0.0.0/8,10.1.0.0/16"])
def test_networks_that_are_none(tenant, member, given):
    with tenant_scope(tenant.pk, SYSTEM), pytest.raises(ValidationFailed) as refused:
        create_api_key(name="x", owner=member, allowed_networks=[given])
    assert "allowed_networks" in refused.value.extra["errors"]


def test_no_more_networks_than_can_be_looked_at(tenant, member):
    with tenant_scope(tenant.pk, SYSTEM), pytest.raises(ValidationFailed):
        create_api_key(name="x", owner=member, allowed_networks=[f"10.0.{number}.0/24" for number in range(65)])


def test_networks_are_kept_once_each():
    assert [str(one) for one in parse_networks([" 10.0.0.0/8 ", "10.0.0.0/8", "192.0.2.1"])] == ["10.0.0.0/8", "192.0.2.1/32"]
    assert not is_within("10.0.0.1", [])
