"""The lines of the matrix over HTTP with the official TypeScript client, in both eras."""

from contextlib import AbstractAsyncContextManager

import pytest

from tests.bridge import matrix
from tests.bridge.holding import holds, parameters
from tests.bridge.matrix import Line
from tests.bridge.node_talk import node_talk
from tests.bridge.talk import Talk

LINES = [line for line in matrix.load().of("one") if line.transport == "http" and not line.refusal]
"""Those that the gateway refuses, this SDK does not even send."""


@pytest.mark.parametrize("line", parameters(LINES))
async def test_line(servers, driver, open_talks, line: Line) -> None:
    def connect() -> AbstractAsyncContextManager[Talk]:
        return node_talk(driver, servers.url(line.server, line.transport), servers.key, line.client)

    await holds(line, connect, open_talks)
