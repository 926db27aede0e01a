"""The review rule: what happens to a definition that a server offers now, given what is known of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Known:
    """What the catalogue has of a definition; digests are empty where there is none."""

    state: str
    """`active`, `held`, `rejected` or `removed`."""
    digest: str = ""
    """Of the definition that was last let through."""
    pending_digest: str = ""
    """Of the one that waits, or was rejected."""
    rejected_digest: str = ""
    """Of the last one that an operator rejected."""


def verdict(known: Known | None, offered: str, *, review: str, suspicious: bool) -> str:
    """Return the state that follows: `active`, `held` or `rejected`.

    `offered` is the digest of what the server says now, `review` its rule (`accept`, `hold-changed`, `hold-all`), `suspicious` whether
    the checks ask for an operator's eyes. What was rejected stays rejected, also when it was gone in between; what was let
    through once needs no second look; whoever was rejected is not accepted unseen again.
    """
    if known is None:
        return "held" if suspicious or review == "hold-all" else "active"
    if offered == known.rejected_digest:
        return "rejected"
    if offered == known.digest:
        return "active"
    if review == "accept" and not suspicious and not known.rejected_digest:
        return "active"
    return "held"
