"""What works between one client and one server, feature by feature: a pure function over facts that were measured.

The facts of a client are what it said in its handshake or its requests; those of a server are what discovery found. The verdicts say
what this gateway does with the pair, in the words of the MCP specification.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.gateway.plane.mcp.revisions import MODERN
from apps.servers.domain import LEGACY_REVISIONS, MODERN_REVISIONS

WORKS, TRANSLATED, LOST, NOT_OFFERED, NOT_ASKED, UNKNOWN = "works", "translated", "lost", "not-offered", "not-asked", "unknown"
STATES = (WORKS, TRANSLATED, LOST, NOT_OFFERED, NOT_ASKED, UNKNOWN)
"""Carried as it is; carried in other words; cannot be carried; the server has none; the client takes none; nothing is known yet."""
CARRIED = frozenset((WORKS, TRANSLATED))

FEATURES: dict[str, str] = {
    "tools": "Tools",
    "resources": "Resources",
    "templates": "Resource templates",
    "prompts": "Prompts",
    "completion": "Completion",
    "progress": "Progress",
    "cancellation": "Cancellation",
    "list-changes": "List changes",
    "subscriptions": "Resource subscriptions",
    "logging": "Logging",
    "elicitation-form": "Elicitation by form",
    "elicitation-url": "Elicitation by URL",
    "sampling": "Sampling",
    "sampling-tools": "Sampling with tools",
    "roots": "Roots",
    "tasks": "Tasks",
    "apps": "MCP Apps",
    "structured-content": "Structured content",
    "resumption": "Resumption",
    "batches": "Batches",
}
"""Id → what it is called, in the order in which pages show them."""

TASKS, APPS = "io.modelcontextprotocol/tasks", "io.modelcontextprotocol/ui"
MOST_DECLARED, LONGEST = 24, 80
"""What is kept of a client's declared capabilities: how many, and characters of each."""
_NAMED = {
    "elicitation": ("form", "url"),
    "sampling": ("tools", "context"),
    "roots": ("listChanged",),
}
"""Capabilities of clients with parts that matter here."""


@dataclass(frozen=True, slots=True)
class Client:
    """What is known of a client."""

    revision: str
    """The one it speaks."""
    declared: frozenset[str] = frozenset()
    """See `declared`."""
    streams: bool = True
    """It takes event streams (`Accept: text/event-stream`)."""
    over_sse: bool = False
    """It came over HTTP+SSE, at `/sse`."""

    @property
    def modern(self) -> bool:
        """Tell whether it speaks without sessions."""
        return self.revision in MODERN_REVISIONS


@dataclass(frozen=True, slots=True)
class Server:
    """What discovery found of a server."""

    transport: str
    """`stdio`, `sse` or `http`."""
    eras: frozenset[str] = frozenset()
    """`modern`, `legacy`, both, or none where nothing is known yet."""
    revisions: tuple[str, ...] = ()
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    has: frozenset[str] = frozenset()
    """What it has in force: `tool`, `resource`, `template`, `prompt`; `structured`, `app`: a tool with an output schema, with a user
    interface."""

    @property
    def newest_legacy(self) -> str:
        """Return the newest revision with a handshake that it answered to."""
        return max((one for one in self.revisions if one in LEGACY_REVISIONS), default="")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one feature."""

    feature: str
    state: str
    """One of STATES."""
    how: str
    """What happens, or why not, in a sentence."""

    @property
    def carried(self) -> bool:
        """Tell whether it comes through."""
        return self.state in CARRIED


def eras_of(era: str, revisions: tuple[str, ...] = ()) -> frozenset[str]:
    """Return the eras of an endpoint: as it was found, else by the revisions that it answered to."""
    if era == "dual":
        return frozenset(("modern", "legacy"))
    if era:
        return frozenset((era,))
    return frozenset("modern" if one in MODERN_REVISIONS else "legacy" for one in revisions)


def declared(capabilities: Any) -> tuple[str, ...]:
    """Return what a client declares as short names, sorted: `roots`, `elicitation.form`, `extensions.<name>`.

    A client's words are anybody's: names are cut at 80 characters, what is not printable is left out, and so is all beyond 24.
    """
    if not isinstance(capabilities, dict):
        return ()
    found: set[str] = set()
    for name, value in capabilities.items():
        if len(found) >= MOST_DECLARED:
            break
        parts = value if isinstance(value, dict) else {}
        if name == "elicitation":
            # without parts it is the form alone, as before there were two modes (2025-11-25)
            found |= {f"elicitation.{part}" for part in _NAMED[name] if part in parts} or {"elicitation.form"}
        elif name in _NAMED:
            found |= {str(name), *(f"{name}.{part}" for part in _NAMED[name] if parts.get(part) not in (None, False))}
        elif name in ("extensions", "experimental"):
            found |= {f"{name}.{printable(part)}" for part in list(parts)[:MOST_DECLARED]}
        else:
            found.add(printable(name))
    return tuple(sorted(one for one in found if one)[:MOST_DECLARED])


def printable(text: object, most: int = LONGEST) -> str:
    """Return what a stranger calls something, fit to be shown: at most `most` characters, each printable."""
    if not isinstance(text, str):
        return ""
    return "".join(sign for sign in text[:most] if sign.isprintable()).strip()


def verdicts(client: Client, server: Server) -> tuple[Verdict, ...]:
    """Return what becomes of each feature between a client and a server."""
    return tuple(verdict(feature, client, server) for feature in FEATURES)


def verdict(feature: str, client: Client, server: Server) -> Verdict:
    """Return what becomes of one feature. Raises KeyError for one that is none."""
    if not server.eras:
        return Verdict(feature, UNKNOWN, "Nothing is known of this server yet: discover it.")
    pair = _Pair(client, server)
    state, how = _RULES[feature](pair)
    return Verdict(feature, state, how)


_Said = tuple[str, str]


class _Pair:
    """A client and a server, and how the eras of the two go together."""

    __slots__ = ("client", "same", "server")

    def __init__(self, client: Client, server: Server) -> None:
        self.client = client
        self.server = server
        self.same = ("modern" if client.modern else "legacy") in server.eras
        """The server speaks the client's era, so nothing has to be put into other words."""

    def carried(self, down: str, up: str, plain: str = "It goes through as it is.") -> _Said:
        """Choose the words: `down` where the server is of the initialize era, `up` where it is modern."""
        if self.same:
            return WORKS, plain
        return TRANSLATED, down if self.client.modern else up

    def offers(self, capability: str, kind: str = "") -> bool:
        """Tell whether the server declares a capability, or has something of a kind all the same."""
        return isinstance(self.server.capabilities.get(capability), dict) or kind in self.server.has


