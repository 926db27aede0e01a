"""Lists that change while clients are connected: the server announces it, the gateway looks again, every client is told."""

import contextlib
import secrets

import pytest

from tests.peers.clients import KINDS, Connection, connect
from tests.support import eventually_async


async def use(client: Connection, what: str, name: str) -> None:
    """Use what is new."""
    if what == "tools":
        assert await client.text(name) == f"{name} works"
    elif what == "prompts":
        assert (await client.prompt(name))["messages"][0]["content"]["text"] == name
    else:
        assert (await client.read(name))["contents"][0]["text"] == name.removeprefix("moving://")


@pytest.mark.parametrize("slug", ["moving", "moving-legacy"])
@pytest.mark.parametrize("what", ["tools", "prompts", "resources"])
async def test_a_changed_list_reaches_every_client(house, driver, slug: str, what: str) -> None:
    new = f"later-{secrets.token_hex(4)}"
    name = f"moving://{new}" if what == "resources" else new
    async with contextlib.AsyncExitStack() as stack:
        clients = {}
        for kind in KINDS.values():
            clients[kind.name] = await stack.enter_async_context(connect(kind, house.url(slug), house.key, driver=driver))
        for client in clients.values():
            await client.listen()
            assert name not in await client.names(what)
        told = f"notifications/{what}/list_changed"
        assert await clients["python-auto"].text(f"add_{what[:-1]}", {"name": new}) == "added"
        for client in clients.values():
            await eventually_async(lambda c=client: told in c.notices, because=f"{client.kind.name} was not told", every=0.05)

            async def listed(client: Connection = client) -> bool:
                return name in await client.names(what)

            await eventually_async(listed, because=f"{client.kind.name} does not list it", every=0.05)
            await use(client, what, name)


async def test_a_tool_that_goes_is_not_listed_any_more(house, driver) -> None:
    new = f"short-{secrets.token_hex(4)}"
    async with connect(KINDS["ts1"], house.url("moving-legacy"), house.key, driver=driver) as client:

        async def listed(wanted: bool) -> bool:
            return (new in await client.names()) == wanted

        await client.text("add_tool", {"name": new})
        await eventually_async(lambda: listed(True), every=0.05)
        await client.text("remove_tool", {"name": new})
        await eventually_async(lambda: listed(False), every=0.05)


async def test_a_reference_server_that_registers_a_resource(house, driver) -> None:
    name = f"{secrets.token_hex(4)}.gz"
    async with connect(KINDS["python-auto"], house.url("everything"), house.key, driver=driver) as client:
        await client.listen()
        link = await client.call(
            "gzip-file-as-resource", {"name": name, "data": "data:text/plain,signal", "outputType": "resourceLink"}
        )
        uri = link["content"][0]["uri"]
        await eventually_async(lambda: "notifications/resources/list_changed" in client.notices, every=0.05)

        async def listed() -> bool:
            return uri in await client.names("resources")

        await eventually_async(listed, every=0.05)
        assert (await client.read(uri))["contents"][0]["mimeType"] == "application/gzip"
