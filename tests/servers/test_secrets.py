"""Credentials at rest: bound to their row, readable with every key of the installation, sealed anew while running."""

import io

import pytest
from django.core.management import CommandError, call_command

from apps.common.context import SYSTEM, every_tenant, tenant_scope
from apps.common.crypto.keyring import DecryptionFailed, new_key_text
from apps.common.errors import NotFound, NotReady, StepUpRequired
from apps.servers.models import Credential
from apps.servers.services import secrets
from apps.servers.services.registry import set_credential
from tests.factories import as_user, make_tenant, make_user
from tests.servers.support import make_server, recorded

pytestmark = pytest.mark.django_db(databases="__all__")

CANARY = "canary-0815-secret-value"


def sealed_of(server) -> bytes:
    return bytes(Credential.unscoped.get(server=server).sealed)


def key_ids() -> set[str]:
    return {secrets.keyring().key_id(bytes(sealed)) for sealed in Credential.unscoped.values_list("sealed", flat=True)}


def test_ciphertext_moved_to_another_row_or_tenant_does_not_open(tenant):
    ours, beside = make_server(tenant, headers={"X-Key": CANARY}), make_server(tenant, headers={"X-Key": "other"})
    theirs = make_server(make_tenant(), headers={"X-Key": "theirs"})
    for target in (beside, theirs):
        Credential.unscoped.filter(server=target).update(sealed=sealed_of(ours))
        with pytest.raises(NotReady) as caught:
            secrets.secrets_of(target.pk)
        assert "X-Key" in caught.value.detail
    row = Credential.unscoped.get(server=ours)
    assert secrets.unseal(row) == CANARY
    row.tenant_id = theirs.tenant_id
    with pytest.raises(DecryptionFailed):
        secrets.unseal(row)


def test_a_flipped_bit_does_not_open(tenant):
    server = make_server(tenant, headers={"X-Key": CANARY})
    damaged = bytearray(sealed_of(server))
    damaged[-1] ^= 1
    Credential.unscoped.filter(server=server).update(sealed=bytes(damaged))
    with pytest.raises(NotReady):
        secrets.secrets_of(server.pk)


def test_an_unknown_server_has_no_secrets(db):
    with pytest.raises(NotFound):
        secrets.secrets_of("01890000-0000-7000-8000-000000000000")


def test_values_never_show_in_a_representation(tenant):
    server = make_server(tenant, headers={"X-Key": CANARY})
    assert CANARY not in repr(secrets.secrets_of(server.pk))


def test_all_are_sealed_with_the_newest_key_and_the_old_key_may_go(tenant, configure, settings):
    server = make_server(tenant, headers={f"X-{n}": f"{CANARY}{n}" for n in range(7)})
    old, new = settings.SWITCHYARD.encryption_keys, new_key_text("k2")
    configure(encryption_keys=f"{new},{old}")
    assert secrets.secrets_of(server.pk).headers["X-3"] == f"{CANARY}3"
    steps = []
    with recorded() as found, every_tenant(SYSTEM):
        state = secrets.reencrypt_all(batch=3, progress=lambda now: steps.append(now.done))
        again = secrets.reencrypt_all(batch=3)
    assert state.done >= 7
    assert not state.failed
    assert steps == sorted(steps)
    assert len(steps) >= 3
    assert (again.done, again.current) == (0, state.total)
    assert key_ids() == {"k2"}
    configure(encryption_keys=new)
    assert secrets.secrets_of(server.pk).headers == {f"X-{n}": f"{CANARY}{n}" for n in range(7)}
    assert [event["event_type"] for event in found] == ["credential.reencrypted"] * 2
    assert CANARY not in str(found)


def test_stopped_in_the_middle_it_goes_on_where_it_was(tenant, configure, settings):
    server = make_server(tenant, headers={f"X-{n}": CANARY for n in range(6)})
    configure(encryption_keys=f"{new_key_text('k2')},{settings.SWITCHYARD.encryption_keys}")

    class Stopped(Exception):
        pass

    def stop(state):
        raise Stopped

    with every_tenant(SYSTEM):
        with pytest.raises(Stopped):
            secrets.reencrypt_all(batch=2, progress=stop)
        assert len(key_ids()) == 2
        assert set(secrets.secrets_of(server.pk).headers.values()) == {CANARY}
        state = secrets.reencrypt_all(batch=2)
    assert (state.done, state.current) == (state.total - 2, 2)
    assert key_ids() == {"k2"}


def test_a_value_set_meanwhile_is_not_overwritten(tenant, configure, settings):
    server = make_server(tenant, headers={"X-1": "old", "X-2": "old"})
    configure(encryption_keys=f"{new_key_text('k2')},{settings.SWITCHYARD.encryption_keys}")
    original = secrets.seal

    def replace_second(state):
        with tenant_scope(tenant.pk, SYSTEM):
            for name in ("X-1", "X-2"):
                set_credential(server, "header", name, "new")

    with every_tenant(SYSTEM):
        secrets.reencrypt_all(batch=1, progress=replace_second)
    assert secrets.seal is original
    assert secrets.secrets_of(server.pk).headers == {"X-1": "new", "X-2": "new"}


def test_only_a_superuser_may_reencrypt(tenant):
    with tenant_scope(tenant.pk, as_user(make_user(tenant, "admin"))), pytest.raises(StepUpRequired):
        secrets.reencrypt_all()


def test_the_command_shows_progress_and_names_what_it_cannot_open(tenant, configure, settings):
    server = make_server(tenant, "vault", headers={"X-Key": CANARY})
    broken = make_server(tenant, "broken", headers={"X-Lost": CANARY})
    Credential.unscoped.filter(server=broken).update(sealed=sealed_of(server))
    configure(encryption_keys=f"{new_key_text('k2')},{settings.SWITCHYARD.encryption_keys}")
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError, match="1 credentials"):
        call_command("reencrypt", "--batch", "1", stdout=out, stderr=err)
    assert "of 2 credentials" in out.getvalue()
    assert "sealed with key k2" in out.getvalue()
    assert "broken: header X-Lost" in err.getvalue()
    assert CANARY not in out.getvalue() + err.getvalue()
    with pytest.raises(CommandError, match="--batch"):
        call_command("reencrypt", "--batch", "0")
