"""What a definition's state means for callers, in sentences: the same on its page, in its dialogs and beside its difference."""

from typing import Any

from apps.common.admin.format import plural
from apps.tools.domain import difference
from apps.tools.models import Definition

_USED = {"tool": "callable", "resource": "readable", "template": "readable", "prompt": "usable"}


def out_of_reach(obj: Any) -> str:
    """Return `neither listed nor callable`, in the words of the kind."""
    return f"neither listed nor {_USED.get(obj.kind, 'usable')}"


def standing(obj: Any) -> str:
    """Say what callers have of a definition that is not in force; nothing of one that is."""
    new = obj.definition is None
    if obj.kind == "instructions":
        return _of_instructions(obj, new=new)
    if obj.state == Definition.State.HELD and new:
        return f"Offered for the first time and held: it is {out_of_reach(obj)} until it is approved. {why_held(obj)}".strip()
    if obj.state == Definition.State.HELD:
        return (
            f"The server now offers something else than was approved, and it is held: it is {out_of_reach(obj)}, "
            f"not as it was before either, until the change is approved. {why_held(obj)}"
        ).strip()
    if obj.state == Definition.State.REJECTED:
        return f"Rejected: it is {out_of_reach(obj)} while the server offers this definition."
    if obj.state == Definition.State.REMOVED:
        return f"The server no longer offers it: it is {out_of_reach(obj)}."
    return ""


def _of_instructions(obj: Any, *, new: bool) -> str:
    kept = "Clients get none." if new else "Clients still get the text that was approved before."
    return {
        Definition.State.HELD: f"The server sends {'a first' if new else 'another'} text, and it is held. {kept} {why_held(obj)}".strip(),
        Definition.State.REJECTED: f"The text that the server sends was rejected. {kept}",
        Definition.State.REMOVED: "The server sends no instructions any more, and clients get none.",
    }.get(obj.state, "")


def why_held(obj: Any) -> str:
    """Say what holds it: what the checks found, an earlier rejection, or the server's rule as it is now."""
    slug = obj.server.slug
    if any(flag.get("holds") for flag in obj.flags):
        return "What the checks found in it holds it, whatever the rule of the server is."
    if obj.rejected_digest:
        return "An earlier definition of this name was rejected, so another one is not accepted unseen."
    if obj.server.review == "hold-all":
        return f"The rule of {slug} holds everything new or changed."
    if obj.server.review == "hold-changed" and obj.definition is not None:
        return f"The rule of {slug} holds what has changed."
    return ""


def against(obj: Any) -> str:
    """Say what is compared with what, for the question of an approval."""
    if obj.definition is None:
        return (
            "Nothing of it was approved before."
            if obj.state == Definition.State.HELD
            else "It was rejected; nothing of it is in force."
        )
    number = plural(len(difference(obj.definition, obj.pending).changes), "change")
    if obj.kind == "instructions":
        return f"{number} against the text that clients get now."
    return f"{number} against what was approved before. Now it is {out_of_reach(obj)}."


def difference_context(obj: Any) -> dict[str, Any]:
    """Return a difference with the words above its columns."""
    return {
        "difference": difference(obj.definition, obj.pending),
        "flags": obj.flags,
        "new": obj.definition is None,
        "left": "Clients get now" if obj.kind == "instructions" else "Approved before",
        "right": "The server offers now" if obj.state == Definition.State.HELD else "Rejected",
    }
