"""Which addresses are refused, in every way that they can be written."""

from ipaddress import ip_address

import pytest

from apps.common.errors import AddressRefused
from apps.common.http import NetworkPolicy, address_of_host, check_url, check_url_sync


def words(text: str) -> list[str]:
    """Return the words of a table."""
    return text.split()


SPECIAL = words("""
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.254 127.0.0.1 127.255.255.255 169.254.1.1 169.254.169.254
    169.254.170.2 100.100.100.200 168.63.129.16 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1
    192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.7 203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:8.8.8.8 64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:10::1
    2001:20::1 2001:db8::1 2002:7f00:1:: 3fff::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 4000::1
""")
PUBLIC = words("1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 169.253.1.1 2606:4700::1111 2a00:1450::1")
ODD = words("""
    127.1 127.0.1 0 0x7f.1 0x7f000001 2130706433 017700000001 0177.0.0.1 127.0.0.01 127.0.0.1. 1.2.3 256.1.1.1 1.2.3.4.5
    0x 0X7F.0.0.1 127.0.0.0x1
""")


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_are_refused(address: str) -> None:
    with pytest.raises(AddressRefused):
        NetworkPolicy().check(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_open(address: str) -> None:
    NetworkPolicy().check(address)


@pytest.mark.parametrize("host", ODD)
def test_odd_spellings_are_refused_even_where_the_network_is_allowed(host: str) -> None:
    with pytest.raises(AddressRefused):
        address_of_host(host)


@pytest.mark.parametrize(
    "host", ["example.com", "example.com.", "localhost", "a-b.c1", "1.example", "x.1a", "xn--bcher-kva.example"]
)
def test_names_are_no_addresses(host: str) -> None:
    assert address_of_host(host) is None


@pytest.mark.parametrize("host", ["", ".", "a b", "a%2e", "[::1", "bücher.example", "::zz", "a\nb", "a@b"])
def test_hosts_that_are_none_are_refused(host: str) -> None:
    with pytest.raises(AddressRefused):
        address_of_host(host)


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    policy = NetworkPolicy.parse(["loopback", "10.1.0.0/16", " 192.168.7.7 "])
    for address in ("127.0.0.1", "::1", "10.1.2.3", "192.168.7.7", "1.1.1.1"):
        policy.check(address)
    for address in ("10.2.0.1", "192.168.7.8", "::ffff:127.0.0.1", "0.0.0.0", "169.254.169.254"):
        with pytest.raises(AddressRefused):
            policy.check(address)


def test_metadata_addresses_must_be_named_themselves() -> None:
    address = ip_address("169.254.169.254")
    assert NetworkPolicy.parse(["169.254.0.0/16", "0.0.0.0/0"]).refusal(address) == "cloud metadata"
    assert NetworkPolicy.parse(["169.254.169.254/32"]).refusal(address) == ""


@pytest.mark.parametrize("text", ["nonsense", "10.0.0.0/33", "1.2.3", "::/129"])
def test_a_network_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        NetworkPolicy.parse([text])


BAD_URLS = [
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "//example.com/",
    "example.com",
    "",
    "http://",
    "http:///x",
    "http://user:secret@1.1.1.1/",
    "http://127.0.0.1/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://127.1:80/",
    "http://127.0.0.1./",
    "http://①②⑦.⓪.⓪.①/",
    "http://%31%32%37.0.0.1/",
    "http://localhost/",
    "http://LOCALHOST:8000/",
    "http://1.1.1.1\\@127.0.0.1/",
    "http://127.0.0.1#@1.1.1.1/",
    "http://1.1.1.1 /",
    "http://1.1.1.1\t/",
    "http://1.1.1.1:0/",
    "http://1.1.1.1:99999/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fd00:ec2::254]/",
]


@pytest.mark.parametrize("url", BAD_URLS)
async def test_bad_urls_are_refused_at_registration(url: str) -> None:
    with pytest.raises(AddressRefused):
        await check_url(url, NetworkPolicy())
    with pytest.raises(AddressRefused):
        check_url_sync(url, NetworkPolicy())


@pytest.mark.parametrize("url", ["https://1.1.1.1/mcp", "http://8.8.8.8:8080/mcp?x=1", "https://[2606:4700::1111]/mcp"])
async def test_good_urls_pass(url: str) -> None:
    await check_url(url, NetworkPolicy())
    check_url_sync(url, NetworkPolicy())
    await check_url("http://localhost:8000/mcp", NetworkPolicy.parse(["loopback"]))
