"""A call's way: authorise → hooks → limit → record the intent → upstream → hooks → record the outcome → answer."""

import asyncio
from typing import Any

from apps.common.errors import (
    AuditUnavailable,
    ConnectionRequired,
    Overloaded,
    Paused,
    PermissionDenied,
    RateLimited,
    SwitchyardError,
    UpstreamDied,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnauthenticated,
    UpstreamUnavailable,
    ValidationFailed,
)
from apps.common.jsontext import dumps
from apps.gateway.plane.call import Answer, Call, Json
from apps.gateway.plane.config import PlaneConfig
from apps.gateway.plane.limits import Applied, Limiter, Taken, applying
from apps.gateway.plane.log import log_defect
from apps.gateway.plane.mcp.answers import RESOURCES, failure
from apps.gateway.plane.mcp.bridge import Bridge
from apps.gateway.plane.mcp.params import annotated, check_param_headers, judged
from apps.gateway.plane.mcp.rounds import asks, carry_rounds
from apps.gateway.plane.mcp.tap import Tap
from apps.gateway.plane.mcp.tasks import ABOUT as ABOUT_TASKS
from apps.gateway.plane.mcp.tasks import WITH_EFFECT
from apps.gateway.plane.mcp.verbatim import result_text
from apps.gateway.plane.ports import AssertionSigner, Facts
from apps.gateway.plane.recorder import Recorder
from apps.gateway.plane.schemas import SchemaGate
from apps.gateway.plane.store import SnapshotStore
from apps.gateway.plane.upstreams import UpstreamPool, best_endpoint
from apps.gateway.plane.views import NotGranted, current_caller, find_named, find_resource, find_target, remember
from apps.plugins.hooks import HookCall, Hooks
from apps.servers.domain import ServerFacts
from apps.servers.transports.base import UpstreamAnswer, UpstreamRequest
from apps.tools.domain.naming import SEPARATOR

EFFECT_FREE = "read-only"
_STATES: dict[type[UpstreamError], str] = {
    UpstreamUnavailable: "unhealthy",
    UpstreamDied: "unhealthy",
    UpstreamTimeout: "degraded",
    UpstreamProtocolError: "degraded",
    UpstreamTooLarge: "degraded",
    UpstreamUnauthenticated: "unauthenticated",
}
"""What a failed call says about the endpoint."""


