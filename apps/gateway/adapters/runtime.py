"""The data plane of this process, wired to the control plane: started and stopped by the ASGI lifespan."""

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from django.conf import settings
from django.db import close_old_connections
from redis.asyncio import Redis

from apps.audit.runtime import AuditRuntime, start_audit
from apps.common.context import SYSTEM, every_tenant
from apps.common.crypto.assertion import Signer
from apps.common.crypto.keyring import Keyring
from apps.common.errors import NotReady, SwitchyardError, UpstreamTimeout
from apps.common.events import CHANGED, CONTROL
from apps.common.follower import OutboxFollower, OutboxNotice
from apps.common.http import HttpClient, NetworkPolicy
from apps.gateway.adapters import lives
from apps.gateway.adapters.builder import SnapshotBuilder
from apps.gateway.adapters.bus import RedisBus
from apps.gateway.adapters.learned import Learned
from apps.gateway.adapters.limits import RedisLimiter
from apps.gateway.adapters.ports import DatabaseVault, FollowerCatchup
from apps.gateway.adapters.sight import look
from apps.gateway.plane.bus import NoBus
from apps.gateway.plane.call import Call
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.limits import Applied, Limiter, MemoryLimiter
from apps.gateway.plane.plane import Plane, Ports
from apps.gateway.plane.snapshot import Caller, Snapshot
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.views import find_target
from apps.gateway.services.calls import CallOrder, CallReport, register_runner
from apps.gateway.services.limits import kept_uses, register_uses
from apps.gateway.services.recordings import RECORDINGS_CHANGED, recordings_on
from apps.gateway.services.sight import register_viewer
from apps.plugins.hooks.run import load_hooks
from apps.servers.domain import MODERN_REVISIONS, Discovered
from apps.servers.services.oauth.store import CONNECTION_CHANGED
from apps.servers.services.processes import KILL_PROCESS
from apps.servers.transports import discover, open_upstream
from apps.tools.services.asking import use_live_connections

logger = logging.getLogger(__name__)


