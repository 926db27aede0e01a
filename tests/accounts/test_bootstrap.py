"""The first start: a tenant, an operator, a key; repeated, it changes nothing."""

import pytest

from apps.accounts.models import APIKey, Role, Tenant, User
from apps.accounts.services.api_keys import revoke_api_key
from apps.accounts.services.authentication import authenticate_key
from apps.accounts.services.bootstrap import ensure_first_operator
from apps.common.context import SYSTEM, every_tenant
from apps.common.crypto.tokens import new_api_key
from apps.common.errors import AuthenticationRequired, Conflict, ValidationFailed
from tests.factories import make_key, make_superuser, make_user

pytestmark = pytest.mark.django_db


def test_makes_everything_and_says_the_secrets_once():
    first = ensure_first_operator("root")
    assert first.user.is_superuser
    assert first.user.check_password(first.password)
    assert first.tenant.slug == "default"
    key, actor = authenticate_key(first.key_text, address="127.0.0.1")
    assert key.inherits_owner
    assert key.loopback_only
    assert actor.is_superuser
    assert set(Role.unscoped.filter(tenant=first.tenant).values_list("slug", flat=True)) == {
        "admin", "operator", "user", "guest", "auditor", "service",
    }  # fmt: skip
    second = ensure_first_operator("root")
    assert (second.user, second.password, second.key_text) == (first.user, None, None)
    assert (User.objects.count(), Tenant.objects.count(), APIKey.unscoped.count()) == (1, 1, 1)
    assert first.password not in repr(first)
    assert first.key_text not in repr(first)


def test_takes_the_given_password_and_key():
    text = new_api_key().text
    made = ensure_first_operator("root", "correct horse battery", text)
    assert made.password == "correct horse battery"
    assert made.key_text == text
    assert ensure_first_operator("root", "another pass phrase 1", text).password is None
    assert User.objects.get().check_password("correct horse battery")


def test_a_new_given_key_is_added_and_a_revoked_one_stays_revoked():
    first = ensure_first_operator("root")
    text = new_api_key().text
    assert ensure_first_operator("root", key_text=text).key_text == text
    with every_tenant(SYSTEM):
        revoke_api_key(APIKey.unscoped.get(prefix=text[3:11]))
    assert ensure_first_operator("root", key_text=text).key_text is None
    with pytest.raises(AuthenticationRequired):
        authenticate_key(text, address="127.0.0.1")
    assert authenticate_key(first.key_text, address="127.0.0.1")


@pytest.mark.parametrize("text", ["", "sy_short_x", "sk-" + "a" * 60, "sy_abcdefgh_" + "a" * 42, "sy_abcdefg!_" + "a" * 43])
def test_a_key_that_is_not_in_form_is_refused_before_anything_is_made(text):
    if text == "":
        assert ensure_first_operator("root", key_text=text).key_text
        return
    with pytest.raises(ValidationFailed, match="form of a key"):
        ensure_first_operator("root", key_text=text)
    assert not User.objects.exists()
    assert not Tenant.objects.exists()


def test_an_ordinary_user_is_never_promoted():
    make_user(username="root")
    with pytest.raises(ValidationFailed, match="not an active superuser"):
        ensure_first_operator("root")
    assert not User.objects.get(username="root").is_superuser


def test_an_existing_superuser_of_another_name_is_the_operator():
    boss = make_superuser("boss")
    made = ensure_first_operator("root")
    assert made.user == boss
    assert made.password is None
    assert made.key_text


def test_a_weak_password_is_refused():
    with pytest.raises(ValidationFailed) as caught:
        ensure_first_operator("root", "short")
    assert caught.value.extra["errors"]["password"]
    assert not User.objects.exists()


def test_somebody_elses_key_is_a_conflict():
    ensure_first_operator("root")
    _, text = make_key()
    with pytest.raises(Conflict):
        ensure_first_operator("root", key_text=text)
