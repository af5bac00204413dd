"""The third binding for `bindings.Caller`: the same operations over gRPC, with the stubs that a2a-sdk brings.

Requests and answers go through protobuf's own JSON forms, so that nothing of the gateway's conversion is believed here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from a2a.types import a2a_pb2, a2a_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2, status_pb2

from tests.bindings import ERRORS, Caller, Error, state
from tests.serving import BOUND, Gateway

# §5.4 of 1.0.1 -> the name of the status.
STATUSES = {
    "TASK_NOT_FOUND": "NOT_FOUND",
    "CONTENT_TYPE_NOT_SUPPORTED": "INVALID_ARGUMENT",
    "INVALID_AGENT_RESPONSE": "INTERNAL",
    "PARSE_ERROR": "INVALID_ARGUMENT",
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "METHOD_NOT_FOUND": "UNIMPLEMENTED",
    "INVALID_PARAMS": "INVALID_ARGUMENT",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "NOT_FOUND": "NOT_FOUND",
    "OVERLOADED": "RESOURCE_EXHAUSTED",
}
# ProtoJSON leaves out what is empty; these are always there in the JSON bindings (§3.1.4).
_ALWAYS: dict[str, dict[str, Any]] = {
    "ListTasks": {"tasks": [], "nextPageToken": "", "totalSize": 0},
    "ListTaskPushNotificationConfigs": {"configs": [], "nextPageToken": ""},
}
_TAKES = {method.name: method.input_type.name for method in a2a_pb2.DESCRIPTOR.services_by_name["A2AService"].methods}
_STREAMS = {"SendStreamingMessage", "SubscribeToTask"}


@dataclass(frozen=True)
class Told:
    """How a call ended, with the names that an HTTP answer has for it. `tree` is the result, or all events."""

    status_code: str
    text: str
    headers: dict[str, Any] = field(default_factory=dict)
    tree: Any = None


@dataclass(frozen=True)
class Rpc(Caller):
    """A caller over gRPC: the agent is the word in `tenant`."""

    timeout: float | None = None

    async def ask(self, method: str, /, **params: Any) -> Any:
        headers: dict[str, Any] = {}
        try:
            call = self.rpc(method, params)
            tree: Any = [_tree(event) async for event in call] if method in _STREAMS else _tree(await call)
            headers = _dict(await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            return _told(error)
        if isinstance(tree, dict):
            tree = {**_ALWAYS.get(method, {}), **tree}
        return Told("OK", json.dumps(tree), headers, tree)

    def result(self, answer: Any) -> Any:
        assert answer.status_code == "OK", answer
        return answer.tree

    def error(self, answer: Any, reason: str) -> Error:
        assert reason in ERRORS
        status = status_pb2.Status.FromString(answer.headers["grpc-status-details-bin"])
        assert answer.status_code == STATUSES.get(reason, "FAILED_PRECONDITION"), answer
        assert grpc.StatusCode[answer.status_code].value[0] == status.code
        assert status.message == answer.text.partition("\n")[0]
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        assert status.details[0].Unpack(info)
        assert (info.reason, info.domain) == (reason, "a2a-protocol.org")
        for more in status.details[1:]:
            assert more.Unpack(bad) or more.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
        fields = {violation.field: violation.description for violation in bad.field_violations}
        return Error(reason, status.message, dict(info.metadata), fields, answer)

    @asynccontextmanager
    async def stream(self, method: str, /, **params: Any) -> AsyncIterator[AsyncIterator[Any]]:
        call = self.rpc(method, params)
        try:
            yield self._read(call)
        finally:
            call.cancel()

    async def _read(self, call: Any) -> AsyncIterator[Any]:
        async for event in call:
            yield _tree(event)

    async def ended(self, id: str) -> Any:
        answer = await asyncio.wait_for(self.ask("SubscribeToTask", id=id), BOUND)
        assert answer.status_code in ("OK", "FAILED_PRECONDITION"), answer
        task = await self.get(id)
        assert state(task) in {"COMPLETED", "FAILED", "CANCELED", "REJECTED"}
        return task

    def rpc(self, method: str, params: dict[str, Any]) -> Any:
        """The call, on its way."""
        words = [word for word in (self.agent, params.get("tenant")) if word]
        said = {**params, **({"tenant": "/".join(words)} if words else {})}
        request = ParseDict(said, getattr(a2a_pb2, _TAKES[method])(), ignore_unknown_fields=True)
        stub = a2a_pb2_grpc.A2AServiceStub(self.gateway.channel)  # type: ignore[no-untyped-call]
        return getattr(stub, method)(request, metadata=self.metadata, timeout=self.timeout)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        wanted: dict[str, str | None] = {"A2A-Version": "1.0", **self.gateway.bearer(self.who), **self.headers}
        return tuple((name.lower(), value) for name, value in wanted.items() if value is not None)


def caller(gateway: Gateway, binding: str, agent: str = "echo") -> Caller:
    """Somebody who calls `agent` over one of the three bindings."""
    return (Rpc if binding == "grpc" else Caller)(gateway, binding, agent)


def _tree(message: Any) -> Any:
    return MessageToDict(message)


def _told(error: grpc.aio.AioRpcError) -> Told:
    trailers = _dict(error.trailing_metadata())
    for detail in status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(retry):
            trailers["retry-after"] = str(retry.retry_delay.seconds)
    return Told(error.code().name, f"{error.details()}\n{trailers.get('grpc-status-details-bin', b'')!r}", trailers)


def _dict(metadata: Any) -> dict[str, Any]:
    return {str(key): value for key, value in metadata or ()}
