"""Reads of the catalogue that others may use: what the data plane is fed from, lists for people, and who may use what."""

from apps.tools.selectors.access import Usable, Use, usable_by, who_may_use
from apps.tools.selectors.address import not_in_force
from apps.tools.selectors.catalogue import (
    MODELS,
    catalogue,
    definition_counts,
    get_definition,
    get_toolset,
    grants,
    grants_in_words,
    held_counts,
    last_discovery,
    toolsets,
)
from apps.tools.selectors.contents import contents, contents_of
from apps.tools.selectors.features import Waiting, special_tools, waiting
from apps.tools.selectors.plane import plane_definitions, plane_grants, plane_toolsets, plane_withheld, subject_of

__all__ = (
    "MODELS",
    "Usable",
    "Use",
    "Waiting",
    "catalogue",
    "contents",
    "contents_of",
    "definition_counts",
    "get_definition",
    "get_toolset",
    "grants",
    "grants_in_words",
    "held_counts",
    "last_discovery",
    "not_in_force",
    "plane_definitions",
    "plane_grants",
    "plane_toolsets",
    "plane_withheld",
    "special_tools",
    "subject_of",
    "toolsets",
    "usable_by",
    "waiting",
    "who_may_use",
)
