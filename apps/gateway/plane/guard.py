"""Who may knock at all: Host against DNS rebinding, Origin against web pages, and the address a call comes from."""

from functools import lru_cache
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from apps.common.errors import PermissionDenied
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.http import Header, Headers, Scope

_LONGEST = 300
"""Characters of a Host or Origin (a name has at most 253); longer ones are refused and not remembered."""
_PASSED_ON = frozenset((b"x-forwarded-for", b"forwarded", b"x-real-ip", b"via"))


class Guard:
    """Checks the outside of a request. Every answer is computed once per distinct value and remembered."""

    def __init__(self, config: PlaneConfig) -> None:
        self._hosts = {name.lower() for name in config.allowed_hosts}
        own = urlsplit(config.public_url)
        self._hosts.add((own.hostname or "localhost").lower())
        self._origins = {origin.rstrip("/").lower() for origin in config.allowed_origins}
        self._origins.add(f"{own.scheme}://{own.netloc}".lower())
        self._proxies = tuple(ip_network(part, strict=False) for part in config.trusted_proxies)
        self.host_allowed = lru_cache(maxsize=1024)(self._host_allowed)
        self.origin_allowed = lru_cache(maxsize=1024)(self._origin_allowed)
        self.is_loopback = lru_cache(maxsize=4096)(_is_loopback)
        self._is_proxy = lru_cache(maxsize=1024)(self._proxy)

    def _host_allowed(self, host: bytes) -> bool:
        if "*" in self._hosts:
            return True
        return _name_of(host.decode("latin-1")) in self._hosts

    def _origin_allowed(self, origin: bytes, host: bytes) -> bool:
        text = origin.decode("latin-1").rstrip("/").lower()
        if text in self._origins:
            return True
        parts = urlsplit(text)
        # A page that this very address served: scheme and port included, so another port on localhost stays foreign.
        return parts.scheme in ("http", "https") and parts.netloc == host.decode("latin-1").strip().lower()

    def check(self, headers: Headers) -> tuple[Header, ...]:
        """Return the CORS headers of the answer. Raises PermissionDenied for a foreign Host or Origin."""
        host, origin = headers.raw.get(b"host", b""), headers.raw.get(b"origin")
        if len(host) > _LONGEST or not self.host_allowed(host):
            raise PermissionDenied(
                "The Host header names no address of this installation (SWITCHYARD_ALLOWED_HOSTS).", rule="host"
            )
        if origin is None:
            return ()
        if len(origin) > _LONGEST or not self.origin_allowed(origin, host):
            raise PermissionDenied("Pages of this origin may not call here (SWITCHYARD_ALLOWED_ORIGINS).", rule="origin")
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", b"mcp-session-id, mcp-protocol-version, www-authenticate"),
            (b"vary", b"origin"),
        )

    def address(self, scope: Scope, headers: Headers) -> tuple[str, bool]:
        """Return the address a request comes from, and whether somebody in between passed it on.

        X-Forwarded-For counts only as far as trusted proxies wrote it; from anyone else it says only that it is not direct.
        """
        client = scope.get("client")
        address: str = client[0] if client else ""
        if _PASSED_ON.isdisjoint(headers.raw):
            return address, False
        forwarded = ",".join(value.decode("latin-1") for name, value in headers.pairs if name == b"x-forwarded-for")
        if forwarded and self._is_proxy(address):
            for part in reversed([piece.strip() for piece in forwarded.split(",")]):
                try:
                    address = str(ip_address(part))
                except ValueError:
                    break
                if not self._is_proxy(address):
                    break
        return address, True

    def _proxy(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


def _name_of(host: str) -> str:
    text = host.strip().lower()
    if text.startswith("["):
        return text.partition("]")[0] + "]"
    return text.partition(":")[0].rstrip(".")


def _is_loopback(address: str) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback
