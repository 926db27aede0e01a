"""Whose address a request comes from, when proxies stand before the product. No Django; both planes use it."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
UNKNOWN = "0.0.0.0"  # noqa: S104 - a mark, never bound
"""The address of a caller whom an unknown proxy on this machine speaks for."""
_HOPS = 32
"""Entries of X-Forwarded-For that are read, from the right."""


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read addresses and networks (`10.0.0.0/8`, `::1`, `loopback` for this machine). Raises ValueError naming the wrong one."""
    found: list[Network] = []
    for text in texts:
        if text == "loopback":
            found += [ip_network("127.0.0.0/8"), ip_network("::1/128")]
            continue
        try:
            found.append(ip_network(text, strict=False))
        except ValueError as error:
            raise ValueError(f"“{text}” is neither an address nor a network") from error
    return tuple(found)


def normalise(text: str) -> str:
    """Return an address in its usual form (IPv4 in IPv6 as IPv4, no zone, no port), or an empty text when it is none."""
    address = _read(text)
    return "" if address is None else str(address)


def is_loopback(address: str) -> bool:
    """Tell whether an address is this machine's own loopback."""
    found = _read(address)
    return found is not None and found.is_loopback


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network], *, forwarded: bool = False) -> str:
    """Return the address of the caller.

    `X-Forwarded-For` is believed from the right, entry by entry, as long as the one who wrote it is trusted; a malformed
    entry ends the reading, and so does another machine's word that the caller is this machine itself. When somebody on this machine forwards (`forwarded_for`, or `forwarded` for another such header)
    without being trusted, the caller is UNKNOWN: not loopback, whatever the peer is.
    """
    current = _read(peer)
    if current is None:
        return UNKNOWN
    if not _trusted(current, trusted):
        return UNKNOWN if current.is_loopback and (forwarded_for or forwarded) else str(current)
    for entry in reversed(forwarded_for.split(",")[-_HOPS:] if forwarded_for else ()):
        found = _read(entry.strip())
        if found is None:
            return UNKNOWN if current.is_loopback else str(current)
        if found.is_loopback and not current.is_loopback:
            break  # another machine cannot vouch for this one
        current = found
        if not _trusted(current, trusted):
            break
    return str(current)


def _trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in trusted)


@lru_cache(maxsize=4096)
def _read(text: str) -> IPv4Address | IPv6Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
