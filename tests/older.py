"""A 0.3 client of one agent, over JSON-RPC or HTTP+JSON: written from the specification of 0.3.0 (§7) and its
a2a.proto, not from the gateway's tables. Results come as they are on the wire; `word` makes the two forms alike."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from gateway.dialects.sse import Reader
from gateway.dialects.strict_json import read
from tests.serving import BOUND, Gateway

# §8.2, and the status that HTTP+JSON has for it; `type` is its name there.
ERRORS = {
    "TASK_NOT_FOUND": (-32001, 404, "TaskNotFoundError"),
    "TASK_NOT_CANCELABLE": (-32002, 400, "TaskNotCancelableError"),
    "PUSH_NOTIFICATION_NOT_SUPPORTED": (-32003, 400, "PushNotificationNotSupportedError"),
    "UNSUPPORTED_OPERATION": (-32004, 400, "UnsupportedOperationError"),
    "CONTENT_TYPE_NOT_SUPPORTED": (-32005, 400, "ContentTypeNotSupportedError"),
    "INVALID_PARAMS": (-32602, 400, "InvalidParamsError"),
    "METHOD_NOT_FOUND": (-32601, 404, "MethodNotFoundError"),
    "EXTENSION_SUPPORT_REQUIRED": (-32008, 400, "ExtensionSupportRequiredError"),
    "VERSION_NOT_SUPPORTED": (-32009, 400, "VersionNotSupportedError"),
    "UNAUTHENTICATED": (-32040, 401, None),
    "NOT_FOUND": (-32042, 404, None),
}
_HTTP = {
    "message/send": ("POST", "/v1/message:send"),
    "message/stream": ("POST", "/v1/message:stream"),
    "tasks/get": ("GET", "/v1/tasks/{id}"),
    "tasks/list": ("GET", "/v1/tasks"),
    "tasks/cancel": ("POST", "/v1/tasks/{id}:cancel"),
    "tasks/resubscribe": ("POST", "/v1/tasks/{id}:subscribe"),
    "tasks/pushNotificationConfig/set": ("POST", "/v1/tasks/{taskId}/pushNotificationConfigs"),
    "tasks/pushNotificationConfig/get": ("GET", "/v1/tasks/{id}/pushNotificationConfigs/{pushNotificationConfigId}"),
    "tasks/pushNotificationConfig/list": ("GET", "/v1/tasks/{id}/pushNotificationConfigs"),
    "tasks/pushNotificationConfig/delete": (
        "DELETE",
        "/v1/tasks/{id}/pushNotificationConfigs/{pushNotificationConfigId}",
    ),
    "agent/getAuthenticatedExtendedCard": ("GET", "/v1/card"),
}
METHODS = tuple(method for method in _HTTP if method != "tasks/list")


@dataclass(frozen=True)
class Older:
    """`headers` go with every request; 0.3 has no header for the version."""

    gateway: Gateway
    binding: str
    agent: str = "echo"
    who: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def to(self, agent: str) -> Older:
        return replace(self, agent=agent)

    def having(self, **headers: str) -> Older:
        return replace(self, headers={**self.headers, **{k.replace("_", "-"): v for k, v in headers.items()}})

    # Calls.

    def message(self, text: str, **more: Any) -> dict[str, Any]:
        """A user's message with a fresh id, in the form of the binding."""
        id = os.urandom(8).hex()
        if self.binding == "http":
            return {"messageId": id, "role": "ROLE_USER", "content": [{"text": text}], **more}
        return {
            "kind": "message", "messageId": id, "role": "user", "parts": [{"kind": "text", "text": text}], **more,
        }  # fmt: skip

    async def ask(self, method: str, /, **params: Any) -> httpx2.Response:
        return await self.gateway.client.send(self.request(method, params))

    async def call(self, method: str, /, **params: Any) -> Any:
        """The result of a method that must succeed; what JSON-RPC gives bare is taken out of HTTP+JSON's wrapper."""
        answer = await self.ask(method, **params)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        tree: Any = read(answer.content)
        if self.binding == "jsonrpc":
            assert tree.keys() == {"jsonrpc", "id", "result"}, tree
            return tree["result"]
        return _opened(tree) if method == "message/send" else tree

    async def refused(self, reason: str, method: str, /, **params: Any) -> str:
        """The message of the error that a method must end with."""
        answer = await self.ask(method, **params)
        code, status, type = ERRORS[reason]
        if answer.headers["content-type"] == "text/event-stream":
            assert self.binding == "jsonrpc"
            (event,) = Reader().feed(answer.content)
            tree: Any = read(event.data)
        else:
            tree = read(answer.content)
        error = tree["error"] if self.binding == "jsonrpc" else tree
        assert error["code"] == code, error
        if self.binding == "http":
            assert answer.status_code == status, error
            assert error.get("type") == type
        message: str = error["message"]
        assert message
        return message

    @asynccontextmanager
    async def stream(self, method: str, /, **params: Any) -> AsyncIterator[AsyncIterator[Any]]:
        answer = await self.gateway.client.send(self.request(method, params), stream=True)
        try:
            if answer.headers["content-type"] != "text/event-stream":
                raise AssertionError(await answer.aread())
            yield self._events(answer)
        finally:
            await answer.aclose()

    async def events(self, method: str, /, **params: Any) -> list[Any]:
        """All events of a stream that ends by itself."""
        async with asyncio.timeout(BOUND), self.stream(method, **params) as events:
            return [event async for event in events]

    async def _events(self, answer: httpx2.Response) -> AsyncIterator[Any]:
        reader = Reader()
        async for chunk in answer.aiter_raw():
            for event in reader.feed(chunk):
                tree: Any = read(event.data)
                if self.binding == "jsonrpc":
                    assert tree.keys() == {"jsonrpc", "id", "result"}, tree
                    yield tree["result"]
                else:
                    assert len(tree) == 1, tree
                    yield _opened(tree)

    def request(self, method: str, params: dict[str, Any]) -> httpx2.Request:
        headers = {**self.gateway.bearer(self.who), **self.headers}
        base = f"/agents/{self.agent}" if self.agent else ""
        if self.binding == "jsonrpc":
            body = {"jsonrpc": "2.0", "id": "call-1", "method": method, "params": params}
            return self.gateway.client.build_request("POST", base or "/", headers=headers, json=body)
        verb, path = _HTTP[method]
        given = dict(params)
        for name in ("taskId", "id", "pushNotificationConfigId"):
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", str(given.pop(name)))
        content = {"json": _proto(method, given)} if verb == "POST" else {"params": given}
        return self.gateway.client.build_request(verb, base + path, headers=headers, **content)  # type: ignore[arg-type]


def _proto(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """A body as a2a.proto of 0.3.0 has it, under its snake_case names here and there, as a2a-sdk sends it."""
    if method.endswith("/set"):
        return {"config": {"push_notification_config": params["pushNotificationConfig"]}}
    if "message" in params:
        configuration = dict(params.get("configuration") or {"blocking": True})
        if push := configuration.pop("pushNotificationConfig", None):
            configuration["push_notification"] = push
        rest = {name: value for name, value in params.items() if name != "message"}
        return {**rest, "request": params["message"], "configuration": configuration}
    return params


def _opened(tree: Any) -> Any:
    """What JSON-RPC says with `kind`, HTTP+JSON says with the key around it."""
    ((key, value),) = tree.items()
    kinds = {"statusUpdate": "status-update", "artifactUpdate": "artifact-update"}
    return {"kind": kinds.get(key, key), **value}


def word(state: str) -> str:
    """A state in either form as 1.0's plain name: `TASK_STATE_CANCELLED` and `canceled` are CANCELED."""
    plain = state.removeprefix("TASK_STATE_").upper().replace("-", "_")
    return "CANCELED" if plain == "CANCELLED" else plain


def text(parts: Any) -> str:
    return "".join(part.get("text", "") for part in parts)
