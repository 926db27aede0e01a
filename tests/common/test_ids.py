"""Identifiers: their form, their order, and that no two are alike, in a forked process either."""

import os
import time
import uuid

from apps.common.ids import new_id, new_id_text, short_id


def test_identifiers_are_uuids_of_version_7_and_of_now():
    for made in (new_id(), uuid.UUID(new_id_text())):
        assert made.version == 7
        assert made.variant == uuid.RFC_4122
        assert abs((made.int >> 80) - time.time_ns() // 1_000_000) < 5_000


def test_no_two_are_alike():
    count = 5_000
    assert len({new_id_text() for _ in range(count)} | {str(new_id()) for _ in range(count)}) == 2 * count
    assert len({short_id() for _ in range(count)}) == count


def test_text_and_uuid_are_written_alike():
    text = new_id_text()
    assert str(uuid.UUID(text)) == text


def test_a_forked_process_repeats_nothing_of_its_parents():
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, ",".join(short_id() for _ in range(50)).encode())
        os._exit(0)
    os.close(writer)
    theirs = set(os.read(reader, 65536).decode().split(","))
    os.close(reader)
    os.waitpid(child, 0)
    assert len(theirs) == 50
    assert not theirs & {short_id() for _ in range(450)}
