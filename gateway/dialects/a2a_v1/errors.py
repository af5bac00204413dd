"""Reasons as A2A 1.0.1 writes them: one table for both bindings (§5.4, §9.5, §11.6)."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from gateway.model.errors import GatewayError, Reason

DOMAIN = "a2a-protocol.org"
ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class Code(NamedTuple):
    jsonrpc: int
    http: int
    status: str  # google.rpc.Code


CODES: dict[Reason, Code] = {
    Reason.TASK_NOT_FOUND: Code(-32001, 404, "NOT_FOUND"),
    Reason.TASK_NOT_CANCELABLE: Code(-32002, 400, "FAILED_PRECONDITION"),
    Reason.PUSH_NOTIFICATION_NOT_SUPPORTED: Code(-32003, 400, "FAILED_PRECONDITION"),
    Reason.UNSUPPORTED_OPERATION: Code(-32004, 400, "FAILED_PRECONDITION"),
    Reason.CONTENT_TYPE_NOT_SUPPORTED: Code(-32005, 400, "INVALID_ARGUMENT"),
    Reason.INVALID_AGENT_RESPONSE: Code(-32006, 500, "INTERNAL"),
    Reason.EXTENDED_AGENT_CARD_NOT_CONFIGURED: Code(-32007, 400, "FAILED_PRECONDITION"),
    Reason.EXTENSION_SUPPORT_REQUIRED: Code(-32008, 400, "FAILED_PRECONDITION"),
    Reason.VERSION_NOT_SUPPORTED: Code(-32009, 400, "FAILED_PRECONDITION"),
    Reason.PARSE_ERROR: Code(-32700, 400, "INVALID_ARGUMENT"),
    Reason.INVALID_REQUEST: Code(-32600, 400, "INVALID_ARGUMENT"),
    Reason.METHOD_NOT_FOUND: Code(-32601, 404, "UNIMPLEMENTED"),
    Reason.INVALID_PARAMS: Code(-32602, 400, "INVALID_ARGUMENT"),
    Reason.INTERNAL_ERROR: Code(-32603, 500, "INTERNAL"),
    # Ours: the range that JSON-RPC leaves to implementations, away from A2A's own -32001 to -32099.
    Reason.UNAUTHENTICATED: Code(-32040, 401, "UNAUTHENTICATED"),
    Reason.PERMISSION_DENIED: Code(-32041, 403, "PERMISSION_DENIED"),
    Reason.NOT_FOUND: Code(-32042, 404, "NOT_FOUND"),
    Reason.ALREADY_EXISTS: Code(-32043, 409, "ALREADY_EXISTS"),
    Reason.OVERLOADED: Code(-32044, 429, "RESOURCE_EXHAUSTED"),
    Reason.UNAVAILABLE: Code(-32045, 503, "UNAVAILABLE"),
    Reason.EGRESS_REFUSED: Code(-32046, 403, "PERMISSION_DENIED"),
    Reason.UPSTREAM_FAILED: Code(-32047, 502, "UNAVAILABLE"),
    Reason.UPSTREAM_TIMEOUT: Code(-32048, 504, "DEADLINE_EXCEEDED"),
    Reason.UPSTREAM_TOO_LARGE: Code(-32049, 502, "RESOURCE_EXHAUSTED"),
    Reason.OUTDATED: Code(-32050, 409, "ABORTED"),
}
BY_CODE: dict[int, Reason] = {code.jsonrpc: reason for reason, code in CODES.items()}


def jsonrpc_error(error: GatewayError) -> bytes:
    """The JSON-RPC error object: `data` is an array of ProtoJSON `Any` (§9.5)."""
    return orjson.dumps({"code": CODES[error.reason].jsonrpc, "message": error.message, "data": details(error)})


def http_error(error: GatewayError, status: int | None = None) -> tuple[int, bytes]:
    """Status and body on HTTP+JSON (§11.6); another status than the reason's own, where HTTP has a better one."""
    code = CODES[error.reason]
    http = status or code.http
    return http, http_error_body(http, code.status, error.message, details(error))


def http_error_body(http: int, status: str, message: str, details: list[dict[str, Any]]) -> bytes:
    return orjson.dumps({"error": {"code": http, "status": status, "message": message, "details": details}})


def read_error(tree: Any) -> tuple[Reason | None, str, dict[str, str]]:
    """Reason, message and metadata of an upstream's error object, of either binding: by its ErrorInfo, else by
    its JSON-RPC code. None when it says neither."""
    if not isinstance(tree, dict):
        return None, "", {}
    message = tree.get("message")
    typed = tree.get("data", tree.get("details"))
    for detail in typed if isinstance(typed, list) else ():
        if isinstance(detail, dict) and str(detail.get("@type", "")).endswith("google.rpc.ErrorInfo"):
            reason = detail.get("reason")
            if isinstance(reason, str) and reason in Reason.__members__:
                metadata = detail.get("metadata")
                strings = {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {}
                return Reason(reason), str(message or ""), strings
    code = tree.get("code")
    return BY_CODE.get(code) if isinstance(code, int) else None, str(message or ""), {}


def details(error: GatewayError) -> list[dict[str, Any]]:
    """ErrorInfo, and BadRequest when fields are at fault, as ProtoJSON `Any` (§9.5)."""
    typed: list[dict[str, Any]] = [
        {"@type": ERROR_INFO, "reason": error.reason, "domain": DOMAIN, "metadata": dict(error.metadata)}
    ]
    if error.violations:
        violations = [{"field": v.field, "description": v.description} for v in error.violations]
        typed.append({"@type": BAD_REQUEST, "fieldViolations": violations})
    return typed
