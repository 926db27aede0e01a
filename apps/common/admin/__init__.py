"""The base of every admin page: reads in scope, writes through services, verbs that ask first, one set of states."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apps.common.admin.base import ConsoleAdmin, TenantAdmin, choose_tenant_form
    from apps.common.admin.verbs import Ask, Shown, bulk_verb, verb, view_link

__all__ = ("Ask", "ConsoleAdmin", "Shown", "TenantAdmin", "bulk_verb", "choose_tenant_form", "verb", "view_link")


def __getattr__(name: str) -> Any:
    """Import the names on first use: unfold loads our template tags, which need this package, while it is being imported."""
    for module in ("base", "verbs"):
        if name in __all__ and hasattr(found := import_module(f"{__name__}.{module}"), name):
            return getattr(found, name)
    raise AttributeError(name)
