"""Runs hooks in order, each inside its time limit."""

import asyncio
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from apps.common.errors import PermissionDenied, SwitchyardError
from apps.plugins.hooks.spec import AfterCall, BeforeCall, HookCall


class HookRefused(PermissionDenied):
    """A hook stopped the call; its reason is what the caller reads."""

    slug, title = "hook-refused", "A rule of this installation stopped the call"


class HookFailed(SwitchyardError):
    """A hook broke or took too long; the call is stopped, because what it would have checked is not checked."""

    slug, title, status = "hook-failed", "A rule of this installation could not be applied", 500


class Hooks:
    """The installed hooks."""

    def __init__(self, hooks: Iterable[Any] = ()) -> None:
        ordered = sorted(hooks, key=lambda hook: (hook.order, hook.name))
        self.before: tuple[BeforeCall, ...] = tuple(hook for hook in ordered if hasattr(hook, "before"))
        self.after: tuple[AfterCall, ...] = tuple(hook for hook in ordered if hasattr(hook, "after"))

    async def run_before(self, call: HookCall) -> None:
        """Run the before hooks. Raises HookRefused or HookFailed."""
        for hook in self.before:
            try:
                async with asyncio.timeout(hook.seconds):
                    await hook.before(call)
            except HookRefused:
                raise
            except TimeoutError:
                raise HookFailed(f"The hook {hook.name} took longer than {hook.seconds:g} s.", hook=hook.name) from None
            except Exception as error:
                raise HookFailed(f"The hook {hook.name} failed ({type(error).__name__}).", hook=hook.name) from error

    async def run_after(self, call: HookCall, result: dict[str, Any]) -> dict[str, Any]:
        """Run the after hooks, each on the result of the one before. Raises HookRefused or HookFailed."""
        for hook in self.after:
            try:
                async with asyncio.timeout(hook.seconds):
                    result = await hook.after(call, result)
            except HookRefused:
                raise
            except TimeoutError:
                raise HookFailed(f"The hook {hook.name} took longer than {hook.seconds:g} s.", hook=hook.name) from None
            except Exception as error:
                raise HookFailed(f"The hook {hook.name} failed ({type(error).__name__}).", hook=hook.name) from error
        return result


def load_hooks(paths: Iterable[str]) -> Hooks:
    """Import hooks by dotted path (`package.module:Name`), each a class without arguments. Raises ImportError, AttributeError."""
    found = []
    for path in paths:
        module, _, name = path.partition(":")
        found.append(getattr(import_module(module), name)())
    return Hooks(found)
