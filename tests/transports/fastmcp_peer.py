"""A small server on fastmcp: `python fastmcp_peer.py` on stdio, `python fastmcp_peer.py PORT` on Streamable HTTP."""

import sys

from fastmcp import FastMCP

server = FastMCP("fast")


@server.tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.resource("note://{name}")
def note(name: str) -> str:
    """Return a note."""
    return f"note {name}"


@server.prompt
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello {name}"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False, log_level="ERROR")
    else:
        server.run(show_banner=False, log_level="ERROR")
