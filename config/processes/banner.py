"""What a start prints: where the console is and, once, how to get in and a call that works as printed."""

import json
import shlex

from config.environment import Environment
from config.processes.preparation import Prepared

REVISION = "2026-07-28"
TOOL = "system__calculate"


def local_address(environment: Environment) -> str:
    """Return the address at which this machine reaches the server: of the loopback interface where that is listened on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(environment.host, environment.host)  # noqa: S104
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{environment.port}"


def banner(environment: Environment, version: str, prepared: Prepared, *, serves: frozenset[str]) -> tuple[str, ...]:
    """Return the lines that every start prints."""
    lines = ["", f"  Switchyard {version}"]
    if serves & {"all", "web"}:
        lines.append(f"  Console   {environment.public_url}/admin/   (user {prepared.username})")
    if serves & {"all", "gateway"}:
        lines.append(f"  Gateway   {environment.public_url}/mcp")
    return (*lines, "")


def once(environment: Environment, prepared: Prepared, *, serves: frozenset[str]) -> tuple[str, ...]:
    """Return the lines that only the first start prints. What the operator gave is not repeated."""
    lines = []
    if prepared.password is not None:
        given = "as given in SWITCHYARD_ADMIN_PASSWORD"
        lines.append(f"  User      {prepared.username}")
        lines.append(f"  Password  {given if environment.admin_password else prepared.password}")
    if prepared.key is not None:
        lines.append(f"  API key   {'as given in SWITCHYARD_ADMIN_KEY' if environment.admin_key else prepared.key}")
    if (prepared.password and not environment.admin_password) or (prepared.key and not environment.admin_key):
        lines += ["", "  What was made now is shown this once: keep it."]
    if prepared.key is not None and prepared.calculator and serves & {"all", "gateway"}:
        key = "$SWITCHYARD_ADMIN_KEY" if environment.admin_key else prepared.key
        lines += ["", "  A first call:", f"  {curl(local_address(environment), key)}"]
    return (*lines, "") if lines else ()


def curl(address: str, key: str) -> str:
    """Return a shell command that calls `calculate` of the built-in server (MCP 2026-07-28: one request, no session)."""
    prefix = "io.modelcontextprotocol/"
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": TOOL,
            "arguments": {"expression": "6 * 7"},
            "_meta": {
                f"{prefix}protocolVersion": REVISION,
                f"{prefix}clientCapabilities": {},
                f"{prefix}clientInfo": {"name": "curl", "version": "1"},
            },
        },
    }
    headers = (
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        f"MCP-Protocol-Version: {REVISION}",
        "Mcp-Method: tools/call",
        f"Mcp-Name: {TOOL}",
    )
    parts = ["curl", "-sS", "-w", r"'\n'", f"{address}/mcp", "-H", f'"Authorization: Bearer {key}"']
    for header in headers:
        parts += ["-H", shlex.quote(header)]
    return " ".join([*parts, "-d", shlex.quote(json.dumps(message, separators=(",", ":")))])
