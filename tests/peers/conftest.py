"""Fixtures for tests with real clients and real servers."""

import inspect
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests import npm, services
from tests.peers import house as houses
from tests.peers.clients import KINDS, Kind, Node, node
from tests.peers.house import House

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands here, and let it share one event loop: the process of the TypeScript clients lives on it."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.peers)
            item.add_marker(pytest.mark.once)
            if inspect.iscoroutinefunction(getattr(item, "function", None)):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def peer_modules() -> Path:
    """The installed npm packages; without them tests skip, in CI they fail."""
    try:
        return npm.install(HERE / "node")
    except npm.NpmUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def house(peer_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The running product with the ecosystem's servers behind it."""
    with houses.shared(services.common_directory(tmp_path_factory) / "peers", peer_modules) as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver(house: House) -> AsyncIterator[Node]:
    """The process in which the TypeScript clients run; it may not complain."""
    async with node(house.directory / "programs") as found:
        yield found
    assert not found.complaints, found.complaints


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each client in each mode."""
    return KINDS[request.param]
