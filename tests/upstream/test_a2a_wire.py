"""What goes to a remote agent, byte by byte, and how its words are read: the pure half of speaking A2A upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.dialects.a2a_v1 import upstream as wire
from gateway.model.card import AgentInterface
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message, Part, Role
from gateway.model.task import Task

RPC = AgentInterface(url="https://a.example/rpc", protocol_binding="JSONRPC", protocol_version="1.0")
REST = AgentInterface(url="https://a.example/base/", protocol_binding="HTTP+JSON", protocol_version="1.0")


def tenant(interface: AgentInterface, word: str) -> AgentInterface:
    return interface.model_copy(update={"tenant": word})


@pytest.mark.parametrize(
    ("operation", "id", "method", "url"),
    [
        ("SendMessage", None, "POST", "https://a.example/base/message:send"),
        ("SendStreamingMessage", None, "POST", "https://a.example/base/message:stream"),
        ("GetTask", "t/1?x", "GET", "https://a.example/base/tasks/t%2F1%3Fx"),
        ("CancelTask", "t", "POST", "https://a.example/base/tasks/t:cancel"),
        ("SubscribeToTask", "t", "POST", "https://a.example/base/tasks/t:subscribe"),
    ],
)
def test_each_operation_has_its_place_in_both_bindings(operation: str, id: str | None, method: str, url: str) -> None:
    rest = wire.outgoing(REST, operation, b"{}", id)
    assert (rest.method, rest.url, rest.body) == (method, url, b"{}" if method == "POST" else None)
    with_tenant = wire.outgoing(tenant(REST, "a/b"), operation, b"{}", id)
    assert with_tenant.url == url.replace("/base/", "/base/a%2Fb/")
    rpc = wire.outgoing(tenant(RPC, "acme"), operation, b'{"x":1}', id)
    assert (rpc.method, rpc.url) == ("POST", RPC.url)
    call = json.loads(rpc.body or b"")
    assert call["method"] == operation
    assert call["params"] == {"tenant": "acme", "x": 1} | ({"id": id} if id else {})
    assert ("text/event-stream" in rpc.headers["accept"]) == (operation in ("SendStreamingMessage", "SubscribeToTask"))


def params(message: Message, ours: str) -> Any:
    return json.loads(wire.message_params(message, ours=ours, task_id="t", context_id="c"))


def test_a_message_id_stays_readable_and_is_unique_for_each_of_our_tasks() -> None:
    message = Message(message_id="m" * 256, role=Role.USER, parts=(Part(text="x"),))
    one, two = (params(message, ours)["message"]["messageId"] for ours in ("1", "2"))
    assert one != two
    assert one.startswith("m" * 200 + "-")
    assert len(one) <= 256
    assert params(message, "1")["message"]["messageId"] == one
    assert (params(message, "1")["message"]["taskId"], params(message, "1")["message"]["contextId"]) == ("t", "c")


def test_unknown_fields_pass_in_both_directions() -> None:
    message = Message.model_validate({"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x", "new": 1}]})
    assert params(message, "1")["message"]["parts"] == [{"text": "x", "new": 1}]
    tree = {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING", "mood": "good"}, "new": 2}}
    named = wire.event(tree, task_id="ours", context_id="our-context")
    assert (named.task_id, named.context_id) == ("t", "c")
    assert isinstance(named.event, Task)
    seen = json.loads(named.event.wire())
    assert (seen["id"], seen["contextId"], seen["new"], seen["status"]["mood"]) == ("ours", "our-context", 2, "good")


@pytest.mark.parametrize("also", ["task", "message"])
def test_an_event_that_claims_to_be_two_things_carries_none_of_the_agents_ids(also: str) -> None:
    status = {"state": "TASK_STATE_WORKING"}
    whole = {"id": "their-task", "contextId": "their-context", "status": status}
    reply = {"messageId": "m", "role": "ROLE_AGENT", "parts": [], "taskId": "their-task", "contextId": "their-context"}
    update = {"taskId": "their-task", "contextId": "their-context", "status": status}
    tree = {also: {"task": whole, "message": reply}[also], "statusUpdate": update}
    named = wire.event(tree, task_id="ours", context_id="our-context")
    assert b"their-" not in named.event.wire()


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_of_the_agents_is_carried_or_becomes_its_failure(reason: Reason) -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason.value, "metadata": {"k": "v"}}
    tree = {"error": {"code": 418, "status": "X", "message": "Said so.", "details": [detail]}}
    with pytest.raises(GatewayError) as caught:
        wire.result(REST, "SendMessage", 418, tree, {})
    carried = reason in wire.CARRIED
    assert caught.value.reason is (reason if carried else Reason.UPSTREAM_FAILED)
    assert "Said so." in caught.value.message
    assert caught.value.metadata == ({"k": "v"} if carried else {})


def test_an_id_inside_a_longer_word_is_left_alone() -> None:
    tree = {"error": {"code": -32001, "message": "Task 7 of 77 and x-7: no"}}
    with pytest.raises(GatewayError) as caught:
        wire.result(RPC, "SendMessage", 200, tree, {"7": "ours"})
    assert caught.value.message == "Task ours of 77 and x-7: no"
