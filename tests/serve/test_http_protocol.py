"""The HTTP protocol: what it joins, what it sends apart, and what it bounds."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from config.processes import http_protocol
from config.processes.http_protocol import HEAD_BYTES, BoundedHttpProtocol, JoiningTransport
from tests.support import eventually_async


class Wire(asyncio.Transport):
    """A transport that keeps each write apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


@contextlib.asynccontextmanager
async def served(application: Any) -> AsyncIterator[int]:
    """Serve an ASGI application through the protocol; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(application, http=BoundedHttpProtocol, ws="websockets-sansio", lifespan="off", log_config=None)
    )
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            await asyncio.sleep(0.005)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def test_a_head_and_the_first_of_its_body_are_one_write():
    wire = Wire()
    joining = JoiningTransport(wire, asyncio.get_running_loop(), lambda: None)
    joining.write(b"HTTP/1.1 200 OK\r\n\r\n")
    joining.write(b"body")
    joining.write(b" and more")
    await asyncio.sleep(0)
    assert wire.writes == [b"HTTP/1.1 200 OK\r\n\r\nbody", b" and more"]


async def test_a_head_that_is_alone_goes_when_the_loop_comes_round():
    wire = Wire()
    joining = JoiningTransport(wire, asyncio.get_running_loop(), lambda: None)
    joining.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert wire.writes == []
    await asyncio.sleep(0)
    assert wire.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_closing_writes_what_was_kept():
    wire = Wire()
    joining = JoiningTransport(wire, asyncio.get_running_loop(), lambda: None)
    joining.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    joining.close()
    assert wire.writes == [b"HTTP/1.1 204 No Content\r\n\r\n"]
    assert wire.closed
    assert joining.is_closing()


async def test_a_stream_shows_its_head_and_every_piece_before_the_next_exists():
    go = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await go.wait()
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        go.clear()
        await go.wait()
        await send({"type": "http.response.body", "body": b"two"})

    async with served(application) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK")
            go.set()
            assert await reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
            go.set()
            assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
        writer.close()


async def test_a_web_socket_is_upgraded_and_echoes():
    from websockets.asyncio.client import connect

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        await send({"type": "websocket.send", "text": message["text"]})

    async with served(application) as port, connect(f"ws://127.0.0.1:{port}/") as client:
        await client.send("hello")
        assert await client.recv() == "hello"


async def test_a_head_without_end_is_refused():
    async def application(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("no request is whole")

    async with served(application) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n")
        with contextlib.suppress(ConnectionError):
            for number in range(HEAD_BYTES // 1000 + 2):
                writer.write(b"X-%d: %b\r\n" % (number, b"a" * 1000))
                await writer.drain()
        async with asyncio.timeout(5):
            assert (await reader.read(12)) == b"HTTP/1.1 431"
        writer.close()


async def swallow(scope: Any, receive: Any, send: Any) -> None:
    """Read a request's body, then answer."""
    while (message := await receive())["type"] == "http.request":
        if not message["more_body"]:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return


@pytest.mark.parametrize("begun", [b"", b"abc"])
async def test_a_body_that_does_not_come_is_answered_and_cut(begun, monkeypatch):
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.2)
    async with served(swallow) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\n" + begun)
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b'did not arrive."}')
        writer.close()


async def test_a_body_in_slow_pieces_is_read_to_its_end(monkeypatch):
    monkeypatch.setattr(http_protocol, "BODY_SECONDS", 0.5)
    async with served(swallow) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 10\r\n\r\n")
        async with asyncio.timeout(10):
            for _ in range(10):
                await asyncio.sleep(0.1)
                writer.write(b"a")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
        writer.close()


async def test_a_client_that_does_not_read_its_answer_is_cut_off(monkeypatch):
    monkeypatch.setattr(http_protocol, "READ_SECONDS", 0.2)
    ended = asyncio.Event()

    async def pour(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        piece = b"x" * 65536
        try:
            for _ in range(10_000):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            ended.set()

    async with served(pour) as port:
        stuck = socket.create_connection(("127.0.0.1", port))
        stuck.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        async with asyncio.timeout(10):
            await ended.wait()
        stuck.settimeout(5)
        with contextlib.suppress(ConnectionError):
            while await asyncio.to_thread(stuck.recv, 1 << 20):
                pass
        stuck.close()


async def test_a_client_that_reads_slowly_gets_everything(monkeypatch):
    monkeypatch.setattr(http_protocol, "READ_SECONDS", 0.3)
    size = 8 * 1024 * 1024

    async def large(scope: Any, receive: Any, send: Any) -> None:
        head = [(b"content-length", b"%d" % size), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"x" * size})

    async with served(large) as port:
        slow = socket.create_connection(("127.0.0.1", port))
        slow.settimeout(5)
        slow.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        read, loop = 0, asyncio.get_running_loop()
        started = loop.time()
        while read < size:
            piece = await asyncio.to_thread(slow.recv, 65536)
            assert piece, f"cut off after {read} bytes and {loop.time() - started:.1f} s"
            read += len(piece)
            if loop.time() - started < 1.5:
                await asyncio.sleep(0.05)
        slow.close()


async def test_a_reader_whose_socket_is_closed_already_is_cut_off_without_a_word(monkeypatch):
    monkeypatch.setattr(http_protocol, "READ_SECONDS", 0.01)
    gone = socket.socket()
    gone.close()

    class Closed(Wire):
        """A connection that was closed with something still to write."""

        aborted = False

        def get_write_buffer_size(self) -> int:
            return 9000

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return gone if name == "socket" else default

        def abort(self) -> None:
            self.aborted = True

    async def application(scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""

    config = uvicorn.Config(application, http=BoundedHttpProtocol, lifespan="off", log_config=None)
    config.load()
    protocol = BoundedHttpProtocol(config=config, server_state=ServerState(), app_state={})
    wire = Closed()
    protocol.transport = JoiningTransport(wire, asyncio.get_running_loop(), protocol._watch_reader)
    protocol.transport.close()
    await eventually_async(lambda: wire.aborted)