class GatewayRuntime:
    """Everything of the data plane that one process runs."""

    def __init__(self) -> None:
        self.store = SnapshotStore()
        self.builder = SnapshotBuilder(self.store)
        self.learned = Learned(self.store)
        self.follower = OutboxFollower(name="snapshot")
        self.plane: Plane | None = None
        self.audit: AuditRuntime | None = None
        self.http: HttpClient | None = None
        self.bus: RedisBus | None = None
        self.limiter: Limiter = MemoryLimiter()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.draining = False

    async def start(self) -> None:
        """Start the audit sink, build the snapshot, follow the outbox, open the plane. Raises NotReady, AuditUnavailable."""
        environment = settings.SWITCHYARD
        self.loop = asyncio.get_running_loop()
        self.audit = await start_audit(self.loop)
        self.follower.follow(self.builder.apply, resync=self.builder.build, topics=(CHANGED,))
        self.follower.follow(self._orders, topics=(CONTROL,))
        self.follower.follow(self._recordings, resync=self._read_recordings, topics=(CONTROL,))
        # First the position, then the picture: what is committed in between is in both, and a patch may be applied twice.
        await asyncio.to_thread(self.follower.start)
        await asyncio.to_thread(self.builder.build)
        await asyncio.to_thread(self._begin_limits)
        self.learned.start()
        signer = Signer(settings.SECRET_KEY)
        policy = NetworkPolicy.parse(environment.allowed_networks)
        self.http = HttpClient(policy)

        keyring = Keyring.parse(environment.encryption_keys)
        if environment.redis_url:
            client = Redis.from_url(environment.redis_url, socket_connect_timeout=environment.redis_timeout)
            self.bus = RedisBus(client, keyring)
            await self.bus.start()
            assert self.learned.limits is not None
            self.limiter = RedisLimiter(client, self.learned.limits)
            self.limiter.start()

        def open_one(server: Any, endpoint: Any, secrets: Any, events: Any) -> Any:
            return open_upstream(server, endpoint, secrets, events, http=self.http, policy=policy)

        ports = Ports(
            vault=DatabaseVault(self.store, signer, environment.home),
            facts=self.learned,
            catchup=FollowerCatchup(self.follower),
            signer=signer,
            events=self.learned,
            open_upstream=open_one,
            bus=self.bus or NoBus(),
            left=await asyncio.to_thread(lives.take, environment.home) if self.bus is None else None,
            limiter=self.limiter,
        )
        config = PlaneConfig(
            public_url=environment.public_url,
            allowed_hosts=tuple(environment.allowed_hosts),
            allowed_origins=tuple(environment.allowed_origins),
            trusted_proxies=tuple(environment.trusted_proxies),
            version=settings.SWITCHYARD_VERSION,
        )
        self.plane = Plane(config, self.store, self.audit.sink, keyring, ports, load_hooks(environment.hooks))
        self.learned.stats = self.plane.upstreams.stats
        await asyncio.to_thread(self._read_recordings)
        register_runner(self.run_call)
        register_viewer(partial(look, self.store))
        register_uses(self.limit_uses)
        use_live_connections(self.ask_live)

    def drain(self) -> None:
        """End the streams that have no end of their own, and the calls that wait for their clients; calls in flight go on."""
        self.draining = True
        if self.plane is not None:
            self.plane.stopping = True
            self.plane.streams.close_all()
            self.plane.parking.close()
            self.plane.waits.close()

    async def stop(self) -> None:
        """Stop in the opposite order; what is in flight has ended before (the server drained)."""
        self.draining = True
        register_runner(None)
        register_viewer(None)
        register_uses(None)
        use_live_connections(None)
        if self.plane is not None:
            await self.plane.aclose()
            if (left := self.plane.shared.left_behind()) is not None:
                await asyncio.to_thread(lives.leave, settings.SWITCHYARD.home, left)
        if isinstance(self.limiter, RedisLimiter):
            await self.limiter.aclose()
        if self.bus is not None:
            await self.bus.aclose()
        await asyncio.to_thread(self.learned.stop)
        await asyncio.to_thread(self.follower.stop)
        if self.http is not None:
            await self.http.aclose()
        if self.audit is not None:
            await self.audit.stop()

    def _orders(self, notices: Sequence[OutboxNotice]) -> None:
        """Carry out orders to the data plane (in the follower's thread)."""
        for notice in notices:
            if notice.payload.get("order") == CONNECTION_CHANGED and self.plane is not None and self.loop is not None:
                said = notice.payload
                change = partial(self.plane.upstreams.token_changed, said["server_id"], said["user_id"], ended=said["ended"])
                self.loop.call_soon_threadsafe(change)
            if notice.payload.get("order") != KILL_PROCESS or self.plane is None or self.loop is None:
                continue
            server_id = self.learned.server_of_process(str(notice.payload["process_id"]))
            if server_id is not None:
                asyncio.run_coroutine_threadsafe(self.plane.upstreams.kill(server_id), self.loop)

    def _recordings(self, notices: Sequence[OutboxNotice]) -> None:
        """Look which recordings are on, where one was switched on or off (in the follower's thread)."""
        if any(notice.payload.get("order") == RECORDINGS_CHANGED for notice in notices):
            self._read_recordings()

    def _read_recordings(self) -> None:
        if self.plane is None or self.loop is None or self.loop.is_closed():
            return  # they are read once more when it is there
        try:
            with every_tenant(SYSTEM):
                found = recordings_on()
        finally:
            close_old_connections()
        self.loop.call_soon_threadsafe(self.plane.record, found)

    def _begin_limits(self) -> None:
        """Count days and months on from where the process before this one ended."""
        local = self.learned.limits = MemoryLimiter()
        self.limiter = local
        try:
            for counter, (begin, used) in kept_uses().items():
                local.remember(counter, begin, used)
        finally:
            close_old_connections()

    def limit_uses(self, ids: Sequence[str]) -> dict[str, int]:
        """Return how much of limits is in use, by their ids, from another thread (a `Uses`)."""
        if self.loop is None or self.draining:
            return {}
        wanted = set(ids)
        found = [
            Applied(limit, limit.id)
            for one in self.store.current.limits.values()
            for rows in (*one.by_subject.values(), one.tools)
            for limit in rows
            if limit.id in wanted
        ]
        future = asyncio.run_coroutine_threadsafe(self.limiter.stands(found), self.loop)
        try:
            return future.result(2.0)
        except TimeoutError:
            future.cancel()
            return {}

    async def readiness(self) -> tuple[bool, dict[str, str]]:
        """Return whether calls can be made now, and each part's state."""
        parts = {
            "snapshot": "ok" if self.store.ready else "building",
            "audit": "ok" if self.audit is not None and await self.audit.sink.healthy() else "cannot be written",
            "database": "ok" if self.follower.healthy else "does not answer",
        }
        if self.draining:
            parts["process"] = "stopping"
        ready = all(state == "ok" for state in parts.values())
        if self.audit is not None and self.audit.degraded:
            parts["checkpoints"] = "degraded"  # shown, and no reason to stop the calls
        return ready, parts

    # Discoveries of the control plane

    def ask_live(self, server_id: str, version: int, limit: float, survey: bool) -> tuple[str, Discovered] | None:
        """Ask a server what it offers through the connection that calls use, from another thread (a `LiveAsker`)."""
        if self.plane is None or self.loop is None or self.draining:
            return None
        future = asyncio.run_coroutine_threadsafe(self._ask_live(self.plane, server_id, version, limit, survey), self.loop)
        try:
            return future.result(limit + 1.0)
        except TimeoutError:
            future.cancel()
            raise UpstreamTimeout("The open connection did not tell what the server offers.") from None

    async def _ask_live(
        self, plane: Plane, server_id: str, version: int, limit: float, survey: bool
    ) -> tuple[str, Discovered] | None:
        opened = plane.upstreams.opened(server_id, version)
        if opened is None:
            return None
        endpoint_id, upstream = opened
        return endpoint_id, await discover(upstream, timeout=limit, survey=survey)

    # Calls of the control plane

    def run_call(self, order: CallOrder, timeout: float) -> CallReport:
        """Run a call from another thread than the loop's (a `Runner`)."""
        if self.plane is None or self.loop is None:
            raise NotReady("The data plane of this process does not run.")
        future = asyncio.run_coroutine_threadsafe(self._run_call(order), self.loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise

    async def _run_call(self, order: CallOrder) -> CallReport:
        assert self.plane is not None
        snapshot = self.store.current
        caller = _caller(snapshot, order)
        if caller is None:
            await FollowerCatchup(self.follower).caught_up()
            snapshot = self.store.current
            caller = _caller(snapshot, order)
        if caller is None:
            raise NotReady("You are not known to the data plane yet; try again in a moment.")
        call = Call(
            snapshot=snapshot,
            caller=caller,
            target=find_target(snapshot, caller, order.toolset),
            method="tools/call",
            params={"name": order.name, "arguments": order.arguments},
            revision=MODERN_REVISIONS[0],
            modern=True,
            origin=order.origin or "admin",
            address=order.address,
            request_id=order.request_id or None,
            client="Switchyard console" if order.origin == "admin" else "",
            client_info={"name": "switchyard", "version": settings.SWITCHYARD_VERSION},
        )
        call.steps = []
        answer = await self.plane.pipeline.run(call)
        error = None if answer.result is not None else {"code": answer.code, "message": answer.message, "data": answer.data}
        return CallReport(
            call_id=call.call_id,
            ok=answer.result is not None and answer.result.get("isError") is not True,
            result=answer.result,
            error=error,
            steps=call.steps,
            duration_ms=(time.perf_counter() - call.started) * 1000,
            events=[f"{row >> 40}-{row & 0xFF_FFFF_FFFF}" for row in call.rows],
        )


def _caller(snapshot: Snapshot, order: CallOrder) -> Caller | None:
    if order.actor_kind == "user":
        return snapshot.caller_of_user(order.actor_id, order.tenant_id)
    if order.actor_kind == "api_key":
        return snapshot.caller_of_key_id(order.actor_id)
    raise SwitchyardError("Only people and API keys call tools.")
