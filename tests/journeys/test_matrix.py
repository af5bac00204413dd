"""Any client reaches any agent: three bindings and two versions on both sides, one journey through all of them.

The agents are a2a-sdk's own servers, each with one binding of one version on its card; and one of them once more behind
a gateway that is itself reached by ACP alone. A client of 0.3 over gRPC can name no agent, so for it there is a gateway
with each of them as the default one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
import pytest_asyncio

from tests import older, rpc
from tests.older_rpc import OlderRpc
from tests.receiver import Receiver, receiving
from tests.remote import Sdk, agents, ready, sdk
from tests.serving import BOUND, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

SPOKEN = [(binding, version) for binding in ("JSONRPC", "HTTP+JSON", "GRPC") for version in ("1.0", "0.3")]
AGENTS = {f"{binding}-{version}".lower().replace("+", "-").replace(".", "-"): (binding, version)
          for binding, version in SPOKEN}  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """What a client sees of a task or of an event about one, in words of no version."""

    kind: str
    state: str = ""
    said: str = ""
    id: str = ""
    context: str = ""
    artifact: str = ""
    final: bool | None = None


class Client(Protocol):
    """What the journey needs of a client."""

    async def send(self, text: str, *, task: Seen | None = None, push: Any = None, wait: bool = True) -> Seen: ...

    def sending(self, text: str) -> Any:
        """The events of a streamed message."""

    def subscribed(self, id: str) -> Any: ...

    async def get(self, id: str) -> Seen: ...

    async def cancel(self, id: str) -> Seen: ...

    async def listed(self, context: str) -> list[str] | None:
        """The ids of the tasks of a context; None where the version has no list."""

    async def refused(self, reason: str, what: str, id: str) -> None: ...

    def told(self, receiver: Receiver) -> Seen: ...


class Newer:
    def __init__(self, gateway: Gateway, binding: str, agent: str) -> None:
        self._caller = rpc.caller(gateway, binding, agent)

    async def send(self, text: str, *, task: Seen | None = None, push: Any = None, wait: bool = True) -> Seen:
        configuration: dict[str, Any] = {"returnImmediately": not wait}
        if push:
            configuration["taskPushNotificationConfig"] = push
        more = {"taskId": task.id} if task else {}
        return _newer(await self._caller.send(text, configuration=configuration, **more))

    def sending(self, text: str) -> Any:
        return self._stream("SendStreamingMessage", message=message(text))

    def subscribed(self, id: str) -> Any:
        return self._stream("SubscribeToTask", id=id)

    async def _stream(self, method: str, **params: Any) -> AsyncIterator[Seen]:
        async with self._caller.stream(method, **params) as events:
            async for event in events:
                yield _newer(event)

    async def get(self, id: str) -> Seen:
        return _newer({"task": await self._caller.get(id)})

    async def cancel(self, id: str) -> Seen:
        return _newer({"task": await self._caller.call("CancelTask", id=id)})

    async def listed(self, context: str) -> list[str] | None:
        page = await self._caller.call("ListTasks", contextId=context)
        return [task["id"] for task in page["tasks"]]

    async def refused(self, reason: str, what: str, id: str) -> None:
        method = {"get": "GetTask", "cancel": "CancelTask", "subscribe": "SubscribeToTask", "send": "SendMessage"}[what]
        params = {"message": message("more", taskId=id)} if what == "send" else {"id": id}
        await self._caller.refused(reason, method, **params)

    def told(self, receiver: Receiver) -> Seen:
        assert receiver.told[-1].headers["content-type"] == "application/a2a+json"
        return _newer(receiver.told[-1].tree)


class Older:
    def __init__(self, gateway: Gateway, binding: str, agent: str) -> None:
        self._client: Any = OlderRpc(gateway) if binding == "grpc" else older.Older(gateway, binding, agent)

    async def send(self, text: str, *, task: Seen | None = None, push: Any = None, wait: bool = True) -> Seen:
        configuration: dict[str, Any] = {"blocking": wait}
        if push:
            configuration["pushNotificationConfig"] = push
        message = self._client.message(text, **({"taskId": task.id} if task else {}))
        return _older(await self._client.call("message/send", message=message, configuration=configuration))

    def sending(self, text: str) -> Any:
        return self._stream("message/stream", message=self._client.message(text))

    def subscribed(self, id: str) -> Any:
        return self._stream("tasks/resubscribe", id=id)

    async def _stream(self, method: str, **params: Any) -> AsyncIterator[Seen]:
        if self._client.binding == "grpc":
            async for event in self._client.events(method, **params):
                yield _older(event)
            return
        async with self._client.stream(method, **params) as events:
            async for event in events:
                yield _older(event)

    async def get(self, id: str) -> Seen:
        return _older({"kind": "task", **await self._client.call("tasks/get", id=id)})

    async def cancel(self, id: str) -> Seen:
        return _older({"kind": "task", **await self._client.call("tasks/cancel", id=id)})

    async def listed(self, context: str) -> list[str] | None:
        if self._client.binding != "http":
            return None
        return [task["id"] for task in await self._client.call("tasks/list", contextId=context)]

    async def refused(self, reason: str, what: str, id: str) -> None:
        method = {"get": "tasks/get", "cancel": "tasks/cancel", "subscribe": "tasks/resubscribe"}.get(what)
        if method is None:
            await self._client.refused(reason, "message/send", message=self._client.message("more", taskId=id))
        else:
            await self._client.refused(reason, method, id=id)

    def told(self, receiver: Receiver) -> Seen:
        assert receiver.told[-1].headers["content-type"] == "application/json"
        return _older(receiver.told[-1].tree)


def _newer(tree: Any) -> Seen:
    ((kind, it),) = tree.items()
    status, artifact = it.get("status", {}), it.get("artifact") or (it.get("artifacts") or [{}])[-1]
    return Seen(
        {"statusUpdate": "status-update", "artifactUpdate": "artifact-update"}.get(kind, kind),
        status.get("state", "").removeprefix("TASK_STATE_"),
        older.text(status.get("message", {}).get("parts", ())),
        it.get("id") or it.get("taskId"),
        it.get("contextId"),
        older.text(artifact.get("parts", ())),
    )


def _older(it: Any) -> Seen:
    status, artifact = it.get("status", {}), it.get("artifact") or (it.get("artifacts") or [{}])[-1]
    message = status.get("message", {})
    return Seen(
        it["kind"],
        older.word(status.get("state", "")),
        older.text(message.get("parts") or message.get("content") or ()),
        it.get("id") or it.get("taskId"),
        it.get("contextId"),
        older.text(artifact.get("parts", ())),
        it.get("final"),
    )


CLIENTS: dict[str, Callable[[Gateway, str, str], Client]] = {"1.0": Newer, "0.3": Older}


@dataclass(frozen=True)
class Town:
    gateway: Gateway
    agents: dict[str, Sdk]
    defaults: dict[str, Gateway]  # by their default agent


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with AsyncExitStack() as stack:
        far = {name: await stack.enter_async_context(sdk(*spoken)) for name, spoken in AGENTS.items()}
        far["over-acp"] = await stack.enter_async_context(sdk("JSONRPC", "1.0"))
        between = running(tmp_path_factory.mktemp("between"), agents(sdk=far["over-acp"].url), anonymous=True)
        facade = await stack.enter_async_context(between)
        await ready(facade, "sdk")
        urls = {name: agent.url for name, agent in far.items()} | {"over-acp": f"{facade.url}/acp/agents/sdk"}
        config = agents(**urls) + "egress: {allow_loopback: true}\n"
        gateway = await stack.enter_async_context(running(tmp_path_factory.mktemp("town"), config, grpc_port=0))
        await ready(gateway, *far)
        defaults = {}
        for name, url in urls.items():
            one = agents(**{name: url}) + "egress: {allow_loopback: true}\n"
            opened = running(tmp_path_factory.mktemp(name), one, grpc_port=0)
            defaults[name] = await stack.enter_async_context(opened)
            await ready(defaults[name], name)
        yield Town(gateway, far, defaults)


@pytest.mark.requirement("a2a.v03.any-client-any-agent", "a2a.bindings.same-results")
@pytest.mark.parametrize("agent", [*AGENTS, "over-acp"])
@pytest.mark.parametrize(
    ("binding", "version"),
    [({"HTTP+JSON": "http"}.get(name, name.lower()), version) for name, version in SPOKEN],
)
async def test_any_client_makes_the_whole_journey_with_any_agent(
    town: Town, binding: str, version: str, agent: str
) -> None:
    gateway = town.defaults[agent] if (binding, version) == ("grpc", "0.3") else town.gateway
    client, far = CLIENTS[version](gateway, binding, agent), town.agents[agent]
    async with asyncio.timeout(3 * BOUND), receiving() as receiver:
        done = await _send_get_and_list(client)
        await _errors_by_reason(client, done)
        await _several_turns(client)
        far.player.go.clear()
        await _a_stream_as_it_happens(client, far)
        far.player.go.clear()
        await _a_late_subscriber(client, far)
        far.player.go.clear()
        await _a_cancellation(client, far)
        await _a_webhook(client, receiver)


async def _send_get_and_list(client: Client) -> Seen:
    sent = await client.send("hello")
    assert (sent.kind, sent.state, sent.artifact) == ("task", "COMPLETED", "hello")
    assert await client.get(sent.id) == sent
    assert await client.listed(sent.context) in (None, [sent.id])
    return sent


async def _errors_by_reason(client: Client, done: Seen) -> None:
    await client.refused("TASK_NOT_FOUND", "get", "nobody-made-this")
    await client.refused("TASK_NOT_FOUND", "cancel", "nobody-made-this")
    await client.refused("TASK_NOT_FOUND", "subscribe", "nobody-made-this")
    await client.refused("TASK_NOT_CANCELABLE", "cancel", done.id)
    await client.refused("UNSUPPORTED_OPERATION", "subscribe", done.id)
    await client.refused("UNSUPPORTED_OPERATION", "send", done.id)


async def _several_turns(client: Client) -> None:
    asked = await client.send("ask")
    assert (asked.state, asked.said) == ("INPUT_REQUIRED", "What?")
    answered = await client.send("blue", task=asked)
    assert (answered.id, answered.state, answered.said) == (asked.id, "COMPLETED", "You said blue")
    streamed = [event async for event in client.sending("ask")]
    assert (streamed[0].kind, streamed[-1].state) == ("task", "INPUT_REQUIRED")
    assert streamed[-1].final in (None, True)


async def _a_stream_as_it_happens(client: Client, far: Sdk) -> None:
    seen = []
    async for event in client.sending("slow"):
        seen.append(event)
        if "Began" in event.said:
            far.player.go.set()  # only now may the agent go on
    assert seen[0].kind == "task"
    assert [event.artifact for event in seen if event.kind == "artifact-update"] == ["late"]
    assert (seen[-1].kind, seen[-1].state) == ("status-update", "COMPLETED")
    assert {event.final for event in seen[1:-1]} <= {None, False}
    assert {(event.id, event.context) for event in seen} == {(seen[0].id, seen[0].context)}


async def _a_late_subscriber(client: Client, far: Sdk) -> None:
    begun = await client.send("slow", wait=False)
    assert begun.state in ("SUBMITTED", "WORKING")
    seen = []
    async for event in client.subscribed(begun.id):
        seen.append(event)
        far.player.go.set()
    assert (seen[0].kind, seen[0].id) == ("task", begun.id)
    assert seen[-1].state == "COMPLETED"


async def _a_cancellation(client: Client, far: Sdk) -> None:
    before = len(far.player.canceled)
    begun = await client.send("slow", wait=False)
    canceled = await client.cancel(begun.id)
    assert (canceled.id, canceled.state) == (begun.id, "CANCELED")
    assert len(far.player.canceled) == before + 1


async def _a_webhook(client: Client, receiver: Receiver) -> None:
    sent = await client.send("hello", push={"url": receiver.url, "token": "t0ken"})
    await receiver.ended(sent.id)
    assert receiver.told[-1].headers["x-a2a-notification-token"] == "t0ken"
    told = client.told(receiver)
    assert (told.id, told.state) == (sent.id, "COMPLETED")
