"""API keys: made, narrowed, changed, revoked, used."""

from datetime import timedelta

import pytest

from apps.accounts.models import APIKey
from apps.accounts.services.api_keys import create_api_key, record_key_use, rename_api_key, revoke_api_key, update_api_key
from apps.accounts.services.authentication import authenticate_key
from apps.accounts.services.tenants import activate_tenant, deactivate_tenant
from apps.accounts.services.users import deactivate_user
from apps.common.clock import now
from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.crypto.tokens import new_api_key
from apps.common.errors import AuthenticationRequired, Conflict, PermissionDenied, TenantRequired, ValidationFailed
from tests.accounts.support import audited, changes, everything
from tests.factories import as_key, as_user, make_key, make_role, make_superuser, make_tenant, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def tenant():
    return make_tenant()


@pytest.fixture
def admin(tenant):
    return make_user(tenant, "admin")


def as_admin(tenant, admin):
    return tenant_scope(tenant.pk, as_user(admin))


def test_a_key_is_stored_as_a_digest_and_announced(tenant, admin):
    with as_admin(tenant, admin):
        key, text = create_api_key(name="ci", owner=admin)
    assert text.startswith(f"sy_{key.prefix}_")
    assert authenticate_key(text, address="203.0.113.9")[0] == key
    created = audited("api_key.created")[-1]
    assert created["object_id"] == str(key.pk)
    assert created["actor_label"] == admin.username
    assert created["details"]["after"]["inherits_owner"] is False
    assert ("api_key", str(key.pk)) in changes()
    assert text not in everything()
    assert text[12:] not in everything()


def test_a_key_needs_a_tenant(admin):
    with every_tenant(SYSTEM), pytest.raises(TenantRequired):
        create_api_key(name="ci", owner=admin)


def test_a_given_text_is_used_and_must_be_in_form(tenant, admin):
    text = new_api_key().text
    with as_admin(tenant, admin):
        key, made = create_api_key(name="mine", owner=admin, text=text)
        assert (made, key.prefix) == (text, text[3:11])
        with pytest.raises(Conflict):
            create_api_key(name="again", owner=admin, text=text)
        with pytest.raises(Conflict):
            create_api_key(name="same prefix", owner=admin, text=f"sy_{text[3:11]}_{'b' * 43}")
        for wrong in (
            "hunter2",
            "sy_abc_def",
            f"sy_{'a' * 8}_{'b' * 42}",
            f"sy_{'a' * 8}_{'b' * 129}",
            f"sy_{'ä' * 8}_{'b' * 43}",
        ):
            with pytest.raises(ValidationFailed) as caught:
                create_api_key(name="wrong", owner=admin, text=wrong)
            assert wrong not in str(caught.value.problem())


def test_who_has_no_right_is_refused_and_the_refusal_recorded(tenant):
    guest = make_user(tenant, "guest")
    with tenant_scope(tenant.pk, as_user(guest)), pytest.raises(PermissionDenied) as caught:
        create_api_key(name="ci", owner=guest)
    assert caught.value.extra["rule"] == "default-deny"
    assert not APIKey.unscoped.exists()
    refused = audited("access.refused")[-1]
    assert (refused["action"], refused["outcome"], refused["actor_id"]) == ("api_key.write", "refused", str(guest.pk))


def test_a_key_for_somebody_else_needs_api_key_admin(tenant):
    maker = make_user(tenant, make_role(tenant, "api_key.write", "server.read"))
    other = make_user(tenant, "user")
    with tenant_scope(tenant.pk, as_user(maker)):
        own, _ = create_api_key(name="own", owner=maker, inherits_owner=True, scopes=["server.read"])
        with pytest.raises(PermissionDenied) as caught:
            create_api_key(name="other", owner=other)
    assert caught.value.extra["rule"] == "others-key"
    foreign, _ = make_key(other, tenant)
    with tenant_scope(tenant.pk, as_user(maker)):
        for verb in (revoke_api_key, lambda key: rename_api_key(key, "x")):
            with pytest.raises(PermissionDenied):
                verb(foreign)
        revoke_api_key(own)
    foreign.refresh_from_db()
    assert foreign.revoked_at is None


