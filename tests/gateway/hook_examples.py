"""Hooks that tests install by name."""

from apps.plugins.hooks import HookCall, HookRefused


class Swap:
    """Replaces arguments, redirects a call, refuses one, and marks results."""

    name, order, seconds = "swap", 1, 5.0

    async def before(self, call: HookCall) -> None:
        expression = call.arguments.get("expression", "")
        if expression == "forbidden":
            raise HookRefused("This expression is not allowed here.")
        if expression == "old":
            call.arguments = {"expression": "40 + 2"}
        if expression == "redirect":
            call.name, call.arguments = "no_such_tool", {}

    async def after(self, call: HookCall, result: dict) -> dict:
        return {**result, "_meta": {**result.get("_meta", {}), "test/marked-by": call.principal}}
