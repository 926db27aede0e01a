"""The reader of event streams, against every way of cutting the bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.common.errors import UpstreamTooLarge
from apps.servers.transports.event_stream import EventStream


def read(data: bytes, cuts: list[int] | None = None, limit: int = 10_000) -> list[tuple[str, bytes, str | None]]:
    stream, found, last = EventStream(limit), [], 0
    for cut in [*sorted(cuts or []), len(data)]:
        found += stream.feed(data[last:cut])
        last = cut
    return [(event.name, event.data, event.id) for event in found]


WHOLE = (
    "\ufeff: a comment\r\nevent: endpoint\r\ndata: /x?y=1\r\n\r\n"
    "id: 7\ndata: one\ndata:two\ndata\n\n"
    "retry: 250\r: ping\rdata:  three \r\r"
    "event: lost\n\n"
    "unknown: field\ndata: {\"ü\": 1}\nid\n\n"
    "id: 8\ndata:\n\n"
    "data: never ended"
).encode()  # fmt: skip
EVENTS = [
    ("endpoint", b"/x?y=1", None),
    ("message", b"one\ntwo\n", "7"),
    ("message", b" three ", "7"),
    ("message", '{"ü": 1}'.encode(), ""),
    ("message", b"", "8"),
]


def test_fields_line_ends_comments_and_ids() -> None:
    assert read(WHOLE) == EVENTS


@given(st.lists(st.integers(0, len(WHOLE)), max_size=40))
def test_it_does_not_matter_where_the_bytes_are_cut(cuts: list[int]) -> None:
    assert read(WHOLE, cuts) == EVENTS


def test_byte_by_byte() -> None:
    assert read(WHOLE, list(range(len(WHOLE)))) == EVENTS


def test_retry_is_kept_and_nonsense_is_not() -> None:
    stream = EventStream(1000)
    stream.feed(b"retry: 250\nretry: soon\nretry: -1\nid: a\0b\n\n")
    assert (stream.retry, stream.last_id) == (250, None)


@pytest.mark.parametrize("piece", [b"x" * 100, b"data: y\n", b"data: " + b"z" * 90 + b"\n", b":" + b"c" * 99])
def test_an_event_without_end_is_bounded(piece: bytes) -> None:
    stream = EventStream(1000)

    def endless() -> None:
        while True:
            stream.feed(piece)

    with pytest.raises(UpstreamTooLarge):
        endless()


def test_many_small_events_are_not_bounded_together() -> None:
    stream = EventStream(100)
    assert sum(len(stream.feed(b"data: 1234567890\n\n")) for _ in range(1000)) == 1000
