"""A stdio MCP server of a few lines, without imports that take time. Its tools do what their names say.

    python -I -S stdio_peer.py [era=modern|legacy|mute|shy|ghost] [start=SECONDS] [log=PATH]

mute: never answers the question for the era. shy: ends when the first message is not the handshake.
ghost: never answers anything.
"""

import json
import os
import subprocess
import sys
import time

options = dict(argument.split("=", 1) for argument in sys.argv[1:])
era = options.get("era", "modern")


def log(text):
    if "log" in options:
        with open(options["log"], "a") as file:
            file.write(f"{text}\n")


def send(message):
    sys.stdout.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
    sys.stdout.flush()


def answer(message, **result):
    send({"jsonrpc": "2.0", "id": message["id"], "result": {"content": [], **result}})


def call(message):
    params = message["params"]
    name, arguments = params["name"], params.get("arguments", {})
    if name == "echo":
        answer(message, arguments=arguments, meta=params.get("_meta"))
    elif name == "die":
        sys.stderr.write("last words\n")
        sys.stderr.flush()
        os._exit(arguments.get("code", 7))
    elif name == "half":
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": message["id"]})[:-1] + ', "res')
        sys.stdout.flush()
        os._exit(0)
    elif name == "hang":
        pass
    elif name == "sleep":
        time.sleep(arguments["seconds"])
        answer(message)
    elif name == "environment":
        answer(
            message, environment=dict(os.environ), cwd=os.getcwd(), pid=os.getpid(), group=os.getpgid(0), session=os.getsid(0)
        )
    elif name == "large":
        answer(message, text="x" * arguments["size"])
    elif name == "bomb":
        values = "{}," * arguments["values"] + "{}"
        send(f'{{"jsonrpc":"2.0","id":{message["id"]},"result":{{"a":[{values}]}}}}')
    elif name == "ask-forever":
        # Never reads what it is answered.
        while True:
            sys.stdout.write('{"jsonrpc":"2.0","id":1,"method":"ping"}\n' * 1000)
    elif name == "announce-forever":
        while True:
            sys.stdout.write('{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n' * 1000)
    elif name == "blank-forever":
        while True:
            sys.stdout.write("\n" * 10000)
    elif name == "log-forever":
        answer(message)
        while True:
            sys.stderr.write("e" * 65536)
    elif name == "news":
        for i in range(arguments["count"]):
            params_of = {"progressToken": params["_meta"]["progressToken"], "progress": i}
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": params_of})
        answer(message)
    elif name == "endless":
        while True:
            sys.stdout.write("x" * 65536)
    elif name == "rubbish":
        for _ in range(arguments["lines"]):
            send(arguments.get("line", "debug: not json"))
        answer(message)
    elif name == "wrong-id":
        send({"jsonrpc": "2.0", "id": 123456, "result": {}})
        send({"jsonrpc": "2.0", "id": message["id"], "result": []})
    elif name == "stderr":
        sys.stderr.write("e" * arguments["size"] + "END")
        sys.stderr.flush()
        answer(message)
    elif name == "progress":
        token = params["_meta"]["progressToken"]
        for i in range(3):
            send({"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": token, "progress": i}})
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
        answer(message)
    elif name == "ask":
        send({"jsonrpc": "2.0", "id": "q1", "method": "ping"})
        send({"jsonrpc": "2.0", "id": "q2", "method": "sampling/createMessage", "params": {}})
        replies = {}
        while len(replies) < 2:
            reply = json.loads(sys.stdin.readline())
            replies[reply["id"]] = reply.get("result", reply.get("error", {}).get("code"))
        answer(message, replies=replies)
    elif name == "family":
        # One child in the group, and one that has left group and session and has another parent by now.
        child = subprocess.Popen(["/bin/sleep", "300"])
        leaver = subprocess.run(
            ["/bin/sh", "-c", "setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done' >/dev/null 2>&1 & echo $!"],
            capture_output=True,
            text=True,
            check=True,
        )
        answer(message, pids=[os.getpid(), os.getppid(), child.pid, int(leaver.stdout)])
    elif name == "close-stdout":
        sys.stdout.close()
        os.close(1)
        time.sleep(300)
    elif name == "stop-reading":
        answer(message)
        time.sleep(300)


def tools_for(message, capabilities):
    """Answer with what a client sees that has these capabilities; one that may be asked is asked first."""
    replies = {}
    if "elicitation" in capabilities and era != "modern":
        for id, method in (("r", "roots/list"), ("e", "elicitation/create"), ("s", "sampling/createMessage")):
            send({"jsonrpc": "2.0", "id": id, "method": method, "params": {}})
        while len(replies) < 3:
            reply = json.loads(sys.stdin.readline())
            replies[reply["id"]] = reply.get("result", reply.get("error", {}).get("code"))
        log(f"replies {json.dumps(replies, sort_keys=True)}")
    names = ["plain", *(f"needs-{name}" for name in sorted(capabilities))]
    answer(message, tools=[{"name": name, "inputSchema": {"type": "object"}} for name in names])


log(f"start {os.getpid()}")
time.sleep(float(options.get("start", 0)))
first = True
declared = {}
for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    log(method)
    if era == "shy" and first and method != "initialize":
        os._exit(1)
    first = False
    if era == "ghost" or "id" not in message:
        continue
    if method == "tools/list":
        meta = message["params"].get("_meta", {})
        tools_for(message, meta.get("io.modelcontextprotocol/clientCapabilities", {}) if era == "modern" else declared)
    elif method == "server/discover":
        if era == "modern":
            answer(message, supportedVersions=["2026-07-28"], capabilities={"tools": {}}, resultType="complete")
        elif era != "mute":
            send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
    elif method == "initialize":
        if era == "modern":
            data = {"supported": ["2026-07-28"]}
            send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32022, "message": "no", "data": data}})
        else:
            info = {"name": "peer", "version": "1"}
            declared = message["params"]["capabilities"]
            answer(message, protocolVersion="2025-06-18", capabilities={"tools": {}}, serverInfo=info)
    elif method == "tools/call":
        call(message)
    elif method in ("resources/subscribe", "resources/unsubscribe"):
        uri = message["params"]["uri"]
        log(f"{method} {uri}")
        if uri.startswith("no:"):
            send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32002, "message": "no such resource"}})
        else:
            answer(message)
            send({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri}})
    elif method == "subscriptions/listen":
        wanted = message["params"]["notifications"]
        uris = wanted.get("resourceSubscriptions", [])
        log(f"filter {uris}")
        meta = {"io.modelcontextprotocol/subscriptionId": message["id"]}
        honoured = {**wanted, "resourceSubscriptions": [uri for uri in uris if not uri.startswith("no:")]}
        acknowledged = {"notifications": honoured, "_meta": meta}
        send({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": acknowledged})
        for uri in honoured["resourceSubscriptions"]:
            send({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": uri, "_meta": meta}})
