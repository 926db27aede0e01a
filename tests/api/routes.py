"""The routes of `/api/v1/`, found in the URLconf itself, so that a new one is never left out."""

import re
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver

from config import api

METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one address."""

    name: str
    method: str
    template: str
    """`servers/{id}/pause/`."""

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.template}"

    @property
    def parameter(self) -> str:
        """The name of the variable part, empty when there is none."""
        found = re.search(r"{(\w+)}", self.template)
        return found.group(1) if found else ""

    def path(self, named: object = "") -> str:
        """The address with an object in it."""
        return re.sub(r"{\w+}", str(named), self.template)


def _walk(patterns: list[Any], prefix: str = "") -> list[tuple[str, URLPattern]]:
    found = []
    for one in patterns:
        if isinstance(one, URLResolver):
            found += _walk(one.url_patterns, prefix + str(one.pattern))
        else:
            found.append((prefix + str(one.pattern), one))
    return found


def _methods(view: Any) -> list[str]:
    actions = getattr(view, "actions", None)
    return [method for method in METHODS if (method in actions if actions is not None else hasattr(view.cls, method))]


def routes() -> list[Route]:
    """Every method of every address below `/api/v1/`, each view once (the catalogue's extra routes come first)."""
    found = {}
    for pattern, one in _walk(api.urlpatterns):
        if not pattern.startswith("v1/"):
            continue
        template = re.sub(r"\(\?P<(\w+)>.*?\)(?=/)", r"{\1}", pattern.removeprefix("v1/").replace("^", "").replace("$", ""))
        template = re.sub(r"<str:(\w+)>", r"{\1}", template)
        for method in _methods(one.callback):
            found[method, template] = Route(one.name, method, template)
    return sorted(found.values(), key=lambda route: (route.template, METHODS.index(route.method)))


def of(name: str, method: str) -> Route:
    """The route with this name and method."""
    (found,) = [route for route in routes() if (route.name, route.method) == (name, method)]
    return found