class Pipeline:
    """Runs calls. Everything it needs is given to it; it keeps only counters."""

    def __init__(
        self,
        config: PlaneConfig,
        recorder: Recorder,
        upstreams: UpstreamPool,
        bridge: Bridge,
        hooks: Hooks,
        signer: AssertionSigner,
        facts: Facts,
        limiter: Limiter,
        store: SnapshotStore,
    ) -> None:
        self._config = config
        self._recorder = recorder
        self._upstreams = upstreams
        self._bridge = bridge
        self._hooks = hooks
        self._signer = signer
        self._facts = facts
        self._limiter = limiter
        self._store = store
        self._schemas = SchemaGate()
        self.tasks = bridge.tasks
        self.tap: Tap | None = None
        """Recordings, while there are any."""
        self.in_flight: dict[str, int] = {}
        self.total_in_flight = 0

    async def run(self, call: Call) -> Answer:
        """Run a call to its answer. Raises asyncio.CancelledError, after its outcome is noted, and nothing else."""
        try:
            hook_call = await self._prepare(call)
        except AuditUnavailable as error:
            return failure(error, call)
        except SwitchyardError as error:
            return await self._refuse(call, error)
        assert call.server is not None
        server_id = call.server.facts.id
        running = self.in_flight.get(server_id, 0)
        if running >= call.server.facts.max_concurrency or self.total_in_flight >= self._config.max_in_flight:
            return await self._refuse(
                call,
                Overloaded(
                    f"{call.server.facts.slug} already has {running} calls in flight. Try again shortly.", retry_after=1
                ),
            )
        self.go_on(call)
        taken = None
        try:
            if call.snapshot.limits:
                try:
                    taken = await self._take(call)
                except RateLimited as error:
                    return await self._refuse(call, error)
            answer = await self._carry_out(call, hook_call)
            if taken is not None:
                answer.headers = (*answer.headers, *taken.headers)
            return answer
        finally:
            self.rest(call)
            call.over = True
            if taken is not None:
                self._limiter.give_back(taken, call.cost)

    async def _take(self, call: Call) -> Taken | None:
        """Take the call from every limit that applies to it. Raises RateLimited."""
        applied = self._applying(call)
        if not applied:
            return None
        assert call.server is not None
        return await self._limiter.take(applied, call.call_id, call.cost, call.server.facts.timeout_seconds)

    def _applying(self, call: Call) -> tuple[Applied, ...]:
        snapshot, principal, key = call.snapshot, call.caller.principal, call.caller.key
        limits = snapshot.limits.get(call.target.tenant_id)
        if limits is None or call.server is None:
            return ()
        facts = call.server.facts
        full_name = call.item.full_name if call.item is not None else f"{facts.slug}{SEPARATOR}{call.name}"
        cache_key = ("limits", principal.id, facts.id, full_name)
        found: tuple[Applied, ...] | None = snapshot.cache.get(cache_key)
        if found is None:
            user_id = key.owner_id if key is not None else principal.id
            user = snapshot.users.get(user_id)
            roles = [role for tenant, role in user.roles if tenant == call.target.tenant_id] if user is not None else []
            key_id = key.id if key is not None else ""
            found = applying(limits, key_id=key_id, user_id=user_id, roles=roles, server_id=facts.id, full_name=full_name)
            remember(snapshot, cache_key, found)
        return found

    def rest(self, call: Call) -> None:
        """Count a call that waits for its client, or has ended, no longer among those in flight."""
        if call.in_flight and call.server is not None:
            call.in_flight = False
            self.in_flight[call.server.facts.id] -= 1
            self.total_in_flight -= 1

    def go_on(self, call: Call) -> None:
        """Count a call among those in flight (again)."""
        if not call.in_flight and not call.over and call.server is not None:
            call.in_flight = True
            self.in_flight[call.server.facts.id] = self.in_flight.get(call.server.facts.id, 0) + 1
            self.total_in_flight += 1

    def authorise(self, call: Call) -> None:
        """Ask whether a call may be made now, and make nothing. Raises NotFound, PermissionDenied, ValidationFailed, Paused."""
        self._resolve(call)

    def renew(self, call: Call) -> None:
        """Ask again, by the rights of now, whether a call may go on that has waited for its client.

        Raises what `authorise` raises, and PermissionDenied when its key is no longer good.
        """
        snapshot = self._store.current
        caller = current_caller(snapshot, call.caller)
        if caller is None:
            raise PermissionDenied("The API key is no longer good: it has expired, or was revoked.", rule="key")
        if snapshot is not call.snapshot:
            target = find_target(snapshot, caller, call.target.slug)
            call.snapshot, call.caller, call.target = snapshot, caller, target
            self._resolve(call)

    async def _prepare(self, call: Call) -> HookCall | None:
        """Find what is called, ask the policy, run the before hooks and ask again where they changed something."""
        self._resolve(call)
        call.step("authorise")
        if not self._hooks.before and not self._hooks.after:
            return None
        assert call.server is not None
        arguments = call.params.get("arguments")
        hook_call = HookCall(
            tenant_id=call.target.tenant_id,
            principal_id=call.caller.principal.id,
            principal=call.caller.principal.label,
            server=call.server.facts.slug,
            method=call.method,
            name=call.name,
            arguments=arguments if isinstance(arguments, dict) else {},
            call_id=call.call_id,
        )
        before = (hook_call.name, dumps(hook_call.arguments))
        await self._hooks.run_before(hook_call)
        call.cost = hook_call.cost
        if (hook_call.name, dumps(hook_call.arguments)) != before:
            call.params = {**call.params, "arguments": hook_call.arguments}
            if call.method in ("tools/call", "prompts/get"):
                call.params["name"] = hook_call.name
            self._resolve(call)
        call.step("hooks")
        return hook_call

    def _resolve(self, call: Call) -> None:
        """Set name, item, server and rule. Raises NotFound, PermissionDenied, ValidationFailed, Paused."""
        params, snapshot = call.params, call.snapshot
        if call.method == "tools/call":
            call.name = _text(params, "name")
            arguments = params.get("arguments", {})
            if not isinstance(arguments, dict):
                raise ValidationFailed("params.arguments must be an object.")
            call.item, decision = find_named(snapshot, call.caller, call.target, "tool", call.name)
            if call.modern and call.origin == "mcp" and annotated(call.item):
                check_param_headers(call.item, arguments, call.param_headers)
            self._schemas.check(call.item.facts.digest, call.item.facts.definition, judged(call.item, arguments))
        elif call.method == "prompts/get":
            call.name = _text(params, "name")
            call.item, decision = find_named(snapshot, call.caller, call.target, "prompt", call.name)
        elif call.method in RESOURCES:
            call.name = _text(params, "uri")
            call.server, call.item, decision = find_resource(snapshot, call.caller, call.target, call.name)
        elif call.method in ABOUT_TASKS:
            decision = self.tasks.resolve(call)
        else:
            decision = self._resolve_completion(call)
        call.rule = decision.rule
        if call.item is not None:
            call.server = snapshot.servers[call.item.facts.server_id]
        assert call.server is not None
        if call.server.facts.paused:
            raise Paused(f"The server {call.server.facts.slug} is paused by an operator.", server=call.server.facts.slug)
        if call.target.paused:
            raise Paused(f"The toolset {call.target.slug} is paused by an operator.", toolset=call.target.slug)

    def _resolve_completion(self, call: Call) -> Any:
        reference = call.params.get("ref")
        if not isinstance(reference, dict) or not isinstance(call.params.get("argument"), dict):
            raise ValidationFailed("params.ref and params.argument must be objects.")
        if reference.get("type") == "ref/prompt":
            call.name = _text(reference, "name")
            call.item, decision = find_named(call.snapshot, call.caller, call.target, "prompt", call.name)
            return decision
        if reference.get("type") == "ref/resource":
            call.name = _text(reference, "uri")
            call.server, call.item, decision = find_resource(call.snapshot, call.caller, call.target, call.name)
            return decision
        raise ValidationFailed("params.ref.type must be ref/prompt or ref/resource.")

    async def _refuse(self, call: Call, error: SwitchyardError) -> Answer:
        rule = str(error.extra.get("rule", error.slug))
        if isinstance(error, NotGranted):
            call.item, call.server = error.item, call.snapshot.servers.get(error.item.facts.server_id)
        try:
            server = error.extra.get("server")
            await self._recorder.refused(call, error.slug, rule, error.detail, server if isinstance(server, str) else None)
        except AuditUnavailable as unavailable:
            return failure(unavailable, call)
        return failure(error, call)

    async def _carry_out(self, call: Call, hook_call: HookCall | None) -> Answer:
        call.step("limit")
        effects = call.method in WITH_EFFECT or (
            call.method == "tools/call" and (call.item is None or call.item.facts.effects != EFFECT_FREE)
        )
        request: UpstreamRequest | None = None
        try:
            request = self._bridge.request(call)
            if effects:
                await self._recorder.intent(call)
                call.step("intent")
            answer = await self._send(call, request)
            if not call.modern and asks(answer):
                answer = await carry_rounds(call, request, answer, self._send_again)
            call.step("upstream")
            result, code, message, data = self._bridge.answer(call, answer)
            if result is None:
                raw = dumps({"code": code, "message": message, "data": data})
            elif hook_call is not None:  # what a hook has seen is what goes on
                result = await self._hooks.run_after(hook_call, result)
                call.cost = hook_call.cost
                raw = dumps(result)
            else:
                raw = result_text(answer, result)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call.stopped is None or task is None or task.uncancel():
                self._recorder.settle(call, "cancelled", alone=not effects)
                raise
            return await self._stopped(call, call.stopped, alone=not effects)
        except AuditUnavailable as error:
            return failure(error, call)
        except ConnectionRequired as error:
            refused = await self._failed(call, error, request, alone=not effects)
            return self._bridge.connect_first(call, error) or refused
        except UpstreamError as error:
            return await self._failed(call, error, request, alone=not effects)
        except SwitchyardError as error:
            return await self._failed(call, error, request, alone=not effects)
        except Exception as error:  # noqa: BLE001 - an intent must not stay without an outcome, whatever broke
            log_defect("call", error, call_id=call.call_id)
            return await self._failed(
                call, UpstreamProtocolError("The call broke inside the gateway."), request, alone=not effects
            )
        try:
            return await self._answered(call, result, raw, code, message, data, alone=not effects)
        except Exception as error:  # noqa: BLE001 - as above
            log_defect("outcome", error, call_id=call.call_id)
            broken = UpstreamProtocolError("The answer cannot be recorded, so it is withheld.")
            return await self._failed(call, broken, request, alone=not effects)

    async def _answered(
        self, call: Call, result: Json | None, raw: bytes, code: int, message: str, data: Any, *, alone: bool
    ) -> Answer:
        if result is not None:
            if call.modern and result.get("resultType") == "input_required":
                for request in (result.get("inputRequests") or {}).values():
                    self._recorder.asked(call, str(request.get("method")), "handed on")
            outcome = "error" if result.get("isError") is True else "ok"
            error_type = "tool-error" if outcome == "error" else None
            reply = Answer(result=result, raw=raw)
        else:
            outcome, error_type = "error", f"jsonrpc{code}"
            reply = Answer(code=code, message=message, data=data)
        try:
            await self._recorder.outcome(call, outcome, error_type=error_type, raw=raw, result=result, alone=alone)
        except AuditUnavailable as error:
            return failure(error, call)
        call.step("outcome")
        return reply

    async def _send(self, call: Call, request: UpstreamRequest) -> UpstreamAnswer:
        assert call.server is not None
        facts = call.server.facts
        if facts.builtin:
            token = self._signer.sign(
                tenant=call.target.tenant_id,
                principal=f"{call.caller.principal.kind}:{call.caller.principal.id}",
                toolset=call.target.slug,
                call_id=call.call_id,
                audience=facts.slug,
            )
            request.params["_meta"] = {**request.params.get("_meta", {}), "switchyard/assertion": token}
        endpoint_id = facts.endpoints[0].id if len(facts.endpoints) == 1 else best_endpoint(facts).id
        try:
            send = call.send or self._call
            answer = await (send if self.tap is None else self.tap.through(call, send))(facts, request)
        except UpstreamError as error:
            state = _STATES.get(type(error))
            if state is not None:
                self._facts.endpoint_state(endpoint_id, state, error.detail[:300])
            raise
        finally:
            for method in request.refused:
                self._recorder.asked(call, method, "refused", request.unasked)
        self._facts.endpoint_state(endpoint_id, "healthy", "It answered a call.")
        return answer

    async def _send_again(self, call: Call, request: UpstreamRequest) -> UpstreamAnswer:
        """Make a call's next round, if it may still be made."""
        self.renew(call)
        return await self._send(call, request)

    async def _call(self, facts: ServerFacts, request: UpstreamRequest) -> UpstreamAnswer:
        upstream = await self._upstreams.get(facts, request.user)
        return await upstream.call(request)

    async def _stopped(self, call: Call, error: SwitchyardError, *, alone: bool) -> Answer:
        details: Json = {"error": error.detail[:500]}
        try:
            await self._recorder.outcome(call, "cancelled", error_type=error.slug, details=details, alone=alone)
        except AuditUnavailable as unavailable:
            return failure(unavailable, call)
        return failure(error, call)

    async def _failed(self, call: Call, error: SwitchyardError, request: UpstreamRequest | None, *, alone: bool) -> Answer:
        sent = request is not None and request.sent
        # Whether it took effect is not known once bytes have left and no answer came back.
        unknown = isinstance(error, UpstreamError) and sent and not isinstance(error, UpstreamProtocolError)
        details: Json = {"error": error.detail[:500], "sent": sent}
        if unknown:
            details["effect"] = "unknown"
        outcome = "failed" if isinstance(error, UpstreamError) and not isinstance(error, ConnectionRequired) else "refused"
        try:
            await self._recorder.outcome(call, outcome, error_type=error.slug, details=details, alone=alone)
        except AuditUnavailable as unavailable:
            return failure(unavailable, call)
        return failure(error, call)


def _text(params: Json, key: str) -> str:
    value = params.get(key)
    if not isinstance(value, str) or not value:
        raise ValidationFailed(f"params.{key} must be a string that is not empty.")
    if len(value) > 8192:
        raise ValidationFailed(f"params.{key} has more than 8,192 characters.")
    return value
