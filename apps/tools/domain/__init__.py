"""Pure rules of the catalogue: facts, names, digests, checks, differences, effects, and what a toolset consists of."""

from apps.tools.domain.canonical import NotCanonical, canonical, digest
from apps.tools.domain.composition import Composition, Item, Problem, compose, in_force_order, shown, whole_server
from apps.tools.domain.difference import Change, Difference, Line, difference
from apps.tools.domain.effects import EFFECTS, LOOSE, EffectiveEffects, claimed_effects, effective_effects
from apps.tools.domain.facts import KINDS, NAME_MEMBER, DefinitionFacts, EntryFacts, Kind, ToolsetFacts
from apps.tools.domain.naming import (
    MAX_FULL_NAME,
    SEPARATOR,
    NameCollision,
    NameTooLong,
    callable_name,
    full_name,
    is_exact,
    name_problem,
    split_name,
)
from apps.tools.domain.rules import Known, verdict
from apps.tools.domain.safety import MAX_BYTES, Checked, Flag, check, visible

__all__ = (
    "EFFECTS",
    "KINDS",
    "LOOSE",
    "MAX_BYTES",
    "MAX_FULL_NAME",
    "NAME_MEMBER",
    "SEPARATOR",
    "Change",
    "Checked",
    "Composition",
    "DefinitionFacts",
    "Difference",
    "EffectiveEffects",
    "EntryFacts",
    "Flag",
    "Item",
    "Kind",
    "Known",
    "Line",
    "NameCollision",
    "NameTooLong",
    "NotCanonical",
    "Problem",
    "ToolsetFacts",
    "callable_name",
    "canonical",
    "check",
    "claimed_effects",
    "compose",
    "difference",
    "digest",
    "effective_effects",
    "full_name",
    "in_force_order",
    "is_exact",
    "name_problem",
    "shown",
    "split_name",
    "verdict",
    "visible",
    "whole_server",
)
