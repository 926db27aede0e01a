"""Real MCP servers, started once per worker and mode."""

from collections.abc import Callable, Iterator

import pytest

from tests.support import free_port
from tests.transports.peers import FIXTURE, PYTHON, RealServer, start_real


@pytest.fixture(scope="session")
def fixture_server() -> Iterator[Callable[..., RealServer]]:
    """A function that gives the running conformance fixture server of a transport and an era."""
    running: dict[tuple[str, ...], RealServer] = {}

    def get(transport: str, era: str, *extra: str) -> RealServer:
        key = (transport, era, *extra)
        if key not in running:
            port = free_port()
            command = [PYTHON, str(FIXTURE), str(port), "--era", era, "--transport", transport, *extra]
            running[key] = start_real(command, port, "/mcp" if transport == "http" else "/sse")
        return running[key]

    yield get
    for server in running.values():
        server.process.terminate()
    for server in running.values():
        server.process.wait(10)