def test_scopes_stay_within_ones_own_rights(tenant):
    maker = make_user(tenant, make_role(tenant, "api_key.write", "server.read"))
    with tenant_scope(tenant.pk, as_user(maker)):
        for scopes in (["server.write"], ["*.read"], ["server.*"], ["*.*"]):
            with pytest.raises(PermissionDenied) as caught:
                create_api_key(name="wide", owner=maker, inherits_owner=True, scopes=scopes)
            assert caught.value.extra["rule"] == "more-than-own"
        for scopes in (["server.fly"], ["nothing"], [7], [""]):
            with pytest.raises(ValidationFailed):
                create_api_key(name="odd", owner=maker, scopes=scopes)
    assert not APIKey.unscoped.exists()


def test_nobody_lets_a_key_act_with_anothers_rights_but_a_superuser(tenant, admin):
    other = make_user(tenant, "operator")
    with as_admin(tenant, admin):
        create_api_key(name="for other", owner=other)
        with pytest.raises(PermissionDenied) as caught:
            create_api_key(name="as other", owner=other, inherits_owner=True)
        assert caught.value.extra["rule"] == "others-rights"
    with tenant_scope(tenant.pk, as_user(make_superuser())):
        create_api_key(name="as other", owner=other, inherits_owner=True)


def test_a_narrowed_key_cannot_make_a_wider_one(tenant, admin):
    narrow, _ = make_key(admin, tenant, inherits_owner=True, scopes=["api_key.write", "server.read"])
    with tenant_scope(tenant.pk, as_key(narrow)):
        with pytest.raises(PermissionDenied):
            create_api_key(name="not narrowed", owner=admin, inherits_owner=True)
        with pytest.raises(PermissionDenied):
            create_api_key(name="wider", owner=admin, inherits_owner=True, scopes=["server.write"])
        child, _ = create_api_key(name="as narrow", owner=admin, inherits_owner=True, scopes=["server.read"])
        with pytest.raises(PermissionDenied):
            update_api_key(child, scopes=None)
        with pytest.raises(PermissionDenied):
            update_api_key(narrow, scopes=["*.*"])


def test_a_key_without_its_owners_rights_manages_nothing(tenant, admin):
    plain, _ = make_key(admin, tenant)
    with tenant_scope(tenant.pk, as_key(plain)), pytest.raises(PermissionDenied):
        create_api_key(name="more", owner=admin)
    boss = make_superuser()
    plain, _ = make_key(boss, tenant)
    with tenant_scope(tenant.pk, as_key(plain)), pytest.raises(PermissionDenied):
        create_api_key(name="more", owner=boss)


@pytest.mark.parametrize("why", ["stranger", "inactive", "other tenant"])
def test_the_owner_must_be_active_and_at_home(tenant, admin, why):
    owner = {"stranger": make_user, "inactive": make_user, "other tenant": lambda: make_user(make_tenant())}[why]()
    if why == "inactive":
        owner = make_user(tenant)
        with every_tenant(SYSTEM):
            deactivate_user(owner)
    with as_admin(tenant, admin), pytest.raises(ValidationFailed) as caught:
        create_api_key(name="ci", owner=owner)
    assert "owner" in caught.value.extra["errors"]


def test_a_superuser_may_own_keys_anywhere(tenant, admin):
    with as_admin(tenant, admin):
        assert create_api_key(name="ci", owner=make_superuser())


def test_an_expiry_in_the_past_is_refused(tenant, admin):
    with as_admin(tenant, admin):
        with pytest.raises(ValidationFailed):
            create_api_key(name="ci", owner=admin, expires_at=now() - timedelta(seconds=1))
        key, text = create_api_key(name="ci", owner=admin, expires_at=now() + timedelta(hours=1))
    authenticate_key(text, address="127.0.0.1")
    APIKey.unscoped.filter(pk=key.pk).update(expires_at=now() - timedelta(seconds=1))
    with pytest.raises(AuthenticationRequired, match="expired"):
        authenticate_key(text, address="127.0.0.1")


