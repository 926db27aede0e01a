"""Discovery: all pages of everything, raw, within bounds."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from apps.common.errors import UpstreamProtocolError, UpstreamTimeout, UpstreamTooLarge
from apps.servers.transports import discover
from apps.servers.transports.everything import EVERYTHING, Heard
from tests.transports.peers import DISCOVERED, connected, error, initialized, legacy_basics, peer, reply, result

STDIO_PEER = Path(__file__).with_name("stdio_peer.py")


class Catalogue:
    """A server whose lists are given as functions from cursor to result."""

    def __init__(self, capabilities=None, handshake=(), **lists) -> None:
        self.capabilities = {"tools": {}} if capabilities is None else capabilities
        self.handshake = handshake
        self.lists = {name.replace("_", "/"): pages for name, pages in lists.items()}

    async def __call__(self, request, writer) -> None:
        message = request.json or {}
        method = message.get("method")
        modern = request.headers.get("mcp-protocol-version") == "2026-07-28"
        if method == "server/discover":
            meta = {"io.modelcontextprotocol/serverInfo": {"name": "catalogue", "version": "9"}}
            said = {**DISCOVERED, "capabilities": self.capabilities, "instructions": "Be kind.", "_meta": meta}
            await reply(writer, result(request, said))
        elif method == "initialize":
            version = message["params"]["protocolVersion"]
            if not self.handshake:
                await reply(writer, error(message["id"], -32022, supported=["2026-07-28"]), 400)
            else:
                spoken = version if version in self.handshake else self.handshake[0]
                await reply(writer, result(request, initialized(spoken)), mcp_session_id=f"s-{version}")
        elif method in self.lists and modern:
            answer = self.lists[method](message["params"].get("cursor"))
            if asyncio.iscoroutine(answer):
                answer = await answer
            if "code" in answer:
                await reply(writer, error(message["id"], answer["code"]), 404)
            else:
                await reply(writer, result(request, answer))
        elif "id" in message:
            await reply(writer, error(message["id"], -32601), 404)
        else:
            await reply(writer, None, 202)


def tools(*names, **more):
    """Return one page."""
    return {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names], **more}


async def found(catalogue, **options):
    async with peer(catalogue) as there, connected("http", there.url) as (upstream, recorder):
        said = await discover(upstream, timeout=options.pop("timeout", 10.0), survey=options.pop("survey", False))
        return said, there, recorder


async def test_all_pages_with_all_fields_in_order() -> None:
    def pages(cursor):
        number = int(cursor or 0)
        more = {"nextCursor": str(number + 1)} if number < 4 else {}
        page = tools(f"t{number}a", f"t{number}b", ttlMs=0, **more)
        page["tools"][0] |= {"x-unknown": {"kept": [1, None]}, "inputSchema": {"$ref": "#/$defs/a", "$defs": {"a": {}}}}
        return page

    said, there, _ = await found(Catalogue(tools_list=pages))
    assert [tool["name"] for tool in said.tools] == [f"t{n}{letter}" for n in range(5) for letter in "ab"]
    assert said.tools[0] == {
        "name": "t0a",
        "inputSchema": {"$ref": "#/$defs/a", "$defs": {"a": {}}},
        "x-unknown": {"kept": [1, None]},
    }
    assert (said.era, said.revisions) == ("modern", ("2026-07-28",))
    assert said.server_info == {"name": "catalogue", "version": "9"}
    assert said.instructions == "Be kind."
    assert said.duration_ms > 0
    assert {"resources/list", "prompts/list"}.isdisjoint(there.methods()), "only what it announces is asked for"


async def test_everything_it_announces_is_read_and_what_it_lacks_is_empty() -> None:
    catalogue = Catalogue(
        {"tools": {}, "resources": {}, "prompts": {"listChanged": True}, "experimental": {"x": {}}},
        tools_list=lambda cursor: {"code": -32601},
        resources_list=lambda cursor: {"resources": [{"uri": "a://b", "name": "b"}]},
        resources_templates_list=lambda cursor: {"resourceTemplates": [{"uriTemplate": "a://{x}", "name": "x"}]},
        prompts_list=lambda cursor: {"prompts": [{"name": "p"}]},
    )
    said, _, _ = await found(catalogue)
    assert (said.tools, said.prompts) == ([], [{"name": "p"}])
    assert said.resources == [{"uri": "a://b", "name": "b"}]
    assert said.templates == [{"uriTemplate": "a://{x}", "name": "x"}]
    assert said.capabilities["experimental"] == {"x": {}}


async def test_a_dual_server_is_offered_the_newest_revision_of_each_era_and_no_session_is_left() -> None:
    catalogue = Catalogue(handshake=("2025-11-25", "2025-03-26"), tools_list=lambda cursor: tools("t"))
    said, there, recorder = await found(catalogue)
    assert (said.era, said.revisions, said.surveyed) == ("dual", ("2026-07-28", "2025-11-25"), False)
    assert recorder.named("era_found")[-1] == ("endpoint-1", "dual", said.revisions)
    assert there.methods().count("DELETE") == there.methods().count("initialize") == 1


async def test_a_survey_finds_every_revision_that_a_server_speaks() -> None:
    catalogue = Catalogue(handshake=("2025-11-25", "2025-03-26"), tools_list=lambda cursor: tools("t"))
    said, there, _ = await found(catalogue, survey=True)
    assert (said.era, said.revisions, said.surveyed) == ("dual", ("2026-07-28", "2025-11-25", "2025-03-26"), True)
    assert there.methods().count("DELETE") == there.methods().count("initialize") == 3


async def test_a_server_known_to_refuse_the_handshake_is_not_offered_it_again() -> None:
    async with peer(Catalogue(tools_list=lambda cursor: tools("t"))) as there, connected("http", there.url) as (upstream, _):
        assert (await discover(upstream, timeout=10)).era == "modern"
        offered = there.methods().count("initialize")
        assert (await discover(upstream, timeout=10)).surveyed
    assert there.methods().count("initialize") == offered == 1


async def test_a_handshake_offered_to_a_modern_server_says_what_its_revision_wants_of_every_request() -> None:
    _, there, _ = await found(Catalogue(handshake=("2025-11-25",), tools_list=lambda cursor: tools("t")), survey=True)
    offered = [request for request in there.requests if request.body and request.json["method"] == "initialize"]
    for request in offered:
        revision, meta = request.json["params"]["protocolVersion"], request.json["params"]["_meta"]
        assert (request.headers["mcp-protocol-version"], request.headers["mcp-method"]) == (revision, "initialize")
        assert meta["io.modelcontextprotocol/protocolVersion"] == revision
        assert meta["io.modelcontextprotocol/clientCapabilities"] == EVERYTHING


async def test_a_server_that_refuses_our_revision_and_names_it_is_asked_again_and_offered_nothing_else() -> None:
    catalogue = Catalogue(tools_list=lambda cursor: tools("t"))
    refused: list[str] = []

    async def handler(request, writer) -> None:
        if not refused:
            refused.append(request.json["method"])
            await reply(writer, error(request.json["id"], -32022, supported=["2026-07-28"]), 400)
        else:
            await catalogue(request, writer)

    async with peer(handler) as there, connected("http", there.url) as (upstream, _):
        said = await discover(upstream, timeout=10)
    assert there.methods() == ["server/discover", "server/discover", "tools/list"]
    assert (said.era, said.revisions) == ("modern", ("2026-07-28",))


LOOPS = {
    "same cursor": lambda cursor: tools("t", nextCursor="again"),
    "two cursors": lambda cursor: tools("t", nextCursor="b" if cursor == "a" else "a"),
    "number": lambda cursor: tools("t", nextCursor=5),
}


@pytest.mark.parametrize("kind", LOOPS)
async def test_pages_that_go_round_are_refused(kind: str) -> None:
    with pytest.raises(UpstreamProtocolError, match="circles"):
        await found(Catalogue(tools_list=LOOPS[kind]))


async def test_pages_and_definitions_are_bounded(monkeypatch) -> None:
    def count(cursor):
        return tools("t", nextCursor=str(int(cursor or 0) + 1))

    monkeypatch.setattr("apps.servers.transports.discovery.MOST_PAGES", 20)
    with pytest.raises(UpstreamTooLarge, match="20 pages"):
        await found(Catalogue(tools_list=count))
    with pytest.raises(UpstreamTooLarge):
        await found(Catalogue(tools_list=lambda cursor: tools(*map(str, range(20_001)))))
    monkeypatch.setattr("apps.servers.transports.discovery.MOST_BYTES", 1000)
    with pytest.raises(UpstreamTooLarge):
        await found(Catalogue(tools_list=lambda cursor: tools("t" * 2000)))


BAD_LISTS = [{}, {"tools": {}}, {"tools": ["t"]}, {"tools": [{}]}, {"tools": [{"name": 5}]}, {"tools": None}, {"code": -32603}]


@pytest.mark.parametrize("page", BAD_LISTS, ids=str)
async def test_lists_that_are_none_are_protocol_errors(page) -> None:
    with pytest.raises(UpstreamProtocolError):
        await found(Catalogue(tools_list=lambda cursor: page))


async def test_the_time_limit_holds_over_everything() -> None:
    async def slow(cursor):
        await asyncio.sleep(0.15)
        return tools("t", nextCursor=str(int(cursor or 0) + 1))

    started = time.monotonic()
    with pytest.raises(UpstreamTimeout):
        await found(Catalogue(tools_list=slow), timeout=0.5)
    assert time.monotonic() - started < 5


ALL_TOOLS = ["plain", "needs-elicitation", "needs-roots", "needs-sampling"]


def names(said) -> list[str]:
    return [one["name"] for one in said.tools]


@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_program_shows_what_it_keeps_for_clients_with_capabilities(tmp_path, era: str) -> None:
    log = tmp_path / "log"
    command = (sys.executable, "-I", "-S", str(STDIO_PEER), f"era={era}", f"log={log}")
    async with connected("stdio", command=command) as (upstream, recorder):
        for _ in range(2):
            assert names(await discover(upstream, timeout=20)) == ALL_TOOLS
        said = log.read_text().splitlines()
        assert sum(line.startswith("start") for line in said) == (3 if era == "legacy" else 1), (
            "one, and one for each discovery"
        )
        replies = {json.loads(line.partition(" ")[2])["s"] for line in said if line.startswith("replies")}
        assert replies == ({-1} if era == "legacy" else set())
        assert len(recorder.named("process_started")) == 1, "what calls use is another process, and goes on"
        pids = [int(line.split()[1]) for line in said if line.startswith("start")]
        assert [Path(f"/proc/{pid}").exists() for pid in pids] == [True, *([False] * (len(pids) - 1))]
        assert recorder.named("list_changed") == []


async def test_a_discovery_that_has_a_program_to_itself_starts_it_once(tmp_path) -> None:
    log = tmp_path / "log"
    command = (sys.executable, "-I", "-S", str(STDIO_PEER), "era=legacy", f"log={log}")
    async with connected("stdio", command=command, capabilities=EVERYTHING) as (upstream, _):
        assert names(await discover(upstream, timeout=20, alone=Heard())) == ALL_TOOLS
        said = log.read_text().splitlines()
        assert sum(line.startswith("start") for line in said) == 1
        assert 'replies {"e": {"action": "cancel"}, "r": {"roots": []}, "s": -1}' in said


class Reserved:
    """A legacy server with sessions that shows `more` to clients with capabilities."""

    def __init__(self) -> None:
        self.declared: list[dict[str, Any]] = []
        self.common = ["plain"]
        self.broken = False

    async def __call__(self, request, writer) -> None:
        method = (request.json or {}).get("method")
        session = request.headers.get("mcp-session-id", "")
        if method == "initialize":
            self.declared.append(request.json["params"]["capabilities"])
            await reply(writer, result(request, initialized()), mcp_session_id=f"s-{len(self.declared) - 1}")
        elif method == "tools/list":
            whole = bool(self.declared[int(session[2:])])
            if whole and self.broken:
                await reply(writer, error(request.json["id"], -32603))
            else:
                await reply(writer, result(request, tools(*self.common, *(["more"] if whole else []))))
        elif not await legacy_basics(request, writer):
            await reply(writer, None, 405)


async def test_a_session_of_its_own_declares_everything_and_ends_with_the_discovery() -> None:
    server = Reserved()
    async with peer(server) as there, connected("http", there.url) as (upstream, _):
        assert names(await discover(upstream, timeout=10)) == ["plain", "more"]
        whole = {
            "roots": {"listChanged": True},
            "sampling": {"context": {}, "tools": {}},
            "elicitation": {"form": {}, "url": {}},
        }
        assert sorted(server.declared, key=len) == [{}, whole, whole], "callers' own, one to describe it, one for the lists"
        ended = {one.headers["mcp-session-id"] for one in there.requests if one.method == "DELETE"}
        assert ended == {f"s-{n}" for n, declared in enumerate(server.declared) if declared}


async def test_what_the_shared_session_takes_away_is_gone_and_what_only_the_other_lists_stays_while_that_is_broken() -> None:
    server = Reserved()
    async with peer(server) as there, connected("http", there.url) as (upstream, _):
        server.common = ["plain", "other"]
        assert names(await discover(upstream, timeout=10)) == ["plain", "other", "more"]
        server.broken = True
        server.common = ["plain"]
        assert names(await discover(upstream, timeout=10)) == ["plain", "more"]
