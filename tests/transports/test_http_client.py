"""The client dials checked addresses only, and nothing about an answer can hurt it."""

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from yarl import URL

from apps.common.errors import (
    AddressRefused,
    UpstreamDied,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnavailable,
)
from apps.common.http import HttpClient, Limits, NetworkPolicy, RequestHeaders
from tests.transports.peers import LOOPBACK, Request, peer, reply


@contextlib.asynccontextmanager
async def client(policy: NetworkPolicy = LOOPBACK, **options) -> AsyncIterator[HttpClient]:
    it = HttpClient(policy, **options)
    try:
        yield it
    finally:
        await it.aclose()


async def fine(request: Request, writer: asyncio.StreamWriter) -> None:
    await reply(writer, {"ok": True})


async def get(http: HttpClient, url: str, limit: int = 1000, method: str = "GET", **options):
    response = await http.request(method, URL(url), headers=RequestHeaders({}), **options)
    return response.status, await response.read(limit)


HOSTS = ["127.0.0.1", "localhost", "LOCALHOST", "localhost.", "0.0.0.0", "127.1", "0", "0x7f.1", "0x7f000001", "2130706433",
         "017700000001", "0177.0.0.1", "127.0.0.1.", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
         "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fec0::1]", "①②⑦.⓪.⓪.①", "%31%32%37.0.0.1", "rebind.test"]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
async def test_no_spelling_of_a_refused_address_is_ever_dialled(host: str) -> None:
    async def lookup(name: str, port: int) -> list[str]:
        if name == "rebind.test":
            return ["127.0.0.1"]
        found = await asyncio.get_running_loop().getaddrinfo(name, port)
        return [str(entry[4][0]) for entry in found]

    async with peer(fine) as canary, client(NetworkPolicy(), lookup=lookup) as http:
        with pytest.raises((AddressRefused, UpstreamUnavailable, ValueError)) as caught:
            await get(http, f"http://{host}:{canary.port}/")
        assert canary.connections == 0
        # Not every system resolves the absolute form of localhost; nothing else gets as far as a lookup that fails.
        assert isinstance(caught.value, AddressRefused | ValueError) or host == "localhost."


async def test_one_refused_address_among_good_ones_refuses_the_name() -> None:
    async def lookup(name: str, port: int) -> list[str]:
        return ["127.0.0.1", "10.0.0.1"]

    async with peer(fine) as canary, client(lookup=lookup) as http:
        with pytest.raises(AddressRefused, match=r"10\.0\.0\.1"):
            await get(http, f"http://mixed.test:{canary.port}/")
        assert canary.connections == 0


async def test_a_name_that_flips_between_checks_is_checked_again_for_the_address_that_is_dialled(monkeypatch) -> None:
    """First answer good, later answers bad: what was checked is what is dialled, for each new connection."""
    answers = [["127.0.0.1"], ["10.9.8.7"], ["10.9.8.7"]]

    async def lookup(name: str, port: int) -> list[str]:
        return answers.pop(0)

    monkeypatch.setattr("apps.common.http.client.DNS_SECONDS", 0)

    async def closing(request: Request, writer: asyncio.StreamWriter) -> None:
        await reply(writer, {}, connection="close")

    async with peer(closing) as canary, client(lookup=lookup) as http:
        assert (await get(http, f"http://flip.test:{canary.port}/"))[0] == 200
        with pytest.raises(AddressRefused):
            await get(http, f"http://flip.test:{canary.port}/")
        assert canary.connections == 1
        assert len(answers) == 1


async def test_the_socket_itself_refuses_whatever_came_past_the_resolver() -> None:
    async with client(NetworkPolicy()) as http:
        with pytest.raises(AddressRefused):
            await http._dial_one(("http", "good.test", 80), "good.test", "127.0.0.1")


async def test_redirects_are_answers() -> None:
    async with peer(fine) as canary:

        async def away(request: Request, writer: asyncio.StreamWriter) -> None:
            await reply(writer, None, 302, location=f"http://127.0.0.1:{canary.port}/")

        async with peer(away) as there, client() as http:
            assert (await get(http, there.url))[0] == 302
        assert canary.connections == 0


