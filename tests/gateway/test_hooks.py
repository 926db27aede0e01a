"""Hooks around calls."""

import asyncio

import pytest

from apps.common.errors import PermissionDenied
from apps.plugins.hooks import HookCall, HookRefused, Hooks
from apps.plugins.hooks.run import HookFailed, load_hooks
from benchmarks.installation import api
from tests.gateway.wire import call_tool, error_of


def call(**changes):
    facts = {"tenant_id": "t", "principal_id": "p", "principal": "ada", "server": "s", "method": "tools/call", "name": "n"}
    return HookCall(**(facts | {"arguments": {}, "call_id": "c"} | changes))


class Step:
    def __init__(self, name, order, act, seconds=1.0):
        self.name, self.order, self.seconds, self._act = name, order, seconds, act

    async def before(self, one):
        await self._act(one, self.name)


async def note(one, name):
    one.arguments.setdefault("seen", []).append(name)


async def test_they_run_in_order_then_by_name():
    one = call()
    await Hooks([Step("b", 1, note), Step("late", 9, note), Step("a", 1, note)]).run_before(one)
    assert one.arguments["seen"] == ["a", "b", "late"]


async def test_a_refusal_stops_the_rest_and_reads_as_it_was_written():
    async def refuse(one, name):
        raise HookRefused("Not on Sundays.")

    one = call()
    with pytest.raises(PermissionDenied, match="Not on Sundays"):
        await Hooks([Step("a", 1, refuse), Step("b", 2, note)]).run_before(one)
    assert one.arguments == {}


async def test_a_hook_that_breaks_or_hangs_stops_the_call():
    async def breaks(one, name):
        raise ValueError("secret inside")

    async def hangs(one, name):
        await asyncio.sleep(60)

    with pytest.raises(HookFailed, match="ValueError") as failed:
        await Hooks([Step("a", 1, breaks)]).run_before(call())
    assert "secret inside" not in failed.value.detail
    with pytest.raises(HookFailed, match=r"longer than 0\.05 s"):
        await Hooks([Step("a", 1, hangs, seconds=0.05)]).run_before(call())


def test_unknown_hooks_are_an_error_at_start():
    with pytest.raises(ModuleNotFoundError):
        load_hooks(["no.such.module:Hook"])
    with pytest.raises(AttributeError):
        load_hooks(["tests.gateway.hook_examples:Nothing"])


@pytest.mark.once
def test_through_the_gateway(start_product):
    product = start_product(environment={"SWITCHYARD_HOOKS": "tests.gateway.hook_examples:Swap"})
    answer = call_tool(product, "system__calculate", {"expression": "old"})
    assert answer["result"]["content"][0]["text"] == "42"
    assert answer["result"]["_meta"]["test/marked-by"].startswith("First key")
    assert error_of(call_tool(product, "system__calculate", {"expression": "forbidden"})) == "hook-refused"
    # A call that a hook changed is authorised again, as what it became.
    assert error_of(call_tool(product, "system__calculate", {"expression": "redirect"})) == "not-found"
    refused = api(product, "GET", "audit-events/?event_type=call.refused")["results"]
    assert {row["error_type"] for row in refused} == {"hook-refused", "not-found"}
