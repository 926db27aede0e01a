"""The peers and the checks themselves: without a gateway in between, everything that the matrix says is true."""

from contextlib import AbstractAsyncContextManager

import pytest

from tests.bridge import matrix
from tests.bridge.holding import holds, parameters
from tests.bridge.matrix import Line
from tests.bridge.python_talk import python_talk
from tests.bridge.talk import Talk

LINES = [line for line in matrix.load().of("one") if line.transport == "http" and line.client == line.server]


@pytest.mark.parametrize("line", parameters(LINES))
async def test_line(shared, open_talks, line: Line) -> None:
    def connect() -> AbstractAsyncContextManager[Talk]:
        return python_talk(shared["addresses"][f"{line.server}-http"], "none", line.client)

    await holds(line, connect, open_talks)
