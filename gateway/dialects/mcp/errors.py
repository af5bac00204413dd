"""Our reasons as MCP's codes and HTTP statuses, both eras.

Source: basic/index (error codes), basic/transports/streamable-http (statuses), changelog (codes that are gone).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import orjson

from gateway.dialects.mcp.versions import MODERN
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Era, PeerError, Tree


class Code(IntEnum):
    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    HEADER_MISMATCH = -32020
    MISSING_CAPABILITY = -32021
    UNSUPPORTED_VERSION = -32022
    # Of the older revisions; 2026-07-28 must not send them.
    LEGACY_NOT_FOUND = -32002
    URL_ELICITATION = -32042


# The gateway's own: outside of what JSON-RPC and MCP reserve, as the specification asks.
_OWN: dict[Reason, int] = {
    Reason.UNAUTHENTICATED: -31001,
    Reason.PERMISSION_DENIED: -31003,
    Reason.OVERLOADED: -31029,
    Reason.UNAVAILABLE: -31053,
    Reason.EGRESS_REFUSED: -31040,
    Reason.UPSTREAM_FAILED: -31050,
    Reason.UPSTREAM_TIMEOUT: -31054,
    Reason.UPSTREAM_TOO_LARGE: -31051,
}
_STANDARD: dict[Reason, int] = {
    Reason.PARSE_ERROR: Code.PARSE_ERROR,
    Reason.INVALID_REQUEST: Code.INVALID_REQUEST,
    Reason.METHOD_NOT_FOUND: Code.METHOD_NOT_FOUND,
    Reason.UNSUPPORTED_OPERATION: Code.METHOD_NOT_FOUND,
    Reason.INVALID_PARAMS: Code.INVALID_PARAMS,
    # A name that is not there is a wrong parameter (server/tools, server/resources: error handling).
    Reason.NOT_FOUND: Code.INVALID_PARAMS,
}

# HTTP has something of its own to say about these; every other error of a request that was understood is 200 in a
# session, and in 2026-07-28 too unless the code below says otherwise.
_STATUS_BY_REASON: dict[Reason, int] = {
    Reason.UNAUTHENTICATED: 401,
    Reason.CONTENT_TYPE_NOT_SUPPORTED: 415,
}
_STATUS_MODERN: dict[int, int] = {
    Code.PARSE_ERROR: 400,
    Code.INVALID_REQUEST: 400,
    Code.INVALID_PARAMS: 400,
    Code.HEADER_MISMATCH: 400,
    Code.MISSING_CAPABILITY: 400,
    Code.UNSUPPORTED_VERSION: 400,
    Code.METHOD_NOT_FOUND: 404,
    _OWN[Reason.PERMISSION_DENIED]: 403,
    _OWN[Reason.OVERLOADED]: 429,
    _OWN[Reason.UNAVAILABLE]: 503,
}
_STATUS_LEGACY: dict[int, int] = {Code.PARSE_ERROR: 400, Code.INVALID_REQUEST: 400}


class Refusal(GatewayError):
    """One of the errors that only MCP has: its code and data as they go over the wire."""

    def __init__(self, code: int, message: str, data: Tree | None = None) -> None:
        super().__init__(Reason.INVALID_REQUEST, message)
        self.code = code
        self.data = data


def header_mismatch(message: str) -> Refusal:
    return Refusal(Code.HEADER_MISMATCH, message)


def unsupported_version(asked: object) -> Refusal:
    data = {"supported": list(MODERN), "requested": asked if isinstance(asked, str) else str(asked)}
    return Refusal(Code.UNSUPPORTED_VERSION, "Unsupported protocol version", data)


def missing_capability(required: Tree) -> Refusal:
    return Refusal(
        Code.MISSING_CAPABILITY,
        f"This needs a client with the capability {', '.join(required)}",
        {"requiredCapabilities": required},
    )


def code_of(error: GatewayError) -> int:
    if isinstance(error, Refusal | PeerError):
        return error.code
    return _STANDARD.get(error.reason) or _OWN.get(error.reason) or Code.INTERNAL_ERROR


def status_of(error: GatewayError, era: Era) -> int:
    """The HTTP status of an answer that holds this error and nothing else."""
    if error.reason in _STATUS_BY_REASON:
        return _STATUS_BY_REASON[error.reason]
    if isinstance(error, PeerError) and era is Era.LEGACY:
        return 200
    return (_STATUS_MODERN if era is Era.MODERN else _STATUS_LEGACY).get(code_of(error), 200)


def body(error: GatewayError) -> bytes:
    """The JSON-RPC error object."""
    tree: dict[str, Any] = {"code": code_of(error), "message": error.message}
    data = error.data if isinstance(error, Refusal | PeerError) else _data(error)
    if data is not None:
        tree["data"] = data
    return orjson.dumps(tree)


def _data(error: GatewayError) -> Tree | None:
    data: Tree = dict(error.metadata)
    if error.violations:
        data["violations"] = [{"field": each.field, "description": each.description} for each in error.violations]
    if code_of(error) not in (Code.PARSE_ERROR, Code.INVALID_REQUEST, Code.METHOD_NOT_FOUND, Code.INVALID_PARAMS):
        data["reason"] = str(error.reason)
    return data or None


def for_session(error: GatewayError, method: str) -> GatewayError:
    """An error of the newest revision as the older ones say it: what is not there has a code of its own
    (2025-11-25, server/resources)."""
    missing = error.reason is Reason.NOT_FOUND or (isinstance(error, PeerError) and error.code == Code.INVALID_PARAMS)
    if method == "resources/read" and missing:
        return PeerError(Code.LEGACY_NOT_FOUND, error.message, error.data if isinstance(error, PeerError) else None)
    return error


def for_request(error: GatewayError) -> GatewayError:
    """An error of an older revision as the newest one says it: the codes of then must not be sent (changelog)."""
    if isinstance(error, PeerError) and error.code == Code.LEGACY_NOT_FOUND:
        return PeerError(Code.INVALID_PARAMS, error.message, error.data)
    if isinstance(error, PeerError) and error.code == Code.URL_ELICITATION:
        return missing_capability({"elicitation": {"url": {}}})
    return error
