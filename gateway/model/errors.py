"""What can go wrong, in one vocabulary.

An error is a reason for machines and a sentence for people. Whose fault it is and whether trying again helps
follow from the reason, so no caller decides it twice. Transports own the mapping to their numbers
(`dialects/*/errors.py`); nothing here knows a status code.

The first nine reasons are those of A2A 1.0.1 §5.4; the rest are the standard JSON-RPC and HTTP ones, and ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import ceil


class Fault(StrEnum):
    """Who has to change something before the call can succeed."""

    CLIENT = "client"
    GATEWAY = "gateway"
    UPSTREAM = "upstream"


class Reason(StrEnum):
    """The machine-readable cause; travels as `ErrorInfo.reason`."""

    TASK_NOT_FOUND = "TASK_NOT_FOUND"
    TASK_NOT_CANCELABLE = "TASK_NOT_CANCELABLE"
    PUSH_NOTIFICATION_NOT_SUPPORTED = "PUSH_NOTIFICATION_NOT_SUPPORTED"
    UNSUPPORTED_OPERATION = "UNSUPPORTED_OPERATION"
    CONTENT_TYPE_NOT_SUPPORTED = "CONTENT_TYPE_NOT_SUPPORTED"
    INVALID_AGENT_RESPONSE = "INVALID_AGENT_RESPONSE"
    EXTENDED_AGENT_CARD_NOT_CONFIGURED = "EXTENDED_AGENT_CARD_NOT_CONFIGURED"
    EXTENSION_SUPPORT_REQUIRED = "EXTENSION_SUPPORT_REQUIRED"
    VERSION_NOT_SUPPORTED = "VERSION_NOT_SUPPORTED"

    PARSE_ERROR = "PARSE_ERROR"
    INVALID_REQUEST = "INVALID_REQUEST"
    METHOD_NOT_FOUND = "METHOD_NOT_FOUND"
    INVALID_PARAMS = "INVALID_PARAMS"
    INTERNAL_ERROR = "INTERNAL_ERROR"

    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    OUTDATED = "OUTDATED"
    OVERLOADED = "OVERLOADED"
    UNAVAILABLE = "UNAVAILABLE"
    EGRESS_REFUSED = "EGRESS_REFUSED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    UPSTREAM_TIMEOUT = "UPSTREAM_TIMEOUT"
    UPSTREAM_TOO_LARGE = "UPSTREAM_TOO_LARGE"


_UPSTREAM = {
    Reason.INVALID_AGENT_RESPONSE,
    Reason.UPSTREAM_FAILED,
    Reason.UPSTREAM_TIMEOUT,
    Reason.UPSTREAM_TOO_LARGE,
}
_GATEWAY = {Reason.INTERNAL_ERROR, Reason.OVERLOADED, Reason.UNAVAILABLE, Reason.EGRESS_REFUSED}
_RETRYABLE = {Reason.OVERLOADED, Reason.UNAVAILABLE, Reason.UPSTREAM_FAILED, Reason.UPSTREAM_TIMEOUT}


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field, as `google.rpc.BadRequest.FieldViolation` says it: where, and what is wrong with it."""

    field: str
    description: str


def whole_seconds(wait: float) -> int:
    """How headers say when trying again will help: never before it does."""
    return max(1, ceil(wait))


class GatewayError(Exception):
    """A refusal or failure that may be shown to the caller as it stands.

    Anything that is *not* a GatewayError is unknown: it is logged in full and shown as an incident number.
    `metadata` travels as `ErrorInfo.metadata` (strings only); `retry_after` is seconds.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = metadata or {}
        self.violations = violations
        self.retry_after = retry_after

    @property
    def fault(self) -> Fault:
        if self.reason in _UPSTREAM:
            return Fault.UPSTREAM
        return Fault.GATEWAY if self.reason in _GATEWAY else Fault.CLIENT

    @property
    def retryable(self) -> bool:
        return self.reason in _RETRYABLE

    def __repr__(self) -> str:
        return f"GatewayError({self.reason}, {self.message!r})"


def invalid(field: str, description: str) -> GatewayError:
    """INVALID_PARAMS for one field, in the form that every dialect can show."""
    return GatewayError(Reason.INVALID_PARAMS, f"{field}: {description}", violations=(Violation(field, description),))


def task_not_found(task_id: str) -> GatewayError:
    """One sentence for missing and for foreign tasks: the two must not be told apart (A2A §3.3.2)."""
    return GatewayError(Reason.TASK_NOT_FOUND, "Task not found", metadata={"taskId": task_id})


def agent_not_found() -> GatewayError:
    """One sentence for missing and for hidden agents: the two must not be told apart."""
    return GatewayError(Reason.NOT_FOUND, "There is no such agent here")
