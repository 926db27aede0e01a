"""Host, Origin and the address a call comes from."""

import pytest

from apps.common.errors import PermissionDenied
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.guard import Guard
from apps.gateway.plane.http import Headers

GUARD = Guard(
    PlaneConfig(
        public_url="https://gate.example.com",
        allowed_hosts=("localhost", "127.0.0.1", "[::1]"),
        allowed_origins=("https://app.example.com",),
        trusted_proxies=("10.0.0.0/8",),
    )
)


def headers_of(**headers):
    return Headers(scope(**headers)["headers"])


def address(client, **headers):
    asked = scope(client, **headers)
    return GUARD.address(asked, Headers(asked["headers"]))


def scope(client="127.0.0.1", **headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": pairs, "client": (client, 5000)}


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "LOCALHOST:9", "gate.example.com", "localhost."]
)
def test_hosts_of_this_installation_are_served(host):
    GUARD.check(headers_of(host=host))


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "169.254.169.254", "127.0.0.1.nip.io", "[::2]"])
def test_other_hosts_are_refused(host):
    with pytest.raises(PermissionDenied) as refused:
        GUARD.check(headers_of(host=host))
    assert refused.value.extra["rule"] == "host"


@pytest.mark.parametrize("origin", ["https://app.example.com", "https://gate.example.com", "http://localhost:8000"])
def test_known_origins_get_cors_headers(origin):
    headers = dict(GUARD.check(headers_of(host="localhost:8000", origin=origin)))
    assert headers[b"access-control-allow-origin"] == origin.encode()


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:8001", "http://localhost:8000.evil.example", "file://"]
)
def test_foreign_origins_are_refused(origin):
    with pytest.raises(PermissionDenied) as refused:
        GUARD.check(headers_of(host="localhost:8000", origin=origin))
    assert refused.value.extra["rule"] == "origin"


def test_forwarded_addresses_count_only_from_trusted_proxies():
    assert address("1.2.3.4", x_forwarded_for="127.0.0.1") == ("1.2.3.4", True)
    assert address("10.1.1.1", x_forwarded_for="9.9.9.9") == ("9.9.9.9", True)
    assert address("10.1.1.1", x_forwarded_for="127.0.0.1, 9.9.9.9, 10.2.2.2") == ("9.9.9.9", True)
    assert address("10.1.1.1", x_forwarded_for="rubbish") == ("10.1.1.1", True)
    assert address("127.0.0.1") == ("127.0.0.1", False)
    assert address("127.0.0.1", via="1.1 somebody") == ("127.0.0.1", True)


def test_loopback_is_recognised_in_every_spelling():
    assert all(map(GUARD.is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1")))
    assert not any(map(GUARD.is_loopback, ("10.0.0.1", "::2", "", "localhost", "0.0.0.0")))
