"""Hooks around a call: their specification and how they are run. Without Django; free when none is installed."""

from apps.plugins.hooks.run import HookRefused, Hooks
from apps.plugins.hooks.spec import AfterCall, BeforeCall, HookCall

__all__ = ("AfterCall", "BeforeCall", "HookCall", "HookRefused", "Hooks")
