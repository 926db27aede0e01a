"""One bounded HTTP request of a thread, through the client that all outgoing connections use."""

import asyncio
import hashlib
from collections.abc import Mapping

from yarl import URL

from apps.audit.checkpoints.target import SEND_SECONDS, TargetFailed
from apps.common.errors import SwitchyardError
from apps.common.http import HttpClient, Limits, NetworkPolicy, RequestHeaders

_POLICY = NetworkPolicy.parse(["0.0.0.0/0", "::/0"])
"""Named by the operator in the environment alone, so that private addresses are fine; those of cloud metadata are not."""
_ANSWER = 65_536


def request(method: str, url: URL, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """Return status and the answer's body. Raises TargetFailed."""
    try:
        return asyncio.run(_request(method, url, headers, body))
    except (SwitchyardError, OSError, TimeoutError) as error:
        raise TargetFailed(getattr(error, "detail", None) or "no answer in time") from error


def expect(status: int, answer: bytes) -> None:
    """Raise TargetFailed unless the answer is a success."""
    if not 200 <= status < 300:
        said = "".join(sign if sign.isprintable() else " " for sign in answer[:200].decode("utf-8", "replace")).strip()
        raise TargetFailed(f"answered {status}" + (f": {said}" if said else ""))


def digest(body: bytes) -> str:
    """Return the SHA-256 of a body in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


async def _request(method: str, url: URL, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    client = HttpClient(_POLICY)
    try:
        async with asyncio.timeout(SEND_SECONDS):
            limits = Limits(sock_connect=SEND_SECONDS / 2, sock_read=SEND_SECONDS)
            answer = await client.request(method, url, headers=RequestHeaders(headers), body=body, limits=limits)
            return answer.status, await answer.read(_ANSWER)
    finally:
        await client.aclose()
