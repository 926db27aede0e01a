"""A stdio MCP server (2025-11-25) without any SDK: what stands in a JSON file goes out as it is, page by page.

    python raw.py FILE

FILE: as of offering.py, with `mode`: `ok`, `silent`, `rubbish`, `die`, `circle`, `refuse`, `slow`. The text of a member `raw` is sent as the
result of tools/list byte for byte.
"""

import json
import sys
import time
from pathlib import Path

MEMBERS = {
    "tools/list": ("tools", "tools"),
    "resources/list": ("resources", "resources"),
    "resources/templates/list": ("templates", "resourceTemplates"),
    "prompts/list": ("prompts", "prompts"),
}


def answer(request: dict, offers: dict) -> str:
    method, id = request["method"], json.dumps(request["id"])
    if method == "initialize":
        result = {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}, "resources": {}, "prompts": {}},
            "serverInfo": {"name": "raw", "version": "0"},
            "instructions": offers.get("instructions", ""),
        }
        return f'{{"jsonrpc":"2.0","id":{id},"result":{json.dumps(result)}}}'
    if method == "tools/list" and "raw" in offers:
        return f'{{"jsonrpc":"2.0","id":{id},"result":{offers["raw"]}}}'
    if method in MEMBERS and offers.get("mode") != "refuse":
        kind, member = MEMBERS[method]
        rows = offers.get(kind, [])
        size = offers.get("page") or len(rows) or 1
        start = int(request.get("params", {}).get("cursor") or 0)
        result = {member: rows[start : start + size]}
        if start + size < len(rows):
            result["nextCursor"] = "0" if offers.get("mode") == "circle" else str(start + size)
        return f'{{"jsonrpc":"2.0","id":{id},"result":{json.dumps(result)}}}'
    if method == "ping":
        return f'{{"jsonrpc":"2.0","id":{id},"result":{{}}}}'
    return f'{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"Method not found"}}}}'


for line in sys.stdin:
    message = json.loads(line)
    offers = json.loads(Path(sys.argv[1]).read_text())
    mode = offers.get("mode", "ok")
    if "id" not in message or mode == "silent":
        continue
    while mode == "slow":  # until the file says otherwise
        time.sleep(0.05)
        offers = json.loads(Path(sys.argv[1]).read_text())
        mode = offers.get("mode", "ok")
    if mode == "die" and message["method"] == "tools/list":
        sys.exit(3)
    if mode == "rubbish" and message["method"] == "tools/list":
        print('{"jsonrpc":"2.0","id":' + json.dumps(message["id"]) + ',"result":{"tools":"none"}}', flush=True)
        continue
    print(answer(message, offers), flush=True)