def test_changes_are_recorded_with_before_and_after(tenant, admin):
    key, _ = make_key(admin, tenant, name="old")
    with as_admin(tenant, admin):
        assert update_api_key(key, name="new", loopback_only=True).name == "new"
        update_api_key(key, name="new")
        with pytest.raises(ValidationFailed):
            update_api_key(key, digest=b"x")
        with pytest.raises(ValidationFailed):
            update_api_key(key, name="")
    (event,) = audited("api_key.updated")
    assert event["details"] == {
        "before": {"name": "old", "loopback_only": False},
        "after": {"name": "new", "loopback_only": True},
    }


def test_a_form_that_altered_the_row_in_memory_is_still_seen_as_a_change(tenant, admin):
    key, _ = make_key(admin, tenant, name="old")
    key.name = "new"
    with as_admin(tenant, admin):
        update_api_key(key, name="new")
    assert APIKey.unscoped.get(pk=key.pk).name == "new"
    assert audited("api_key.updated")[-1]["details"]["before"] == {"name": "old"}


def test_revoking_is_for_good_and_once(tenant, admin):
    key, text = make_key(admin, tenant)
    with as_admin(tenant, admin):
        assert revoke_api_key(key).state == "revoked"
        first = revoke_api_key(key).revoked_at
        assert revoke_api_key(key).revoked_at == first
        with pytest.raises(Conflict):
            update_api_key(key, name="back")
    assert len(audited("api_key.revoked")) == 1
    with pytest.raises(AuthenticationRequired):
        authenticate_key(text, address="127.0.0.1")


def test_a_key_is_refused_and_the_refusal_recorded(tenant, admin):
    _, text = make_key(admin, tenant, loopback_only=True)
    authenticate_key(text, address="127.0.0.1")
    authenticate_key(text, address="::1")
    for wrong, address, rule in (
        ("nonsense", "127.0.0.1", "malformed"),
        (new_api_key().text, "127.0.0.1", "unknown"),
        (text + "a", "127.0.0.1", "unknown"),
        (text, "203.0.113.9", "not-loopback"),
        (text, "0.0.0.0", "not-loopback"),
        (text, "", "not-loopback"),
    ):
        with pytest.raises(AuthenticationRequired):
            authenticate_key(wrong, address=address)
        refused = audited("auth.key_refused")[-1]
        assert refused["details"] == {"rule": rule}
        assert (refused["actor_kind"], refused["address"]) == ("anonymous", address)
    assert text not in everything()


def test_keys_of_a_shut_tenant_or_owner_are_refused(tenant, admin):
    _, text = make_key(admin, tenant)
    with every_tenant(SYSTEM):
        deactivate_tenant(tenant)
        with pytest.raises(AuthenticationRequired):
            authenticate_key(text, address="127.0.0.1")
        activate_tenant(tenant)
        authenticate_key(text, address="127.0.0.1")
        deactivate_user(admin)
        with pytest.raises(AuthenticationRequired):
            authenticate_key(text, address="127.0.0.1")


def test_use_is_noted_and_never_goes_back(tenant, admin):
    key, _ = make_key(admin, tenant)
    other, _ = make_key(admin, tenant)
    at = now()
    record_key_use(
        [
            (key.pk, at, "203.0.113.9", "curl/8"),
            (key.pk, at - timedelta(minutes=1), "203.0.113.1", "old"),
            (str(other.pk), at, "not an address", "x" * 500),
        ]
    )
    record_key_use([(key.pk, at - timedelta(hours=1), "203.0.113.2", "older")])
    record_key_use([])
    key.refresh_from_db()
    other.refresh_from_db()
    assert (key.last_used_at, key.last_used_from, key.last_used_client) == (at, "203.0.113.9", "curl/8")
    assert (other.last_used_from, len(other.last_used_client)) == (None, 120)
