"""A 0.3 client of the default agent over gRPC, with the stubs that a2a-sdk brings. Methods have the JSON-RPC names of
older.py; answers come as HTTP+JSON has them, which is protobuf's own JSON."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from a2a.compat.v0_3 import a2a_v0_3_pb2, a2a_v0_3_pb2_grpc
from google.protobuf.json_format import MessageToDict, ParseDict
from google.rpc import error_details_pb2, status_pb2

from tests.serving import Gateway

_NAMES = {
    "message/send": "SendMessage",
    "message/stream": "SendStreamingMessage",
    "tasks/get": "GetTask",
    "tasks/cancel": "CancelTask",
    "tasks/resubscribe": "TaskSubscription",
    "tasks/pushNotificationConfig/set": "CreateTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/get": "GetTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/list": "ListTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/delete": "DeleteTaskPushNotificationConfig",
    "agent/getAuthenticatedExtendedCard": "GetAgentCard",
}
_TAKES = {each.name: each.input_type.name for each in a2a_v0_3_pb2.DESCRIPTOR.services_by_name["A2AService"].methods}
_KINDS = {"statusUpdate": "status-update", "artifactUpdate": "artifact-update"}


@dataclass(frozen=True)
class OlderRpc:
    gateway: Gateway
    who: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    binding: str = "grpc"

    def message(self, text: str, **more: Any) -> dict[str, Any]:
        return {"messageId": os.urandom(8).hex(), "role": "ROLE_USER", "content": [{"text": text}], **more}

    async def call(self, method: str, /, **params: Any) -> Any:
        tree = MessageToDict(await self.rpc(method, params))
        return _opened(tree) if method == "message/send" else tree

    async def refused(self, reason: str, method: str, /, **params: Any) -> str:
        call = self.rpc(method, params)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (call.read() if method in ("message/stream", "tasks/resubscribe") else call)
        trailers = {key: value for key, value in refused.value.trailing_metadata() or ()}  # noqa: C416 (keys repeat)
        status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
        status.MergeFromString(trailers["grpc-status-details-bin"])
        assert status.details[0].Unpack(info)
        assert info.reason == reason, refused.value
        return str(status.message)

    async def events(self, method: str, /, **params: Any) -> AsyncIterator[Any]:
        call = self.rpc(method, params)
        try:
            async for event in call:
                yield _opened(MessageToDict(event))
        finally:
            call.cancel()

    def rpc(self, method: str, params: dict[str, Any]) -> Any:
        name = _NAMES[method]
        request = ParseDict(_proto(method, dict(params)), getattr(a2a_v0_3_pb2, _TAKES[name])())
        stub = a2a_v0_3_pb2_grpc.A2AServiceStub(self.gateway.channel)  # type: ignore[no-untyped-call]
        sent = {"authorization": self.gateway.bearer(self.who)["Authorization"], **dict(self.metadata)}
        return getattr(stub, name)(request, metadata=tuple(sent.items()))


def _proto(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """Tasks and configurations are resources, named by a path."""
    if method == "tasks/pushNotificationConfig/set":
        config = {"pushNotificationConfig": params["pushNotificationConfig"]}
        return {"parent": f"tasks/{params['taskId']}", "configId": params.get("configId", ""), "config": config}
    if method == "tasks/pushNotificationConfig/list":
        return {"parent": f"tasks/{params['id']}"}
    if "pushNotificationConfigId" in params:
        return {"name": f"tasks/{params['id']}/pushNotificationConfigs/{params['pushNotificationConfigId']}"}
    if "id" in params:
        params["name"] = f"tasks/{params.pop('id')}"
    if push := params.get("configuration", {}).pop("pushNotificationConfig", None):
        params["configuration"]["pushNotification"] = push
    return params


def _opened(tree: Any) -> Any:
    ((key, value),) = tree.items()
    return {"kind": _KINDS.get(key, key), **value}
