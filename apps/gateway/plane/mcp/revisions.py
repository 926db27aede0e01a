"""Protocol revisions and the words each era has."""

from apps.servers.domain import LEGACY_REVISIONS, MODERN_REVISIONS

MODERN = MODERN_REVISIONS[0]
LEGACY = LEGACY_REVISIONS[:3]
"""What the Streamable HTTP front speaks with a handshake; 2024-11-05 has only HTTP+SSE."""
ASSUMED_LEGACY = "2025-03-26"
"""What a request without MCP-Protocol-Version means (2025-06-18, Streamable HTTP)."""
BATCHED = "2025-03-26"
"""The one revision that has batches."""

META = "io.modelcontextprotocol/"
META_VERSION = META + "protocolVersion"
META_CAPABILITIES = META + "clientCapabilities"
META_CLIENT = META + "clientInfo"
META_LOG_LEVEL = META + "logLevel"
META_SERVER = META + "serverInfo"
META_SUBSCRIPTION = META + "subscriptionId"

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
NAMED_BY = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Method → the parameter that the Mcp-Name header repeats."""
STATUS_OF_CODE = {-32700: 400, -32600: 400, -32602: 400, -32020: 400, -32021: 400, -32022: 400, -32601: 404}
"""HTTP status of a JSON-RPC error for modern clients; any other code is 200."""
