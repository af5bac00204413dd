"""One caller, two bindings: the same operation over JSON-RPC and over HTTP+JSON, so that one test body proves both.

Written from the specification (§5.3, §9, §11), not from the gateway's own tables: what both get wrong alike would
not show otherwise. Every answer that passes here is also checked for the shape and the media type of its binding.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from gateway.dialects.sse import Reader
from gateway.dialects.strict_json import read
from tests.serving import A2A, BOUND, Gateway, message

BINDINGS = ("jsonrpc", "http")

# §5.4 of 1.0.1 and RFC 9110 for what is HTTP's own: reason -> code in JSON-RPC, status in HTTP+JSON.
ERRORS = {
    "TASK_NOT_FOUND": (-32001, 404),
    "TASK_NOT_CANCELABLE": (-32002, 400),
    "PUSH_NOTIFICATION_NOT_SUPPORTED": (-32003, 400),
    "UNSUPPORTED_OPERATION": (-32004, 400),
    "CONTENT_TYPE_NOT_SUPPORTED": (-32005, 400),
    "INVALID_AGENT_RESPONSE": (-32006, 500),
    "EXTENDED_AGENT_CARD_NOT_CONFIGURED": (-32007, 400),
    "EXTENSION_SUPPORT_REQUIRED": (-32008, 400),
    "VERSION_NOT_SUPPORTED": (-32009, 400),
    "PARSE_ERROR": (-32700, 400),
    "INVALID_REQUEST": (-32600, 400),
    "METHOD_NOT_FOUND": (-32601, 404),
    "INVALID_PARAMS": (-32602, 400),
    "UNAUTHENTICATED": (-32040, 401),
    "PERMISSION_DENIED": (-32041, 403),
    "NOT_FOUND": (-32042, 404),
    "OVERLOADED": (-32044, 429),
}

_ROUTES = {
    "SendMessage": ("POST", "/message:send"),
    "SendStreamingMessage": ("POST", "/message:stream"),
    "GetTask": ("GET", "/tasks/{id}"),
    "ListTasks": ("GET", "/tasks"),
    "CancelTask": ("POST", "/tasks/{id}:cancel"),
    "SubscribeToTask": ("POST", "/tasks/{id}:subscribe"),
    "CreateTaskPushNotificationConfig": ("POST", "/tasks/{taskId}/pushNotificationConfigs"),
    "GetTaskPushNotificationConfig": ("GET", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
    "ListTaskPushNotificationConfigs": ("GET", "/tasks/{taskId}/pushNotificationConfigs"),
    "DeleteTaskPushNotificationConfig": ("DELETE", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
    "GetExtendedAgentCard": ("GET", "/extendedAgentCard"),
}
OPERATIONS = tuple(_ROUTES)


@dataclass(frozen=True)
class Error:
    """An error of either binding, told alike. `fields` is what its BadRequest says about which field."""

    reason: str
    message: str
    metadata: dict[str, str]
    fields: dict[str, str]
    answer: httpx2.Response


@dataclass(frozen=True)
class Caller:
    """Somebody who calls one agent over one binding. `headers` go with every request, None takes one away."""

    gateway: Gateway
    binding: str
    agent: str = "echo"
    who: str | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    get_subscribe: bool = False  # SubscribeToTask by GET, as the proto has it

    def to(self, agent: str) -> Caller:
        return replace(self, agent=agent)

    def having(self, **headers: str | None) -> Caller:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})

    async def other(self, name: str) -> Caller:
        """The same over the same binding, as a further principal."""
        return replace(self, who=await self.gateway.key(name))

    # Calls.

    async def ask(self, method: str, /, **params: Any) -> httpx2.Response:
        """The raw answer to an operation."""
        return await self.gateway.client.send(self.request(method, params))

    async def call(self, method: str, /, **params: Any) -> Any:
        """The result of an operation that must succeed."""
        return self.result(await self.ask(method, **params))

    async def refused(self, reason: str, method: str, /, **params: Any) -> Error:
        """The error of an operation that must fail for this reason."""
        return self.error(await self.ask(method, **params), reason)

    async def send(self, text: str = "hi", **more: Any) -> Any:
        """The answer to SendMessage; `configuration` and `metadata` stand beside the message, the rest in it."""
        return await self.call("SendMessage", **_beside(text, more))

    async def task(self, text: str = "hi", **more: Any) -> Any:
        return (await self.send(text, **more))["task"]

    async def started(self, text: str) -> Any:
        """A task that is at work."""
        return await self.task(text, configuration={"returnImmediately": True})

    async def get(self, id: str, **params: Any) -> Any:
        return await self.call("GetTask", id=id, **params)

    async def ended(self, id: str) -> Any:
        """The task once it has ended: a subscription ends with it, or is refused because it has."""
        answer = await asyncio.wait_for(self.ask("SubscribeToTask", id=id), BOUND)
        assert answer.status_code in (200, 400), answer.text
        task = await self.get(id)
        assert state(task) in {"COMPLETED", "FAILED", "CANCELED", "REJECTED"}
        return task

    @asynccontextmanager
    async def stream(self, method: str, /, **params: Any) -> AsyncIterator[AsyncIterator[Any]]:
        """The events (StreamResponse trees) of a streaming operation."""
        async with self.streaming(method, **params) as answer:
            yield self._events(answer)

    @asynccontextmanager
    async def streaming(self, method: str, /, **params: Any) -> AsyncIterator[httpx2.Response]:
        """The open answer of a streaming operation."""
        answer = await self.gateway.client.send(self.request(method, params), stream=True)
        try:
            if answer.headers["content-type"] != "text/event-stream":
                raise AssertionError(await answer.aread())
            yield answer
        finally:
            await answer.aclose()

    async def events(self, method: str, /, **params: Any) -> list[Any]:
        """All events of a stream that ends by itself."""
        async with asyncio.timeout(BOUND), self.stream(method, **params) as events:
            return [event async for event in events]

    # Answers.

    def result(self, answer: httpx2.Response) -> Any:
        assert answer.status_code == 200, answer.text
        tree: Any = read(answer.content)
        if self.binding == "http":
            assert answer.headers["content-type"] == "application/a2a+json"
            return tree
        assert answer.headers["content-type"] == "application/json"
        assert tree.keys() == {"jsonrpc", "id", "result"}, tree
        assert (tree["jsonrpc"], tree["id"]) == ("2.0", "call-1")
        return tree["result"]

    def error(self, answer: httpx2.Response, reason: str) -> Error:
        assert answer.headers["content-type"] == "application/json", answer.text
        tree: Any = read(answer.content)
        code, status = ERRORS[reason]
        error = tree["error"]
        if self.binding == "http":
            assert tree.keys() == {"error"}
            assert error.keys() == {"code", "status", "message", "details"}
            details = error["details"]
            assert answer.status_code == error["code"] == status, error
        else:
            assert tree.keys() == {"jsonrpc", "id", "error"}
            assert error.keys() == {"code", "message", "data"}
            details = error["data"]
            assert error["code"] == code, error
            assert answer.status_code == (status if code in range(-32099, -32039) else 200)
        info, *more = details
        assert info.keys() == {"@type", "reason", "domain", "metadata"}
        assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
        assert (info["reason"], info["domain"]) == (reason, "a2a-protocol.org")
        assert error["message"]
        return Error(reason, error["message"], info["metadata"], _fields(more), answer)

    async def _events(self, answer: httpx2.Response) -> AsyncIterator[Any]:
        reader = Reader()
        async for chunk in answer.aiter_raw():
            for event in reader.feed(chunk):
                tree: Any = read(event.data)
                if self.binding == "jsonrpc":
                    assert tree.keys() == {"jsonrpc", "id", "result"}, tree
                    assert tree["id"] == "call-1"
                    tree = tree["result"]
                assert len(tree) == 1, tree
                yield tree

    # Requests.

    def request(self, method: str, params: dict[str, Any]) -> httpx2.Request:
        """An operation as its binding writes it, for whoever wants to change it before it is sent."""
        base = f"/agents/{self.agent}" if self.agent else ""
        if self.binding == "jsonrpc":
            body = {"jsonrpc": "2.0", "id": "call-1", "method": method, "params": params}
            return self._build("POST", base or "/", json=body)
        verb, path = _ROUTES[method]
        if self.get_subscribe and method == "SubscribeToTask":
            verb = "GET"
        given = dict(params)
        for name in ("taskId", "id"):
            if f"{{{name}}}" in path:
                path = path.replace(f"{{{name}}}", str(given.pop(name)))
        if tenant := given.pop("tenant", None):
            path = f"/{tenant}{path}"
        if verb == "POST":
            return self._build(verb, base + path, json=given)
        query = {name: str(value).lower() if isinstance(value, bool) else value for name, value in given.items()}
        return self._build(verb, base + path, params=query)

    def _build(self, verb: str, path: str, **content: Any) -> httpx2.Request:
        wanted: dict[str, str | None] = {**A2A, **self.gateway.bearer(self.who), **self.headers}
        headers = {name: value for name, value in wanted.items() if value is not None}
        return self.gateway.client.build_request(verb, path, headers=headers, **content)


def state(task: Any) -> str:
    name: str = task["status"]["state"]
    return name.removeprefix("TASK_STATE_")


def _beside(text: str, more: dict[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = {name: more.pop(name) for name in ("configuration", "metadata", "tenant") if name in more}
    return {"message": message(text, **more), **params}


def _fields(details: list[Any]) -> dict[str, str]:
    """The violations of a BadRequest detail, the only one that may follow the ErrorInfo."""
    if not details:
        return {}
    (bad,) = details
    assert bad.keys() == {"@type", "fieldViolations"}
    assert bad["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    return {violation["field"]: violation["description"] for violation in bad["fieldViolations"]}
