"""stdio upstream: one process serves many callers; started when needed, restarted when it dies, ended when idle."""

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from apps.common.background import Background
from apps.common.errors import (
    AddressRefused,
    UpstreamDied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTooLarge,
    UpstreamUnavailable,
)
from apps.common.ids import new_id
from apps.servers.domain import EndpointFacts, Secrets, ServerFacts
from apps.servers.transports.announcements import Announcements, Backoff
from apps.servers.transports.asking_turns import AskingTurns
from apps.servers.transports.base import Description, Json, UpstreamAnswer, UpstreamEvents, UpstreamRequest
from apps.servers.transports.calls import Calls
from apps.servers.transports.channel import Channel
from apps.servers.transports.child import SMALLEST_CAP, Child
from apps.servers.transports.era import LEGACY, identity, order, supported_versions
from apps.servers.transports.everything import EVERYTHING_MODERN
from apps.servers.transports.floods import Flooded, Turns
from apps.servers.transports.handshake import Agreed, agree
from apps.servers.transports.memory import SMALL
from apps.servers.transports.watching import ChannelListening, Watched
from apps.servers.transports.wire import legacy_params, modern_params, notification_body, request_body, says_more

RUBBISH_LINES = 100
"""Lines on stdout that are no JSON-RPC, in a row, before the process counts as broken."""
HEALTHY_SECONDS = 10.0
"""A process that lived this long after its handshake may die and be restarted at once."""


@dataclass(eq=False, slots=True)
class _Run:
    """One life of the process."""

    child: Child
    channel: Channel
    process_id: str = field(default_factory=lambda: str(new_id()))
    agreed: Agreed | None = None
    reason: str = "died"
    rubbish: int = 0
    log_level: str = ""
    lines: deque[bytes] = field(default_factory=deque)
    """A large line that waits for room in memory, and what came after it."""
    reader: "asyncio.Task[None] | None" = None
    started: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)


