"""A stdio server of the initialize era that asks its client things, without imports that take time.

Tools: `plain` answers at once. `ask` asks as often as `rounds` says, one question after the other, and answers with the replies.
`slow` answers when `release` names its tag; where that says `ask`, it asks first. `stubborn` never answers, and asks something when it
is cancelled. Every question says the tag of its call.
"""

import json
import sys

calls = {}


def send(**message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def ask(call):
    params = {"message": call["tag"], "requestedSchema": {"type": "object", "properties": {}}}
    send(id=f"{call['id']}:{len(call['replies'])}", method="elicitation/create", params=params)


def answer(call):
    send(id=call["id"], result={"content": [], "replies": call["replies"]})
    del calls[call["id"]]


def begin(id, name, arguments):
    call = calls[id] = {
        "id": id,
        "name": name,
        "tag": arguments.get("tag", ""),
        "rounds": arguments.get("rounds", 1),
        "replies": [],
    }
    if name == "ask":
        ask(call)
    elif name == "plain":
        answer(call)
    elif name == "release":
        if arguments.get("forget"):  # what it has asked
            for other in calls.values():
                send(method="notifications/cancelled", params={"requestId": f"{other['id']}:0"})
        for other in [one for one in calls.values() if one["name"] == "slow" and one["tag"] == call["tag"]]:
            if arguments.get("ask"):
                ask(other)
            else:
                answer(other)
        answer(call)


for line in sys.stdin:
    message = json.loads(line)
    method = message.get("method")
    if method == "initialize":
        capabilities = {"tools": {}}
        send(
            id=message["id"],
            result={"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "asker"}},
        )
    elif method == "tools/call":
        begin(message["id"], message["params"]["name"], message["params"]["arguments"])
    elif method == "notifications/cancelled":
        call = calls.get(message["params"]["requestId"])
        if call is not None and call["name"] == "stubborn":
            ask(call)
    elif method is None:
        call = calls.get(int(message["id"].partition(":")[0]))
        if call is not None:
            call["replies"].append(message.get("result", message.get("error", {}).get("code")))
            if len(call["replies"]) < call["rounds"]:
                ask(call)
            else:
                answer(call)
    elif "id" in message:
        send(id=message["id"], error={"code": -32601, "message": "no"})
