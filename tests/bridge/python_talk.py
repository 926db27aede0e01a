"""`mcp.Client` as the checks see it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import mcp
import mcp_types as types
from mcp.client.client import ClientRequestContext
from mcp.client.extension import advertise
from mcp.client.streamable_http import streamable_http_client
from pydantic import TypeAdapter

from tests.bridge.talk import EXTENSIONS, LOG_LEVEL, MODERN, TIMEOUT, Heard, Json, Talk, answer_of
from tests.peers.python_clients import plain, refusals

_LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}
_ANY: TypeAdapter[Json] = TypeAdapter(Json)


class PythonTalk(Talk):
    """The official Python client."""

    def __init__(self) -> None:
        super().__init__()
        self._declines = False
        self._heard = Heard()
        self._meta: Json | None = None
        self._listening: contextlib.AsyncExitStack | None = None
        self._watched: list[str] = []
        self.client: mcp.Client

    async def begin(self, *, declines: bool = False) -> None:
        if self.modern:
            await self.leave()
        else:
            await self.watch([])
        self._declines, self._heard, self._meta = declines, Heard(), None

    # What the server says

    async def on_elicitation(self, context: ClientRequestContext, params: types.ElicitRequestParams) -> types.ElicitResult:
        """Answer a form or a page."""
        return types.ElicitResult.model_validate(self._answer("elicitation/create", params))

    async def on_sampling(
        self, context: ClientRequestContext, params: types.CreateMessageRequestParams
    ) -> types.CreateMessageResult | types.CreateMessageResultWithTools:
        """Answer as the model."""
        answer = self._answer("sampling/createMessage", params)
        kind = types.CreateMessageResultWithTools if isinstance(answer["content"], list) else types.CreateMessageResult
        return kind.model_validate(answer)

    async def on_roots(self, context: ClientRequestContext) -> types.ListRootsResult:
        """Answer with the roots."""
        return types.ListRootsResult.model_validate(self._answer("roots/list", None))

    def _answer(self, method: str, params: Any) -> Json:
        said = plain(params) if params is not None else {}
        self._heard.asked.append({"method": method, "params": said})
        return answer_of(method, said, declines=self._declines)

    async def on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        """Keep a log message."""
        self._heard.logs.append(plain(params))

    async def on_message(self, message: Any) -> None:
        """Keep a notification."""
        if not isinstance(message, Exception) and not isinstance(message, types.LoggingMessageNotification):
            self._heard.notices.append(plain(message))

    async def on_progress(self, done: float, total: float | None, message: str | None) -> None:
        """Keep a step."""
        self._heard.steps.append([done, total, message])

    async def heard(self) -> Heard:
        return self._heard

    # What the client asks

    async def raw(self, method: str, params: Json) -> Json:
        with refusals():
            return await self.client.session.send_request(types.Request[Json, str](method=method, params=params), _ANY)

    async def call(self, name: str, arguments: Json | None = None, *, progress: bool = False) -> Json:
        follow = self.on_progress if progress else None
        with refusals():
            result = await self.client.call_tool(name, arguments or {}, progress_callback=follow, meta=self._meta)
        return plain(result)

    async def cancelled_call(self, name: str, arguments: Json, ready: Callable[[], Awaitable[Any]]) -> None:
        calling = asyncio.create_task(self.client.call_tool(name, arguments))
        try:
            await ready()
        finally:
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)

    async def prompt(self, name: str, arguments: Json | None = None) -> Json:
        with refusals():
            return plain(await self.client.get_prompt(name, arguments))

    async def read(self, uri: str) -> Json:
        with refusals():
            return plain(await self.client.read_resource(uri))

    async def complete(self, params: Json) -> Json:
        ref = params["ref"]
        kind = types.PromptReference if ref["type"] == "ref/prompt" else types.ResourceTemplateReference
        context = params.get("context", {}).get("arguments")
        with refusals():
            return plain(await self.client.complete(kind.model_validate(ref), params["argument"], context))

    async def items(self, method: str) -> list[Json]:
        return (await self.raw(method, {}))[_LISTS[method]]

    async def ping(self) -> None:
        with refusals():
            await self.client.send_ping()

    async def set_level(self, level: str) -> None:
        if self.modern:
            self._meta = {LOG_LEVEL: level}
            return
        with refusals():
            await self.client.set_logging_level(level)

    async def listen(self) -> None:
        if self.modern:
            await self._open({f"{kind}_list_changed": True for kind in ("tools", "prompts", "resources")})

    async def watch(self, uris: list[str]) -> None:
        with refusals():
            if self.modern:
                honoured = (await self._open({"resource_subscriptions": uris})).honored
                assert sorted(honoured.resource_subscriptions or ()) == sorted(uris)
                return
            for uri in uris:
                if uri not in self._watched:
                    await self.client.subscribe_resource(uri)
            for uri in self._watched:
                if uri not in uris:
                    await self.client.unsubscribe_resource(uri)
            self._watched = uris

    async def _open(self, wanted: Json) -> Any:
        """Follow another set of changes."""
        await self.leave()
        self._listening = contextlib.AsyncExitStack()
        return await self._listening.enter_async_context(self.client.listen(**wanted))

    async def leave(self) -> None:
        """Follow nothing."""
        if self._listening is not None:
            await self._listening.aclose()
            self._listening = None

    async def roots_changed(self) -> None:
        await self.client.send_roots_list_changed()


@contextlib.asynccontextmanager
async def python_talk(url: str, key: str, era: str) -> AsyncIterator[Talk]:
    """Connect the Python client in an era."""
    talk = PythonTalk()
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT) as http:
        client = mcp.Client(
            streamable_http_client(url, http_client=http),
            mode="auto" if era == "modern" else "legacy",
            client_info=types.Implementation(name=f"bridge-python-{era}", version="1.0"),
            elicitation_callback=talk.on_elicitation,
            sampling_callback=talk.on_sampling,
            sampling_capabilities=types.SamplingCapability(tools=types.SamplingToolsCapability()),
            list_roots_callback=talk.on_roots,
            logging_callback=talk.on_log,
            message_handler=talk.on_message,
            read_timeout_seconds=TIMEOUT,
            extensions=[advertise(name, settings) for name, settings in EXTENSIONS.items()],
        )
        with refusals():
            async with client:
                talk.client, talk.revision = client, client.protocol_version
                talk.modern = talk.revision == MODERN
                try:
                    yield talk
                finally:
                    await talk.leave()
