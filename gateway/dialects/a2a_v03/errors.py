"""Errors of 0.3. JSON-RPC leaves `data` free, so 1.0's typed details stand there and nothing is lost (0.3.0 §8).

For HTTP+JSON 0.3.0 names no form ("a consistent JSON format that maps to A2A error types", §3.2.3). Written is one
object with the JSON-RPC code, the message, the details and the error's name of §8.2 as `type`, by which a2a-sdk tells
them apart. Read is whatever agents send: that, an error object around it, or a status alone.
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.dialects.a2a_v1.errors import CODES, details
from gateway.model.errors import GatewayError, Reason

TYPES: dict[Reason, str] = {
    Reason.TASK_NOT_FOUND: "TaskNotFoundError",
    Reason.TASK_NOT_CANCELABLE: "TaskNotCancelableError",
    Reason.PUSH_NOTIFICATION_NOT_SUPPORTED: "PushNotificationNotSupportedError",
    Reason.UNSUPPORTED_OPERATION: "UnsupportedOperationError",
    Reason.CONTENT_TYPE_NOT_SUPPORTED: "ContentTypeNotSupportedError",
    Reason.INVALID_AGENT_RESPONSE: "InvalidAgentResponseError",
    Reason.EXTENDED_AGENT_CARD_NOT_CONFIGURED: "AuthenticatedExtendedCardNotConfiguredError",
    # These two came with 1.0: 0.3 leaves their codes to servers (§8.2), and newer clients know their names.
    Reason.EXTENSION_SUPPORT_REQUIRED: "ExtensionSupportRequiredError",
    Reason.VERSION_NOT_SUPPORTED: "VersionNotSupportedError",
    Reason.PARSE_ERROR: "JSONParseError",
    Reason.INVALID_REQUEST: "InvalidRequestError",
    Reason.METHOD_NOT_FOUND: "MethodNotFoundError",
    Reason.INVALID_PARAMS: "InvalidParamsError",
    Reason.INTERNAL_ERROR: "InternalError",
}
_REASONS = {name: reason for reason, name in TYPES.items()}

# What a bare status says, as a2a-sdk 0.3 chose them. 404 names a task only where a task was asked for.
_STATUSES: dict[int, Reason] = {
    409: Reason.TASK_NOT_CANCELABLE,
    415: Reason.CONTENT_TYPE_NOT_SUPPORTED,
    422: Reason.INVALID_PARAMS,
    429: Reason.OVERLOADED,
    501: Reason.UNSUPPORTED_OPERATION,
    503: Reason.UNAVAILABLE,
}


def http_error(error: GatewayError, status: int | None = None) -> tuple[int, bytes]:
    """Status and body on HTTP+JSON; another status than the reason's own, where HTTP has a better one."""
    code = CODES[error.reason]
    body: dict[str, Any] = {"code": code.jsonrpc, "message": error.message, "data": details(error)}
    if error.reason in TYPES:
        body["type"] = TYPES[error.reason]
    return status or code.http, orjson.dumps(body)


def found(status: int, tree: Any, *, task: bool) -> dict[str, Any] | None:
    """The error in an HTTP+JSON answer as JSON-RPC writes errors, or None. `task`: a task was asked for by its id."""
    if status < 400:
        return None
    said = tree.get("error", tree) if isinstance(tree, dict) else {}
    error: dict[str, Any] = dict(said) if isinstance(said, dict) else {"message": str(said)}
    error["data"] = error.pop("details", error.get("data"))
    code = error.get("code")
    if not isinstance(code, int) or code >= 0:
        reason = _REASONS.get(str(error.get("type"))) or _STATUSES.get(status)
        if reason is None and status == 404 and task:
            reason = Reason.TASK_NOT_FOUND
        error["code"] = CODES[reason].jsonrpc if reason is not None else 0
    error.setdefault("message", f"status {status}")
    return error
