"""The context store: apart for each tenant, bounded, durable."""

import pytest

from apps.workbench.servers import context_store
from apps.workbench.servers.context_store import ContextStore, StoreError


@pytest.fixture
def store(tmp_path):
    return ContextStore(tmp_path / "context.sqlite3")


def test_what_is_set_can_be_read_listed_and_deleted(store):
    store.set("t", "b", "two")
    store.set("t", "a", "one")
    store.set("t", "a", "uno")
    assert store.get("t", "a") == "uno"
    assert store.keys("t", "") == ["a", "b"]
    assert store.delete("t", "a")
    assert not store.delete("t", "a")
    with pytest.raises(StoreError, match="nothing under a"):
        store.get("t", "a")


def test_tenants_do_not_see_each_other(store):
    store.set("t1", "k", "mine")
    store.set("t2", "k", "yours")
    assert store.get("t1", "k") == "mine"
    assert store.delete("t2", "k")
    assert store.get("t1", "k") == "mine"
    assert store.keys("t2", "") == []


def test_prefixes_are_taken_literally(store):
    for key in ("a%b", "a_b", "axb", "A%"):
        store.set("t", key, "v")
    assert store.keys("t", "a%") == ["a%b"]
    assert store.keys("t", "a_") == ["a_b"]


@pytest.mark.parametrize("key", ["", "k" * 129, "a\nb", "\x00"])
def test_bad_keys_are_refused(store, key):
    for use in (lambda: store.set("t", key, "v"), lambda: store.get("t", key), lambda: store.delete("t", key)):
        with pytest.raises(StoreError):
            use()


def test_limits_hold_for_each_tenant_by_itself(store, monkeypatch):
    with pytest.raises(StoreError, match="allowed"):
        store.set("t", "k", "é" * 40_000)
    monkeypatch.setattr(context_store, "KEYS_PER_TENANT", 3)
    monkeypatch.setattr(context_store, "BYTES_PER_TENANT", 10)
    for key in "abc":
        store.set("t", key, "12")
    with pytest.raises(StoreError, match="3 keys"):
        store.set("t", "d", "1")
    with pytest.raises(StoreError, match="10 bytes"):
        store.set("t", "a", "1234567")
    assert store.get("t", "a") == "12"
    store.set("t", "a", "123456")
    store.set("other", "a", "1234567890")


def test_it_survives_its_process(tmp_path):
    ContextStore(tmp_path / "x").set("t", "k", "kept")
    assert ContextStore(tmp_path / "x").get("t", "k") == "kept"
