"""Legacy sessions as sealed tokens."""

import time

import pytest

from apps.common.crypto.keyring import Keyring, new_key_text
from apps.gateway.plane.mcp.session import MAX_TOKEN, SessionGone, SessionSealer

RING = new_key_text("k1")


def sealer(keys=RING):
    return SessionSealer(Keyring.parse(keys))


def issue(one, **changes):
    facts = {
        "principal": "p1",
        "toolset": "files",
        "revision": "2025-11-25",
        "client_info": {"name": "client", "version": "1"},
        "capabilities": {"roots": {"listChanged": True}},
        "seconds": 60,
    }
    return one.issue(**(facts | changes))


def test_any_process_with_the_keys_reads_it():
    token = issue(sealer())
    session = sealer(f"{new_key_text('k2')},{RING}").open(token, principal="p1", toolset="files")
    assert session.revision == "2025-11-25"
    assert session.capabilities == {"roots": {"listChanged": True}}
    assert session.client_info == {"name": "client", "version": "1"}


@pytest.mark.parametrize("changes", [{"principal": "p2"}, {"toolset": "other"}, {"toolset": ""}])
def test_it_is_of_use_to_nobody_else_and_nowhere_else(changes):
    one = sealer()
    token = issue(one)
    with pytest.raises(SessionGone):
        one.open(token, **({"principal": "p1", "toolset": "files"} | changes))


def test_foreign_forged_and_expired_tokens_look_the_same():
    one = sealer()
    token = issue(one)
    forged = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    expired = issue(one, seconds=-1)
    foreign = issue(sealer(new_key_text("k1")))
    messages = set()
    for bad in (forged, expired, foreign, "", "x", "🦊", "A" * 5000, token + "A"):
        with pytest.raises(SessionGone) as gone:
            one.open(bad, principal="p1", toolset="files")
        messages.add((gone.value.status, gone.value.detail))
    assert messages == {(404, SessionGone.title)}


def test_an_ended_session_stays_ended():
    one = sealer()
    token = issue(one)
    session = one.open(token, principal="p1", toolset="files")
    one.end(session.sid, session.expires)
    with pytest.raises(SessionGone):
        one.open(token, principal="p1", toolset="files")


def test_a_token_never_grows_beyond_its_limit():
    one = sealer()
    huge = {f"capability{index}": {"x": "y" * 500} for index in range(100)}
    token = issue(one, client_info={"name": "n" * 5000, "version": "v" * 5000}, capabilities=huge, toolset="t" * 40)
    assert len(token) <= MAX_TOKEN
    assert one.open(token, principal="p1", toolset="t" * 40).expires > time.time()
