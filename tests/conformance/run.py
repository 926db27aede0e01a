"""`make conformance`: the official suite through the gateway, before the suite's own fixture server and from behind it.

    python -m tests.conformance.run [LEG …] [--direct] [--verbose] [--results DIR] [--revision R] [--only EXPRESSION]

| leg | the suite's part | what stands behind Switchyard |
|-|-|-|
| same-era | clients of both revisions | a server that speaks both |
| legacy-client | clients of 2025-11-25 | a server of 2026-07-28 alone, whose tools for the older revisions push to the client |
| legacy-client-rounds | the same | the same, with these tools asking as 2026-07-28 does |
| modern-client | clients of 2026-07-28 | a server of 2025-11-25 alone, whose tools for the newer revision answer with requests |
| modern-client-parked | the same | the same, with these tools asking as 2025-11-25 does |
| clients | servers of both revisions, one for each scenario | – they stand behind it, the SDK's client before it |

Without a leg all are run. Starts Switchyard, registers the server (which makes its one-server toolset), and calls through
`/mcp/fixture-…` with an API key. Exit code 1 when a leg stays under its floor. `--direct` leaves Switchyard out: then the fixture
itself is asked, and the SDK's own client stands before the scenarios' servers.
"""

import argparse
import json
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conformance import suite
from tests.conformance.client import METADATA_URL
from tests.e2e.support import made, rest
from tests.product import Product
from tests.support import eventually

LEGACY, MODERN = suite.REVISIONS


@dataclass(frozen=True)
class Floor:
    """What must pass at least: of the required scenarios, and of those that are run and not scored."""

    required: int
    others: int


@dataclass(frozen=True)
class Leg:
    """One way to run the suite."""

    fixture: tuple[str, ...]
    """Arguments of the fixture; empty where the scenarios bring their own servers."""
    floors: dict[str, Floor]
    """By revision."""


LEGS = {
    "same-era": Leg(("--tasks", "--era", "dual"), {LEGACY: Floor(30, 2), MODERN: Floor(37, 12)}),
    "legacy-client": Leg(("--era", "modern"), {LEGACY: Floor(26, 2)}),
    "legacy-client-rounds": Leg(("--era", "modern", "--words"), {LEGACY: Floor(30, 2)}),
    "modern-client": Leg(("--era", "legacy"), {MODERN: Floor(27, 2)}),
    "modern-client-parked": Leg(("--era", "legacy", "--words"), {MODERN: Floor(35, 2)}),
    "clients": Leg((), {LEGACY: Floor(18, 1), MODERN: Floor(32, 1)}),
}
"""docs/conformance.md says, scenario by scenario, what is missing and why."""


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


def switchyard(home: Path, **options: str) -> Product:
    """Return a Switchyard for all legs, not started; `options` are those of Product."""
    return Product(home, environment={"SWITCHYARD_CLIENT_METADATA_URL": METADATA_URL}, **options)


@contextmanager
def gateway(product: Product, slug: str, upstream: str) -> Iterator[str]:
    """Put a running Switchyard before an upstream server for a while; gives the toolset's URL."""
    made(rest(product, "POST", "servers/", {"slug": slug, "transport": "http", "url": upstream}))
    url = f"http://localhost:{product.port}/mcp/{slug}"
    eventually(
        lambda: "test_simple_text" in listed_tools(url, product.headers), within=60, every=0.2,
        because=f"the fixture's tools are not listed; the end of the log:\n{product.log()[-3000:]}",
    )  # fmt: skip
    yield url
    made(rest(product, "DELETE", f"servers/{slug}/"))


def run(name: str, product: Product | None, results: Path, *, revision: str = "", only: str = "") -> Iterator[suite.Result]:
    """Run one leg through a running Switchyard, directly without one; give what came of each revision.

    Raises SuiteUnavailable, AssertionError.
    """
    leg = LEGS[name]
    revisions = [each for each in leg.floors if revision in ("", each)]
    if leg.fixture:
        with suite.fixture(*leg.fixture) as upstream:
            if product is None:
                yield from (suite.run(upstream, each, {}, results=results / each) for each in revisions)
            else:
                with gateway(product, f"fixture-{name}", upstream) as url:
                    yield from (suite.run(url, each, product.headers, results=results / each) for each in revisions)
    else:
        at = (f"http://localhost:{product.port}", product.key, product.password) if product is not None else None
        yield from (suite.run_clients(each, results=results / each, switchyard=at, only=only) for each in revisions)


def main(arguments: list[str]) -> int:
    """Run what the arguments say; return the exit code."""
    parser = argparse.ArgumentParser(prog="make conformance", description=__doc__.splitlines()[0])
    parser.add_argument("legs", nargs="*", metavar="LEG", help=f"one of {', '.join(LEGS)}; all without one")
    parser.add_argument("--direct", action="store_true", help="leave Switchyard out")
    parser.add_argument("--verbose", action="store_true", help="print every scenario")
    parser.add_argument("--results", type=Path, help="keep the suite's own records here")
    parser.add_argument("--revision", default="", choices=suite.REVISIONS, help="this revision alone")
    parser.add_argument("--only", default="", help="of the leg `clients`, the scenarios whose names match this expression")
    options = parser.parse_args(arguments)
    if unknown := set(options.legs) - set(LEGS):
        parser.error(f"there is no leg {', '.join(unknown)}")
    below = []
    with tempfile.TemporaryDirectory(prefix="switchyard-conformance-") as temporary, ExitStack() as stack:
        directory = Path(temporary)
        results = (options.results or directory / "results").absolute()
        try:
            product = None if options.direct else stack.enter_context(switchyard(directory / "home"))
            for name in options.legs or LEGS:
                print(f"{name}{', direct' if options.direct else ''}", flush=True)
                for result in run(name, product, results / name, revision=options.revision, only=options.only):
                    lines = list(result.lines())
                    print("\n".join(lines if options.verbose else [line for line in lines if "PASS" not in line]), flush=True)
                    floor = LEGS[name].floors[result.revision]
                    if not options.only and (result.required()[0] < floor.required or result.others()[0] < floor.others):
                        below.append(f"{name} {result.revision} needs {floor.required} and {floor.others}")
        except (suite.SuiteUnavailable, AssertionError) as error:
            print(f"conformance: {error}", file=sys.stderr)
            return 1
    if below and not options.direct:
        print(f"conformance: under the floor: {', '.join(below)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
