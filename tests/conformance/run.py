"""`make conformance`: the official suite through the gateway, before the suite's own fixture server.

    python -m tests.conformance.run [--direct] [--verbose] [--results DIR]

Starts Switchyard and the fixture, imports the fixture as a server (which makes its one-server toolset), and runs both
revisions through `/mcp/fixture` with an API key. Exit code 1 when a revision stays under its floor. `--direct` asks the
fixture itself, without the gateway.
"""

import argparse
import json
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conformance import suite
from tests.product import Product
from tests.support import eventually

FLOORS = {"2025-11-25": 28, "2026-07-28": 36}
"""Required scenarios that must pass in each revision."""
SLUG = "fixture"


def listed_tools(url: str, headers: dict[str, str]) -> list[str]:
    """Return the names of the tools that a URL lists to a modern client; none while it refuses."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "conformance", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    request = urllib.request.Request(
        url,
        json.dumps(body).encode(),
        {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/list",
            **headers,
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return [tool["name"] for tool in json.load(answer)["result"]["tools"]]
    except (urllib.error.URLError, OSError, KeyError, ValueError):
        return []


@contextmanager
def gateway(directory: Path, upstream: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Run Switchyard before an upstream server; gives the toolset's URL and the headers with an API key."""
    servers = directory / "servers.json"
    servers.write_text(json.dumps({"mcpServers": {SLUG: {"type": "http", "url": upstream}}}))
    product = Product(directory / "home", environment={"SWITCHYARD_SERVERS": str(servers)})
    try:
        product.start()
        url = f"http://localhost:{product.port}/mcp/{SLUG}"
        eventually(
            lambda: "test_simple_text" in listed_tools(url, product.headers), within=60, every=0.2,
            because=f"the fixture's tools are not listed; the end of the log:\n{product.log()[-3000:]}",
        )  # fmt: skip
        yield url, product.headers
        product.stop()
    finally:
        product.destroy()


def main(arguments: list[str]) -> int:
    """Run what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__.splitlines()[0])
    parser.add_argument("--direct", action="store_true", help="ask the fixture itself, without the gateway")
    parser.add_argument("--verbose", action="store_true", help="print every scenario")
    parser.add_argument("--results", type=Path, help="keep the suite's own records here")
    options = parser.parse_args(arguments)
    below = []
    with tempfile.TemporaryDirectory(prefix="switchyard-conformance-") as temporary, suite.fixture("--tasks") as upstream:
        directory = Path(temporary)
        results = options.results or directory / "results"

        def measure(url: str, headers: dict[str, str]) -> None:
            for revision, floor in FLOORS.items():
                result = suite.run(url, revision, headers, results=results.absolute() / revision)
                lines = list(result.lines())
                print("\n".join(lines if options.verbose else [line for line in lines if "PASS" not in line]), flush=True)
                if result.required()[0] < floor:
                    below.append(f"{revision} needs {floor}")

        try:
            if options.direct:
                measure(upstream, {})
            else:
                with gateway(directory, upstream) as (url, headers):
                    measure(url, headers)
        except (suite.SuiteUnavailable, AssertionError) as error:
            print(f"conformance: {error}", file=sys.stderr)
            return 1
    if below:
        print(f"conformance: under the floor: {', '.join(below)}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
