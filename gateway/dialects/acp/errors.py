"""Errors of ACP: a code of three, a sentence, and data. A run that fails is none: it is a run that says so."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from gateway.dialects.acp.ids import uuid
from gateway.model.errors import GatewayError, Reason

SERVER_ERROR, INVALID_INPUT, NOT_FOUND = "server_error", "invalid_input", "not_found"


class Code(NamedTuple):
    http: int
    code: str


CODES: dict[Reason, Code] = {
    Reason.TASK_NOT_FOUND: Code(404, NOT_FOUND),
    Reason.TASK_NOT_CANCELABLE: Code(403, SERVER_ERROR),
    Reason.PUSH_NOTIFICATION_NOT_SUPPORTED: Code(403, SERVER_ERROR),
    Reason.UNSUPPORTED_OPERATION: Code(403, SERVER_ERROR),
    Reason.CONTENT_TYPE_NOT_SUPPORTED: Code(422, INVALID_INPUT),
    Reason.INVALID_AGENT_RESPONSE: Code(500, SERVER_ERROR),
    Reason.EXTENDED_AGENT_CARD_NOT_CONFIGURED: Code(403, SERVER_ERROR),
    Reason.EXTENSION_SUPPORT_REQUIRED: Code(403, SERVER_ERROR),
    Reason.VERSION_NOT_SUPPORTED: Code(400, INVALID_INPUT),
    Reason.PARSE_ERROR: Code(422, INVALID_INPUT),
    Reason.INVALID_REQUEST: Code(400, INVALID_INPUT),
    Reason.METHOD_NOT_FOUND: Code(405, SERVER_ERROR),
    Reason.INVALID_PARAMS: Code(422, INVALID_INPUT),
    Reason.INTERNAL_ERROR: Code(500, SERVER_ERROR),
    Reason.UNAUTHENTICATED: Code(401, SERVER_ERROR),
    Reason.PERMISSION_DENIED: Code(403, SERVER_ERROR),
    Reason.NOT_FOUND: Code(404, NOT_FOUND),
    Reason.ALREADY_EXISTS: Code(409, SERVER_ERROR),
    Reason.OUTDATED: Code(409, SERVER_ERROR),
    Reason.OVERLOADED: Code(429, SERVER_ERROR),
    Reason.UNAVAILABLE: Code(503, SERVER_ERROR),
    Reason.EGRESS_REFUSED: Code(403, SERVER_ERROR),
    Reason.UPSTREAM_FAILED: Code(502, SERVER_ERROR),
    Reason.UPSTREAM_TIMEOUT: Code(504, SERVER_ERROR),
    Reason.UPSTREAM_TOO_LARGE: Code(502, SERVER_ERROR),
}


def http_error(error: GatewayError) -> tuple[int, bytes]:
    """Status and body."""
    return CODES[error.reason].http, orjson.dumps(error_tree(error))


def error_tree(error: GatewayError) -> dict[str, Any]:
    """`data` has the reason for machines; with a run or agent that is not found, nothing tells missing from foreign."""
    code = CODES[error.reason].code
    if error.reason is Reason.TASK_NOT_FOUND:
        return {"code": code, "message": "Run not found", "data": None}
    metadata = dict(error.metadata)
    if (task_id := metadata.pop("taskId", None)) is not None:
        metadata["run_id"] = uuid(task_id) or task_id
    data: dict[str, Any] = {"reason": error.reason, **metadata}
    if error.violations:
        data["violations"] = [{"field": each.field, "description": each.description} for each in error.violations]
    return {"code": code, "message": error.message, "data": data}


# The statuses with which an ACP server refuses what its caller's caller can do something about.
_CARRIED: dict[int, Reason] = {
    400: Reason.INVALID_PARAMS,
    422: Reason.INVALID_PARAMS,
    403: Reason.UNSUPPORTED_OPERATION,
    429: Reason.OVERLOADED,
    503: Reason.UNAVAILABLE,
}


def carried(status: int, tree: Any) -> GatewayError:
    """A server's refusal as ours. What lies between the gateway and the server (401, a missing agent) is no caller's
    business, and must not look like a refusal of the gateway's own."""
    said = tree.get("message") if isinstance(tree, dict) else None
    message = f": {said}" if isinstance(said, str) and said else f" with status {status}"
    return GatewayError(_CARRIED.get(status, Reason.UPSTREAM_FAILED), f"The agent refused the call{message}"[:500])
