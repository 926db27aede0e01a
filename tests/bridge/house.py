"""A running Switchyard and the peers behind it, shared by every test of this directory over all processes of a run."""

import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import migrated, services
from tests.bridge.balancer import Balancer
from tests.engines import end_with_parent, free_port
from tests.peers.house import House, listening
from tests.product import ROOT, Product
from tests.support import eventually

PEERS = (("legacy", "http"), ("modern", "http"), ("legacy", "sse"), ("legacy", "stdio"), ("modern", "stdio"))
"""Era and transport of every peer; those on stdio are started by the gateway."""


@dataclass
class Servers:
    """The peers, registered for one process of the run."""

    house: House
    suffix: str

    def slug(self, era: str, transport: str) -> str:
        """Return what a peer is registered as."""
        return f"bridge-{era}-{transport}{self.suffix}"

    def register(self, addresses: dict[str, str]) -> "Servers":
        """Register the peers by REST, and return when they are discovered."""
        for era, transport in PEERS:
            if transport == "stdio":
                world = str(self.house.directory / f"world-{era}{self.suffix}")
                arguments = ["-m", "tests.bridge.peer", "--era", era, "--transport", "stdio", "--world", world]
                place = {"command": sys.executable, "args": arguments, "cwd": str(ROOT)}
            else:
                place = {"url": addresses[f"{era}-{transport}"]}
            self.house.api("POST", "servers/", {"slug": self.slug(era, transport), "transport": transport, **place})
        for era, transport in PEERS:
            found = self.house.discovered(self.slug(era, transport))
            assert found["endpoints"][0]["era"] == era, found
        return self

    def url(self, era: str, transport: str) -> str:
        """Return where a peer is served under its own names."""
        return self.house.url(self.slug(era, transport))

    @property
    def key(self) -> str:
        """The API key that clients use."""
        return self.house.key


@dataclass
class Apart(Servers):
    """Two gateways of one installation, behind one address."""

    balancer: Balancer

    def url(self, era: str, transport: str) -> str:
        """Return where the balancer serves a peer."""
        return f"{self.balancer.base_url}/mcp/{self.slug(era, transport)}"


@contextlib.contextmanager
def peers() -> Iterator[dict[str, str]]:
    """Run the peers that are reached by HTTP; gives `era-transport` → URL."""
    running: list[subprocess.Popen[bytes]] = []
    addresses = {}
    try:
        for era, transport in PEERS:
            if transport == "stdio":
                continue
            port = free_port()
            addresses[f"{era}-{transport}"] = f"http://127.0.0.1:{port}/{'sse' if transport == 'sse' else 'mcp'}"
            command = [sys.executable, "-m", "tests.bridge.peer", "--era", era, "--transport", transport, str(port)]
            running.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, preexec_fn=end_with_parent(9)))
        yield addresses
    finally:
        for process in running:
            process.kill()
            process.wait()


def all_listen(addresses: dict[str, str]) -> None:
    """Return when every peer answers."""
    for url in addresses.values():
        eventually(lambda url=url: listening(url), within=60, because=f"{url} does not answer")


@contextlib.contextmanager
def running(place: Path, fill: Callable[[Path], dict[str, str]]) -> Iterator[dict[str, Any]]:
    """Run the product and the peers; gives what another process needs to use them."""
    product = Product(place / "home", **fill(place / "home"))
    with peers() as addresses:
        try:
            product.start()
            all_listen(addresses)
            yield {"base_url": product.base_url, "key": product.key, "addresses": addresses}
            product.stop()
        finally:
            product.destroy()


@contextlib.contextmanager
def shared(place: Path, start: Callable[[Path], AbstractContextManager[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Give what runs for all processes of the run: the first that comes starts it, and stops it when all have left."""
    place.mkdir(parents=True, exist_ok=True)
    mine = place / f"user-{os.getpid()}"
    mine.touch()
    facts = place / "facts.json"
    try:
        with (place / "lock").open("w") as lock, contextlib.ExitStack() as stack:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if facts.exists():
                found = json.loads(facts.read_text())
                fcntl.flock(lock, fcntl.LOCK_UN)
                yield found
                return
            found = stack.enter_context(start(place))
            facts.write_text(json.dumps(found))
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield found
            mine.unlink()
            eventually(lambda: not _others(place), within=300, every=0.1, because="another process still uses the product")
    finally:
        mine.unlink(missing_ok=True)


@contextlib.contextmanager
def two_gateways(place: Path, common: Path) -> Iterator[dict[str, Any]]:
    """Run two gateways of one installation on PostgreSQL and Redis, and the peers; gives what another process needs to use them.

    The first gateway has every other role as well.
    """
    name = f"b_{secrets.token_hex(6)}"
    store = {**migrated.on_postgres(place / "home", name, common), "redis_url": services.empty_redis()}
    first = Product(place / "home", **store)
    with peers() as addresses:
        second: Product | None = None
        try:
            first.start()
            second = Product(place / "home", role="gateway", **store).start()
            all_listen(addresses)
            ports = [first.port, second.port]
            yield {"base_url": first.base_url, "key": first.key, "ports": ports, "addresses": addresses}
            second.stop()
            first.stop()
        finally:
            for product in (second, first):
                if product is not None:
                    product.destroy()
            services.postgres().drop(name)


def _others(place: Path) -> list[int]:
    return [pid for pid in (int(path.name.partition("-")[2]) for path in place.glob("user-*")) if Path(f"/proc/{pid}").exists()]
