"""One connection, exchange after exchange: whose answer is whose, and when it may be used again."""

import asyncio
import contextlib

import pytest
from yarl import URL

from apps.common.errors import UpstreamDied, UpstreamProtocolError
from apps.common.http import HttpClient, RequestHeaders
from apps.common.http.connection import HIGH_WATER, Connection
from tests.support import eventually_async
from tests.transports.peers import LOOPBACK, Request, peer, reply
from tests.transports.test_http_client import client, fine, get

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False

    def write(self, data) -> None:
        """Nothing is sent."""

    def abort(self) -> None:
        self.aborted = True

    close = abort

    def is_closing(self) -> bool:
        return self.aborted


async def test_a_cancellation_that_comes_too_late_does_not_hurt_the_next_exchange():
    released = []
    connection = Connection(("http", "h", 80), "h", released.append, lambda _: None)
    wire = Wire()
    connection.connection_made(wire)
    first = asyncio.create_task(connection.exchange(b"one", None))
    await asyncio.sleep(0)
    connection.data_received(ANSWER + b"aa")
    assert released == [connection]
    # The first task has its answer but has not had its turn; now the connection is somebody else's, and the task is cancelled.
    second = connection.exchange(b"two", None)
    second.send(None)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    assert not wire.aborted
    connection.data_received(ANSWER + b"bb")
    with pytest.raises(StopIteration) as ended:
        second.send(None)
    assert await ended.value.value.read(10) == b"bb"


async def test_many_at_once_each_get_their_own_answer():
    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        await reply(writer, {"path": request.path})

    async with peer(echo) as there, client() as http:
        for _ in range(3):
            answers = await asyncio.gather(*(get(http, f"{there.url}{number}") for number in range(60)))
            assert [f'/mcp{number}"'.encode() in body for number, (_, body) in enumerate(answers)] == [True] * 60
        assert there.connections <= 60


@pytest.mark.parametrize(
    ("sent", "body", "kept"),
    [
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ANSWER + b"ok", b"ok", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER + b"ok", b"ok", True),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end", False),
        (ANSWER + b"okHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"ok", False),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    ],
    ids=["early hints", "continue", "until close", "surplus", "close", "chunked", "no content"],
)
async def test_answers_of_every_shape(sent, body, kept):
    first = [True]

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if first:
            first.clear()
            writer.write(sent)
            if body == b"until the end":
                writer.close()
            return
        await fine(request, writer)

    async with peer(answer) as there, client() as http:
        assert (await get(http, there.url))[1] == body
        assert (await get(http, there.url))[0] == 200
        assert there.connections == (1 if kept else 2)


async def test_an_upgrade_nobody_asked_for_is_not_http():
    async def upgrade(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")

    async with peer(upgrade) as there, client() as http:
        with pytest.raises((UpstreamProtocolError, UpstreamDied)):
            await asyncio.wait_for(get(http, there.url), 5)


async def test_a_body_that_nobody_reads_is_not_taken_in():
    sent = [0]

    async def endless(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        piece = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(piece)
                await writer.drain()
                sent[0] += 0x10000

    async with peer(endless) as there, client() as http:
        response = await http.request("GET", URL(there.url), headers=RequestHeaders({}))
        before = -1
        while before != sent[0]:
            before = sent[0]
            await asyncio.sleep(0.2)
        assert response._size <= HIGH_WATER + 512 * 1024
        assert sent[0] < 32 * 1024 * 1024
        taken = len(await response.chunk())
        assert taken > 0
        await eventually_async(lambda: sent[0] > before)
        response.close()


async def test_idle_connections_are_closed_and_none_is_left_at_the_end(monkeypatch):
    monkeypatch.setattr("apps.common.http.client.KEEP_ALIVE_SECONDS", 0.05)
    async with peer(fine) as there:
        http = HttpClient(LOOPBACK)
        await asyncio.gather(*(get(http, there.url) for _ in range(5)))
        await eventually_async(lambda: not http._open)
        await get(http, there.url)
        await http.aclose()
        await eventually_async(lambda: not http._open)
