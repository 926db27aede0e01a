"""Whether a line of the matrix holds, and the pytest mark of those that do not yet."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.bridge.checks import CHECKS, Pair
from tests.bridge.matrix import Line
from tests.bridge.talk import REVISIONS, Open, Talk
from tests.peers.face import Refused

PENDING_SECONDS = 2.0
"""What does not hold yet may wait for an answer that never comes."""


def parameters(lines: list[Line] | tuple[Line, ...]) -> list[object]:
    """Return lines as parameters of a test; one that is pending must fail, so that it tells when it holds."""
    return [
        pytest.param(line, id=str(line), marks=pytest.mark.xfail(reason=line.pending, strict=True) if line.pending else ())
        for line in lines
    ]


async def holds(
    line: Line, connect: Callable[[], AbstractAsyncContextManager[Talk]], kept: Open | None = None, *, apart: bool = False
) -> None:
    """Require that a feature is carried, or refused as the line says; with `kept`, by a client that stays connected.

    `apart` says that each request may go to another gateway.
    """
    pair = Pair(line.client, line.server, apart)
    if kept is not None and not line.pending:
        await _holds(line, pair, await kept.get((line.client, line.server, line.transport), connect))
        return
    async with connect() as talk:
        await _holds(line, pair, talk)


async def _holds(line: Line, pair: Pair, talk: Talk) -> None:
    assert talk.revision == REVISIONS[line.client]
    await talk.begin(declines=line.feature == "elicitation-declined")
    async with asyncio.timeout(PENDING_SECONDS if line.pending else None):
        run = CHECKS[line.feature](talk, pair)
        if not line.refusal:
            await run
            return
        with pytest.raises(Refused) as refused:
            await run
    data = refused.value.data
    type = data.get("type", "").rpartition("/")[2] if isinstance(data, dict) else ""
    assert line.refusal in (str(refused.value.code), type), (refused.value, data)
