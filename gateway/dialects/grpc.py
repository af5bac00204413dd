"""What a revision of A2A has to give so that the gRPC door can speak it, and the errors that all of them share.

An error travels twice: as gRPC's own status, and as a `google.rpc.Status` with typed details in the trailer
`grpc-status-details-bin` (A2A 1.0 §10.6). The details are those of the JSON bindings.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.dialects.a2a_v1.errors import CODES, details
from gateway.dialects.face import Decode
from gateway.dialects.protobuf import Schema, Tree
from gateway.model.call import Call
from gateway.model.errors import GatewayError, whole_seconds
from gateway.model.rows import Record

DETAILS = "grpc-status-details-bin"
RETRY_INFO = "type.googleapis.com/google.rpc.RetryInfo"

# google.rpc.Code, in the order of its numbers.
STATUSES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)

_RPC = Schema(
    "google/rpc/details.proto",
    "google.rpc",
    {
        "Status": "code=1:int32 message=2 details=3:Any*",
        "ErrorInfo": "reason=1 domain=2 metadata=3:map<string>",
        "FieldViolation": "field=1 description=2",
        "BadRequest": "field_violations=1:FieldViolation*",
        "RetryInfo": "retry_delay=1:Duration",
    },
)


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of a service. `operation` is 1.0's name of it; `takes` and `gives` are messages of the schema."""

    operation: str
    takes: str
    gives: str
    streams: bool


def rpcs(methods: Mapping[str, str], operations: Mapping[str, str] = {}) -> dict[str, Rpc]:
    """The methods of a schema's table; `operations` are 1.0's names of those that have another."""
    table = {}
    for name, line in methods.items():
        takes, *stream, gives = line.split()
        table[name] = Rpc(operations.get(name, name), takes, gives, bool(stream))
    return table


@dataclass(frozen=True, slots=True)
class Grpc:
    """`decode` takes operation, parameters, agent and activated extensions. `encode` gives the answer's bytes, `event`
    those of one event of a stream."""

    version: str
    service: str
    schema: Schema
    rpcs: Mapping[str, Rpc]
    decode: Decode
    encode: Callable[[Rpc, Call, Any], bytes]
    event: Callable[[Record], bytes]
    ends: Callable[[Record], bool] | None = None  # after which event a stream ends though its task may go on
    older_extensions: bool = False  # x-a2a-extensions is read, too


@dataclass(frozen=True, slots=True)
class Status:
    """How an error leaves: the name of its code, its sentence, and the `google.rpc.Status` for the trailer."""

    code: str
    message: str
    details: bytes


def status(error: GatewayError) -> Status:
    code = CODES[error.reason].status
    typed = details(error)
    if error.retry_after is not None:
        typed.append({"@type": RETRY_INFO, "retryDelay": {"seconds": whole_seconds(error.retry_after)}})
    packed = [_packed(detail) for detail in typed]
    tree = {"code": STATUSES.index(code), "message": error.message, "details": packed}
    return Status(code, error.message, _RPC.write("Status", tree))


def _packed(detail: Tree) -> Tree:
    rest = {name: value for name, value in detail.items() if name != "@type"}
    return {"typeUrl": detail["@type"], "value": _base64(_RPC.write(_kind(detail["@type"]), rest))}


def read_status(data: bytes) -> Tree:
    """A `google.rpc.Status` as the JSON bindings' error object: details that are not known here are left out. Raises
    GatewayError for what is none."""
    tree = _RPC.read("Status", data)
    typed = []
    for packed in tree.get("details", ()):
        url = packed.get("typeUrl", "")
        if (kind := _kind(url)) in _RPC.classes and kind != "Any":
            typed.append({"@type": url, **_RPC.read(kind, b64decode(packed.get("value", "")))})
    return {"message": tree.get("message", ""), "details": typed}


def _kind(url: str) -> str:
    return url.rpartition("/")[2].removeprefix("google.rpc.")


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")
