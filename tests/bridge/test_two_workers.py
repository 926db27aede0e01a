"""Every line of the matrix where each request of a client may go to another gateway, with the official Python client."""

from contextlib import AbstractAsyncContextManager

import pytest

from tests.bridge import matrix
from tests.bridge.holding import holds, parameters
from tests.bridge.matrix import Line
from tests.bridge.python_talk import python_talk
from tests.bridge.talk import Talk

pytestmark = pytest.mark.slow

ASKING = {"elicitation-form", "elicitation-declined", "elicitation-url", "sampling", "sampling-tools", "roots", "inputs-together",
          "inputs-in-a-row", "loose-input", "prompt-input", "resource-input"}  # fmt: skip
CROSSING = {
    "legacy": {
        "an answer": ASKING,
        "notifications/cancelled": {"cancellation"},
        "resources/subscribe": {"subscription"},
    },
    "modern": {"requestState": ASKING},
}
"""What a client of an era says to the other gateway than the one it is about, and the features that need it."""
ROUNDS = 2
"""A feature of one request is tried once at each gateway: requests take turns."""


@pytest.mark.parametrize("line", parameters(matrix.load().of("two")))
async def test_line(apart, open_talks, line: Line) -> None:
    def connect() -> AbstractAsyncContextManager[Talk]:
        return python_talk(apart.url(line.server, line.transport), apart.key, line.client)

    apart.balancer.served.clear()
    apart.balancer.crossed.clear()
    for _ in range(ROUNDS):
        await holds(line, connect, open_talks)
        if {gateway for _, gateway in apart.balancer.served} == {0, 1}:
            break
    else:
        pytest.fail("only one gateway was asked")
    wanted = {said for said, features in CROSSING[line.client].items() if line.feature in features}
    assert wanted <= set(apart.balancer.crossed)
