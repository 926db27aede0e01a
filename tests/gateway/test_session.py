"""Legacy sessions as sealed tokens."""

import time

import pytest

from apps.common.crypto.keyring import Keyring, new_key_text
from apps.gateway.plane.mcp import endings
from apps.gateway.plane.mcp.lives import LeftBehind, read
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
    one.end(session.sid, session.expires, "p1")
    with pytest.raises(SessionGone):
        one.open(token, principal="p1", toolset="files")


def test_a_token_never_grows_beyond_its_limit():
    one = sealer()
    huge = {f"capability{index}": {"x": "y" * 500} for index in range(100)}
    token = issue(one, client_info={"name": "n" * 5000, "version": "v" * 5000}, capabilities=huge, toolset="t" * 40)
    assert len(token) <= MAX_TOKEN
    assert one.open(token, principal="p1", toolset="t" * 40).expires > time.time()


def restarted(left):
    """Return the sealer of the only process, after what the life before left behind."""
    return SessionSealer(Keyring.parse(RING), read(left.encode()))


def is_known(one, token):
    try:
        return bool(one.open(token, principal="p1", toolset="files"))
    except SessionGone:
        return False


def test_after_a_restart_a_session_goes_on_unless_something_of_it_lived_in_the_process():
    before = restarted(LeftBehind())
    bare, living, ended = (issue(before) for _ in range(3))
    sid = {token: before.open(token, principal="p1", toolset="files").sid for token in (bare, living, ended)}
    before.end(sid[ended], int(time.time()) + 60, "p1")
    later = int(time.time()) + 60
    after = restarted(before.leave({sid[living]: later}, 60))
    assert [is_known(after, token) for token in (bare, living, ended)] == [True, False, False]
    once_more = restarted(after.leave({}, 60))
    assert [is_known(once_more, token) for token in (bare, living, ended)] == [True, False, False]
    assert not is_known(restarted(once_more.leave({sid[bare]: later}, 60)), bare), "something of it lived in a later life"


def test_after_a_crash_no_session_goes_on():
    before = restarted(LeftBehind())
    token = issue(before)
    assert is_known(before, token)
    assert not is_known(restarted(LeftBehind()), token)
    assert not is_known(restarted(before.leave({}, -1)), token), "what was left is too old"


def test_several_processes_have_no_lives():
    token = issue(sealer())
    assert sealer().leave({}, 60) is None
    assert is_known(sealer(), token)
    assert is_known(sealer(), issue(restarted(LeftBehind())))


@pytest.mark.parametrize("stored", [b"", b"{", b"[]", b'{"lives": 1}', b'{"lives": {"a": "b"}}'])
def test_what_was_not_left_by_a_life_is_nothing(stored):
    assert read(stored) == LeftBehind()


def test_what_was_ended_stays_ended_beyond_what_is_known_one_by_one(monkeypatch):
    monkeypatch.setattr(endings, "MOST_ENDED", 64)
    monkeypatch.setattr(endings, "SHARE", 4)
    one = sealer()
    other = issue(one, principal="p2", seconds=10)
    tokens = [issue(one, seconds=100 + number) for number in range(40)]
    for token in tokens:
        session = one.open(token, principal="p1", toolset="files")
        one.end(session.sid, session.expires, "p1")
    assert len(one._ended) <= 16
    assert not any(is_known(one, token) for token in tokens)
    assert one.open(other, principal="p2", toolset="files"), "nobody else's session is ended by it"
    assert is_known(one, issue(one, seconds=200)), "one that began later goes on"


def test_many_principals_are_bounded_together_and_whoever_has_most_pays(monkeypatch):
    monkeypatch.setattr(endings, "MOST_ENDED", 64)
    monkeypatch.setattr(endings, "SHARE", 2)
    ended, later = endings.Ended(), int(time.time()) + 100
    ended.add("small", later, "modest")
    for number in range(500):
        ended.add(f"s{number}", later + number, f"greedy{number % 2}")
    assert len(ended) <= 64
    assert ended.holds("small", "modest", later)
    assert not ended.holds("another", "modest", later)
    assert ended.holds("s0", "greedy0", later), "forgotten, and ended all the same"
    assert set(ended.floors) == {"greedy0", "greedy1"}
    after = endings.Ended(ended.known, ended.floors)
    assert after.holds("s0", "greedy0", later)
    assert not after.holds("new", "greedy0", later + 1000)


def test_what_has_expired_is_dropped():
    ended, now = endings.Ended(), int(time.time())
    ended.add("gone", now - 1, "p")
    assert len(ended) == 0
    ended.add("a", now + 100, "p")
    ended._of["p"][0] = (now - 1, "a")  # time passes
    ended.add("b", now + 100, "p")
    assert list(ended.known) == ["b"]


def test_a_sea_of_ended_sessions_costs_each_one_the_same():
    ended, later = endings.Ended(), int(time.time()) + 1000

    def seconds(count: int, name: str) -> float:
        began = time.process_time()
        for number in range(count):
            ended.add(f"{name}{number}", later + number, f"p{number % 50}")
        return time.process_time() - began

    first = seconds(5_000, "a")
    for start in range(8):
        seconds(5_000, f"b{start}")
    assert seconds(5_000, "c") < 20 * first + 0.2


def test_log_levels_are_bounded_for_each_principal_first(monkeypatch):
    monkeypatch.setattr(endings, "LEVELS", 32)
    monkeypatch.setattr(endings, "SHARE", 4)
    levels = endings.Levels()
    levels.set("mine", "debug", "modest")
    for number in range(100):
        levels.set(f"s{number}", "error", "greedy")
    assert levels.get("mine") == "debug"
    assert len(levels) == 9
    assert levels.get("s99") == "error"
    assert levels.get("s0") is None
    for number in range(100):
        levels.set(f"t{number}", "info", f"g{number % 7}")
    assert len(levels) <= 32
    assert levels.get("mine") == "debug", "whoever has most gives way"
    levels.set("mine", "info", "modest")
    assert levels.get("mine") == "info"
    levels.drop("mine")
    assert levels.get("mine") is None
    assert "mine" not in list(levels)
    levels.drop("mine")
