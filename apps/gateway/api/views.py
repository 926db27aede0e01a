"""The REST tool call and the statistics."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from drf_spectacular.helpers import forced_singular_serializer
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ViewSet

from apps.accounts.selectors import tenant as find_tenant
from apps.audit.domain import CallFigures
from apps.audit.selectors import call_statistics, call_totals
from apps.common.api.views import ScopedAPIView
from apps.common.authorise import decide, require
from apps.common.clock import now
from apps.common.context import current_scope, tenant_scope
from apps.common.errors import NotFound, SwitchyardError
from apps.gateway.api.problems import problem_of_call
from apps.gateway.api.serializers import CallIn, CallOut, StatisticsOut, StatisticsQuery
from apps.gateway.services.calls import call_tool
from apps.servers.selectors import server_statistics
from apps.tools.domain import full_name
from apps.tools.selectors import definition_counts, get_definition, held_counts, not_in_force

FIGURES = (
    "calls", "errors", "refused", "cancelled", "unknown", "error_rate", "mean_us", "p50_us", "p95_us", "p99_us", "request_bytes",
    "response_bytes",
)  # fmt: skip
TOP_TOOLS = 50


class CallToolView(ScopedAPIView):
    """Calls a tool through the gateway: the same pipeline, policy and audit as for any agent."""

    @extend_schema(request=CallIn, responses=CallOut, operation_id="tools_call")
    def post(self, request: Request, id: str) -> Response:
        """Call a tool, addressed by id or full name (`server__tool`), and wait for its answer.

        A call that is refused or fails is a problem of the type that agents read in `data.type`, with `call_id`.
        """
        given = CallIn(data=request.data).given()
        tool = get_definition(id)
        report = call_tool(tool_id=tool.pk, arguments=given.get("arguments", {}), toolset=given.get("toolset"))
        if report.error is not None:
            raise _explained(problem_of_call(report), tool)
        steps = [{"name": name, "ms": round(at * 1000, 3)} for name, at in report.steps]
        return Response(CallOut({**asdict(report), "steps": steps}).data)


class StatisticsViewSet(ScopedAPIView, ViewSet):
    """Figures of servers, tools and calls; those of calls are roll-ups of the audit log and lag by some seconds."""

    def authorise(self, request: Request) -> None:
        """Ask for `server.read`."""
        scope = current_scope()
        require("server.read", tenant_id=scope.tenant_id if scope else None, kind="server")

    def known_parameters(self) -> frozenset[str]:
        """Return the window and the filters."""
        return frozenset(StatisticsQuery().fields)

    @extend_schema(parameters=[StatisticsQuery], responses=forced_singular_serializer(StatisticsOut))  # type: ignore[no-untyped-call]
    def list(self, request: Request) -> Response:
        """Return the figures of a window."""
        query = StatisticsQuery(data=request.query_params)
        query.is_valid(raise_exception=True)
        given = query.validated_data
        until = given.get("until") or now()
        since = given.get("since") or until - timedelta(hours=24)
        with self._narrowed(given.get("tenant")):
            filters = {name: given[name] for name in ("server", "tool") if name in given}
            window = {"since": since, "until": until, **filters}
            tools = [
                {"server": server, "tool": tool, **_figures(figures)}
                for (server, tool), figures in call_statistics(by=("server", "tool"), limit=TOP_TOOLS, **window)
            ]
            servers = asdict(server_statistics()) | {
                "tools": sum(counts.get("tool", 0) for counts in definition_counts().values()),
                "held": sum(held_counts().values()),
            }
            calls = _figures(call_totals(**window))
        answer = {"since": since, "until": until, "servers": servers, "calls": calls, "tools": tools}
        return Response(StatisticsOut(answer).data)

    @contextmanager
    def _narrowed(self, named: str | None) -> Iterator[None]:
        """Open the scope of the tenant that a filter names; raises NotFound where it is not in view."""
        if named is None:
            yield
            return
        tenant = find_tenant(named)
        scope = current_scope()
        if scope is None or not (scope.every_tenant or scope.tenant_id == str(tenant.pk)):
            raise NotFound("There is no such tenant.")
        with tenant_scope(tenant.pk):
            yield


def _explained(problem: SwitchyardError, tool: Any) -> SwitchyardError:
    """Say why a tool that exists is unknown to callers, to those who may see it in the catalogue."""
    why = not_in_force(tool)
    if not isinstance(problem, NotFound) or not why or not decide("tool.read", tenant_id=tool.tenant_id).allowed:
        return problem
    if tool.state == "held":
        why += f" What it is and what changed: /api/v1/tools/{full_name(tool.server.slug, tool.name)}/difference/"
    return NotFound(why, **{**problem.extra, "state": tool.state})


def _figures(figures: CallFigures) -> dict[str, Any]:
    return {name: getattr(figures, name) for name in FIGURES}
