"""A hostile MCP server on standard input and output (2025-11-25): honest while it is discovered, then as its calls ask.

Arguments: a ledger file, and `stubborn` to ignore SIGTERM and the end of its input. It writes `pid N` for itself and each child, and
`call MARK` for each call that arrives.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

LEDGER = sys.argv[1]
STUBBORN = "stubborn" in sys.argv[2:]
TOOL = {
    "name": "act",
    "inputSchema": {
        "type": "object",
        "properties": {"how": {"type": "string"}, "mark": {"type": "string"}},
        "required": ["how"],
    },
}


def note(line):
    """Append a line to the ledger, in one write."""
    descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, (line + "\n").encode())
    os.close(descriptor)


def say(value):
    """Send a message."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def act(id, arguments):
    """Do what a call asks."""
    how = arguments.get("how")
    done = {"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": "done"}]}}
    if how == "hang":
        return
    if how == "exit":
        sys.exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "rubbish":
        print("this is no JSON {{{", flush=True)
        return
    if how == "binary":
        sys.stdout.buffer.write(bytes(range(256)) * 10 + b"\n")
        sys.stdout.buffer.flush()
        return
    if how == "giant":
        piece = b"a" * 65536
        try:
            for _ in range(16384):
                sys.stdout.buffer.write(piece)
        except OSError:
            os._exit(1)
        return
    if how == "close-stdout":
        os.close(1)
        time.sleep(60)
    if how == "spelled":
        result = (
            '{"content": [{"type": "text", "text": "d\\u006fne"}], "long": 123456789012345678901234567890, "trailing": 1.50}'
        )
        print(f'{{"jsonrpc":"2.0","id":{json.dumps(id)},"result":{result}}}', flush=True)
        return
    if how == "wrong-id":
        say({**done, "id": "nobody"})
        return
    if how == "chatter":
        print("starting up …\n\nWARNING: a library speaks here", flush=True)
        print("x" * 100_000, file=sys.stderr, flush=True)
    if how == "descriptors":
        done["result"]["content"][0]["text"] = " ".join(sorted(os.listdir("/proc/self/fd"), key=int))
    if how == "fork":
        child = os.fork()
        if child == 0:
            os.setsid()
            note(f"pid {os.getpid()}")
            while True:
                time.sleep(1)
        while f"pid {child}" not in Path(LEDGER).read_text():
            time.sleep(0.01)
    say(done)


def main():
    """Serve."""
    note(f"pid {os.getpid()}")
    if STUBBORN:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin:
        message = json.loads(line)
        method, id = message.get("method"), message.get("id")
        if method == "initialize":
            info = {"name": "rogue", "version": "1"}
            say(
                {
                    "jsonrpc": "2.0",
                    "id": id,
                    "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info},
                }
            )
        elif method == "tools/list":
            say({"jsonrpc": "2.0", "id": id, "result": {"tools": [TOOL]}})
        elif method == "tools/call":
            arguments = message["params"].get("arguments") or {}
            note(f"call {arguments.get('mark', '')}")
            act(id, arguments)
        elif method == "ping":
            say({"jsonrpc": "2.0", "id": id, "result": {}})
        elif id is not None:
            say({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no such method"}})
    while STUBBORN:
        time.sleep(1)


if __name__ == "__main__":
    main()