def _offered(capability: str, kind: str, noun: str, *, found: bool = False) -> Callable[[_Pair], _Said]:
    def rule(pair: _Pair) -> _Said:
        if not pair.offers(capability, kind):
            return NOT_OFFERED, f"The server declares no {noun}."
        if found and kind not in pair.server.has:
            return NOT_OFFERED, f"The server has no {noun}."
        wrong = " A missing resource is -32602 instead of -32002." if capability == "resources" else ""
        back = " A missing resource is -32002 instead of -32602." if capability == "resources" else ""
        return pair.carried(
            f"Results get the members of {MODERN} (resultType, and ttlMs and cacheScope where it has them).{wrong}",
            f"Results lose the members that only {MODERN} has.{back}",
        )

    return rule


def _completion(pair: _Pair) -> _Said:
    if not pair.offers("completions"):
        return NOT_OFFERED, "The server declares no completions."
    return pair.carried(f"Results get the members of {MODERN}.", f"Results lose the members that only {MODERN} has.")


def _progress(pair: _Pair) -> _Said:
    if not pair.client.streams:
        return LOST, "The client takes no event stream, on which progress is told."
    told = "Told on the stream of the request under the client's own token; the server sees another."
    return pair.carried(told, told, told)


def _cancellation(pair: _Pair) -> _Said:
    return pair.carried(
        "When the client closes its stream, the server gets notifications/cancelled.",
        "When the client sends notifications/cancelled, the request to the server is closed.",
        "A cancelled request is cancelled at the server too.",
    )


def _list_changes(pair: _Pair) -> _Said:
    if not pair.client.streams:
        return LOST, "The client takes no event stream, on which changes are told."
    announced = any(isinstance(value, dict) and value.get("listChanged") is True for value in pair.server.capabilities.values())
    if not announced:
        return NOT_OFFERED, "The server announces no changes; those that Switchyard finds itself are told all the same."
    return pair.carried(
        "subscriptions/listen is served from the server's notifications.",
        "The session's stream is served from one subscriptions/listen at the server.",
        "Changes are told to each client that sees them; one stream to the server serves all.",
    )


def _subscriptions(pair: _Pair) -> _Said:
    resources = pair.server.capabilities.get("resources")
    if not isinstance(resources, dict) or resources.get("subscribe") is not True:
        return NOT_OFFERED, "The server takes no subscriptions to resources."
    if not pair.client.streams:
        return LOST, "The client takes no event stream, on which updates are told."
    return pair.carried(
        "resourceSubscriptions of the listen request become resources/subscribe at the server.",
        "resources/subscribe becomes part of a subscriptions/listen at the server.",
        "Updates reach each client that watches, as long as it may read the resource.",
    )


def _logging(pair: _Pair) -> _Said:
    if not pair.offers("logging"):
        return NOT_OFFERED, "The server declares no logging."
    if not pair.client.streams:
        return LOST, "The client takes no event stream, on which messages are told."
    return pair.carried(
        "Messages reach requests that carry a logLevel.",
        "The session's level (logging/setLevel) goes along with each request.",
        "Messages reach the request they belong to.",
    )


