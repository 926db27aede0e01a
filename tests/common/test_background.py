"""Work beside: held until it is done, ended with its owner."""

import asyncio
import gc

import pytest

from apps.common.background import Background

pytestmark = pytest.mark.once


async def test_what_nobody_else_holds_runs_to_its_end():
    background, done = Background(), []

    async def work() -> None:
        waiting = asyncio.Event()
        asyncio.get_running_loop().call_later(0.01, waiting.set)
        await waiting.wait()
        done.append(True)

    background.start(work())
    await asyncio.sleep(0)
    gc.collect()
    assert len(background) == 1
    await background.finished(5)
    assert done == [True]
    await asyncio.sleep(0)
    assert len(background) == 0


async def test_waiting_for_it_has_a_limit_and_ending_it_waits():
    background, ended = Background(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    background.start(work())
    await background.finished(0.01)
    assert (len(background), ended) == (1, [])
    await background.aclose()
    assert ended == [True]
