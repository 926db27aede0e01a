"""The data plane of one process: its parts, put together, and its life."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from apps.audit.sink.protocol import AuditSink
from apps.common.clock import now_us
from apps.common.crypto.keyring import Keyring
from apps.gateway.plane.auth import Authenticator
from apps.gateway.plane.budget import Budget
from apps.gateway.plane.bus import Bus, NoBus
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.guard import Guard
from apps.gateway.plane.http import Receive, Scope, Send
from apps.gateway.plane.limits import Limiter, MemoryLimiter
from apps.gateway.plane.mcp.asking import Asking
from apps.gateway.plane.mcp.attendants import Attendants
from apps.gateway.plane.mcp.bridge import Bridge
from apps.gateway.plane.mcp.elsewhere import Questions
from apps.gateway.plane.mcp.front import serve_mcp
from apps.gateway.plane.mcp.legacy import LegacyLive
from apps.gateway.plane.mcp.lists import Lists
from apps.gateway.plane.mcp.lives import LeftBehind
from apps.gateway.plane.mcp.parking import Parking
from apps.gateway.plane.mcp.replay import MemoryReplays, ReplayStore
from apps.gateway.plane.mcp.replayshare import SharedReplays
from apps.gateway.plane.mcp.session import SessionSealer
from apps.gateway.plane.mcp.shared import SharedSessions
from apps.gateway.plane.mcp.sightings import Sightings
from apps.gateway.plane.mcp.sse import HELD, Channel
from apps.gateway.plane.mcp.sseposts import answer_posts
from apps.gateway.plane.mcp.streams import Streams
from apps.gateway.plane.mcp.tap import Tap
from apps.gateway.plane.mcp.waiting import Waits
from apps.gateway.plane.mcp.watching import LegacyWatches
from apps.gateway.plane.pipeline import Pipeline
from apps.gateway.plane.ports import AssertionSigner, Catchup, Facts, RecordingFacts, Vault
from apps.gateway.plane.recorder import Recorder
from apps.gateway.plane.refusals import Refusals
from apps.gateway.plane.snapshot import Snapshot
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.upstreams import UpstreamPool
from apps.gateway.plane.watches import TellingEvents, Watches
from apps.plugins.hooks import Hooks
from apps.servers.transports.base import UpstreamEvents, UpstreamFactory


@dataclass(frozen=True, slots=True)
class Ports:
    """What the composition root injects."""

    vault: Vault
    facts: Facts
    catchup: Catchup
    signer: AssertionSigner
    events: UpstreamEvents
    open_upstream: UpstreamFactory
    bus: Bus = field(default_factory=NoBus)
    left: LeftBehind | None = None
    """What the only process's life before left behind; None where there are several, or nothing is kept over a restart."""
    limiter: Limiter = field(default_factory=MemoryLimiter)


class Plane:
    """Made on the event loop it runs on."""

    def __init__(
        self, config: PlaneConfig, store: SnapshotStore, sink: AuditSink, keyring: Keyring, ports: Ports, hooks: Hooks
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.config = config
        self.stopping = False
        """The process ends: what is cut off now gets an answer that says so."""
        self.store = store
        self.sink = sink
        self.facts = ports.facts
        self.bus = ports.bus
        self.guard = Guard(config)
        self.auth = Authenticator(store, self.guard, ports.catchup)
        self.recorder = Recorder(sink)
        self.refusals = Refusals(self.recorder)
        self.tap: Tap | None = None
        """Recordings of what passes, while there are any."""
        self._tap_over: asyncio.TimerHandle | None = None
        events = self._events = TellingEvents(ports.events)
        self.upstreams = UpstreamPool(ports.open_upstream, ports.vault, events, ports.facts)
        self.watches = Watches(store, self.upstreams)
        events.updated = self.watches.updated
        self.sightings = Sightings(ports.facts)
        self.lists = Lists(config, keyring)
        self.sessions = SessionSealer(keyring, ports.left)
        self.live = LegacyLive()
        self.watching = LegacyWatches(self.watches, self.bus)
        self.questions = Questions(self.bus)
        self.replays: ReplayStore = SharedReplays(MemoryReplays(), self.questions)
        self.channels: dict[str, Channel] = {}
        """Sessions of the HTTP+SSE transport, by their id in the log."""
        self.sse_held = Budget(HELD)
        answer_posts(self)
        self.asking = Asking(self.bus.worker)
        self.parking = Parking(keyring, self)
        self.attendants = Attendants(config)
        self.streams = Streams(config, store, self.upstreams)
        self.pipeline = Pipeline(
            config,
            self.recorder,
            self.upstreams,
            Bridge(config, keyring),
            hooks,
            ports.signer,
            ports.facts,
            ports.limiter,
            store,
        )
        self.shared = self.watching.shared = SharedSessions(self)
        self.waits = Waits(self)
        self._unsubscribe = store.subscribe(self._snapshot_changed)

    def record(self, recordings: Sequence[RecordingFacts]) -> None:
        """Put the recordings in force that are on now; each ends by itself."""
        now = now_us()
        wanted = tuple(one for one in recordings if one.until_us > now)
        if not any(one.messages_left > 0 and one.bytes_left > 0 for one in wanted):
            wanted = ()  # what is full everywhere costs nothing more
        if self._tap_over is not None:
            self._tap_over.cancel()
            self._tap_over = None
        tap = self.tap
        if tap is not None:
            tap.flush()
        if not wanted:
            if tap is not None:
                tap.update(())
            tap = None
        elif tap is None:
            tap = Tap(wanted, self.facts, lambda: self.record(()))
        else:
            tap.update(wanted)
        self.tap = self.pipeline.tap = self._events.tap = tap
        if tap is not None:
            self._tap_over = self.loop.call_later(max(tap.seconds_left, 0.0) + 0.01, lambda: self.record(wanted))

    def _snapshot_changed(self, snapshot: Snapshot) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.upstreams.prune, snapshot)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to `/mcp` or `/mcp/<toolset>` (ASGI)."""
        slug = scope["path"][len("/mcp") :].strip("/")
        await serve_mcp(self, slug, scope, receive, send)

    async def sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to `/sse`, `/sse/<toolset>`, or to either's `/messages` (ASGI)."""
        slug = scope["path"][len("/sse") :].strip("/")
        posted = scope["method"] == "POST" and (slug == "messages" or slug.endswith("/messages"))
        if posted:
            slug = slug[: -len("messages")].rstrip("/")
        await serve_mcp(self, slug, scope, receive, send, sse=True, posted=posted)

    async def aclose(self) -> None:
        """End streams, then upstreams."""
        self._unsubscribe()
        self.parking.close()
        self.waits.aclose()
        self.refusals.close()
        self.sightings.hand_on()
        self.record(())
        await self.streams.aclose()
        self.replays.close()
        await self.watches.aclose()
        await self.upstreams.aclose()
