"""What a toolset contains now, by the rule of `domain.compose`."""

from collections.abc import Iterable

from apps.tools.domain import Composition, DefinitionFacts, EntryFacts, compose, whole_server
from apps.tools.models import Toolset, ToolsetEntry
from apps.tools.selectors.plane import plane_definitions


def contents(toolset: Toolset) -> Composition:
    """Return the content of a toolset as it is, paused or not."""
    if toolset.server_id:
        return whole_server(plane_definitions([toolset.server_id]))
    return contents_of(toolset.entries.select_related("server"))


def contents_of(entries: Iterable[ToolsetEntry]) -> Composition:
    """Return what a composed toolset with these entries, saved or not, would contain: four queries whatever their number."""
    rows = list(entries)
    slugs = {str(row.server_id): row.server.slug for row in rows}
    offered: dict[str, list[DefinitionFacts]] = {server_id: [] for server_id in slugs}
    for definition in plane_definitions(list(slugs)):
        offered[definition.server_id].append(definition)
    return compose(entry_facts(rows), offered, slugs)


def entry_facts(rows: Iterable[ToolsetEntry]) -> list[EntryFacts]:
    """Return rows as facts, in order."""
    return [EntryFacts(str(row.server_id), row.kind, row.pattern, row.rename, row.description) for row in rows]
