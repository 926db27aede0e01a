"""Which addresses this installation may connect to. Pure: no lookups, no sockets.

`ipaddress.is_global` is not enough: CPython calls 6to4, NAT64, site-local and multicast addresses global in some
versions, so the refused ranges stand here, from the IANA special-purpose registries (RFC 6890 and its updates).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from apps.common.errors import AddressRefused

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_REFUSED_V4: tuple[tuple[IPv4Network, str], ...] = tuple(
    (IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared (carrier-grade NAT)"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_GLOBAL_V6 = IPv6Network("2000::/3")
_REFUSED_V6: tuple[tuple[IPv6Network, str], ...] = tuple(
    (IPv6Network(network), what)
    for network, what in (
        ("::1/128", "loopback"),
        ("::/128", "unspecified"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("::/96", "IPv4-compatible"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "documentation"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "documentation"),
    )
)
_METADATA: frozenset[Address] = frozenset(
    ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254")
)
"""Where clouds hand out credentials; only a network that names the one address lets them through."""

_WORDS: dict[str, tuple[str, ...]] = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}
_NUMERIC_LABEL = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)")


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """Public addresses are open; every special one is refused unless it is in `allowed_networks`."""

    allowed_networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "NetworkPolicy":
        """Return the policy for CIDR networks, single addresses and the words `loopback` and `private`.

        Raises ValueError for a text that is none of these.
        """
        networks: list[Network] = []
        for text in texts:
            word = text.strip()
            networks.extend(ip_network(part, strict=False) for part in _WORDS.get(word.lower(), (word,)) if part)
        return cls(tuple(networks))

    def refusal(self, address: Address) -> str:
        """Return the kind of address that is refused (`loopback`, `private`, …), or an empty text when it is open."""
        if address in _METADATA:
            named = any(net.num_addresses == 1 and net.network_address == address for net in self.allowed_networks)
            return "" if named else "cloud metadata"
        for network in self.allowed_networks:
            if address.version == network.version and address in network:
                return ""
        if isinstance(address, IPv4Address):
            return next((what for network, what in _REFUSED_V4 if address in network), "")
        what = next((what for network, what in _REFUSED_V6 if address in network), "")
        return what or ("" if address in _GLOBAL_V6 else "reserved")

    def check(self, address: Address | str, host: str = "") -> None:
        """Raise AddressRefused when `address` (to which `host` resolved) may not be dialled."""
        if isinstance(address, str):
            address = ip_address(address)
        what = self.refusal(address)
        if what:
            subject = f"{host} resolves to {address}, which" if host and host != str(address) else f"{address}"
            raise AddressRefused(
                f"{subject} is a {what} address. The operator can allow its network in SWITCHYARD_ALLOWED_NETWORKS."
            )


def address_of_host(host: str) -> Address | None:
    """Return the address that a URL's host is, or None for a name.

    A host that C libraries read as an address though it is not in the canonical form (`127.1`, `0x7f.1`, `2130706433`,
    `0177.0.0.1`, `127.0.0.1.`) raises AddressRefused: what we check and what is dialled must not differ.
    """
    if ":" in host:
        try:
            return ip_address(host)
        except ValueError:
            raise AddressRefused(f"{host} is not an address.") from None
    if not host or not host.strip(".") or not host.isascii() or any(c <= " " or c in "%/\\@?#[]<>^|`{}\x7f" for c in host):
        raise AddressRefused("The URL has no usable host name.")
    if not _NUMERIC_LABEL.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None
    try:
        return IPv4Address(host)
    except ValueError:
        raise AddressRefused(f"{host} is not the usual form of an address; write four decimal numbers.") from None