class StdioUpstream:
    """A stdio server. `startup_seconds` bounds start and handshake (npx and uvx may fetch a package first)."""

    def __init__(
        self,
        server: ServerFacts,
        endpoint: EndpointFacts,
        secrets: Secrets,
        events: UpstreamEvents,
        *,
        capabilities: Json,
        startup_seconds: float = 30.0,
        place: str = "",
    ) -> None:
        self._server = server
        self._endpoint = endpoint
        self._secrets = secrets
        self._events = events
        self._announcements = Announcements(server.id, events, place)
        self._watched = Watched(self._announcements)
        self._changes = ChannelListening(self._watched, self._announcements)
        self._capabilities = capabilities
        self._startup_seconds = startup_seconds
        self._era = endpoint.era
        self._calls = Calls()
        self._turns = AskingTurns()
        self._run: _Run | None = None
        self._living: set[_Run] = set()
        self._starting: asyncio.Task[_Run] | None = None
        self._background = Background()
        self._backoff = Backoff(first=0.5)
        self._not_before = 0.0
        self._last_tail = ""
        self._starts = 0
        self._ran = False
        self._reaper: asyncio.TimerHandle | None = None
        self._listening = False
        self._end: asyncio.Event = asyncio.Event()

    async def call(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Send a request and return its answer; starts the process when there is none. See Upstream."""
        limit = self._calls.begin(request)
        try:
            with limit:
                run = self._run
                if run is None or run.agreed is None or run.channel.ended is not None:
                    run = await self._running()
                if request.on_request is None or request.session or self._era != LEGACY:
                    return await self._send(run, request)
                async with self._turns.turn(request) as turn:
                    return turn.over(await self._send(await self._running(), request))
        except TimeoutError:
            raise self._calls.expired(request) from None
        finally:
            self._calls.end(limit)
            self._plan_reaping()

    async def _send(self, run: _Run, request: UpstreamRequest) -> UpstreamAnswer:
        """Make a call, with the log messages that it wants."""
        if request.log_level is not None and says_more(request.log_level, run.log_level):
            await self._set_level(run, request.log_level)
        return await self._exchange(run, request)

    async def _exchange(self, run: _Run, request: UpstreamRequest) -> UpstreamAnswer:
        """One request and its answer over the process's pipes."""
        agreed = run.agreed
        assert agreed is not None
        channel = run.channel
        id = channel.next_id()
        params = legacy_params(request, id) if agreed.era == LEGACY else modern_params(request, id)
        pending = channel.open(id, request, agreed.revision)
        try:
            run.child.write(request_body(id, request.method, params))
            request.sent = True
            return await channel.wait(pending)
        except asyncio.CancelledError:
            if request.sent and not pending.settled:
                with suppress(UpstreamError):
                    run.child.write(notification_body("notifications/cancelled", {"requestId": id}))
            raise
        finally:
            channel.close(pending)

    async def _set_level(self, run: _Run, level: str) -> None:
        """Ask a legacy server for log messages; the level belongs to the whole process."""
        agreed = run.agreed
        run.log_level = level
        if agreed is not None and agreed.era == LEGACY and "logging" in identity(agreed.result)[1]:
            await self._exchange(run, UpstreamRequest("logging/setLevel", {"level": level}))

    async def _running(self) -> _Run:
        """Return the running process, ready for calls; start it if need be, once for all who ask.

        The start belongs to nobody: a caller whose time is over leaves it going for the next.
        """
        while True:
            run = self._run
            if run is not None and run.agreed is not None and run.channel.ended is None:
                return run
            if self._starting is None:
                self._check_backoff()
                self._starting = asyncio.get_running_loop().create_task(self._start())
                self._starting.add_done_callback(self._started)
            try:
                return await asyncio.shield(self._starting)
            except asyncio.CancelledError:
                if self._calls.closed:
                    raise UpstreamDied("The connection to the server was closed during the call.") from None
                raise

    def _started(self, task: asyncio.Task[_Run]) -> None:
        """Forget the start, successful or not."""
        self._starting = None
        if not task.cancelled():
            task.exception()

    def _check_backoff(self) -> None:
        """Refuse to start again before the pause after the last failure is over."""
        wait = self._not_before - time.monotonic()
        if wait > 0:
            raise self._unavailable(f"The server's process keeps ending; it is started again in {wait:.1f} s.", self._last_tail)

    def _unavailable(self, detail: str, tail: str) -> UpstreamUnavailable:
        """Return the error for a process that does not start, with its last words beside it."""
        error = UpstreamUnavailable(detail)
        error.stderr_tail = tail
        return error

    async def _start(self) -> _Run:
        """Start the process and agree on the era; UpstreamUnavailable when it does not come up in time."""
        legacy_first = self._era == LEGACY
        while True:
            run = await self._spawn()
            try:
                async with asyncio.timeout(self._startup_seconds):
                    run.agreed = await agree(
                        run.channel,
                        run.child.write,
                        self._capabilities,
                        legacy_first=legacy_first,
                        patient=self._era not in {"", LEGACY},
                    )
            except TimeoutError:
                await self._stop(run, "died")
                raise self._unavailable(
                    f"The server's process did not answer within {self._startup_seconds:g} s.", self._tail(run)
                ) from None
            except UpstreamDied:
                if not legacy_first and run.reason == "died" and self._era == "":
                    # Some old servers end when their first message is not the handshake.
                    legacy_first, self._not_before = True, 0.0
                    self._backoff.reset()
                    continue
                raise self._unavailable("The server's process ended before it was ready.", self._tail(run)) from None
            except BaseException:
                await self._stop(run, "stopped")
                raise
            break
        self._ready(run, run.agreed)
        return run

    async def _spawn(self) -> _Run:
        """Start the process alone."""
        run: _Run

        def line(raw: bytes) -> None:
            self._line(run, raw)

        def large(ids: list[int]) -> None:
            run.channel.fail(ids, UpstreamTooLarge("The answer is larger than the call allows."))

        def endless() -> None:
            error = UpstreamTooLarge("The server writes a line that does not end.")
            run.channel.fail([], error)
            self._break(run, error)

        def gone(code: int | None) -> None:
            self._gone(run, code)

        child = Child(line, large, endless, gone)
        channel = Channel(child.reply, self._announcements, self._turns.asked)
        run = _Run(child, channel)
        child.cap = lambda: max(channel.largest, SMALLEST_CAP)
        self._run = run
        try:
            await child.start(self._endpoint.command, self._endpoint.args, self._endpoint.cwd, self._secrets.env)
        except BaseException:
            self._run = None
            self._not_before = time.monotonic() + self._backoff.pause()
            raise
        self._living.add(run)
        self._events.process_started(self._endpoint.id, run.process_id, child.pid, self._starts)
        self._starts += 1
        return run

    def _ready(self, run: _Run, agreed: Agreed) -> None:
        """Note what was agreed; follow announcements again."""
        if agreed.era != self._era:
            self._era = agreed.era
            self._events.era_found(self._endpoint.id, agreed.era, agreed.revisions)
        if agreed.era == LEGACY:
            if self._watched:
                self._background.start(self._watched.again(partial(self._exchange, run)))
        elif self._listening or self._watched:
            self._changes.ask(run.channel, run.child.write)
        if self._ran:  # it may be another version of the program
            self._announcements.everything()
        self._ran = True
        self._plan_reaping()

    def _line(self, run: _Run, raw: bytes) -> None:
        """Take one line of stdout, in order; while a large one waits for its turn, nothing more is read."""
        if run.lines or len(raw) > SMALL:
            if run.channel.ended is not None:
                return
            run.lines.append(raw)
            if run.reader is None:
                run.child.hold_output()
                run.reader = asyncio.get_running_loop().create_task(self._read_on(run))
            return
        try:
            run.channel.feed(raw)
        except UpstreamProtocolError as error:
            self._misread(run, error)
        else:
            run.rubbish = 0

    async def _read_on(self, run: _Run) -> None:
        """Take the lines that were put aside, then read on."""
        turns = Turns()
        try:
            while run.lines:
                try:
                    await run.channel.take(run.lines[0])
                except UpstreamProtocolError as error:
                    self._misread(run, error)
                else:
                    run.rubbish = 0
                if run.lines:
                    run.lines.popleft()
                await turns.give()
        finally:
            run.lines.clear()
            run.reader = None
            run.child.go_on()

    def _misread(self, run: _Run, error: UpstreamProtocolError) -> None:
        """Note a line that is no JSON-RPC; give up a process that writes many, or that floods."""
        run.rubbish += 1
        if isinstance(error, Flooded):
            broken = error.plain()
        elif run.rubbish > RUBBISH_LINES:
            broken = UpstreamProtocolError("The server writes lines to its stdout that are not JSON-RPC.")
        else:
            return
        if run.channel.ended is None:
            run.channel.fail([], broken)
            self._break(run, broken)

    def _break(self, run: _Run, error: UpstreamError) -> None:
        """Give up a process that cannot be read; the next call starts another."""
        run.channel.end(error)
        run.lines.clear()
        run.child.kill()

    def _gone(self, run: _Run, code: int | None) -> None:
        """The process has ended: fail what is in flight, report it, plan when it may start again."""
        self._living.discard(run)
        if self._run is run:
            self._run = None
        tail = self._last_tail = self._tail(run)
        how = "ended" if code is None else f"ended with code {code}"
        error = UpstreamDied(f"The server's process {how}.")
        error.stderr_tail = tail
        run.channel.end(error)
        if run.reason == "died":
            ready = run.agreed is not None
            lived = time.monotonic() - run.started
            if ready and lived > HEALTHY_SECONDS:
                self._backoff.reset()
            pause = self._backoff.pause()
            if not (ready and self._backoff.failures == 1):
                self._not_before = time.monotonic() + pause
        self._watched.failed(error.detail)
        if self._watched and run.reason == "died" and not self._calls.closed:
            self._background.start(self._revive())
        self._events.process_ended(self._endpoint.id, run.process_id, code, run.reason, tail)

    def _tail(self, run: _Run) -> str:
        """Return its last stderr, with the values of this server's credentials blotted out."""
        return blot(run.child.tail(), self._secrets.env)

    async def _stop(self, run: _Run, reason: str) -> None:
        """End a process."""
        run.reason = reason
        if self._run is run:
            self._run = None
        if run.channel.ended is None:
            run.channel.end(UpstreamDied("The server's process was stopped."))
        if run.reader is not None:
            run.reader.cancel()
        await run.child.stop()

    async def era(self) -> str:
        """Return the era that the process speaks; starts one when that is not known yet. Raises the UpstreamError family."""
        if self._era in {"", "dual"}:
            await self._running()
        return self._era

    async def describe(self, *, survey: bool = False) -> Description:
        """Ask the running process who it is; see Upstream.

        A process speaks the one era agreed at its start, so a legacy server shows the one revision it negotiated.
        """
        run = await self._running()
        agreed = run.agreed
        assert agreed is not None
        result, revisions = agreed.result, agreed.revisions
        if agreed.era != LEGACY:
            request = UpstreamRequest(
                "server/discover", {}, timeout=self._startup_seconds, client_capabilities=EVERYTHING_MODERN
            )
            answer = await self.call(request)
            if answer.result is not None:
                result = answer.result
                revisions = supported_versions(result) or revisions
        self._events.era_found(self._endpoint.id, agreed.era, revisions)
        return Description(agreed.era, order(set(revisions)), *identity(result))

    async def notify(self, method: str, params: Json | None = None) -> None:
        """Send a notification to the process, if it runs in the legacy era."""
        run = self._run
        if run is not None and run.agreed is not None and run.agreed.era == LEGACY:
            run.child.write(notification_body(method, params))

    async def listen(self) -> None:
        """Follow the process's announcements until closed, over all its lives; does not start or keep it."""
        self._listening = True
        run = self._run
        if run is not None and run.agreed is not None and run.agreed.era != LEGACY:
            self._changes.ask(run.channel, run.child.write)  # a legacy process sends its announcements anyway
        await self._end.wait()

    @property
    def watching(self) -> bool:
        """Tell whether anything is subscribed to."""
        return bool(self._watched)

    async def watch(self, request: UpstreamRequest) -> UpstreamAnswer:
        """Ask for updates of a resource, or no more of them; what is watched keeps the process, and starts it again. See Upstream."""
        limit = self._calls.begin(request)
        try:
            with limit:
                run = await self._running()
                if run.agreed is not None and run.agreed.era == LEGACY:
                    return self._watched.note(request, await self._exchange(run, request))
                asked = asyncio.ensure_future(self._watched.put(request))
                await asyncio.sleep(0)  # it has changed the filter then
                if self._watched.changed.is_set():
                    self._watched.changed.clear()
                    self._changes.ask(run.channel, run.child.write)
                return await asked
        except TimeoutError:
            raise self._calls.expired(request) from None
        finally:
            self._calls.end(limit)
            self._plan_reaping()

    async def _revive(self) -> None:
        """Start the process again for those who watch its resources, when that may be."""
        while self._watched and not self._calls.closed and self._run is None:
            await asyncio.sleep(max(0.05, self._not_before - time.monotonic()))
            if self._calls.closed:
                return
            with suppress(UpstreamError, AddressRefused):
                await self._running()

    def _plan_reaping(self) -> None:
        """See to it that an idle process is ended after the server's idle time."""
        if self._reaper is None and self._run is not None and not self._calls.closed:
            self._reaper = asyncio.get_running_loop().call_later(self._server.idle_seconds, self._reap)

    def _reap(self) -> None:
        """End the process if it has been idle long enough; else look again later."""
        self._reaper = None
        loop = asyncio.get_running_loop()
        left = self._server.idle_seconds - (loop.time() - self._calls.last_end)
        run = self._run
        if run is None or self._calls.closed:
            return
        if self._calls.in_flight or self._calls.standing or self._starting is not None or self._watched or left > 0:
            self._reaper = loop.call_later(max(left, 0.1), self._reap)
            return
        self._background.start(self._stop(run, "idle"))

    async def aclose(self, reason: str = "stopped") -> None:
        """End the process and everything in flight; returns when it is gone."""
        self._calls.close()
        self._end.set()
        if self._reaper is not None:
            self._reaper.cancel()
        if self._run is not None:
            self._run.reason = reason
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        await asyncio.gather(*(self._stop(run, reason if run is self._run else run.reason) for run in list(self._living)))
        await self._background.aclose()

    def stats(self) -> Json:
        """Return `in_flight`, `calls`, `pid` (the group's leader), `process_id`, `started_at`, `restarts`, `memory_bytes`."""
        run = self._run
        facts: dict[str, Any] = {"in_flight": self._calls.in_flight, "calls": self._calls.total}
        facts["restarts"] = max(0, self._starts - 1)
        if run is not None and run.child.pid:
            facts |= {"pid": run.child.pid, "process_id": run.process_id, "started_at": run.started_at}
            facts["memory_bytes"] = run.child.memory()
        return facts


def blot(text: str, secrets: Mapping[str, str]) -> str:
    """Return `text` with every secret value of 4 characters or more replaced."""
    for value in sorted(secrets.values(), key=len, reverse=True):
        if len(value) >= 4:
            text = text.replace(value, "***")
    return text
