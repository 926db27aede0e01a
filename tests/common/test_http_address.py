"""The caller's address behind proxies."""

import pytest

from apps.common.http_address import UNKNOWN, client_address, is_loopback, normalise, parse_networks

PROXIES = parse_networks(["10.0.0.0/8", "loopback", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.1.1.1", "198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "1.2.3.4, 198.51.100.1, 10.2.2.2", "198.51.100.1"),
        ("10.1.1.1", "10.9.9.9, 10.2.2.2", "10.9.9.9"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "rubbish", "10.1.1.1"),
        ("10.1.1.1", "1.2.3.4, rubbish, 10.2.2.2", "10.2.2.2"),
        ("10.1.1.1", ", ,", "10.1.1.1"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("127.0.0.1", "rubbish", UNKNOWN),
        ("127.0.0.1", "unknown", UNKNOWN),
        ("::1", "[2001:db9::1]:443", "2001:db9::1"),
        ("::ffff:10.1.1.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8::5", "fe80::1%eth0", "fe80::1"),
        ("", "", UNKNOWN),
        ("unix:", "127.0.0.1", UNKNOWN),
        ("10.1.1.1", "198.51.100.1, " * 10_000 + "10.2.2.2", "198.51.100.1"),
        ("10.1.1.1", "10.2.2.2, " * 10_000 + "10.2.2.2", "10.2.2.2"),
        ("10.1.1.1", "127.0.0.1", "10.1.1.1"),
        ("10.1.1.1", "127.0.0.1, 10.5.5.5", "10.5.5.5"),
    ],
)
def test_believes_only_trusted_proxies(peer, forwarded, address):
    assert client_address(peer, forwarded, PROXIES) == address


def test_somebody_who_forwards_on_this_machine_without_trust_is_not_this_machine():
    assert client_address("127.0.0.1", "", ()) == "127.0.0.1"
    for address in (
        client_address("127.0.0.1", "127.0.0.1", ()),
        client_address("::1", "198.51.100.1", ()),
        client_address("127.0.0.1", "", (), forwarded=True),
        client_address("::ffff:127.0.0.1", "x", ()),
    ):
        assert address == UNKNOWN
        assert not is_loopback(address)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("0.0.0.0", False), ("10.0.0.1", False),
     ("", False), ("localhost", False), ("127.1", False)],
)  # fmt: skip
def test_what_is_loopback(text, loopback):
    assert is_loopback(text) is loopback


def test_networks_are_read_and_wrong_ones_named():
    assert len(parse_networks(["10.0.0.1/8", "192.0.2.1", "::1"])) == 3
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        parse_networks(["10.0.0.0/99"])
    assert normalise("rubbish") == ""
