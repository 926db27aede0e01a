"""What a call of a tool may do, and who says so: the operator before the server, and the server only where it is trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EFFECTS = ("unknown", "read-only", "idempotent", "writes", "destructive")
"""`read-only`: changes nothing; `idempotent`: repeating it changes nothing more; `writes`: adds or changes; `destructive`: may
overwrite or delete; `unknown`: nobody whose word counts has said anything, so it is treated as having effects."""
LOOSE = frozenset({"read-only", "idempotent"})
"""Rulings that let a call be repeated or run without an approval; worth something only for the definition they were made for."""


@dataclass(frozen=True, slots=True)
class EffectiveEffects:
    """The effects in force and where they come from."""

    value: str
    said_by: str
    """`operator`, `server` (trusted annotations) or `nobody`."""
    reason: str
    """One sentence for the console."""
    claimed: str
    """What the server's annotations say, believed or not."""

    @property
    def has_effects(self) -> bool:
        """Tell whether a call must be taken to change something."""
        return self.value != "read-only"


def claimed_effects(annotations: Any) -> str:
    """Return what annotations claim (MCP, ToolAnnotations): hints of another type than boolean count as absent."""
    if not isinstance(annotations, Mapping):
        return "unknown"
    if annotations.get("readOnlyHint") is True:
        return "read-only"
    destructive = annotations.get("destructiveHint")
    if destructive is True:
        return "destructive"
    if annotations.get("idempotentHint") is True:
        return "idempotent"
    if destructive is False:
        return "writes"
    return "unknown"


def effective_effects(
    definition: Mapping[str, Any] | None, operators_word: str, *, trust_annotations: bool, operator: str = ""
) -> EffectiveEffects:
    """Return the effects in force for a tool.

    `operators_word` is one of EFFECTS (`unknown` = no ruling), `operator` who gave it. The operator's word always wins; annotations
    count only with `trust_annotations`; without either the tool counts as having effects.
    """
    claimed = claimed_effects((definition or {}).get("annotations"))
    if operators_word != "unknown":
        return EffectiveEffects(operators_word, "operator", f"{operator or 'An operator'} said so.", claimed)
    if claimed == "unknown":
        return EffectiveEffects("unknown", "nobody", "Neither an operator nor the server has said anything.", claimed)
    if trust_annotations:
        return EffectiveEffects(claimed, "server", "The server says so, and its annotations are trusted.", claimed)
    reason = f"The server says {claimed}, but its annotations are not trusted."
    return EffectiveEffects("unknown", "nobody", reason, claimed)
