"""The lines of the matrix over HTTP where each request of a session may go to another gateway."""

from contextlib import AbstractAsyncContextManager

import pytest

from tests.bridge import matrix
from tests.bridge.holding import holds, parameters
from tests.bridge.matrix import Line
from tests.bridge.python_talk import python_talk
from tests.bridge.talk import Talk

pytestmark = pytest.mark.slow

CROSSING = {
    "an answer": {"elicitation-form", "elicitation-url", "sampling", "sampling-tools", "roots", "inputs-together",
                  "inputs-in-a-row", "prompt-input", "resource-input"},
    "notifications/cancelled": {"cancellation"},
    "resources/subscribe": {"subscription"},
}  # fmt: skip
"""What a client of the initialize era says to the other gateway than the one it is about, and the features that need it."""


@pytest.mark.parametrize("line", parameters(matrix.load().apart))
async def test_line(apart, line: Line) -> None:
    def connect() -> AbstractAsyncContextManager[Talk]:
        return python_talk(apart.url(line.server, line.transport), apart.key, line.client)

    apart.balancer.served.clear()
    apart.balancer.crossed.clear()
    await holds(line, connect, apart=True)
    assert {gateway for _, gateway in apart.balancer.served} == {0, 1}, "only one gateway was asked"
    if line.client == "legacy":
        wanted = {said for said, features in CROSSING.items() if line.feature in features}
        assert wanted <= set(apart.balancer.crossed)