async def test_proxies_and_netrc_of_the_environment_are_ignored(monkeypatch, tmp_path: Path) -> None:
    async with peer(fine) as canary, peer(fine) as there, client() as http:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
        (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
        assert (await get(http, there.url))[0] == 200
        assert canary.connections == 0
        assert "authorization" not in there.requests[0].headers


async def test_no_header_is_added_and_no_cookie_kept() -> None:
    async def baking(request: Request, writer: asyncio.StreamWriter) -> None:
        await reply(writer, {}, set_cookie="a=b; Path=/")

    async with peer(baking) as there, client() as http:
        await get(http, there.url)
        await get(http, there.url)
        assert [set(request.headers) for request in there.requests] == [{"host"}, {"host"}]
        assert there.connections == 1, "the connection is kept"


async def test_user_information_is_refused_and_no_secret_stands_in_the_message() -> None:
    async with client() as http:
        with pytest.raises(AddressRefused) as caught:
            await get(http, "http://me:hunter2@127.0.0.1:1/")
        assert "hunter2" not in caught.value.detail


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n", UpstreamTooLarge),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n", UpstreamTooLarge),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nonly this", UpstreamDied),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", (UpstreamDied, UpstreamProtocolError)),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", UpstreamProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", UpstreamProtocolError),
        (b"SSH-2.0-OpenSSH_9.2\r\n", UpstreamProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n", UpstreamProtocolError),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000 + b"\r\n", UpstreamProtocolError),
        (b"", UpstreamDied),
    ],
    ids=["length", "chunked", "cut", "chunk", "negative", "two", "ssh", "line", "headers", "nothing"],
)  # fmt: skip
async def test_hostile_answers_are_typed_errors_and_the_next_request_works(head: bytes, expected: type[Exception]) -> None:
    bad = [True]

    async def hostile(request: Request, writer: asyncio.StreamWriter) -> None:
        if not bad:
            return await fine(request, writer)
        bad.clear()
        writer.write(head)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()
        return None

    async with peer(hostile) as there, client() as http:
        with pytest.raises(expected):
            await get(http, there.url, method="POST")
        assert (await get(http, there.url, method="POST"))[0] == 200


async def test_a_compressed_body_is_not_unpacked() -> None:
    import gzip

    bomb = gzip.compress(b"\0" * 10_000_000)

    async def packed(request: Request, writer: asyncio.StreamWriter) -> None:
        await reply(writer, bomb, content_encoding="gzip")

    async with peer(packed) as there, client() as http:
        assert (await get(http, there.url, limit=100_000))[1] == bomb


async def test_limits_of_time_are_typed() -> None:
    async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with peer(silent) as there, client() as http:
        with pytest.raises(UpstreamTimeout):
            await get(http, there.url, limits=Limits(sock_read=0.1))


async def test_nobody_there_and_no_such_name_are_unavailable(free_port: int) -> None:
    async def nothing(name: str, port: int) -> list[str]:
        raise OSError("no such name")

    async def empty(name: str, port: int) -> list[str]:
        return []

    async with client() as http:
        with pytest.raises(UpstreamUnavailable, match=r"127\.0\.0\.1"):
            await get(http, f"http://127.0.0.1:{free_port}/")
    for lookup in (nothing, empty):
        async with client(lookup=lookup) as http:
            with pytest.raises(UpstreamUnavailable, match="resolve"):
                await get(http, "http://gone.test/")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A certificate for good.test, signed by itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "good.test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("good.test")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


async def test_tls_is_verified_for_the_name_and_the_name_is_sent(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, ctx: names.append(name)
    trusting = ssl.create_default_context(cafile=str(certificate))

    async def lookup(name: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    async with peer(fine, ssl=context) as there:
        async with client(lookup=lookup, tls=trusting) as http:
            assert (await get(http, f"https://good.test:{there.port}/"))[0] == 200
            with pytest.raises(UpstreamUnavailable, match="certificate"):
                await get(http, f"https://other.test:{there.port}/")
        async with client(lookup=lookup) as http:
            with pytest.raises(UpstreamUnavailable, match="certificate"):
                await get(http, f"https://good.test:{there.port}/")
    assert names[:2] == ["good.test", "other.test"]
    assert len(there.requests) == 1
