"""The little of HTTP that the data plane needs, on bare ASGI."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from apps.common.errors import MalformedRequest, TooLarge

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

SECURITY_HEADERS: tuple[Header, ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_JSON: tuple[Header, ...] = ((b"content-type", b"application/json"), *SECURITY_HEADERS)


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


class Headers:
    """A request's headers, looked up by lower-case name; values without surrounding white space (the server leaves it in)."""

    __slots__ = ("pairs", "raw", "repeated")

    def __init__(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self.pairs = pairs
        self.raw = dict(pairs)
        self.repeated = len(self.raw) != len(pairs)

    def get(self, name: bytes) -> str | None:
        """Return a value, the last one where a header was repeated, or None."""
        value = self.raw.get(name)
        return None if value is None else value.decode("latin-1").strip(" \t")


async def read_body(headers: Headers, receive: Receive, limit: int, seconds: float) -> bytes:
    """Read a request's body. Raises TooLarge over `limit` bytes, MalformedRequest after `seconds`, ClientGone."""
    length = headers.raw.get(b"content-length")
    if length is not None and (not length.strip().isdigit() or int(length) > limit):
        raise TooLarge(f"The body has more than {limit} bytes, the limit here.")
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > limit:
            raise TooLarge(f"The body has more than {limit} bytes, the limit here.")
        return body
    chunks = [body]
    size = len(body)
    try:
        async with asyncio.timeout(seconds):
            while message.get("more_body"):
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limit:
                    raise TooLarge(f"The body has more than {limit} bytes, the limit here.")
                chunks.append(chunk)
    except TimeoutError:
        raise MalformedRequest(f"The body did not arrive within {seconds:g} s.") from None
    return b"".join(chunks)


async def send_json(send: Send, status: int, body: bytes, headers: Iterable[Header] = ()) -> None:
    """Answer with JSON."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*_JSON, (b"content-length", b"%d" % len(body)), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_empty(send: Send, status: int, headers: Iterable[Header] = ()) -> None:
    """Answer without a body."""
    length = () if status == 204 else ((b"content-length", b"0"),)
    await send({"type": "http.response.start", "status": status, "headers": [*SECURITY_HEADERS, *length, *headers]})
    await send({"type": "http.response.body", "body": b""})
