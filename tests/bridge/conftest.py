"""Fixtures of the bridge suite."""

import inspect
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests import migrated, npm
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
def common(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory that all processes of the run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def shared(common: Path) -> Iterator[dict[str, Any]]:
    """The running product and the peers that are reached by HTTP."""
    with houses.shared(common / "bridge", partial(migrated.fill_home, shared=common)) as facts:
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


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def apart(tmp_path_factory: pytest.TempPathFactory, common: Path) -> AsyncIterator[Apart]:
    """Two gateways of one installation on PostgreSQL and Redis, and what puts each request to one or the other."""
    with houses.two_gateways(tmp_path_factory.mktemp("apart"), common) as (products, addresses):
        first, second = products
        balancer = await Balancer((first.port, second.port)).start()
        try:
            place = tmp_path_factory.mktemp("house")
            house = House(first.base_url, first.key, place, place)
            yield Apart(house, "", balancer).register(addresses, transports=("http",))
        finally:
            await balancer.stop()
