"""Notices inside a transaction."""

import pytest

from apps.common.hooks_in_transaction import emit, off, on
from apps.common.outbox import unit_of_work


@pytest.fixture
def heard():
    calls = []

    def handler(**facts):
        calls.append(facts)

    on("test.happened", handler)
    on("test.happened", handler)
    yield calls, handler
    off("test.happened", handler)
    off("test.happened", handler)


@pytest.mark.django_db(databases="__all__")
def test_a_subscriber_is_called_once_with_the_facts(heard):
    calls, handler = heard
    with unit_of_work():
        emit("test.happened", server="a")
        emit("test.nobody_listens", server="b")
    assert calls == [{"server": "a"}]
    off("test.happened", handler)
    with unit_of_work():
        emit("test.happened", server="c")
    assert len(calls) == 1


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_outside_a_transaction_it_is_a_defect(heard):
    with pytest.raises(RuntimeError):
        emit("test.happened", server="a")
    assert not heard[0]
