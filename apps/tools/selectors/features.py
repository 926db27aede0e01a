"""What servers offer beyond names: tools with an output schema or a user interface, and what waits for review."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Count, Q, TextField
from django.db.models.functions import Cast

from apps.tools.models import CATALOGUE, Tool


@dataclass(frozen=True, slots=True)
class Waiting:
    """A definition that an operator has yet to look at."""

    id: str
    server_id: str
    kind: str
    name: str


def special_tools(server_ids: Iterable[object]) -> dict[str, dict[str, int]]:
    """Return server id → how many tools in force have an output schema (`structured`) or a user interface (`app`); one query.

    Definitions are kept as compact JSON text, in which their members are looked for.
    """
    rows = Tool.objects.filter(state="active", server_id__in=list(server_ids)).order_by()
    counted = (
        rows.annotate(text=Cast("definition", TextField()))
        .values("server_id")
        .annotate(
            structured=Count("pk", filter=Q(text__contains='"outputSchema":{')),
            app=Count("pk", filter=Q(text__contains='"_meta":{') & Q(text__contains='resourceUri":"')),
        )
    )
    return {str(row["server_id"]): {"structured": row["structured"], "app": row["app"]} for row in counted}


def waiting(server_ids: Iterable[object], *, limit: int = 500) -> dict[str, list[Waiting]]:
    """Return server id → what is held for review and therefore not listed, of each kind at most `limit`; four queries."""
    wanted: list[Any] = list(server_ids)
    found: dict[str, list[Waiting]] = defaultdict(list)
    for model in CATALOGUE:
        rows = model.objects.filter(state="held", server_id__in=wanted).order_by("server_id", "name")
        columns: list[tuple[UUID, UUID, str]] = list(rows.values_list("pk", "server_id", "name")[:limit])
        for id, server_id, name in columns:
            found[str(server_id)].append(Waiting(str(id), str(server_id), model.kind, name))
    return found