def _interactive(capability: str, noun: str, since: str, was: str = "") -> Callable[[_Pair], _Said]:
    """Make the rule for what a server asks the client; `since` is the revision that brought it."""

    def rule(pair: _Pair) -> _Said:
        client, server = pair.client, pair.server
        if client.revision < since:
            return NOT_ASKED, f"{client.revision} has no {noun}{was}; it came with {since}."
        if capability not in client.declared:
            return NOT_ASKED, f"The client does not declare {capability}."
        if server.eras == {"legacy"} and server.newest_legacy and server.newest_legacy < since:
            return NOT_OFFERED, f"The server speaks {server.newest_legacy}, which has no {noun}."
        if not client.modern and not client.streams:
            return LOST, "The client takes no event stream, on which the server's requests reach it."
        own = ""
        if server.transport == "stdio" and (server.eras == {"legacy"} or (not client.modern and pair.same)):
            own = " The program runs once more, for this client's session alone."
        if client.modern and not pair.same and server.transport == "stdio":
            own += " Calls that may ask run one after the other there: the program does not say which of them asks."
        return pair.carried(
            f"The call waits at the server; the client gets input_required and brings the answer with its next request.{own}",
            "Each input that the server requires is asked of the client on the call's stream, then the call is made again with it.",
            f"The server's question reaches the client, and its answer the server, within the call.{own}",
        )

    return rule


def _tasks(pair: _Pair) -> _Said:
    extensions = pair.server.capabilities.get("extensions")
    offered = isinstance(extensions, dict) and TASKS in extensions and "modern" in pair.server.eras
    if pair.client.modern:
        if f"extensions.{TASKS}" not in pair.client.declared:
            return NOT_ASKED, "The client does not declare the tasks extension."
        if not offered:
            old = pair.offers("tasks")
            return NOT_OFFERED, (
                "The server has the experimental tasks of 2025-11-25 alone, which are another protocol."
                if old
                else "The server does not declare the tasks extension."
            )
        return WORKS, "Task ids are bound to the caller and to the server; polls reach the server that has the task."
    if not pair.client.declared & {"tasks", f"extensions.{TASKS}"}:
        return NOT_ASKED, "The client declares no tasks."
    if not (offered or pair.offers("tasks")):
        return NOT_OFFERED, "The server declares no tasks."
    return LOST, f"Tasks are carried for clients of {MODERN} alone; this one's calls are answered directly."


def _apps(pair: _Pair) -> _Said:
    extensions = pair.server.capabilities.get("extensions")
    if not (isinstance(extensions, dict) and APPS in extensions) and "app" not in pair.server.has:
        return NOT_OFFERED, "The server declares no user interfaces and no tool of it has one."
    if f"extensions.{APPS}" not in pair.client.declared:
        return NOT_ASKED, "The client does not declare MCP Apps; tools answer it in text."
    if pair.server.transport == "stdio" and pair.server.eras == {"legacy"}:
        return (
            WORKS,
            "The interfaces go through untouched; the program is not told that the client has them, as it serves all clients.",
        )
    return WORKS, "The interfaces' addresses and contents go through untouched."


def _structured(pair: _Pair) -> _Said:
    if "structured" not in pair.server.has:
        return NOT_OFFERED, "No tool of the server has an output schema."
    if pair.client.revision < "2025-06-18":
        return NOT_ASKED, f"{pair.client.revision} has no structured content; it goes along, and the text says the same."
    if pair.same or pair.client.modern:
        return WORKS, "It goes through as it is."
    return TRANSLATED, "What is no object is put into one, as the client's revision takes objects alone."


def _resumption(pair: _Pair) -> _Said:
    if pair.client.modern:
        return NOT_ASKED, f"{MODERN} has no resumption: a request that broke is sent again."
    if pair.client.over_sse:
        return NOT_ASKED, "HTTP+SSE has no resumption."
    if not pair.client.streams:
        return NOT_ASKED, "The client takes no event stream, so there is none to resume."
    return WORKS, "Events have ids; a stream that broke goes on after Last-Event-ID, whatever the server speaks."


def _batches(pair: _Pair) -> _Said:
    if pair.client.revision != "2025-03-26":
        return NOT_ASKED, "Batches exist in 2025-03-26 alone."
    return TRANSLATED, "Each message of a batch is served on its own; the answers come together."


_RULES: dict[str, Callable[[_Pair], _Said]] = {
    "tools": _offered("tools", "tool", "tools"),
    "resources": _offered("resources", "resource", "resources"),
    "templates": _offered("resources", "template", "resource templates", found=True),
    "prompts": _offered("prompts", "prompt", "prompts"),
    "completion": _completion,
    "progress": _progress,
    "cancellation": _cancellation,
    "list-changes": _list_changes,
    "subscriptions": _subscriptions,
    "logging": _logging,
    "elicitation-form": _interactive("elicitation.form", "elicitation", "2025-06-18"),
    "elicitation-url": _interactive("elicitation.url", "elicitation by URL", "2025-11-25"),
    "sampling": _interactive("sampling", "sampling", "2024-11-05"),
    "sampling-tools": _interactive("sampling.tools", "sampling with tools", "2025-11-25"),
    "roots": _interactive("roots", "roots", "2024-11-05"),
    "tasks": _tasks,
    "apps": _apps,
    "structured-content": _structured,
    "resumption": _resumption,
    "batches": _batches,
}
