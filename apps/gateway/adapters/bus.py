"""The bus over Redis: publish/subscribe for messages, keys with an expiry for what is kept; everything sealed with the installation's key.

Redis sees names of sessions and sizes, and no word of what clients and servers say.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from apps.common.crypto.keyring import DecryptionFailed, Keyring
from apps.gateway.plane.bus import Handler

logger = logging.getLogger(__name__)

_VALUE = "switchyard:mcp:kept:"
INLINE_BYTES = 256 * 1024
"""Larger messages are kept as a value and fetched: Redis cuts off subscribers that have much to take."""
FETCH_SECONDS = 60
WAITING = 2_000
"""Messages and values of this process that wait for Redis; what comes then is dropped, with a warning."""
_PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0)


Order = Callable[[], Awaitable[object]]


class RedisBus:
    """See `plane.bus.Bus`. Belongs to the event loop it was started on."""

    alone = False

    def __init__(self, client: Redis, keyring: Keyring) -> None:
        self.worker = secrets.token_hex(4)
        # channels, unlike keys, are the same in all of Redis's numbered databases
        self._channel = f"switchyard:mcp:{client.connection_pool.connection_kwargs.get('db', 0)}:to:"
        self._all = self._channel + "all"
        self._client = client
        self._keyring = keyring.for_purpose(b"bus")
        self._handlers: dict[str, Handler] = {}
        self._resets: list[Callable[[], None]] = []
        self._orders: asyncio.Queue[Order] = asyncio.Queue(WAITING)
        self._tasks: list[asyncio.Task[None]] = []
        self._subscribed = asyncio.Event()

    async def start(self) -> None:
        """Begin to listen; waits a moment for the subscription, and goes on without when Redis does not answer."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._listen(), name="bus"), loop.create_task(self._work(), name="bus orders")]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._subscribed.wait(), 2.0)

    async def aclose(self) -> None:
        """Say what is left to say, for a moment, and end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._orders.join(), 1.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    def on(self, topic: str, handler: Handler) -> None:
        """See Bus."""
        self._handlers[topic] = handler

    def on_reset(self, handler: Callable[[], None]) -> None:
        """See Bus."""
        self._resets.append(handler)

    def tell(self, topic: str, message: bytes, worker: str | None = None) -> None:
        """See Bus."""
        self._order(lambda: self._publish(worker, topic, message))

    async def send(self, worker: str, topic: str, message: bytes) -> bool:
        """See Bus."""
        try:
            return await self._publish(worker, topic, message) > 0
        except (RedisError, OSError):
            return False

    async def alive(self, worker: str) -> bool:
        """See Bus."""
        try:
            counts = await self._client.pubsub_numsub(self._channel + worker)
        except (RedisError, OSError):
            return True
        return any(count > 0 for _, count in counts)

    def put(self, space: str, key: str, value: bytes, seconds: int) -> None:
        """See Bus."""
        name = f"{_VALUE}{space}:{key}"
        self._order(lambda: self._client.set(name, self._seal(value, name), ex=max(1, seconds)))

    def drop(self, space: str, key: str) -> None:
        """See Bus."""
        self._order(lambda: self._client.delete(f"{_VALUE}{space}:{key}"))

    def put_in(self, space: str, key: str, field: str, value: bytes, seconds: int) -> None:
        """See Bus."""
        name = f"{_VALUE}{space}:{key}"
        pipe = self._client.pipeline()
        pipe.hset(name, field, self._seal(value, name + field))
        pipe.expire(name, max(1, seconds))
        self._order(pipe.execute)

    def drop_from(self, space: str, key: str, field: str) -> None:
        """See Bus."""
        self._order(lambda: self._client.hdel(f"{_VALUE}{space}:{key}", field))

    async def within(self, space: str, key: str) -> Mapping[str, bytes]:
        """See Bus."""
        name = f"{_VALUE}{space}:{key}"
        found: dict[str, bytes] = {}
        with contextlib.suppress(RedisError, OSError, DecryptionFailed):
            for raw, value in (await self._client.hgetall(name)).items():
                field = _bytes(raw).decode()
                found[field] = self._keyring.open(_bytes(value), associated=(name + field).encode())
        return found

    async def every(self, space: str) -> Mapping[str, bytes]:
        """See Bus."""
        start = f"{_VALUE}{space}:"
        found: dict[str, bytes] = {}
        with contextlib.suppress(RedisError, OSError):
            async for name in self._client.scan_iter(match=start + "*", count=1000):
                value = await self._fetch(name.decode())
                if value is not None:
                    found[name.decode()[len(start) :]] = value
        return found

    def _seal(self, value: bytes, name: str) -> bytes:
        return self._keyring.seal(value, associated=name.encode())

    async def _fetch(self, name: str) -> bytes | None:
        try:
            value = await self._client.get(name)
            return self._keyring.open(_bytes(value), associated=name.encode()) if value is not None else None
        except (RedisError, OSError, DecryptionFailed):
            return None

    async def _publish(self, worker: str | None, topic: str, message: bytes) -> int:
        channel = self._channel + worker if worker is not None else self._all
        kept = ""
        if len(message) > INLINE_BYTES:
            kept = f"{_VALUE}message:{secrets.token_hex(16)}"
            await self._client.set(kept, self._seal(message, kept), ex=FETCH_SECONDS)
            message = b""
        packed = msgspec.msgpack.encode((self.worker, topic, message, kept))
        return int(await self._client.publish(channel, self._keyring.seal(packed, associated=channel.encode())))

    def _order(self, order: Order) -> None:
        try:
            self._orders.put_nowait(order)
        except asyncio.QueueFull:
            logger.warning("Redis takes the sessions' messages too slowly; one was dropped")

    async def _work(self) -> None:
        """Carry out orders one after another, so that what was said first arrives first."""
        while True:
            order = await self._orders.get()
            try:
                await order()
            except (RedisError, OSError) as error:
                logger.warning("the sessions' bus is down: %s", type(error).__name__)
            finally:
                self._orders.task_done()

    async def _listen(self) -> None:
        failures = 0
        while True:
            pubsub = self._client.pubsub(ignore_subscribe_messages=True)
            try:
                await pubsub.subscribe(self._all, self._channel + self.worker)
                failures = 0
                self._subscribed.set()
                for handler in self._resets:
                    handler()
                await self._take(pubsub)
            except (RedisError, OSError) as error:
                if failures == 0:
                    logger.warning("the sessions' bus is down: %s", type(error).__name__)
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await pubsub.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1

    async def _take(self, pubsub: PubSub) -> None:
        while True:
            said = await pubsub.get_message(timeout=None)
            if said is None:
                continue
            channel: bytes = said["channel"]
            try:
                packed = self._keyring.open(said["data"], associated=channel)
                sender, topic, message, kept = msgspec.msgpack.decode(packed, type=tuple[str, str, bytes, str])
            except (DecryptionFailed, msgspec.MsgspecError):
                logger.warning("a message on the sessions' bus was not made by this installation")
                continue
            if sender == self.worker or topic not in self._handlers:
                continue
            if kept:
                fetched = await self._fetch(kept)
                if fetched is None:
                    continue
                message = fetched
            try:
                self._handlers[topic](sender, message)
            except Exception:
                logger.exception("a message on the sessions' bus could not be taken: %s", topic)


def _bytes(value: bytes | str) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
