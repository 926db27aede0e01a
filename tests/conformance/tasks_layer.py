"""ASGI layer adding the io.modelcontextprotocol/tasks fixture tools (SEP-2663) in front of an MCP app (modern requests only)."""

import asyncio
import json
import secrets
from datetime import datetime, timezone

from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundLadderRejection,
    classify_inbound_request,
    decode_header_value,
)

EXT = "io.modelcontextprotocol/tasks"
CAPS = "io.modelcontextprotocol/clientCapabilities"
SI = {"io.modelcontextprotocol/serverInfo": {"name": "mcp-conformance-test-server", "version": "0.1.0"}}


def OBJ(**p):
    return {"type": "object", "properties": p}


TOOLS = [
    dict(name="greet", description="sync", inputSchema=OBJ(name={"type": "string"})),
    dict(name="slow_compute", description="task", inputSchema=OBJ(seconds={"type": "number"}, label={"type": "string"})),
    dict(name="failing_job", description="task required", inputSchema=OBJ()),
    dict(name="protocol_error_job", description="task", inputSchema=OBJ()),
    dict(name="confirm_delete", description="task, elicits", inputSchema=OBJ(filename={"type": "string"})),
    dict(name="multi_input", description="task, elicits twice", inputSchema=OBJ()),
    dict(name="test_tool_with_task", description="MRTR then task", inputSchema=OBJ()),
]
NAMES = {t["name"] for t in TOOLS}
TASKS = {}


def now():
    return datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")


class Err(Exception):
    def __init__(s, code, msg, data=None):
        s.code, s.msg, s.data = code, msg, data


def text(s, **k):
    return {"content": [{"type": "text", "text": s}], **k}


def elicit(msg):
    return {
        "method": "elicitation/create",
        "params": {
            "mode": "form",
            "message": msg,
            "requestedSchema": {"type": "object", "properties": {"confirm": {"type": "boolean"}, "name": {"type": "string"}}},
        },
    }


class Task:
    def __init__(s, coro_fn, **f):
        s.d = {
            "taskId": secrets.token_urlsafe(18),
            "status": "working",
            "createdAt": now(),
            "lastUpdatedAt": now(),
            "ttlMs": 300000,
            "pollIntervalMs": 200,
        }
        s.pending = {}
        s.ev = asyncio.Event()
        TASKS[s.d["taskId"]] = s
        s.t = asyncio.create_task(s.run(coro_fn))

    def set(s, **k):
        s.d.update(k)
        s.d["lastUpdatedAt"] = now()

    async def run(s, fn):
        try:
            r = await fn(s)
            s.set(status="completed", result={**r, "resultType": "complete"})
        except asyncio.CancelledError:
            s.set(status="cancelled")
        except Err as e:
            s.set(status="failed", error={"code": e.code, "message": e.msg})

    async def ask(s, reqs):
        s.pending = dict(reqs)
        s.set(status="input_required")
        while s.pending:
            await s.ev.wait()
            s.ev.clear()
        s.set(status="working")

    def view(s):
        return {
            **s.d,
            **({"inputRequests": s.pending} if s.d["status"] == "input_required" else {}),
            "resultType": "complete",
            "_meta": SI,
        }


async def slow(task, sec, label):
    await asyncio.sleep(sec)
    return text(f"done {label} after {sec}s")


