"""The editor of a toolset's entries: rows that are chosen from a search over everything the servers in view offer."""

import json
from collections.abc import Sequence
from typing import Any

from django import forms
from django.db.models import Count
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from apps.common.errors import ValidationFailed
from apps.servers.selectors import servers
from apps.tools.domain import full_name, is_exact, visible
from apps.tools.models import CATALOGUE, Tool

MEMBERS = ("server", "kind", "pattern", "rename", "description")
FOUND = 40
"""Results of a search at most."""
KIND_ICONS = {"all": "dns", "tool": "construction", "resource": "description", "template": "data_object", "prompt": "chat"}


class EntriesWidget(forms.Widget):
    """Rows of entries; the search that adds them is served by the toolset's admin."""

    def value_from_datadict(self, data: Any, files: Any, name: str) -> list[dict[str, str]]:
        """Return the rows in their order."""
        columns = [data.getlist(f"{name}-{member}") for member in MEMBERS]
        return [dict(zip(MEMBERS, row, strict=False)) for row in zip(*columns, strict=False)]

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        """Tell whether the form was sent without the editor."""
        return f"{name}-present" not in data

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        """Render the rows and the search."""
        return render_to_string("console/parts/entries.html", {"name": name, "rows": entry_rows(value or [])})


class EntriesField(forms.Field):
    """The whole list of a toolset's entries."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(widget=EntriesWidget(), required=False, **kwargs)

    def has_changed(self, initial: Any, data: Any) -> bool:
        """Compare lists of the same members."""
        return _plain(initial) != _plain(data)


def _plain(rows: Any) -> str:
    return json.dumps([{member: str(row.get(member) or "") for member in MEMBERS} for row in rows or []])


def entries_of(toolset: Any) -> list[dict[str, str]]:
    """Return a toolset's entries as the editor takes them."""
    return [
        {
            "server": str(row.server_id),
            "kind": row.kind,
            "pattern": row.pattern,
            "rename": row.rename,
            "description": row.description,
        }
        for row in toolset.entries.all()
    ]


def entry_rows(entries: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return entries with what the editor shows of them."""
    ids = {entry.get("server") for entry in entries}
    slugs = {str(id): slug for id, slug in servers().filter(pk__in=[i for i in ids if i]).values_list("pk", "slug")}
    return [entry_row(entry, slugs.get(str(entry.get("server")), "?")) for entry in entries]


def entry_row(entry: dict[str, str], slug: str) -> dict[str, Any]:
    """Return one entry with its words."""
    kind, pattern = entry.get("kind") or "tool", entry.get("pattern") or "*"
    exact = is_exact(pattern) and kind != "all"
    return {
        **{member: entry.get(member) or "" for member in MEMBERS},
        "pattern": pattern,
        "kind": kind,
        "slug": slug,
        "icon": KIND_ICONS.get(kind, "help"),
        "exact": exact,
        "renames": exact and kind in ("tool", "prompt"),
        "words": f"Everything of {slug}" if kind == "all" else visible(pattern),
        "default_name": full_name(slug, pattern) if kind in ("tool", "prompt") and exact else "",
    }


def search_offered(text: str) -> list[dict[str, Any]]:
    """Return what servers in view offer under these words: whole servers first, then tools, resources and prompts; patterns with `*`."""
    words = text.split()
    found: list[dict[str, Any]] = []
    rows = servers()
    for word in words:
        rows = rows.matching(word)
    counts = dict(Tool.objects.filter(state="active").order_by().values_list("server_id").annotate(n=Count("pk")))
    for id, slug in rows.order_by("slug").values_list("pk", "slug")[:10]:
        found.append(
            {**entry_row({"server": str(id), "kind": "all", "pattern": "*"}, slug), "note": f"{counts.get(id, 0)} tools"}
        )
    if "*" in text and len(words) == 1:
        slug, _, pattern = text.partition("__")
        for id, name in (
            servers().filter(slug__startswith=slug if pattern else "").order_by("slug").values_list("pk", "slug")[:10]
        ):
            found.append(
                {
                    **entry_row({"server": str(id), "kind": "tool", "pattern": pattern or text}, name),
                    "note": "tools by pattern, also those to come",
                }
            )
    for model in CATALOGUE:
        definitions: Any = model.objects.filter(state="active").select_related("server")
        for word in words:
            definitions = definitions.matching(word)
        for row in definitions.order_by("server__slug", "position").defer("definition", "pending")[
            : max(0, FOUND - len(found))
        ]:
            entry = {"server": str(row.server_id), "kind": model.kind, "pattern": row.name}
            found.append({**entry_row(entry, row.server.slug), "note": row.description or row.title})
    return found


def entry_errors(error: ValidationFailed) -> dict[str, Any]:
    """Turn `entries.<number>.<field>` into messages of the one field the form has."""
    named: dict[str, Any] = dict(error.extra.get("errors") or {})
    texts = []
    for name in [name for name in named if name.startswith("entries")]:
        _, number, member = [*name.split("."), "", ""][:3]
        said = named.pop(name)
        prefix = f"Entry {int(number) + 1}, {member}: " if number.isdigit() else ""
        texts += [f"{prefix}{text}" for text in ([said] if isinstance(said, str) else said)]
    if texts:
        named["entries"] = texts
    return named
