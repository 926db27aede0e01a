"""System checks of the registry."""

import pytest

from apps.common.crypto.keyring import new_key_text
from apps.servers.checks import check_keys_of_credentials, check_settings
from tests.servers.support import make_server


def ids(messages) -> list[str]:
    return [message.id for message in messages]


def test_settings_in_order_say_nothing(configure):
    configure(allowed_networks=["10.0.0.0/8", "loopback", "::1"])
    assert check_settings(None) == []


def test_what_cannot_be_read_is_said(configure):
    configure(encryption_keys="k1:short", allowed_networks=["10.0.0.0/8", "everywhere", "10.0.0.0/99"], stdio="maybe")
    assert ids(check_settings(None)) == ["servers.E001", "servers.E002", "servers.E002", "servers.E003"]


@pytest.mark.django_db(databases="__all__")
def test_a_lost_key_is_named(tenant, configure):
    make_server(tenant, headers={"X-Key": "v"})
    assert check_keys_of_credentials(None, databases=["default"]) == []
    configure(encryption_keys=new_key_text("k9"))
    assert ids(check_keys_of_credentials(None, databases=["default"])) == ["servers.W001"]
    assert check_keys_of_credentials(None, databases=None) == []
