"""Policy seen by real clients on open sessions: what is not granted is neither listed nor callable, and changes are in force at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.peers.clients import KINDS, Connection, Kind, Refused, connect
from tests.support import eventually_async

IN_FORCE = 1.0
"""Seconds within which a change must be in force everywhere."""
CONVERT = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}


async def in_force(check: Callable[[], Awaitable[bool]], since: float, because: str) -> None:
    """Require that something is true at most a second after a change was answered."""
    await eventually_async(check, within=since + IN_FORCE - time.monotonic(), because=because)


async def may_call(client: Connection, name: str = "time__convert_time") -> bool:
    """Tell whether a call is allowed."""
    try:
        return "21:00" in await client.text(name, CONVERT)
    except Refused:
        return False


async def refusal(client: Connection, name: str, rule: str) -> bool:
    """Require that a call is refused, naming the rule."""
    with pytest.raises(Refused, match="You may not use") as refused:
        await client.call(name, CONVERT if name.endswith("convert_time") else {"timezone": "UTC"})
    assert refused.value.data["type"].endswith("/permission-denied"), refused.value.data
    assert refused.value.data["rule"] == rule
    return True


async def test_grants_and_revocations_on_an_open_session(house, driver, kind: Kind) -> None:
    key = await asyncio.to_thread(house.make_key, f"grants-{kind.name}")
    async with connect(kind, house.url(), key["key"], driver=driver) as client:
        assert await client.names() == []
        await refusal(client, "time__convert_time", "default-deny")

        grant = await house.ask("POST", "grants/", {"kind": "tool", "api_key": key["id"], "pattern": "time__convert_*"})
        since = time.monotonic()
        await in_force(lambda: may_call(client), since, "the grant is not in force")

        async def listed() -> bool:
            return await client.names() == ["time__convert_time"]

        if keeps_lists(kind):  # it may, for the time that the list said; a new connection asks
            async with connect(kind, house.url(), key["key"], driver=driver) as anew:
                assert await anew.names() == ["time__convert_time"]
        else:
            await in_force(listed, since, "what is granted is not listed")
        await refusal(client, "time__get_current_time", "default-deny")
        with pytest.raises(Refused):
            await client.read("moving://first")

        deny = await house.ask("POST", "grants/", {"kind": "server", "effect": "deny", "api_key": key["id"], "server": "time"})
        since = time.monotonic()

        async def denied() -> bool:
            return not await may_call(client)

        await in_force(denied, since, "the denial is not in force")
        await refusal(client, "time__convert_time", f"grant:{deny['id']}")
        await house.ask("DELETE", f"grants/{deny['id']}/")
        await in_force(lambda: may_call(client), time.monotonic(), "the denial still holds")

        await house.ask("DELETE", f"grants/{grant['id']}/")
        await in_force(denied, time.monotonic(), "the revoked grant still holds")
        await refusal(client, "time__convert_time", "default-deny")

        await house.ask("POST", f"api-keys/{key['id']}/revoke/")
        since = time.monotonic()

        async def locked_out() -> bool:
            try:
                await client.call("time__convert_time", CONVERT)
            except Refused as refused:
                return refused.status == 401 or "401" in str(refused) or "API key" in str(refused)
            return False

        await in_force(locked_out, since, "the revoked key still works")
    with pytest.raises((Refused, RuntimeError)):
        async with connect(kind, house.url(), key["key"], driver=driver) as client:
            await client.call("time__convert_time", CONVERT)


def keeps_lists(kind: Kind) -> bool:
    """Tell whether a client answers a list from its own cache, as the modern revision allows."""
    return kind.family == "v2" and kind.modern


@pytest.mark.parametrize("name", ["python-auto", "python-legacy", "ts2-auto", "ts2-legacy", "ts1", "fastmcp"])
async def test_a_grant_is_announced_on_an_open_session(house, driver, name: str) -> None:
    kind = KINDS[name]
    key = await asyncio.to_thread(house.make_key, f"told-{kind.name}")
    async with connect(kind, house.url("git"), key["key"], driver=driver) as client:
        await client.listen()
        assert await client.names() == []
        await house.ask("POST", "grants/", {"kind": "server", "api_key": key["id"], "server": "git"})
        await eventually_async(
            lambda: "notifications/tools/list_changed" in client.notices, because="the client was not told", every=0.05
        )

        async def listed() -> bool:
            return "git_status" in await client.names()

        await eventually_async(listed, because="what was granted is not listed")


async def test_a_grant_on_a_toolset_holds_there_alone(house, driver) -> None:
    key = await asyncio.to_thread(house.make_key, "toolset")
    await house.ask("POST", "grants/", {"kind": "toolset", "api_key": key["id"], "toolset": "bench"})

    async def listed() -> bool:  # to a client that has not asked before: this one keeps what it was told
        async with connect(KINDS["ts2-auto"], house.url("bench"), key["key"], driver=driver) as anew:
            return "add" in await anew.names()

    await in_force(listed, time.monotonic(), "what the toolset holds is not listed")
    async with connect(KINDS["ts2-auto"], house.url("bench"), key["key"], driver=driver) as client:
        assert await client.text("add", {"a": 1, "b": 1}) == "The sum of 1 and 1 is 2."
    async with connect(KINDS["python-auto"], house.url("everything"), key["key"], driver=driver) as client:
        assert "echo" not in await client.names()
        with pytest.raises(Refused) as refused:
            await client.call("echo", {"message": "x"})
        assert refused.value.data["rule"] == "default-deny"


async def test_without_a_key_nothing_opens(house, driver, kind: Kind) -> None:
    with pytest.raises((Refused, RuntimeError), match=r"401|key|[Uu]nauthorized"):
        async with connect(kind, house.url(), "sy_abcdefgh_" + "x" * 43, driver=driver) as client:
            await client.call("time__convert_time", CONVERT)


@pytest.mark.parametrize("slug", ["everything-http", "everything-sse"])
async def test_what_a_server_keeps_for_one_callers_session_is_not_anothers(house, driver, slug: str) -> None:
    keys = [await asyncio.to_thread(house.make_key, "session") for _ in range(2)]
    for key in keys:
        await house.ask("POST", "grants/", {"kind": "server", "api_key": key["id"], "server": slug})
    file = {"name": "mine.txt", "data": "data:text/plain,mine", "outputType": "resourceLink"}
    async with (
        connect(KINDS["python-auto"], house.url(slug), keys[0]["key"], driver=driver) as one,
        connect(KINDS["python-auto"], house.url(slug), keys[1]["key"], driver=driver) as other,
    ):
        await in_force(lambda: has(other, "echo"), time.monotonic(), "the grant is not in force")
        link = (await one.call("gzip-file-as-resource", file))["content"][-1]["uri"]
        assert (await one.read(link))["contents"][0]["mimeType"] == "application/gzip"
        with pytest.raises(Refused):
            await other.read(link)


async def has(client: Connection, name: str) -> bool:
    """Tell whether a client is shown a tool."""
    return name in await client.names()
