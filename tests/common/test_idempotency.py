"""Idempotency keys: one execution, one answer, whoever asks at once and whoever dies in between."""

import threading
from datetime import timedelta

import pytest
from django.db import connections

from apps.common import idempotency
from apps.common.clock import now
from apps.common.errors import Conflict, ValidationFailed
from apps.common.idempotency import Claim, StoredAnswer, begin, check_key, digest_request, prune_idempotency_keys
from apps.common.models import IdempotencyKey
from tests.support import eventually

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_held():
    """Let go of the claims that a test left open, as the end of a process would."""
    yield
    for id in list(idempotency._keeper._claims):
        idempotency._keeper.drop(id)


ONE = {"principal": "user:1", "key": "k1", "digest": "d1"}


def test_the_second_time_the_first_answer_is_given():
    claim = begin(**ONE)
    assert isinstance(claim, Claim)
    claim.finish(status=201, body=b'{"id": 1}', content_type="application/json")
    assert begin(**ONE) == StoredAnswer(201, b'{"id": 1}', "application/json")
    assert begin(**ONE) == StoredAnswer(201, b'{"id": 1}', "application/json")


def test_keys_belong_to_their_principal():
    begin(**ONE).finish(status=200, body=b"one", content_type="text/plain")
    assert isinstance(begin(**{**ONE, "principal": "user:2"}), Claim)


def test_another_request_with_the_same_key_is_a_conflict():
    claim = begin(**ONE)
    for _ in range(2):
        with pytest.raises(Conflict) as caught:
            begin(**{**ONE, "digest": "d2"})
        assert caught.value.extra["reason"] == "key-reused"
        claim.finish(status=200, body=b"one", content_type="text/plain")


def test_while_the_first_is_carried_out_the_second_waits():
    begin(**ONE)
    with pytest.raises(Conflict) as caught:
        begin(**ONE)
    assert caught.value.extra["reason"] == "in-progress"
    assert caught.value.extra["retry_after"] > 0


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_where_nothing_was_done_the_key_is_free_again(status):
    begin(**ONE).finish(status=status, body=b"no", content_type="text/plain")
    assert isinstance(begin(**ONE), Claim)


@pytest.mark.parametrize("status", [200, 204, 400, 404, 409, 500, 502, 504])
def test_other_answers_are_kept_also_failures(status):
    body = b"" if status == 204 else b"x"
    begin(**ONE).finish(status=status, body=body, content_type="" if status == 204 else "text/plain")
    assert begin(**ONE).status == status


def test_answers_are_sealed_and_bound_to_their_row():
    begin(**ONE).finish(status=201, body=b"sy_secret_secret", content_type="text/plain")
    begin(**{**ONE, "key": "k2"}).finish(status=201, body=b"another", content_type="text/plain")
    first, second = IdempotencyKey.objects.order_by("id")
    assert b"sy_secret" not in bytes(first.body)
    IdempotencyKey.objects.filter(pk=second.pk).update(body=bytes(first.body))
    with pytest.raises(Conflict, match="can no longer be read"):
        begin(**{**ONE, "key": "k2"})


def test_an_answer_too_long_to_keep_is_not_carried_out_again():
    begin(**ONE).finish(status=200, body=b"x" * (idempotency.MAX_BODY + 1), content_type="text/plain")
    with pytest.raises(Conflict, match="too long"):
        begin(**ONE)


def test_a_dead_process_s_claim_can_be_taken_over_after_a_minute_and_it_cannot_answer_any_more():
    dead = begin(**ONE)
    dead.abandon()
    with pytest.raises(Conflict):
        begin(**ONE)
    IdempotencyKey.objects.update(claimed_at=now() - timedelta(seconds=61))
    heir = begin(**ONE)
    assert isinstance(heir, Claim)
    with pytest.raises(Conflict):
        begin(**ONE)
    dead.finish(status=200, body=b"late", content_type="text/plain")
    dead.release()
    heir.finish(status=201, body=b"heir", content_type="text/plain")
    assert begin(**ONE) == StoredAnswer(201, b"heir", "text/plain")


@pytest.mark.parametrize("given", ["", " " * 3 + "\n", "é", "x" * 256, "\x00", '""'])
def test_keys_that_are_none(given):
    with pytest.raises(ValidationFailed):
        check_key(given)


def test_keys_may_be_quoted():
    assert check_key('"abc"') == check_key("abc") == "abc"
    assert len(check_key("x" * 255)) == 255


def test_the_digest_tells_parts_apart():
    assert digest_request("a", "bc") != digest_request("ab", "c")
    assert digest_request("a", b"b") == digest_request("a", "b")


def test_old_keys_are_pruned():
    begin(**ONE).finish(status=200, body=b"one", content_type="text/plain")
    assert prune_idempotency_keys(now() - timedelta(hours=1)) == 0
    assert prune_idempotency_keys(now() + timedelta(hours=1)) == 1
    assert isinstance(begin(**ONE), Claim)


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_who_is_still_working_keeps_their_claim(monkeypatch):
    monkeypatch.setattr(idempotency, "RENEW_SECONDS", 0.02)
    claim = begin(**ONE)
    keeper = idempotency._Keeper()
    IdempotencyKey.objects.update(claimed_at=now() - timedelta(seconds=61))
    keeper.keep(claim.id, claim.token)
    eventually(lambda: IdempotencyKey.objects.get().claimed_at > now() - timedelta(seconds=30))
    with pytest.raises(Conflict):
        begin(**ONE)
    keeper.drop(claim.id)
    eventually(lambda: keeper._thread is None)


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_of_many_at_once_exactly_one_is_carried_out():
    barrier = threading.Barrier(12)
    executed, answers, refused = [], [], []

    def request():
        try:
            barrier.wait(10)
            found = begin(**ONE)
            if isinstance(found, Claim):
                executed.append(1)
                found.finish(status=201, body=b"done", content_type="text/plain")
            else:
                answers.append(found.body)
        except Conflict as error:
            refused.append(error.extra["reason"])
        finally:
            connections.close_all()

    threads = [threading.Thread(target=request) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(executed) == 1
    assert len(answers) + len(refused) == 11
    assert set(answers) <= {b"done"}
    assert set(refused) <= {"in-progress"}


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_of_many_heirs_exactly_one_takes_over():
    begin(**ONE).abandon()
    IdempotencyKey.objects.update(claimed_at=now() - timedelta(seconds=61))
    barrier = threading.Barrier(8)
    heirs = []

    def take():
        try:
            barrier.wait(10)
            heirs.append(begin(**ONE))
        except Conflict:
            pass
        finally:
            connections.close_all()

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(heirs) == 1
