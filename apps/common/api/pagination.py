"""Cursor pagination by key: stable while rows come and go, and as fast on the last page as on the first."""

import base64
import json
from datetime import datetime
from typing import Any

from django.db.models import F, Model, OrderBy, Q, QuerySet
from django.db.models.constants import LOOKUP_SEP
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param

from apps.common.errors import ValidationFailed

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


class CursorPagination(BasePagination):
    """Pages of `limit` rows (50, at most 200) in the order of the query set, then by id, so that every row has one place.

    The cursor is opaque: the place of a row in the order, not a number of rows, so a row that is added or removed elsewhere
    neither repeats nor hides another. A cursor made for another order is refused (ValidationFailed).
    """

    def paginate_queryset(  # type: ignore[override]
        self, queryset: QuerySet[Any], request: Request, view: Any = None
    ) -> list[Any]:
        """Return one page."""
        self._address = request.build_absolute_uri()
        limit = _limit(request)
        names = _order(queryset)
        cursor = _decode(request.query_params.get("cursor"), names)
        back = bool(cursor and cursor["b"])
        rows = queryset.order_by(*(_ordering(name, back=back) for name in names))
        if cursor:
            rows = rows.filter(_after(queryset.model, names, cursor["p"], back=back))
        page = list(rows[: limit + 1])
        more = len(page) > limit
        page = page[:limit]
        if back:
            page.reverse()
        has_next = bool(page) and (more if not back else True)
        has_previous = bool(page) and (more if back else cursor is not None)
        self._next = _encode(page[-1], names, back=False) if has_next else None
        self._previous = _encode(page[0], names, back=True) if has_previous else None
        return page

    def get_paginated_response(self, data: Any) -> Response:
        """Return the answer: `next` and `previous` are addresses or null, `results` the page."""
        return Response({"next": self._link(self._next), "previous": self._link(self._previous), "results": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe the answer for OpenAPI."""
        link = {"type": "string", "format": "uri", "nullable": True}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }

    def get_schema_operation_parameters(self, view: Any) -> list[dict[str, Any]]:
        """Describe the parameters for OpenAPI."""
        return [
            {
                "name": "cursor", "required": False, "in": "query", "schema": {"type": "string"},
                "description": "Where the page begins: from `next` or `previous` of another page.",
            },
            {
                "name": "limit", "required": False, "in": "query",
                "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
                "description": "Rows per page.",
            },
        ]  # fmt: skip

    def to_html(self) -> str:
        """Return nothing: there is no browsable form."""
        return ""

    def _link(self, cursor: str | None) -> str | None:
        if cursor is None:
            return None
        return replace_query_param(remove_query_param(self._address, "cursor"), "cursor", cursor)


def _limit(request: Request) -> int:
    given = request.query_params.get("limit")
    if given is None:
        return DEFAULT_LIMIT
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:10]) <= MAX_LIMIT):
        raise ValidationFailed("The limit is not valid.", errors={"limit": [f"Use a number from 1 to {MAX_LIMIT}."]})
    return int(given)


def _order(queryset: QuerySet[Any]) -> list[str]:
    """Return the names the query set is ordered by, `-` before a falling one, ending with the primary key."""
    wanted = queryset.query.order_by or tuple(queryset.model._meta.ordering)
    primary = queryset.model._meta.pk.name
    names = [name for name in wanted if isinstance(name, str) and name.lstrip("-") not in ("pk", primary, "?")]
    falling = bool(wanted) and isinstance(wanted[-1], str) and wanted[-1].startswith("-")
    return [*names, f"-{primary}" if falling else primary]


def _ordering(name: str, *, back: bool) -> OrderBy:
    """Nulls stand last in the order of the page, whichever way that is; databases differ in what they do without being told."""
    falling = name.startswith("-") != back
    column = F(name.lstrip("-"))
    if falling:
        return column.desc(nulls_first=True) if back else column.desc(nulls_last=True)
    return column.asc(nulls_first=True) if back else column.asc(nulls_last=True)


def _after(model: type[Model], names: list[str], values: list[Any], *, back: bool) -> Q:
    """Return the condition for the rows that come after (with `back`: before) a place in the order."""
    condition = Q(pk__in=[])
    equal = Q()
    for name, raw in zip(names, values, strict=True):
        field = name.lstrip("-")
        value = _parsed(model, field, raw)
        beyond = "gt" if name.startswith("-") == back else "lt"
        if value is None:
            step = Q(**{f"{field}__isnull": False}) if back else Q(pk__in=[])
            same = Q(**{f"{field}__isnull": True})
        else:
            step = Q(**{f"{field}__{beyond}": value})
            if not back:
                step |= Q(**{f"{field}__isnull": True})
            same = Q(**{field: value})
        condition |= equal & step
        equal &= same
    return condition


def _parsed(model: type[Model], path: str, raw: Any) -> Any:
    if raw is None:
        return None
    meta = model._meta
    field: Any = None
    for part in path.split(LOOKUP_SEP):
        field = meta.pk if part == "pk" else meta.get_field(part)
        if field.is_relation:
            meta = field.related_model._meta
    if field.is_relation:
        field = field.target_field
    try:
        value = field.to_python(raw)
    except Exception:  # noqa: BLE001 - whatever a field raises for it, the cursor is not one of ours
        raise _not_ours() from None
    if isinstance(value, datetime) and value.tzinfo is None:
        raise _not_ours()
    return value


def _encode(row: Any, names: list[str], *, back: bool) -> str:
    values = []
    for name in names:
        value = row
        for part in name.lstrip("-").split(LOOKUP_SEP):
            value = getattr(value, part, None)
        value = value.pk if isinstance(value, Model) else value
        plain = value is None or isinstance(value, int | float | str)
        values.append(value if plain else value.isoformat() if hasattr(value, "isoformat") else str(value))
    packed = json.dumps({"o": names, "p": values, "b": int(back)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(packed.encode()).decode().rstrip("=")


def _decode(text: str | None, names: list[str]) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        packed = json.loads(base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True))
        good = packed["o"] == names and len(packed["p"]) == len(names) and packed["b"] in (0, 1)
        good = good and all(value is None or _is_plain(value) for value in packed["p"])
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise _not_ours()
    return dict(packed)


def _is_plain(value: Any) -> bool:
    """Tell whether a value could stand in a row: no database takes NUL, half a surrogate pair, or a number of any size."""
    if isinstance(value, str):
        return "\x00" not in value and value.encode("utf-8", "replace").decode() == value
    return isinstance(value, int | float) and abs(value) < 2**63


def _not_ours() -> ValidationFailed:
    return ValidationFailed(
        "The cursor is not valid here.",
        errors={"cursor": ["Take it from `next` or `previous`, with the same filters and order."]},
    )
