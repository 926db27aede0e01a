"""The standalone stream of a caller's own session: servers of the initialize era ask there in the middle of a call, and log there."""

import asyncio
import contextlib

import pytest

from apps.common.errors import UpstreamBusy
from apps.servers.transports import asking_turns, http_standing
from tests.support import eventually_async
from tests.transports.peers import call, connected, error, event, initialized, legacy_basics, peer, reply, result, stream_head

ASKS = {"elicitation": {}}
LOG = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "whose?"}}
ELICIT = {"jsonrpc": "2.0", "id": "e-1", "method": "elicitation/create", "params": {"message": "Name?"}}


class Server:
    """A legacy server with logging, which asks on the standalone stream alone and answers a call when it is told to."""

    def __init__(self, get: str = "stream") -> None:
        self.get = get
        self.sessions = 0
        self.gets = 0
        self.forgotten: set[str] = set()
        self.streams: dict[str, asyncio.StreamWriter] = {}
        self.replies: list[dict] = []
        self.calls: list[str] = []
        self.may_answer = asyncio.Event()
        self.each: list[asyncio.Event] = []
        """Set for a single call to be answered."""

    async def __call__(self, request, writer) -> None:
        session = request.headers.get("mcp-session-id", "")
        if request.method == "GET":
            await self.stream(session, writer)
        elif session in self.forgotten:
            await reply(writer, error(None, -32600, "no such session"), 404)
        elif request.json.get("method") == "initialize":
            self.sessions += 1
            await reply(writer, result(request, initialized(logging={})), mcp_session_id=f"s-{self.sessions}")
        elif "method" not in request.json:
            self.replies.append(request.json)
            await reply(writer, None, 202)
        elif not await legacy_basics(request, writer):
            if request.json["method"] == "tools/call":
                self.calls.append(session)
                self.each.append(asyncio.Event())
                waiting = [asyncio.create_task(one.wait()) for one in (self.each[-1], self.may_answer)]
                try:
                    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for one in waiting:
                        one.cancel()
            await reply(writer, result(request))

    async def stream(self, session: str, writer: asyncio.StreamWriter) -> None:
        self.gets += 1
        if self.get == "none":
            await reply(writer, None, 405)
        elif self.get == "lost":
            await reply(writer, None, 404)
        elif self.get == "broken":
            await stream_head(writer)
            writer.close()
        elif self.get == "silent":
            await asyncio.sleep(3600)
        else:
            await stream_head(writer)
            self.streams[session] = writer
            await asyncio.sleep(3600)

    async def say(self, message: dict, session: str = "s-1") -> None:
        await eventually_async(lambda: session in self.streams)
        self.streams[session].write(event(message))
        await self.streams[session].drain()


class Client:
    """Takes requests and messages."""

    def __init__(self, session: str = "") -> None:
        self.session = session
        self.asked: list[dict] = []
        self.told: list[dict] = []
        self.gone = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, message: dict) -> dict:
        self.asked.append(message)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.gone = True
            raise
        return {"result": {"action": "accept", "content": {"name": "Ada"}}}

    async def tell(self, message: dict) -> None:
        self.told.append(message)

    def call(self, **options):
        options.setdefault("log_level", "info")
        given = {"caller": "key:1", "client_capabilities": ASKS, "session": self.session}
        return call(on_request=self.ask, on_message=self.tell, **given, **options)


