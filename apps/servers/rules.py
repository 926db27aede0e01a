"""Pure rules for what an operator may register: slugs, addresses, commands, header and variable names. No Django here.

Each check raises ValueError with a sentence for the operator.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

RESERVED_SLUGS = frozenset({
    "admin", "api", "bulk", "export", "import", "mcp", "messages", "new", "preview", "sse", "statistics", "test-connection", "v1",
    "well-known", "ws",
})  # fmt: skip
"""Slugs that would read as something else in `/mcp/<slug>` or in `/api/v1/servers/<slug>/`."""

MAX_SLUG, MAX_URL, MAX_COMMAND, MAX_ARGS, MAX_ARG_CHARS = 40, 2000, 500, 256, 32_000
MAX_NAME, MAX_VALUE_BYTES, MAX_CREDENTIALS = 200, 16_384, 100

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_SECRET_WORD = re.compile(
    r"(?:^|[-_.])(?:api-?key|access-?key|apikey|key|token|secret|passwd|password|auth|authorization|credentials?|sig|signature)$"
)

FRAMING_HEADERS = frozenset({
    "accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "host",
    "keep-alive", "last-event-id", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Hop-by-hop headers (RFC 9110, section 7.6.1) and those that the transports write themselves."""

LOADER_VARIABLES = frozenset({"GCONV_PATH", "GLIBC_TUNABLES", "BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "PS4", "IFS"})
"""Variables with which code gets into any program that is started, whatever its command says; `LD_*` and `DYLD_*` as well."""

STATE_ORDER = ("unhealthy", "unauthenticated", "degraded", "unknown", "healthy")
"""States of an endpoint, worst first."""


def derive_state(paused: bool, states: Iterable[str]) -> str:
    """Return a server's state: paused, else the worst of its endpoints, else unknown."""
    if paused:
        return "paused"
    found = set(states)
    return next((state for state in STATE_ORDER if state in found), "unknown")


def check_slug(slug: str) -> None:
    """Refuse a slug that would collide with a path; its form is the model's to check."""
    if slug in RESERVED_SLUGS:
        raise ValueError(f"“{slug}” is reserved; choose another.")


def slugify_name(name: str) -> str:
    """Turn any name into a slug, always the same one: `My Files (EU)` becomes `my-files-eu`. May be empty."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_SLUG].strip("-")


def check_text(value: Any) -> None:
    """Accept a string."""
    if not isinstance(value, str):
        raise ValueError("A text is needed.")  # noqa: TRY004 - every rule raises ValueError


def check_url(url: str) -> None:
    """Accept an absolute http or https URL without user information, fragment or secrets in its query (RFC 3986)."""
    check_text(url)
    if len(url) > MAX_URL:
        raise ValueError(f"At most {MAX_URL} characters.")
    if _CONTROL.search(url) or "\\" in url:
        raise ValueError("Spaces, control characters and backslashes are not allowed in a URL.")
    if "@" in re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        raise ValueError("No user name or password in the URL: store them as a header credential.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("Not a URL that can be read: check host and port.") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("Use an http:// or https:// URL.")
    if not parts.hostname:
        raise ValueError("The URL has no host.")
    if port == 0:
        raise ValueError("Port 0 cannot be reached.")
    if "#" in url:
        raise ValueError("No fragment (#…) in the URL.")
    if secret := next((name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if looks_secret(name)), None):
        raise ValueError(f"“{secret}” in the query looks like a secret, and URLs are shown: store it as a header credential.")


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a checked URL (RFC 6454)."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


def looks_secret(name: str) -> bool:
    """Tell whether a parameter or option of this name carries a secret, as far as its name says."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower().lstrip("-")
    return _SECRET_WORD.search(words) is not None


def check_command(command: str) -> None:
    """Accept a program's name or path."""
    check_text(command)
    if not command.strip():
        raise ValueError("A command is needed.")
    if "\x00" in command or "\n" in command or "\r" in command:
        raise ValueError("No line breaks and no NUL in a command.")
    if len(command) > MAX_COMMAND:
        raise ValueError(f"At most {MAX_COMMAND} characters.")


def check_args(args: Any) -> None:
    """Accept a list of strings without NUL."""
    if not isinstance(args, list | tuple) or not all(isinstance(arg, str) for arg in args):
        raise ValueError("Arguments are a list of strings.")
    if any("\x00" in arg for arg in args):
        raise ValueError("No NUL in an argument.")
    if len(args) > MAX_ARGS or sum(map(len, args)) > MAX_ARG_CHARS:
        raise ValueError(f"At most {MAX_ARGS} arguments with {MAX_ARG_CHARS} characters together.")


def check_cwd(cwd: str) -> None:
    """Accept an absolute path."""
    check_text(cwd)
    if "\x00" in cwd or not cwd.startswith("/"):
        raise ValueError("The working directory is an absolute path.")


def check_header_name(name: str) -> None:
    """Accept a field name (RFC 9110, section 5.1) that the transports do not write themselves."""
    if not _TOKEN.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(f"“{name[:80]}” is not a header name.")
    if name.lower() in FRAMING_HEADERS or name.lower().startswith("mcp-"):
        raise ValueError(f"The header {name} is written by Switchyard itself.")


def check_header_value(value: str) -> None:
    """Accept a field value (RFC 9110, section 5.5): visible ASCII, spaces and tabs between."""
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(f"At most {MAX_VALUE_BYTES} characters in a header.")
    if not value or value != value.strip() or not all(char == "\t" or " " <= char <= "~" for char in value):
        raise ValueError("A header value is visible ASCII text in one line, without spaces around it.")


def check_env_name(name: str) -> None:
    """Accept an environment variable's name, unless it makes the loader or a shell run other code."""
    if not _ENV_NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(f"“{name[:80]}” is not the name of an environment variable.")
    if name in LOADER_VARIABLES or name.startswith(("LD_", "DYLD_", "BASH_FUNC_")):
        raise ValueError(f"The variable {name} makes every program load other code; it cannot be set.")


def check_env_value(value: str) -> None:
    """Accept any text without NUL."""
    if "\x00" in value:
        raise ValueError("No NUL in an environment variable.")
    if len(value.encode("utf-8", "replace")) > MAX_VALUE_BYTES:
        raise ValueError(f"At most {MAX_VALUE_BYTES} bytes in an environment variable.")


def hide_secrets(args: Iterable[str]) -> list[str]:
    """Return arguments as they may be written to a log: what follows an option that looks like a secret is left out."""
    shown: list[str] = []
    hide_next = False
    for arg in args:
        name, equals, _ = arg.partition("=")
        if hide_next and not arg.startswith("--"):
            shown.append("…")
            hide_next = False
            continue
        hide_next = False
        if equals and looks_secret(name):
            shown.append(f"{name}=…")
        elif header := re.match(r"[\w-]+:(?=\s)", arg):
            shown.append(f"{header.group()} …")
        elif re.search(r"\b(?:bearer|basic)\s", arg, re.IGNORECASE):
            shown.append("…")
        else:
            shown.append(arg)
            hide_next = arg.startswith("-") and looks_secret(name)
    return shown
