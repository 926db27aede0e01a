"""The same trivial MCP server over stdio."""

import sys

import orjson

from benchmarks.upstream import answer


def main() -> None:
    """Serve standard input until it ends."""
    out = sys.stdout.buffer
    for line in sys.stdin.buffer:
        message = orjson.loads(line)
        if "id" in message:
            out.write(orjson.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer(message)}) + b"\n")
            out.flush()


if __name__ == "__main__":
    main()
