"""The commands of accounts."""

import io

import pytest
from django.core.management import CommandError, call_command

from apps.accounts.models import APIKey, User
from apps.accounts.services.authentication import authenticate_key
from tests.accounts.support import audited
from tests.factories import default_tenant, make_tenant, make_user

pytestmark = pytest.mark.django_db


def run(*arguments, **options):
    output = io.StringIO()
    call_command(*arguments, stdout=output, **options)
    return output.getvalue().strip()


def test_a_key_is_made_printed_and_revoked():
    tenant = make_tenant()
    owner = make_user(tenant, "operator")
    text = run(
        "create_key", "ci", "--owner", owner.username, "--tenant", tenant.slug, "--scope", "server.read", "--scope", "tool.call",
        "--inherits-owner", "--loopback-only", "--days", "2",
    )  # fmt: skip
    key, _ = authenticate_key(text, address="127.0.0.1")
    assert (key.name, key.owner, key.scopes, key.inherits_owner) == ("ci", owner, ["server.read", "tool.call"], True)
    assert key.expires_at is not None
    assert audited("api_key.created")[-1]["origin"] == "cli"
    assert key.prefix in run("revoke_key", key.prefix)
    assert run("revoke_key", text)
    assert APIKey.unscoped.get().state == "revoked"


def test_errors_are_one_line():
    default_tenant()
    owner = make_user()
    for arguments in (
        ("create_key", "ci", "--owner", "nobody"),
        ("create_key", "ci", "--owner", owner.username),
        ("create_key", "ci", "--owner", owner.username, "--tenant", "missing"),
        ("create_key", "ci", "--owner", owner.username, "--scope", "server.fly"),
        ("revoke_key", "abcdefgh"),
        ("create_operator", owner.username),
    ):
        with pytest.raises(CommandError) as caught:
            run(*arguments)
        assert "\n" not in str(caught.value)
        assert str(caught.value)


def test_an_operator_is_made(monkeypatch):
    password = run("create_operator", "rescue")
    user = User.objects.get(username="rescue")
    assert user.is_superuser
    assert user.check_password(password)
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    assert "can sign in" in run("create_operator", "second", "--password-stdin")
    assert User.objects.get(username="second").check_password("correct horse battery")
    monkeypatch.setattr("sys.stdin", io.StringIO("short\n"))
    with pytest.raises(CommandError, match="short"):
        run("create_operator", "third", "--password-stdin")
