"""Fixtures of the bridge suite."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests import migrated, npm, services
from tests.bridge import house as houses
from tests.bridge.balancer import Balancer
from tests.bridge.house import Apart, Servers
from tests.bridge.talk import Open
from tests.peers.clients import Node, node
from tests.peers.house import House

HERE = Path(__file__).resolve().parent
pytest.register_assert_rewrite("tests.bridge.checks", "tests.bridge.checks_of_inputs", "tests.bridge.holding")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands here, and let it share one event loop: the node process and the balancer live on it."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.peers)
            item.add_marker(pytest.mark.once)
            item.add_marker(pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"))
            if inspect.iscoroutinefunction(getattr(item, "function", None)):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that all processes of the run have in common."""
    return services.common_directory(tmp_path_factory)


@pytest.fixture(scope="session")
def shared(common: Path) -> Iterator[dict[str, Any]]:
    """The running product and the peers that are reached by HTTP."""
    with houses.shared(common / "bridge", partial(houses.running, fill=partial(migrated.on_sqlite, shared=common))) as facts:
        yield facts


@pytest.fixture(scope="session")
def servers(shared: dict[str, Any], common: Path, worker_id: str) -> Servers:
    """The peers, registered for this process alone: on one channel a server's requests must not meet another test's calls."""
    place = common / "bridge"
    house = House(shared["base_url"], shared["key"], place, place)
    return Servers(house, f"-{worker_id}").register(shared["addresses"])


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The installed npm packages; without them tests skip, in CI they fail."""
    try:
        return npm.install(HERE.parent / "peers" / "node")
    except npm.NpmUnavailable as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def driver(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Node]:
    """The process in which the TypeScript clients run; it may not complain."""
    place = tmp_path_factory.mktemp("node")
    (place / "driver.mjs").write_bytes((HERE / "node" / "driver.mjs").read_bytes())
    (place / "node_modules").symlink_to(node_modules)
    async with node(place) as found:
        yield found
    assert not found.complaints, found.complaints


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def open_talks() -> AsyncIterator[Open]:
    """Clients of one kind that stay connected from test to test."""
    found = Open()
    yield found
    await found.close()


@pytest.fixture(scope="session")
def gateways(common: Path) -> Iterator[dict[str, Any]]:
    """Two running gateways of one installation on PostgreSQL and Redis, and the peers that are reached by HTTP."""
    with houses.shared(common / "apart", partial(houses.two_gateways, common=common)) as facts:
        yield facts


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def apart(gateways: dict[str, Any], common: Path, worker_id: str) -> AsyncIterator[Apart]:
    """The peers, registered for this process alone, and what puts each request to one gateway or the other."""
    first, second = gateways["ports"]
    balancer = await Balancer((first, second)).start()
    try:
        place = common / "apart"
        house = House(gateways["base_url"], gateways["key"], place, place)
        found = Apart(house, f"-{worker_id}", balancer)
        await asyncio.to_thread(found.register, gateways["addresses"])
        yield found
    finally:
        await balancer.stop()
