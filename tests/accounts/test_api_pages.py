"""Pages of the REST API: every row once, in order, while rows come and go."""

from datetime import timedelta

import pytest

from apps.accounts.models import APIKey
from apps.common.clock import now
from tests.accounts.client import problem
from tests.factories import make_key, make_user

pytestmark = pytest.mark.django_db


def walk(api, path):
    """Follow `next` to the end; return all rows."""
    rows, pages = [], 0
    while path:
        answer = api.get(path)
        assert answer.status_code == 200, answer.content
        body = answer.json()
        rows += body["results"]
        path = body["next"] and body["next"].removeprefix("http://testserver")
        pages += 1
        assert pages < 100
    return rows


@pytest.fixture
def many(tenant):
    owner = make_user(tenant, "user")
    keys = [make_key(owner, tenant, name=f"k{number % 4}")[0] for number in range(23)]
    for number, key in enumerate(keys):
        if number % 3:
            APIKey.unscoped.filter(pk=key.pk).update(expires_at=now() + timedelta(days=number // 6))
    return keys


@pytest.mark.parametrize(
    "order", ["name", "-name", "expires_at", "-expires_at", "created_at", "-created_at", "name,-expires_at", "last_used_at"]
)
def test_pages_hold_every_row_once_in_order(api, many, order):
    whole = api.get(f"api-keys/?limit=200&ordering={order}").json()
    assert whole["next"] is whole["previous"] is None
    assert len(whole["results"]) == 24
    for limit in (1, 5, 23, 24, 25):
        rows = walk(api, f"api-keys/?limit={limit}&ordering={order}")
        assert [row["id"] for row in rows] == [row["id"] for row in whole["results"]]


def test_pages_go_back_the_same_way(api, many):
    forward = []
    path = "api-keys/?limit=5&ordering=expires_at"
    while path:
        body = api.get(path).json()
        forward.append([row["id"] for row in body["results"]])
        last, path = body, body["next"] and body["next"].removeprefix("http://testserver")
    backward = []
    path = last["previous"].removeprefix("http://testserver")
    while path:
        body = api.get(path).json()
        backward.append([row["id"] for row in body["results"]])
        path = body["previous"] and body["previous"].removeprefix("http://testserver")
    assert backward[::-1] == forward[:-1]


def test_rows_that_come_and_go_neither_repeat_nor_hide_others(api, many, tenant):
    body = api.get("api-keys/?limit=10&ordering=name").json()
    seen = [row["id"] for row in body["results"]]
    APIKey.unscoped.filter(pk__in=seen[:5]).delete()
    for _ in range(5):
        make_key(make_user(tenant), tenant, name="a-new")
    rest = [row["id"] for row in walk(api, body["next"].removeprefix("http://testserver"))]
    assert not set(seen) & set(rest)
    untouched = {str(key.pk) for key in many} - set(seen[:5])
    assert untouched <= set(seen) | set(rest)


def test_a_cursor_serves_its_own_order_alone(api, many):
    cursor = api.get("api-keys/?limit=5&ordering=name").json()["next"].split("cursor=")[1].split("&")[0]
    problem(api.get(f"api-keys/?limit=5&ordering=-name&cursor={cursor}"), 400, "validation-failed")
    problem(api.get(f"api-keys/?limit=5&ordering=name&cursor={cursor[:-3]}"), 400, "validation-failed")