@contextlib.asynccontextmanager
async def running(server: Server, *clients: Client):
    """The server, and a call of each client's that has reached it."""
    async with peer(server) as there, connected("http", there.url, era="legacy") as (upstream, _):
        tasks = []
        for client in clients:
            tasks.append(asyncio.create_task(upstream.call(client.call())))
            await eventually_async(lambda: len(server.calls) == len(tasks))
        try:
            yield upstream, tasks
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_server_asks_on_the_stream_of_the_callers_session() -> None:
    server, client = Server(), Client()
    async with running(server, client) as (upstream, (task,)):
        await server.say(ELICIT)
        await eventually_async(lambda: server.replies)
        assert server.replies == [{"jsonrpc": "2.0", "id": "e-1", "result": {"action": "accept", "content": {"name": "Ada"}}}]
        assert [message["method"] for message in client.asked] == ["elicitation/create"]
        server.may_answer.set()
        assert (await task).result == {"content": []}
        await upstream.call(client.call())
        assert server.gets == 1, "one stream for all calls of the session"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls run beside others at once, as those do of which it is known that they ask nothing."""
    monkeypatch.setattr(asking_turns, "PATIENCE", 0.01)


async def test_where_several_calls_run_the_one_that_is_left_is_asked(impatient) -> None:
    server, one, other = Server(), Client(), Client()
    async with running(server, one, other) as (_, (_, answered)):
        assert server.calls == ["s-1", "s-1"]
        await server.say(ELICIT)
        await server.say(LOG)
        server.each[1].set()
        assert (await answered).result == {"content": []}
        await eventually_async(lambda: server.replies)
        assert "result" in server.replies[0]
        assert (len(one.asked), len(other.asked)) == (1, 0)


async def test_where_one_of_several_calls_is_given_up_nobody_is_asked(impatient) -> None:
    server, one, other = Server(), Client(), Client()
    async with running(server, one, other) as (_, (given_up, _)):
        await server.say(ELICIT)
        await server.say(ELICIT | {"id": "e-2", "method": "ping"})
        await eventually_async(lambda: server.replies == [{"jsonrpc": "2.0", "id": "e-2", "result": {}}])
        given_up.cancel()
        await eventually_async(lambda: len(server.replies) == 2)
        assert server.replies[1]["error"]["code"] == -32601
        assert not one.asked
        assert not other.asked


async def test_calls_that_ask_run_one_after_the_other() -> None:
    server, one, other = Server(), Client(), Client()
    async with running(server, one) as (upstream, (first,)):
        await server.say(ELICIT)
        await eventually_async(lambda: len(server.replies) == 1)
        with pytest.raises(UpstreamBusy):
            await upstream.call(other.call(timeout=0.1))
        second = asyncio.create_task(upstream.call(other.call()))
        server.each[0].set()
        await first
        await eventually_async(lambda: len(server.calls) == 2)
        await server.say(ELICIT | {"id": "e-2"})
        await eventually_async(lambda: len(server.replies) == 2)
        assert (len(one.asked), len(other.asked)) == (1, 1)
        server.may_answer.set()
        assert (await second).result == {"content": []}


async def test_calls_of_one_session_ask_at_the_same_time() -> None:
    server, one, other = Server(), Client("a session"), Client("a session")
    async with running(server, one, other):
        for id in ("e-1", "e-2"):
            await server.say(ELICIT | {"id": id})
        await eventually_async(lambda: len(server.replies) == 2)
        assert all("result" in reply for reply in server.replies)


async def test_nobody_else_is_asked() -> None:
    server, client = Server(), Client()
    async with running(server, client) as (upstream, _):
        stranger = asyncio.create_task(upstream.call(call(caller="key:2", client_capabilities=ASKS, on_request=Client().ask)))
        await eventually_async(lambda: server.calls == ["s-1", "s-2"])
        await server.say(ELICIT)
        await eventually_async(lambda: client.asked)
        server.may_answer.set()
        await stranger
        await server.say({**ELICIT, "id": "e-2"}, "s-2")
        await eventually_async(lambda: len(server.replies) == 2)
        assert server.replies[1]["error"]["code"] == -32601, "its call has ended"
        assert len(client.asked) == 1


async def test_what_is_taken_back_is_taken_back_from_the_client() -> None:
    server, client = Server(), Client()
    client.may_answer.clear()
    async with running(server, client):
        await server.say(ELICIT)
        await eventually_async(lambda: client.asked)
        await server.say({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "e-1"}})
        await eventually_async(lambda: client.gone)
        assert not server.replies


async def test_the_end_of_a_call_ends_what_was_asked_for_it() -> None:
    server, client = Server(), Client()
    client.may_answer.clear()
    async with running(server, client) as (_, (task,)):
        await server.say(ELICIT)
        await eventually_async(lambda: client.asked)
        server.may_answer.set()
        await task
        await eventually_async(lambda: client.gone)


async def test_log_messages_and_progress_reach_the_call(impatient) -> None:
    server, one, other = Server(), Client(), Client()
    log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
    async with running(server, one) as (upstream, _):
        await server.say(log)
        await eventually_async(lambda: one.told == [log])
        second = asyncio.create_task(upstream.call(other.call()))
        await eventually_async(lambda: len(server.calls) == 2)
        await server.say(log)
        for token in range(1, 12):
            await server.say(
                {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": 1}}
            )
        await eventually_async(lambda: len(one.told) == 2 and len(other.told) == 1)
        assert {message["method"] for message in (one.told[1], *other.told)} == {"notifications/progress"}
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


@pytest.mark.parametrize("get", ["none", "lost", "broken"])
async def test_a_server_without_such_a_stream_is_called_all_the_same(get) -> None:
    server, client = Server(get), Client()
    server.may_answer.set()
    async with running(server) as (upstream, _):
        for _ in range(5):
            assert (await upstream.call(client.call())).result == {"content": []}
        assert server.gets == 1, "it is not asked for with every call"
        assert server.sessions == 1, "and the session stays"


async def test_a_stream_that_does_not_come_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(http_standing, "OPEN_SECONDS", 0.05)
    server, client = Server("silent"), Client()
    server.may_answer.set()
    async with running(server) as (upstream, _):
        assert (await upstream.call(client.call())).result == {"content": []}


async def test_a_new_session_has_a_stream_of_its_own() -> None:
    server, client = Server(), Client()
    server.may_answer.set()
    async with running(server) as (upstream, _):
        await upstream.call(client.call())
        server.forgotten.add("s-1")
        await upstream.call(client.call())
        await eventually_async(lambda: set(server.streams) == {"s-1", "s-2"})
        assert server.gets == 2


async def test_callers_that_take_nothing_open_no_stream() -> None:
    server = Server()
    server.may_answer.set()
    async with running(server) as (upstream, _):
        await upstream.call(call(caller="key:1"))
        await upstream.call(call())
        assert server.gets == 0