def layer(inner):
    async def app(scope, receive, send):
        hd = dict(scope.get("headers") or [])
        if scope["type"] != "http" or scope["method"] != "POST" or hd.get(b"mcp-protocol-version") != b"2026-07-28":
            return await inner(scope, receive, send)
        body = b""
        while True:
            m = await receive()
            body += m.get("body", b"")
            if not m.get("more_body"):
                break
        sent = False

        async def replay():
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        try:
            d = json.loads(body)
            meth = d.get("method", "")
            p = d.get("params") or {}
        except Exception:
            return await inner(scope, replay, send)
        mine = meth.startswith("tasks/") or (meth == "tools/call" and p.get("name") in NAMES)

        async def out(status, obj):
            b = json.dumps(obj).encode()
            await send(
                {
                    "type": "http.response.start",
                    "status": status,
                    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(b)).encode())],
                }
            )
            await send({"type": "http.response.body", "body": b})

        if not mine:
            if meth not in ("tools/list", "server/discover"):
                return await inner(scope, replay, send)
            buf = []

            async def cap(m):
                buf.append(m)

            await inner(scope, replay, cap)
            st = buf[0]["status"]
            raw = b"".join(x.get("body", b"") for x in buf[1:])
            if b"text/event-stream" in dict(buf[0]["headers"]).get(b"content-type", b""):
                raw = next(l[5:] for l in raw.split(b"\n") if l.startswith(b"data:"))
            if st != 200:
                for x in buf:
                    await send(x)
                return
            o = json.loads(raw)
            if "result" in o:
                if meth == "tools/list":
                    o["result"]["tools"] += TOOLS
                else:
                    o["result"]["capabilities"].setdefault("extensions", {})[EXT] = {}
            return await out(st, o)

        async def handle():
            v = classify_inbound_request(d, headers={k.decode(): x.decode("latin-1").strip() for k, x in hd.items()})
            if isinstance(v, InboundLadderRejection):
                raise Err(v.code, v.message, v.data)
            has = EXT in ((p["_meta"][CAPS] or {}).get("extensions") or {})
            if meth in ("tasks/get", "tasks/update", "tasks/cancel"):
                if not has:
                    raise Err(-32021, "Missing required client capability", {"requiredCapabilities": {"extensions": {EXT: {}}}})
                tid = p.get("taskId")
                h = decode_header_value(hd.get(b"mcp-name", b"").decode())
                if h != tid:
                    raise Err(-32020, f"Header mismatch: Mcp-Name {h!r} vs taskId")
                t = TASKS.get(tid)
                if t is None:
                    raise Err(-32602, "Unknown task", None)
                if meth == "tasks/get":
                    return t.view()
                if meth == "tasks/cancel":
                    if not t.t.done():
                        t.t.cancel()
                        await asyncio.sleep(0)
                    return {"resultType": "complete", "_meta": SI}
                for k in list((p.get("inputResponses") or {})):
                    t.pending.pop(k, None)
                if not t.pending:
                    t.ev.set()
                return {"resultType": "complete", "_meta": SI}
            if meth.startswith("tasks/"):
                raise Err(-32601, "Method not found", meth)
            n, a = p["name"], p.get("arguments") or {}

            def comp(r):
                return {**r, "resultType": "complete", "_meta": SI}

            def mk(fn):
                return {**{k: x for k, x in Task(fn).d.items()}, "resultType": "task", "_meta": SI}

            if n == "greet":
                return comp(text(f"Hello, {a.get('name')}!"))
            if n == "failing_job":
                if not has:
                    raise Err(-32021, "Missing required client capability", {"requiredCapabilities": {"extensions": {EXT: {}}}})

                async def f(t):
                    await asyncio.sleep(0.05)
                    return text("boom", isError=True)

                return mk(f)
            if n == "slow_compute":
                s = float(a.get("seconds", 0))

                def fn(t):
                    return slow(t, s, a.get("label", ""))

                return mk(fn) if has and s > 0 else comp(await slow(None, s, a.get("label", "")))
            if not has and n == "test_tool_with_task":
                raise Err(-32021, "Missing required client capability", {"requiredCapabilities": {"extensions": {EXT: {}}}})
            if not has:
                return comp(text("This tool does its work in a task, which the client does not take.", isError=True))
            if n == "protocol_error_job":

                async def f(t):
                    await asyncio.sleep(0.05)
                    raise Err(-32603, "internal failure")

                return mk(f)
            if n == "confirm_delete":

                async def f(t):
                    await t.ask({"confirm": elicit("delete?")})
                    return text("deleted")

                return mk(f)
            if n == "multi_input":

                async def f(t):
                    await t.ask({"one": elicit("one?"), "two": elicit("two?")})
                    return text("both")

                return mk(f)
            if n == "test_tool_with_task":
                r = (p.get("inputResponses") or {}).get("user_name")
                if not r:
                    return {"resultType": "input_required", "inputRequests": {"user_name": elicit("name?")}, "_meta": SI}
                nm = (r.get("content") or {}).get("name")

                async def f(t):
                    await asyncio.sleep(0.2)
                    return text(f"Hello {nm} from task")

                return mk(f)

        try:
            r = await handle()
            await out(200, {"jsonrpc": "2.0", "id": d.get("id"), "result": r})
        except Err as e:
            await out(
                ERROR_CODE_HTTP_STATUS.get(e.code, 200),
                {
                    "jsonrpc": "2.0",
                    "id": d.get("id"),
                    "error": {"code": e.code, "message": e.msg, **({"data": e.data} if e.data is not None else {})},
                },
            )

    return app
