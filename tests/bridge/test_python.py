"""Every line of the matrix with the official Python client."""

from contextlib import AbstractAsyncContextManager

import pytest

from tests.bridge import matrix
from tests.bridge.holding import holds, parameters
from tests.bridge.matrix import Line
from tests.bridge.python_talk import python_talk
from tests.bridge.talk import Talk


@pytest.mark.parametrize("line", parameters(matrix.load().of("one")))
async def test_line(servers, open_talks, line: Line) -> None:
    def connect() -> AbstractAsyncContextManager[Talk]:
        return python_talk(servers.url(line.server, line.transport), servers.key, line.client)

    await holds(line, connect, open_talks)
