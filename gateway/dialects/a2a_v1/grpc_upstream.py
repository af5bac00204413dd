"""Speaking A2A 1.0 over gRPC to somebody else's agent: its JSON requests as protobuf, and its answers as trees. Pure.

A `Wire` (upstream.py) whose requests are calls: `method` is the path of one, `headers` its metadata.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import orjson

from gateway.dialects.a2a_v1.errors import ERROR_INFO
from gateway.dialects.a2a_v1.grpc import GRPC, SCHEMA
from gateway.dialects.a2a_v1.upstream import TASKS, Outgoing, carried
from gateway.dialects.grpc import read_status
from gateway.dialects.protobuf import Schema, Tree
from gateway.model.card import VERSION, AgentInterface
from gateway.model.errors import GatewayError, Reason

# What a status without details means; of a 404 and the like only where a task was named.
_BY_STATUS: Mapping[str, Reason] = {
    "INVALID_ARGUMENT": Reason.INVALID_PARAMS,
    "UNIMPLEMENTED": Reason.UNSUPPORTED_OPERATION,  # so 1.0.0 had it
    "FAILED_PRECONDITION": Reason.UNSUPPORTED_OPERATION,
    "RESOURCE_EXHAUSTED": Reason.OVERLOADED,
}
_OF_A_TASK: Mapping[tuple[str, str], Reason] = {
    ("GetTask", "NOT_FOUND"): Reason.TASK_NOT_FOUND,
    ("CancelTask", "NOT_FOUND"): Reason.TASK_NOT_FOUND,
    ("SubscribeToTask", "NOT_FOUND"): Reason.TASK_NOT_FOUND,
    ("CancelTask", "FAILED_PRECONDITION"): Reason.TASK_NOT_CANCELABLE,
}


def outgoing(
    interface: AgentInterface, operation: str, params: bytes, id: str | None = None, extensions: tuple[str, ...] = ()
) -> Outgoing:
    """`operation` on an interface. `params` are its JSON parameters without the task id, which is `id`."""
    given = {name: value for name, value in (("id", id), ("tenant", interface.tenant)) if value}
    body = SCHEMA.write(GRPC.rpcs[operation].takes, {**orjson.loads(params), **given})
    metadata = {"a2a-version": VERSION, **({"a2a-extensions": ", ".join(extensions)} if extensions else {})}
    return Outgoing(f"/{GRPC.service}/{operation}", interface.url, body, metadata, operation)


def result(interface: AgentInterface, operation: str, status: int, tree: bytes, names: Mapping[str, str]) -> Any:
    """The StreamResponse in the bytes of an answer or of an event. Raises INVALID_AGENT_RESPONSE. A status is none
    here: see `refusal`."""
    said = read(SCHEMA, GRPC.rpcs[operation].gives, tree)
    return {"task": said} if operation in TASKS else said


def read(schema: Schema, name: str, data: bytes) -> Tree:
    try:
        return schema.read(name, data)
    except GatewayError as error:
        sentence = f"The agent answered with something that is not protobuf: {error.message}"
        raise GatewayError(Reason.INVALID_AGENT_RESPONSE, sentence) from None


def refusal(operation: str, status: str, message: str, details: bytes, names: Mapping[str, str]) -> GatewayError:
    """An agent's status as ours: by the reason in its details, else by its code. `names` as in `upstream.result`."""
    error: dict[str, Any] = {"message": message, "details": []}
    with contextlib.suppress(GatewayError):  # what cannot be read says nothing
        error = {**error, **read_status(details)} if details else error
    if not error["details"]:
        reason = _OF_A_TASK.get((operation, status)) or _BY_STATUS.get(status)
        error = {"message": message, "details": [{"@type": ERROR_INFO, "reason": reason}] if reason else []}
    return carried(error, names)
