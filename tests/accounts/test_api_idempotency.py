"""Idempotency keys in the REST API, through the whole stack."""

import threading
from datetime import timedelta

import pytest
from django.db import connections

from apps.accounts.models import APIKey, Role
from apps.common.clock import now
from apps.common.models import IdempotencyKey
from tests.accounts.client import Api, problem
from tests.factories import make_key, make_member, make_tenant, make_user

pytestmark = pytest.mark.django_db


def test_a_repeated_request_is_carried_out_once(api):
    first = api.post("api-keys/", {"name": "once"}, Idempotency_Key="order-1")
    second = api.post("api-keys/", {"name": "once"}, Idempotency_Key="order-1")
    assert first.status_code == second.status_code == 201
    assert first.content == second.content
    assert second["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first
    assert second["Content-Type"] == first["Content-Type"]
    assert APIKey.unscoped.filter(name="once").count() == 1
    row = IdempotencyKey.objects.get()
    assert first.json()["key"].encode() not in bytes(row.body)
    assert (row.principal.split(":")[0], row.key) == ("api_key", "order-1")


def test_the_same_key_for_another_request_is_a_conflict(api):
    api.post("roles/", {"slug": "a"}, Idempotency_Key="k")
    for call in (
        lambda: api.post("roles/", {"slug": "b"}, Idempotency_Key="k"),
        lambda: api.post("roles/?x=1", {"slug": "a"}, Idempotency_Key="k"),
        lambda: api.delete("roles/a/", Idempotency_Key="k"),
    ):
        assert problem(call(), 409, "conflict")["reason"] == "key-reused"
    assert Role.unscoped.filter(slug="a").count() == 1
    assert not Role.unscoped.filter(slug="b").exists()


def test_the_tenant_is_part_of_the_request(root):
    other = make_tenant()
    root.post("roles/", {"slug": "a"}, Idempotency_Key="k")
    problem(root.post("roles/", {"slug": "a"}, Idempotency_Key="k", X_Switchyard_Tenant=other.slug), 409, "conflict")


def test_failures_are_kept_and_refusals_are_not(api, tenant):
    for _ in range(2):
        answer = api.post("roles/", {"slug": "Not A Slug"}, Idempotency_Key="bad")
        problem_body = answer.json()
        assert answer.status_code == 400
    assert answer["Idempotent-Replayed"] == "true"
    assert answer["Content-Type"] == "application/problem+json"
    assert problem_body["errors"]["slug"]
    user = make_user(tenant, "guest")
    guest = Api(make_key(user, tenant, inherits_owner=True)[1])
    problem(guest.delete("roles/admin/", Idempotency_Key="try"), 403, "permission-denied")
    make_member(user, tenant, "admin")
    answer = guest.delete("roles/admin/", Idempotency_Key="try")
    problem(answer, 409, "conflict")
    assert "Idempotent-Replayed" not in answer


def test_reading_ignores_the_key_and_a_wrong_one_is_refused(api):
    assert api.get("roles/", Idempotency_Key="x" * 300).status_code == 200
    problem(api.post("roles/", {"slug": "x"}, Idempotency_Key="x" * 300), 400, "validation-failed")
    assert not IdempotencyKey.objects.exists()


def test_an_empty_answer_is_replayed(api):
    made = api.post("roles/", {"slug": "gone"}).json()
    for replayed in (None, "true"):
        answer = api.delete(f"roles/{made['id']}/", Idempotency_Key="del")
        assert (answer.status_code, answer.content, answer.get("Idempotent-Replayed")) == (204, b"", replayed)


def test_a_crashed_request_is_taken_over_after_a_minute(api):
    api.post("roles/", {"slug": "a"}, Idempotency_Key="k")
    IdempotencyKey.objects.update(status=None, body=None, claim="dead", claimed_at=now())
    answer = api.post("roles/", {"slug": "a"}, Idempotency_Key="k")
    body = problem(answer, 409, "conflict")
    assert body["reason"] == "in-progress"
    assert int(answer["Retry-After"]) >= 1
    Role.unscoped.filter(slug="a").delete()
    IdempotencyKey.objects.update(claimed_at=now() - timedelta(seconds=61))
    assert api.post("roles/", {"slug": "a"}, Idempotency_Key="k").status_code == 201


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_of_many_at_once_exactly_one_is_carried_out():
    tenant = make_tenant()
    _, text = make_key(make_user(tenant, "admin"), tenant, inherits_owner=True)
    barrier = threading.Barrier(8)
    answers = []

    def send():
        try:
            barrier.wait(10)
            answers.append(Api(text).post("api-keys/", {"name": "race"}, Idempotency_Key="race"))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    statuses = sorted(answer.status_code for answer in answers)
    assert len(statuses) == 8
    assert set(statuses) <= {201, 409}
    assert len({answer.json()["key"] for answer in answers if answer.status_code == 201}) == 1
    assert APIKey.unscoped.filter(name="race").count() == 1
