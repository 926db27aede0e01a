"""An MCP server on the official SDK: over stdio as a program, over HTTP as an app."""

from mcp.server import MCPServer

server = MCPServer("greeter", version="1.2.3", instructions="Greets.")


@server.tool()
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello {name}"


if __name__ == "__main__":
    server.run("stdio")
