"""Testing a connection: of a registered server, or of settings that are not saved. Same gate, same address policy, nothing kept."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from apps.common import authorise
from apps.common.clock import monotonic
from apps.common.context import current_tenant_id
from apps.common.errors import (
    NotReady,
    SwitchyardError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnauthenticated,
    ValidationFailed,
)
from apps.common.events import ControlEvent
from apps.common.http import NetworkPolicy
from apps.common.outbox import audit, unit_of_work
from apps.servers.domain import EndpointFacts, Secrets, ServerFacts
from apps.servers.models import Endpoint, Server
from apps.servers.selectors import facts_of
from apps.servers.services import addresses, admission, endpoints
from apps.servers.services.access import access_of
from apps.servers.services.private_loop import run_apart
from apps.servers.transports import open_upstream
from apps.servers.transports.base import Description, UpstreamRequest

TIME_LIMIT = 15.0
"""Seconds a test may take, from the first byte to the end of the process or session."""
CLOSING_LIMIT = 10.0
"""Seconds that closing may take beyond it; then the thread is left to itself."""


@dataclass(frozen=True, slots=True)
class ConnectionReport:
    """What a test found."""

    ok: bool
    era: str = ""
    revisions: tuple[str, ...] = ()
    server_info: dict[str, Any] = field(default_factory=dict)
    capabilities: dict[str, Any] = field(default_factory=dict)
    duration_ms: float = 0.0
    error_type: str = ""
    """The problem type (a URI), where it failed."""
    error: str = ""


def test_connection(
    server: Server | None = None,  # noqa: PT028 - a verb of the product, not a test
    *,
    time_limit: float = TIME_LIMIT,  # noqa: PT028
    **settings: Any,
) -> ConnectionReport:
    """Connect, shake hands and ask for the first page of tools; a failure is a report, not an exception.

    With `server` its stored settings and credentials are used, and what was found becomes its endpoint's state. Without it `settings`
    are those of `register_server` and nothing is kept but the event. Raises only what refuses the test itself: PermissionDenied,
    StepUpRequired (settings with a command), ValidationFailed, AddressRefused, NotFound.
    """
    if server is not None:
        if settings:
            raise ValidationFailed("Give a server or settings, not both.")
        return _test_registered(server, time_limit)
    return _test_settings(time_limit, **settings)


test_connection.__test__ = False  # type: ignore[attr-defined]  # pytest: not a test


def _test_registered(server: Server, time_limit: float) -> ConnectionReport:
    row, endpoint = admission.find(server)
    facts = facts_of(row.pk)
    try:
        report = _run(facts, facts.endpoints[0], access_of(row.pk), time_limit)
    except (NotReady, UpstreamUnauthenticated) as error:
        report = _failure(error, monotonic())
    with unit_of_work():
        _record(report, tenant_id=row.tenant_id, object_id=str(row.pk), label=row.slug)
    endpoints.set_endpoint_state(endpoint.pk, _state(report), report.error)
    if report.ok:
        endpoints.remember_era(endpoint.pk, report.era, report.revisions)
    return report


def _test_settings(
    time_limit: float,
    *,
    transport: str,
    slug: str = "unsaved",
    url: str = "",
    command: str = "",
    args: Any = (),
    cwd: str = "",
    headers: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    from_file: bool = False,
    timeout_seconds: int = 60,
    **others: Any,
) -> ConnectionReport:
    tenant_id = current_tenant_id()
    for name in ("builtin", "paused"):
        others.pop(name, None)
    server = Server(
        tenant_id=tenant_id,
        slug=slug,
        name=others.pop("name", "") or slug,
        transport=transport,
        timeout_seconds=timeout_seconds,
        **{name: value for name, value in others.items() if name in _IRRELEVANT},
    )
    if unknown := sorted(others.keys() - _IRRELEVANT):
        raise ValidationFailed("There is no such setting.", errors={name: ["There is no such field."] for name in unknown})
    place = Endpoint(tenant_id=tenant_id, server=server, url=url, command=command, args=_list(args), cwd=cwd)
    authorise.require("server.write", tenant_id=tenant_id, kind="server", label=slug)
    admission.admit_connection(server, place, from_file=from_file)
    admission.check_input(server, place, {"header": headers or {}, "env": env or {}})
    addresses.check_server_url(server, url)
    endpoint = EndpointFacts(str(place.pk), url, command, tuple(place.args), cwd)
    facts = ServerFacts(
        id=str(server.pk),
        tenant_id=str(tenant_id),
        slug=slug,
        name=server.name,
        transport=transport,
        version=1,
        timeout_seconds=float(timeout_seconds),
        endpoints=(endpoint,),
    )
    report = _run(facts, endpoint, Secrets(headers=dict(headers or {}), env=dict(env or {})), time_limit)
    with unit_of_work():
        _record(report, tenant_id=tenant_id, object_id="", label=slug, address=url or command)
    return report


_IRRELEVANT = frozenset({"description", "review", "trust_annotations", "max_concurrency", "idle_seconds"})
"""Settings that make no difference to a test, so that a form can be tested as it stands."""


class _Unheard:
    """Takes what the transport reports beside the answer: a test keeps nothing."""

    def list_changed(self, server_id: str, kind: str) -> None:
        """Nobody has its lists yet."""

    def resource_updated(self, server_id: str, uri: str, place: str = "") -> None:
        """Nobody subscribed."""

    def era_found(self, endpoint_id: str, era: str, revisions: tuple[str, ...]) -> None:
        """It stands in the report."""

    def process_started(self, endpoint_id: str, process_id: str, pid: int, restarts: int) -> None:
        """The process ends with the test, so it is not listed."""

    def process_ended(self, endpoint_id: str, process_id: str, code: int | None, reason: str, stderr_tail: str) -> None:
        """The error of the call tells of it."""


def _run(server: ServerFacts, endpoint: EndpointFacts, secrets: Secrets, time_limit: float) -> ConnectionReport:
    begun = monotonic()
    policy = addresses.network_policy(builtin=server.builtin)
    try:
        said = run_apart(lambda: _probe(server, endpoint, secrets, policy, time_limit), limit=time_limit + CLOSING_LIMIT)
    except SwitchyardError as error:
        return _failure(error, begun)
    duration = (monotonic() - begun) * 1000
    return ConnectionReport(True, said.era, said.revisions, said.server_info, said.capabilities, duration)


async def _probe(
    server: ServerFacts, endpoint: EndpointFacts, secrets: Secrets, policy: NetworkPolicy, time_limit: float
) -> Description:
    upstream = open_upstream(server, endpoint, secrets, _Unheard(), policy=policy, startup_seconds=time_limit)
    try:
        async with asyncio.timeout(time_limit):
            said = await upstream.describe()
            if isinstance(said.capabilities.get("tools"), dict):
                answer = await upstream.call(UpstreamRequest("tools/list", {}, timeout=time_limit))
                if answer.error is not None:
                    message = str(answer.error.get("message", ""))[:200]
                    raise UpstreamProtocolError(f"The server refused tools/list: {message}")
            return said
    except TimeoutError:
        raise UpstreamTimeout(f"The server did not answer within {time_limit:g} s.") from None
    finally:
        await upstream.aclose()


def _failure(error: SwitchyardError, begun: float) -> ConnectionReport:
    duration = (monotonic() - begun) * 1000
    return ConnectionReport(ok=False, error_type=error.type, error=error.detail, duration_ms=duration)


def _state(report: ConnectionReport) -> str:
    if report.ok:
        return Endpoint.State.HEALTHY
    unauthenticated = UpstreamUnauthenticated().type
    return Endpoint.State.UNAUTHENTICATED if report.error_type == unauthenticated else Endpoint.State.UNHEALTHY


def _record(report: ConnectionReport, *, tenant_id: object, object_id: str, label: str, **details: Any) -> None:
    audit(
        ControlEvent(
            event_type="server.tested",
            action="server.write",
            object_kind="server",
            object_id=object_id,
            object_label=label,
            outcome="ok" if report.ok else "failed",
            tenant_id=str(tenant_id),
            server=label,
            details={
                "era": report.era,
                "revisions": list(report.revisions),
                "duration_ms": round(report.duration_ms, 1),
                "error_type": report.error_type,
                "error": report.error,
                **details,
            },
        )
    )


def _list(args: Any) -> Any:
    return list(args) if isinstance(args, tuple) else args
