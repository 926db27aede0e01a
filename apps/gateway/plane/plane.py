"""The data plane of one process: its parts, put together, and its life."""

import asyncio
from dataclasses import dataclass

from apps.audit.sink.protocol import AuditSink
from apps.common.crypto.keyring import Keyring
from apps.gateway.plane.auth import Authenticator
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.guard import Guard
from apps.gateway.plane.http import Receive, Scope, Send
from apps.gateway.plane.mcp.asking import Asking
from apps.gateway.plane.mcp.attendants import Attendants
from apps.gateway.plane.mcp.bridge import Bridge
from apps.gateway.plane.mcp.front import serve_mcp
from apps.gateway.plane.mcp.legacy import LegacyLive
from apps.gateway.plane.mcp.lists import Lists
from apps.gateway.plane.mcp.session import SessionSealer
from apps.gateway.plane.mcp.streams import Streams
from apps.gateway.plane.pipeline import Pipeline
from apps.gateway.plane.ports import AssertionSigner, Catchup, Facts, Vault
from apps.gateway.plane.recorder import Recorder
from apps.gateway.plane.refusals import Refusals
from apps.gateway.plane.snapshot import Snapshot
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.upstreams import UpstreamPool
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


class Plane:
    """Made on the event loop it runs on."""

    def __init__(
        self, config: PlaneConfig, store: SnapshotStore, sink: AuditSink, keyring: Keyring, ports: Ports, hooks: Hooks
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.config = config
        self.store = store
        self.sink = sink
        self.facts = ports.facts
        self.guard = Guard(config)
        self.auth = Authenticator(store, self.guard, ports.catchup)
        self.recorder = Recorder(sink)
        self.refusals = Refusals(self.recorder)
        self.upstreams = UpstreamPool(ports.open_upstream, ports.vault, ports.events, ports.facts)
        self.lists = Lists(config)
        self.sessions = SessionSealer(keyring)
        self.live = LegacyLive()
        self.asking = Asking()
        self.attendants = Attendants(config)
        self.streams = Streams(config, store, self.upstreams)
        self.pipeline = Pipeline(
            config, self.recorder, self.upstreams, Bridge(config, keyring), hooks, ports.signer, ports.facts
        )
        self._unsubscribe = store.subscribe(self._snapshot_changed)

    def _snapshot_changed(self, snapshot: Snapshot) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.upstreams.prune, snapshot)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request to `/mcp` or `/mcp/<toolset>` (ASGI)."""
        slug = scope["path"][len("/mcp") :].strip("/")
        await serve_mcp(self, slug, scope, receive, send)

    async def aclose(self) -> None:
        """End streams, then upstreams."""
        self._unsubscribe()
        self.refusals.close()
        await self.streams.aclose()
        await self.upstreams.aclose()
