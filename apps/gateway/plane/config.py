"""What the data plane is told when it is made."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlaneConfig:
    """Limits and names; times in seconds, sizes in bytes."""

    public_url: str = "http://localhost:8000"
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    """Names without port that the Host header may carry; `*` allows every one."""
    allowed_origins: tuple[str, ...] = ()
    """Origins of browsers that may call, beside our own."""
    trusted_proxies: tuple[str, ...] = ()
    version: str = "0"
    body_bytes: int = 4 * 1024 * 1024
    body_seconds: float = 20.0
    answer_bytes: int = 16 * 1024 * 1024
    stream_after: float = 10.0
    """A call that takes longer is answered as a stream, where the client takes one, so that nothing in between gives up on it."""
    keepalive: float = 15.0
    session_seconds: int = 24 * 3600
    max_in_flight: int = 8192
    max_streams: int = 4096
    list_ttl_ms: int = 5000
    """How long a client may keep a list; changes are announced besides."""
