"""An MCP server in one file and without a library: notes, kept in memory. It speaks stdio, revision 2025-06-18.

Each line of standard input is a JSON-RPC message, each line of standard output too (MCP, basic/transports, stdio).
"""

import json
import sys

NOTES = ["Buy milk", "Call Ada about the gateway"]
TOOLS = [
    {
        "name": "find",
        "description": "Finds the notes that contain a word.",
        "inputSchema": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    },
    {
        "name": "add",
        "description": "Adds a note.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
    },
]


def find(word):
    return [note for note in NOTES if word.lower() in note.lower()]


def add(text):
    NOTES.append(text)
    return [f"There are {len(NOTES)} notes now."]


def answer(method, params):
    if method == "initialize":
        info = {"name": "notes", "version": "1.0.0"}
        return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}
    if method == "tools/list":
        return {"tools": TOOLS}
    if method == "tools/call":
        lines = {"find": find, "add": add}[params["name"]](**params["arguments"])
        return {"content": [{"type": "text", "text": line} for line in lines]}
    return {} if method == "ping" else None


for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            result = answer(message["method"], message.get("params", {}))
            missing = {"code": -32601, "message": "There is no such method"}
            reply |= {"error": missing} if result is None else {"result": result}
        except (KeyError, TypeError):
            reply["error"] = {"code": -32602, "message": "There is no such tool, or its arguments are others"}
        print(json.dumps(reply), flush=True)
