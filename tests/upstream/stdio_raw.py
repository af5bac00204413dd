"""An MCP server over stdio that does what the name of the tool says, right or wrong. Run with `python -I -S`.

    stdio_raw.py modern | legacy [silent | dies | garbage | old-error | late]

The second word says how a legacy server takes `server/discover`.
"""

import json
import os
import sys
import threading
from typing import Any

ERA, QUIRK = sys.argv[1], (sys.argv[2:] or ["old-error"])[0]
LOCK = threading.Lock()
REPLIES: dict[str, Any] = {}
CANCELED: list[int] = []
CAPABILITIES: dict[str, Any] = {"tools": {"listChanged": True}, "logging": {}}


def say(tree: dict[str, Any]) -> None:
    write(json.dumps({"jsonrpc": "2.0", **tree}))


def write(line: str) -> None:
    with LOCK:
        data = (line + "\n").encode()
        while data:
            data = data[os.write(1, data) :]


def note(method: str, **params: Any) -> None:
    say({"method": method, "params": params})


def text(words: object) -> dict[str, Any]:
    return {"resultType": "complete", "content": [{"type": "text", "text": str(words)}]}


def ask(method: str, params: Any = None) -> dict[str, Any]:
    """A request of our own, and what comes back."""
    id, done = f"q{len(REPLIES)}", threading.Event()
    REPLIES[id] = done
    say({"id": id, "method": method, "params": params or {}})
    done.wait()
    reply: dict[str, Any] = REPLIES[id]
    return reply


def call(id: int, params: dict[str, Any]) -> None:
    name, meta = params["name"], params.get("_meta", {})
    if name == "die":
        os.write(2, b"out of memory\n")
        os._exit(3)
    if name == "stop-reading":
        threading.Event().wait()
    if name == "close":
        os.close(1)
        threading.Event().wait()
    if name == "flood":
        while True:
            write("no message")
    if name == "huge":
        say({"id": id, "result": {"x": "x" * 5_000_000}})
        return
    if name == "huge-without-id":
        write("x" * 5_000_000)
    if name == "half":
        write(json.dumps({"jsonrpc": "2.0", "id": id, "result": {}})[:-2])
        return
    if name == "no-object":
        say({"id": id, "result": 7})
        return
    if name == "wrong-type":
        say({"id": id, "result": {"resultType": "elephant", "content": []}})
        return
    if name == "garbage":
        for line in ("Starting…", "", "{", "[]", "null", '{"jsonrpc":"2.0","id":99999,"result":{}}', "\x1b[31m"):
            write(line)
    if name == "twice":
        say({"id": id, "result": text("first")})
    if name == "ask":
        reply = ask("elicitation/create", {"message": "?"})
        say({"id": id, "result": text(json.dumps(reply.get("result", reply.get("error"))))})
        return
    if name == "ping":
        say({"id": id, "result": text(json.dumps(ask("ping").get("result")))})
        return
    if name == "noise":
        note("notifications/message", level="error", data="for whom?")
    if name == "progress":
        note("notifications/progress", progressToken=meta.get("progressToken", "none"), progress=1)
        note("notifications/progress", progressToken="somebody's", progress=2)
    if name == "wait":
        note("notifications/progress", progressToken=meta.get("progressToken"), progress=0)
        return
    if name == "canceled":
        say({"id": id, "result": text(json.dumps(CANCELED))})
        return
    if name == "change":
        note("notifications/tools/list_changed")
    say({"id": id, "result": text(os.getpid() if name == "pid" else "ok")})


def discover(id: int) -> None:
    if ERA == "modern":
        say({"id": id, "result": {"supportedVersions": ["2026-07-28"], "capabilities": CAPABILITIES}})
    elif QUIRK == "dies":
        os._exit(1)
    elif QUIRK == "garbage":
        write("what?")
        say({"id": id, "result": {"what": "?"}})
    elif QUIRK != "silent":
        say({"id": id, "error": {"code": -32602, "message": "before initialization"}})


def main() -> None:
    for line in sys.stdin.buffer:
        tree = json.loads(line)
        method, id, params = tree.get("method"), tree.get("id"), tree.get("params", {})
        if method is None:
            done, REPLIES[id] = REPLIES[id], tree
            done.set()
        elif method == "server/discover":
            discover(id)
        elif method == "initialize":
            face = {"protocolVersion": params["protocolVersion"], "capabilities": CAPABILITIES, "serverInfo": {}}
            say({"id": id, "result": face})
        elif method == "notifications/cancelled":
            CANCELED.append(params["requestId"])
        elif method == "tools/call":
            if params["name"] == "stop-reading":
                call(id, params)
            threading.Thread(target=call, args=(id, params), daemon=True).start()
        elif method == "logging/setLevel":
            say({"id": id, "result": {}})


main()
