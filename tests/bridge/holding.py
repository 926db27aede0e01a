"""Whether a line of the matrix holds."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from tests.bridge.checks import CHECKS, Pair
from tests.bridge.matrix import Line
from tests.bridge.talk import REVISIONS, Open, Talk
from tests.peers.face import Refused


def parameters(lines: list[Line]) -> list[object]:
    """Return lines as parameters of a test."""
    return [pytest.param(line, id=str(line)) for line in lines]


async def holds(line: Line, connect: Callable[[], AbstractAsyncContextManager[Talk]], kept: Open) -> None:
    """Require that a feature is carried, or refused as the line says, by a client that stays connected."""
    pair = Pair(line.client, line.server, apart=line.workers == "two")
    talk = await kept.get((line.client, line.server, line.transport), connect)
    assert talk.revision == REVISIONS[line.client]
    await talk.begin(declines=line.feature == "elicitation-declined")
    run = CHECKS[line.feature](talk, pair)
    if not line.refusal:
        await run
        return
    with pytest.raises(Refused) as refused:
        await run
    data = refused.value.data
    type = data.get("type", "").rpartition("/")[2] if isinstance(data, dict) else ""
    assert line.refusal in (str(refused.value.code), type), (refused.value, data)
