"""The processes behind stdio servers: shared by callers, killed and started again, ended when idle, gone with the product."""

import asyncio

import psutil
import pytest

from tests.peers.clients import KINDS, Refused, connect
from tests.peers.house import NODE, House
from tests.support import eventually_async


def moving(house: House, slug: str) -> dict:
    """Return a server whose tool `process_id` tells which process answers."""
    return {
        "slug": slug,
        "transport": "stdio",
        "command": str(NODE),
        "args": [str(house.directory / "programs" / "moving.mjs")],
    }


def runs_under(pid: int, row: dict) -> bool:
    """Tell whether a process is the listed one, or below it: each has a supervisor of its own, which is the one listed."""
    process = psutil.Process(pid)
    return row["pid"] in {process.pid, *(parent.pid for parent in process.parents())}


async def test_one_process_serves_many_callers(house, driver) -> None:
    async def ask(name: str) -> str:
        async with connect(KINDS[name], house.url("moving-legacy"), house.key, driver=driver) as client:
            return await client.text("process_id")

    pids = await asyncio.gather(*(ask(name) for name in KINDS for _ in range(2)))
    assert len(set(pids)) == 1
    (row,) = await eventually_async(lambda: asyncio.to_thread(house.processes, "moving-legacy"))
    assert runs_under(int(pids[0]), row)


async def test_a_killed_process_is_replaced_by_the_next_call(house, driver) -> None:
    await asyncio.to_thread(house.register, **moving(house, "killed"))
    async with connect(KINDS["ts2-auto"], house.url("killed"), house.key, driver=driver) as client:
        first = int(await client.text("process_id"))
        (row,) = await eventually_async(lambda: asyncio.to_thread(house.processes, "killed"))
        assert runs_under(first, row)
        await house.ask("POST", f"processes/{row['id']}/kill/")
        await eventually_async(lambda: not psutil.pid_exists(first), because="the process still runs")
        second = int(await client.text("process_id"))
        assert second != first
    await house.ask("DELETE", "servers/killed/")
    await eventually_async(lambda: not psutil.pid_exists(second), because="the process of a deleted server still runs")


async def test_a_call_in_a_killed_process_ends_and_the_next_one_works(house, driver) -> None:
    await asyncio.to_thread(house.register, **moving(house, "dying"))
    async with connect(KINDS["python-legacy"], house.url("dying"), house.key, driver=driver) as client:
        pid = int(await client.text("process_id"))
        call = asyncio.create_task(client.call("slow", {"seconds": 60}))
        await eventually_async(lambda: house.events(server="dying", tool="slow", event_type="call.intent"))
        psutil.Process(pid).kill()
        with pytest.raises(Refused) as refused:
            await asyncio.wait_for(call, 10)
        assert refused.value.data["type"].endswith("/upstream-died"), refused.value.data
        assert int(await client.text("process_id")) != pid
        (outcome,) = house.events(server="dying", tool="slow", event_type="call.outcome")
        assert outcome["outcome"] == "failed"
    await house.ask("DELETE", "servers/dying/")


async def test_an_idle_process_ends_and_the_next_call_starts_one(house, driver) -> None:
    await asyncio.to_thread(house.register, **moving(house, "idle"), idle_seconds=5)
    async with connect(KINDS["python-auto"], house.url("idle"), house.key, driver=driver) as client:
        first = int(await client.text("process_id"))
        await eventually_async(lambda: not psutil.pid_exists(first), within=15, because="the process still runs")
        await eventually_async(lambda: not house.processes("idle"), because="the process is still listed")
        assert int(await client.text("process_id")) != first
    await house.ask("DELETE", "servers/idle/")
