"""The one set of states: always a word with an icon and a colour, the same on every page."""

from dataclasses import dataclass

from django.utils.html import format_html
from django.utils.safestring import SafeString


@dataclass(frozen=True, slots=True)
class Look:
    """How a state is shown; `tone` names the colour tokens of console.css."""

    word: str
    icon: str
    tone: str


STATES: dict[str, Look] = {
    # Servers and endpoints.
    "healthy": Look("Healthy", "check_circle", "good"),
    "degraded": Look("Degraded", "error", "warn"),
    "unhealthy": Look("Unhealthy", "cancel", "bad"),
    "unauthenticated": Look("Unauthenticated", "lock", "violet"),
    "paused": Look("Paused", "pause_circle", "muted"),
    "unknown": Look("Unknown", "help", "outline"),
    "held": Look("Held for review", "back_hand", "info"),
    # Definitions.
    "active": Look("Active", "check_circle", "good"),
    "rejected": Look("Rejected", "block", "bad"),
    "removed": Look("No longer offered", "remove_circle", "outline"),
    # Keys and people.
    "expired": Look("Expired", "timer_off", "muted"),
    "revoked": Look("Revoked", "block", "muted"),
    "inactive": Look("Inactive", "person_off", "muted"),
    # Outcomes.
    "ok": Look("Succeeded", "check_circle", "good"),
    "error": Look("Tool error", "error", "warn"),
    "refused": Look("Refused", "block", "violet"),
    "failed": Look("Failed", "cancel", "bad"),
    "cancelled": Look("Cancelled", "do_not_disturb_on", "muted"),
    "begun": Look("Begun", "play_circle", "outline"),
    # Effects of tools.
    "read-only": Look("Read-only", "visibility", "good"),
    "idempotent": Look("Idempotent", "autorenew", "info"),
    "writes": Look("Writes", "edit", "warn"),
    "destructive": Look("Destructive", "warning", "bad"),
    "not-ruled": Look("Effects not ruled", "help", "outline"),
    # Grants.
    "allow": Look("Allow", "check_circle", "good"),
    "deny": Look("Deny", "block", "bad"),
    # What works between a client and a server.
    "works": Look("Works", "check_circle", "good"),
    "translated": Look("Translated", "swap_horiz", "info"),
    "lost": Look("Lost", "cancel", "bad"),
    "not-offered": Look("Not offered", "remove_circle", "outline"),
    "not-asked": Look("Not asked for", "do_not_disturb_on", "muted"),
    # OAuth connections with servers.
    "connected": Look("Connected", "link", "good"),
    "expiring": Look("Expires soon", "schedule", "warn"),
    "expired-connection": Look("Expired", "timer_off", "bad"),
    "wanting": Look("Wants more scope", "lock_open", "warn"),
    "not-connected": Look("Not connected", "link_off", "violet"),
    # Processes.
    "running": Look("Running", "play_circle", "good"),
    "stale": Look("Not seen lately", "help", "outline"),
}


def look_of(state: str) -> Look:
    """Return how a state is shown; an unforeseen one is shown under its own name."""
    return STATES.get(state) or Look(state.replace("_", " ").replace("-", " ").capitalize() or "Unknown", "help", "outline")


def state_badge(state: str, *, title: str = "", href: str = "", word: str = "") -> SafeString:
    """Render a state; `title` says since when and why, `href` leads to its evidence."""
    look = look_of(state)
    return format_html(
        '<{tag}{href} class="sy-state sy-tone-{tone}"{title}><span class="material-symbols-outlined" aria-hidden="true">'
        "{icon}</span>{word}</{tag}>",
        tag="a" if href else "span",
        href=format_html(' href="{}"', href) if href else "",
        tone=look.tone,
        title=format_html(' title="{}"', title) if title else "",
        icon=look.icon,
        word=word or look.word,
    )
