"""One call on its way through the pipeline."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from apps.audit.sink.record import AuditRecord
from apps.common.errors import SwitchyardError
from apps.common.ids import new_id_text
from apps.gateway.plane.snapshot import Caller, Item, ServerEntry, Snapshot
from apps.gateway.plane.views import Target
from apps.servers.domain import ServerFacts
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest

Json = dict[str, Any]


@dataclass(slots=True)
class Call:
    """What is asked, by whom, and what became of it. Made by a door (`/mcp`, the playground, REST), run by the pipeline."""

    snapshot: Snapshot
    caller: Caller
    target: Target
    method: str
    params: Json
    revision: str
    """The revision that the caller speaks."""
    modern: bool
    origin: str = "mcp"
    """The door: `mcp`, `admin` or `rest`."""
    door: str = "/mcp"
    """Where it was knocked at, without the toolset."""
    address: str = ""
    client: str = ""
    client_info: Json | None = None
    capabilities: Json = field(default_factory=dict)
    log_level: str | None = None
    param_headers: dict[str, str] = field(default_factory=dict)
    session: str | None = None
    request_id: str | None = None
    request_bytes: int = 0
    on_message: Callable[[Json], Awaitable[None]] | None = None
    on_request: Callable[[Json], Awaitable[Json]] | None = None
    """Answers a server's request to the client; None where the caller takes none."""
    send: Callable[[ServerFacts, UpstreamRequest], Awaitable[UpstreamAnswer]] | None = None
    """Takes the request to the server in another way than as a call of its own: a subscription, which many share."""
    call_id: str = field(default_factory=new_id_text)
    started: float = field(default_factory=time.perf_counter)
    # Filled in on the way.
    name: str = ""
    item: Item | None = None
    server: ServerEntry | None = None
    rule: str = ""
    task: str = ""
    """The server's own id of the task that this is about, or that the answer has begun."""
    in_flight: bool = False
    """It counts among the calls that a server works on."""
    over: bool = False
    rounds: bool = False
    """Its server asks in its answers, so that it cannot be told that the client is not asked."""
    stopped: SwitchyardError | None = None
    """Why it was ended in the middle: its caller gets this in the place of an answer."""
    cost: int = 0
    """What it is expected to cost, later what it cost, in millionths of the currency's unit."""
    steps: list[tuple[str, float]] | None = None
    """With a list in it, the pipeline notes (step, seconds since start) for the playground."""
    record: AuditRecord | None = None
    """The first row of the call, from which the next is made."""
    rows: list[int] = field(default_factory=list)
    """Ids of the audit rows that were written."""

    def step(self, name: str) -> None:
        """Note that a step is done, where somebody wants to know."""
        if self.steps is not None:
            self.steps.append((name, time.perf_counter() - self.started))


@dataclass(slots=True)
class Answer:
    """What the caller gets: a result, as an object and as JSON, or a JSON-RPC error."""

    result: Json | None = None
    raw: bytes = b""
    code: int = 0
    message: str = ""
    data: Any = None
    status: int = 200
    """HTTP status for errors whose kind asks for one whatever the era (503, 429)."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """How limits stand, and when to come back."""
