"""Bodies for the control plane are cut before they are stored."""

import json

import pytest

from config.bodies import LIMIT, bounded


def request(chunks, length=None):
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    pending = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    sent = []

    async def receive():
        return pending.pop(0)

    async def send(message):
        sent.append(message)

    return bounded({"headers": headers}, receive, send), sent, pending


async def test_small_ones_pass_unchanged():
    receive, sent, _ = request([b"a" * 100, b"b"], length=101)
    assert [(await receive())["body"] for _ in range(2)] == [b"a" * 100, b"b"]
    assert sent == []


@pytest.mark.parametrize(
    ("chunks", "length"), [([], LIMIT + 1), ([b"x" * (LIMIT // 2)] * 3, None)], ids=["announced", "in chunks"]
)
async def test_large_ones_are_answered_413_and_read_no_further(chunks, length):
    receive, sent, pending = request(chunks, length)
    kinds = []
    while not kinds or kinds[-1] != "http.disconnect":
        kinds.append((await receive())["type"])
    assert sent[0]["status"] == 413
    assert json.loads(sent[1]["body"])["type"].endswith("/too-large")
    assert (await receive())["type"] == "http.disconnect"
    assert len(sent) == 2
    assert len(pending) == 0
