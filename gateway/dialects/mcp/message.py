"""What one JSON-RPC message is, and the members that every MCP message has.

Source: basic/index (messages, `_meta`), JSON-RPC 2.0 §4 and §5.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import orjson

from gateway.dialects.lookalikes import Members
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.tool import Tree
from gateway.model.value import value

Id: TypeAlias = str | int

META = "io.modelcontextprotocol/"
PROTOCOL_VERSION = META + "protocolVersion"
CLIENT_CAPABILITIES = META + "clientCapabilities"
CLIENT_INFO = META + "clientInfo"
LOG_LEVEL = META + "logLevel"
SERVER_INFO = META + "serverInfo"
SUBSCRIPTION_ID = META + "subscriptionId"

LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""RFC 5424, least severe first (server/utilities/logging)."""

MAX_ID = 256
"""Characters of a request id: it is kept while the request runs. UUIDs have 36."""

MAX_MESSAGES = 50
"""Messages in one batch (2025-03-26), each of which may be a whole call: as many as A2A batches may have."""

# What decides who may do what, and where it goes. The rest of the parameters is passed on as it came.
_MEMBERS = Members(
    (
        *("name", "arguments", "uri", "ref", "argument", "context", "cursor", "task", "taskId", "_meta", "level"),
        *("requestState", "inputResponses", "protocolVersion", "capabilities", "clientInfo", "notifications"),
    )
)
_REFERENCE = Members(("type", "name", "uri"))


@value
class Request:
    id: Id
    method: str
    params: Tree


@value
class Notification:
    method: str
    params: Tree


@value
class Response:
    """What a client answers to a request of the server's (sessions only). `error` is the error object, or None."""

    id: Id
    result: Tree
    error: Tree | None = None


Message: TypeAlias = Request | Notification | Response


def message(tree: Any) -> Message:
    """The one message that `tree` is. Raises INVALID_REQUEST."""
    if type(tree) is not dict or tree.get("jsonrpc") != "2.0":
        raise _malformed('a message is one object with "jsonrpc": "2.0"')
    method, id = tree.get("method"), tree.get("id")
    has_id = "id" in tree
    if has_id and not is_id(id):
        raise _malformed(f"an id is a text of at most {MAX_ID} characters or a whole number")
    if method is None:
        return _response(tree)
    if type(method) is not str or not method:
        raise _malformed("a method is a text")
    params = tree.get("params", {})
    if type(params) is not dict:
        raise _malformed("params is an object")
    _MEMBERS.check(params, "params.")
    if type(ref := params.get("ref")) is dict:
        _REFERENCE.check(ref, "params.ref.")
    if "_meta" in params and type(params["_meta"]) is not dict:
        raise invalid("params._meta", "must be an object")
    return Request(cast(Id, id), method, params) if has_id else Notification(method, params)


def is_id(id: Any) -> bool:
    """Texts and whole numbers; null is no id in MCP (basic/index, requests)."""
    return (type(id) is str and len(id) <= MAX_ID) or type(id) is int


def request_id(tree: Any) -> Id | None:
    """The id to answer with when a message was refused: its own if it has one that can be read."""
    id = tree.get("id") if type(tree) is dict and "method" in tree else None
    return id if is_id(id) else None


def meta(params: Tree) -> Tree:
    found = params.get("_meta")
    return found if type(found) is dict else {}


def progress_token(params: Tree) -> Id | None:
    token = meta(params).get("progressToken")
    return token if is_id(token) else None


def least(level: object) -> int | None:
    """The rank of a log level; None for a word that is none."""
    return LEVELS.index(level) if level in LEVELS else None


def result(id: Id, body: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (orjson.dumps(id), body)


def error(id: Id | None, body: bytes) -> bytes:
    return b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (orjson.dumps(id), body)


def request(id: Id, method: str, params: Tree) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notification(method: str, params: Tree) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "method": method, "params": params})


def _response(tree: Tree) -> Response:
    if not is_id(tree.get("id")) or ("result" in tree) is ("error" in tree):
        raise _malformed("a message has a method, or an id and one of result and error")
    if "error" in tree:
        problem = tree["error"]
        if type(problem) is not dict or type(problem.get("code")) is not int:
            raise _malformed("an error is an object with a code")
        return Response(tree["id"], {}, problem)
    if type(tree["result"]) is not dict:
        raise _malformed("a result is an object")
    return Response(tree["id"], tree["result"])


def _malformed(why: str) -> GatewayError:
    return GatewayError(Reason.INVALID_REQUEST, f"Not a JSON-RPC message of MCP: {why}")
