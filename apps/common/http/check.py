"""Checks of a URL before it is kept, at registration. The connect-time check of `client` stays the one that protects."""

import asyncio
import socket
from urllib.parse import urlsplit

from yarl import URL

from apps.common.errors import AddressRefused, UpstreamUnavailable
from apps.common.http.addresses import Address, NetworkPolicy, address_of_host

LOOKUP_SECONDS = 5.0
"""Time limit of one lookup."""


def admit_url(url: URL) -> Address | None:
    """Return the address the URL's host is (None for a name); raise AddressRefused for a URL we never connect to.

    Refused: any scheme but http and https, user information, no host, an unusual spelling of an address.
    """
    if url.scheme not in {"http", "https"}:
        raise AddressRefused("Only http and https URLs are used.")
    if url.raw_user is not None or url.raw_password is not None:
        raise AddressRefused("The URL holds a user name or password; put credentials into the server's headers.")
    return address_of_host(url.raw_host or "")


def parse_url(text: str) -> URL:
    """Return the parsed URL; raise AddressRefused when two parsers read its host differently or none can."""
    try:
        url, other = URL(text), urlsplit(text)
        agree = (other.hostname or "").isascii() is False or (other.hostname or "") == (url.raw_host or "").lower()
        port = url.port
    except (ValueError, TypeError):
        raise AddressRefused("The URL cannot be read.") from None
    if not agree or any(c <= " " or c == "\\" for c in text) or port == 0:
        raise AddressRefused("The URL cannot be read without doubt.")
    return url


async def check_url(text: str, policy: NetworkPolicy) -> None:
    """Raise AddressRefused unless `text` is an http(s) URL whose every address `policy` lets through.

    Raises UpstreamUnavailable when the name does not resolve within 5 s.
    """
    url = parse_url(text)
    address = admit_url(url)
    if address is not None:
        policy.check(address)
        return
    host = url.raw_host or ""
    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, url.port or 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UpstreamUnavailable(f"The name {host} does not resolve.") from None
    _check_all(host, [str(entry[4][0]) for entry in found], policy)


def check_url_sync(text: str, policy: NetworkPolicy) -> None:
    """Do what check_url does, blocking; its lookup has the system's own time limit."""
    url = parse_url(text)
    address = admit_url(url)
    if address is not None:
        policy.check(address)
        return
    host = url.raw_host or ""
    try:
        found = socket.getaddrinfo(host, url.port or 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UpstreamUnavailable(f"The name {host} does not resolve.") from None
    _check_all(host, [str(entry[4][0]) for entry in found], policy)


def _check_all(host: str, addresses: list[str], policy: NetworkPolicy) -> None:
    """Refuse the name when one of its addresses is refused."""
    if not addresses:
        raise UpstreamUnavailable(f"The name {host} does not resolve.")
    for address in addresses:
        policy.check(address, host)
