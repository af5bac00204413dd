"""An agent that speaks 0.3 alone, behind the gateway: what the journey through the matrix does not meet."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.remote import Asked, Gone, Scripted, admin_agent, agents, ready, reason, scripted, sdk
from tests.serving import ECHO, Gateway, message, running
from tests.upstream import loopback


def older_card(base: str, **more: Any) -> dict[str, Any]:
    """A card of 0.3.0 §5.5, and nothing of 1.0 on it."""
    return {
        "protocolVersion": "0.3.0",
        "name": "Older",
        "description": "Speaks 0.3.",
        "url": f"{base}/rpc",
        "preferredTransport": "JSONRPC",
        "version": "7",
        "capabilities": {"streaming": True, "stateTransitionHistory": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "s", "name": "S", "description": "Says it.", "tags": ["t"]}],
        **more,
    }


def task(state: str, *, id: str = "theirs-1", **more: Any) -> dict[str, Any]:
    return {"kind": "task", "id": id, "contextId": "ctx-theirs", "status": {"state": state}, **more}


def update(state: str, **more: Any) -> dict[str, Any]:
    status = {"state": state, **more.pop("status", {})}
    return {"kind": "status-update", "taskId": "theirs-1", "contextId": "ctx-theirs", "status": status, **more}


@asynccontextmanager
async def behind(tmp_path: Path, **about: Any) -> AsyncIterator[tuple[Gateway, Scripted]]:
    async with scripted() as agent:
        agent.card = older_card(agent.url, **about)
        async with running(tmp_path, agents(far=agent.url)) as gateway:
            await ready(gateway, "far")
            yield gateway, agent


# The card.


@pytest.mark.requirement("a2a.v03.agent-is-called")
async def test_a_card_of_0_3_becomes_one_of_the_gateways(tmp_path: Path) -> None:
    about = {
        "security": [{"theirs": ["read"]}],
        "securitySchemes": {"theirs": {"type": "apiKey", "in": "header", "name": "x-key"}},
        "additionalInterfaces": [
            {"url": "http://inside.example/rpc", "transport": "JSONRPC"},
            {"url": "http://inside.example/grpc", "transport": "GRPC"},
        ],
        "iconUrl": "https://x.example/i",
        "newer": {"kept": True},
    }
    async with behind(tmp_path, **about) as (gateway, agent):
        answer = await gateway.client.get("/agents/far/.well-known/agent-card.json")
        shown = answer.json()
        assert (shown["name"], shown["version"], shown["newer"]) == ("Older", "7", {"kept": True})
        for theirs in (agent.url, "inside.example", "theirs", "x-key"):
            assert theirs not in answer.text
        assert {each["url"] for each in shown["supportedInterfaces"]} == {f"{gateway.url}/agents/far"}


async def test_a_stored_agent_of_0_3_is_there_after_a_restart_though_it_is_down(tmp_path: Path) -> None:
    async with scripted() as agent:
        agent.card = older_card(agent.url)
        async with running(tmp_path, ECHO) as gateway:
            answer = await gateway.client.post(
                "/admin/agents", json={"cardUrl": agent.url, "id": "far"}, headers=gateway.bearer(None)
            )
            assert answer.status_code == 201, answer.text
        agent.up = False
        async with running(tmp_path, ECHO) as gateway:
            assert (await admin_agent(gateway, "far"))["card"]["name"] == "Older"


async def test_an_additional_interface_is_taken_when_the_preferred_one_is_none_of_ours(tmp_path: Path) -> None:
    async with sdk("HTTP+JSON", "0.3") as far, scripted() as agent:
        additional = [{"url": far.url, "transport": "HTTP+JSON"}, {"url": "x.example:1", "transport": "CORBA"}]
        agent.card = older_card("", url="x.example:1", preferredTransport="CORBA", additionalInterfaces=additional)
        config = agents(far=agent.url) + f"egress: {{allow: ['{far.url.removeprefix('http://')}']}}\n"
        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")
            assert (await gateway.task("hello", agent="far"))["artifacts"][0]["parts"] == [{"text": "hello"}]


# Calls.


@pytest.mark.requirement("a2a.v03.agent-is-called")
async def test_the_agent_hears_0_3_and_its_own_ids(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("message/send")
        async def send(asked: Asked) -> None:
            asked.answer(
                task("input-required" if "taskId" not in asked.params["message"] else "completed", mood="good")
            )

        parts = [{"text": "hi"}, {"raw": "dGNr", "mediaType": "image/png", "filename": "a.png"}, {"data": [1]}]
        asks = message("", parts=parts, extensions=["https://x.example/e"])
        params = {"message": asks, "metadata": {"k": 1}, "configuration": {"acceptedOutputModes": ["text/plain"]}}
        first = (await gateway.result("SendMessage", params, agent="far"))["task"]
        assert first["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        await gateway.task("blue", agent="far", taskId=first["id"])
        one, two = agent.asked
        assert one.headers["a2a-version"] == "0.3"
        sent = one.params["message"]
        assert (sent["kind"], sent["role"]) == ("message", "user")
        assert sent["parts"] == [
            {"kind": "text", "text": "hi"},
            {"kind": "file", "file": {"bytes": "dGNr", "mimeType": "image/png", "name": "a.png"}},
            {"kind": "data", "data": {"value": [1]}, "metadata": {"data_part_compat": True}},
        ]
        assert one.params["configuration"] == {"acceptedOutputModes": ["text/plain"], "blocking": False}
        assert one.params["metadata"] == {"k": 1}
        assert (two.params["message"]["taskId"], two.params["message"]["contextId"]) == ("theirs-1", "ctx-theirs")
        assert first["id"] not in two.raw.decode()


async def test_unknown_fields_of_the_agent_are_kept(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("message/send")
        async def send(asked: Asked) -> None:
            artifact = {"artifactId": "a", "parts": [{"kind": "text", "text": "x", "new": 1}], "newer": 2}
            asked.answer(task("completed", artifacts=[artifact]))

        (artifact,) = (await gateway.task("hi", agent="far"))["artifacts"]
        assert artifact == {"artifactId": "a", "newer": 2, "parts": [{"text": "x", "new": 1}]}


@pytest.mark.requirement("a2a.v03.agent-stream-taken-up")
async def test_a_stream_that_breaks_is_taken_up_with_resubscribe(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("message/stream")
        async def stream(asked: Asked) -> None:
            await asked.event(task("working"))
            raise Gone

        @agent.on("tasks/resubscribe")
        async def resubscribe(asked: Asked) -> None:
            assert asked.params["id"] == "theirs-1"
            await asked.event(task("working"))
            said = {"kind": "message", "messageId": "m", "role": "agent", "parts": [{"kind": "text", "text": "Done"}]}
            await asked.event(update("completed", status={"message": said}, final=True))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        last = events[-1]["statusUpdate"]
        assert last["status"]["state"] == "TASK_STATE_COMPLETED"
        assert last["status"]["message"]["parts"] == [{"text": "Done"}]
        assert "final" not in last
        assert len(agent.asked_for("message/stream")) == 1  # a message is sent once


async def test_an_agent_without_streams_is_polled(tmp_path: Path) -> None:
    async with behind(tmp_path, capabilities={}) as (gateway, agent):
        looks = iter(["working", "working", "completed"])

        @agent.on("message/send")
        async def send(asked: Asked) -> None:
            asked.answer(task("submitted"))

        @agent.on("tasks/get")
        async def get(asked: Asked) -> None:
            asked.answer(task(next(looks)))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize(
    ("code", "told"),
    [(-32001, "TASK_NOT_FOUND"), (-32004, "UNSUPPORTED_OPERATION"), (-32005, "CONTENT_TYPE_NOT_SUPPORTED")],
)
async def test_an_error_is_carried_by_its_reason_and_with_our_ids(tmp_path: Path, code: int, told: str) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("message/send")
        async def send(asked: Asked) -> None:
            if "taskId" in asked.params["message"]:
                asked.refuse(code, message="Task theirs-1 says no.")
            else:
                asked.answer(task("input-required"))

        asked = await gateway.task("hi", agent="far")
        failed = await gateway.task("more", agent="far", taskId=asked["id"])
        assert reason(failed) == told
        assert failed["status"]["message"]["parts"] == [{"text": f"Task {asked['id']} says no."}]


@pytest.mark.parametrize("state", ["unknown", "TASK_STATE_UNSPECIFIED", "asleep"])
async def test_a_state_that_nobody_can_hold_is_the_agents_failure(tmp_path: Path, state: str) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("message/send")
        async def send(asked: Asked) -> None:
            asked.answer(task(state))

        error = await gateway.error("SendMessage", {"message": message("hi")}, agent="far")
        assert error["data"][0]["reason"] == "INVALID_AGENT_RESPONSE"
        assert "status.state" in error["message"]


async def test_final_on_a_task_that_works_on_ends_the_stream_and_not_the_task(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("message/stream")
        async def stream(asked: Asked) -> None:
            await asked.event(task("submitted"))
            await asked.event(update("working", final=True))

        @agent.on("tasks/resubscribe")
        async def resubscribe(asked: Asked) -> None:
            asked.refuse(-32004)

        @agent.on("tasks/get")
        async def get(asked: Asked) -> None:
            asked.answer(task("completed"))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_cancellation_that_the_agent_refuses_is_refused(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("message/send")
        async def send(asked: Asked) -> None:
            asked.answer(task("input-required"))

        @agent.on("tasks/cancel")
        async def cancel(asked: Asked) -> None:
            asked.refuse(-32002, message="Not theirs-1.")

        asked = await gateway.task("hi", agent="far")
        error = await gateway.error("CancelTask", {"id": asked["id"]}, agent="far")
        assert (error["code"], error["data"][0]["reason"]) == (-32002, "TASK_NOT_CANCELABLE")


# HTTP+JSON: what agents of 0.3 answer there is not one thing.


@asynccontextmanager
async def resting(tmp_path: Path, answers: dict[str, bytes]) -> AsyncIterator[tuple[Gateway, list[str]]]:
    """An agent on HTTP+JSON whose whole answer to each request line is written down."""
    lines: list[str] = []

    async def play(request: loopback.Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = request.line.removesuffix(" HTTP/1.1")
        lines.append(line)
        writer.write(answers[line])

    async with loopback.serve(play) as server:
        about = {"url": server.url + "/base/v1", "preferredTransport": "HTTP+JSON"}
        body = json.dumps(older_card("", **about)).encode()
        answers["GET /.well-known/agent-card.json"] = loopback.answer(body, content_type="application/json")
        async with running(tmp_path, agents(far=server.url)) as gateway:
            await ready(gateway, "far")
            yield gateway, lines


def whole(tree: Any, status: str = "200 OK") -> bytes:
    return loopback.answer(json.dumps(tree).encode(), status, content_type="application/json")


PROTO_TASK = {"id": "theirs-1", "contextId": "ctx", "status": {"state": "TASK_STATE_INPUT_REQUIRED"}}


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (whole({"type": "TaskNotCancelableError", "message": "no"}, "400 Bad"), "TASK_NOT_CANCELABLE"),
        (whole({"code": -32002, "message": "no"}, "400 Bad"), "TASK_NOT_CANCELABLE"),
        (whole({"error": {"code": -32002, "message": "no"}}, "500 Bad"), "TASK_NOT_CANCELABLE"),
        (whole({"message": "no"}, "409 Conflict"), "TASK_NOT_CANCELABLE"),
        (whole({"message": "no"}, "501 Bad"), "UNSUPPORTED_OPERATION"),
        (whole({"message": "no"}, "500 Bad"), "UPSTREAM_FAILED"),
        (whole("no", "400 Bad"), "UPSTREAM_FAILED"),
    ],
)
async def test_a_refusal_in_any_of_its_forms_is_carried(tmp_path: Path, refusal: bytes, told: str) -> None:
    answers = {
        "POST /base/v1/message:send": whole({"task": PROTO_TASK}),
        "POST /base/v1/tasks/theirs-1:cancel": refusal,
    }
    async with resting(tmp_path, answers) as (gateway, _):
        asked = await gateway.task("hi", agent="far")
        error = await gateway.error("CancelTask", {"id": asked["id"]}, agent="far")
        assert error["data"][0]["reason"] == told


async def test_a_task_that_the_agent_has_forgotten_cannot_be_told_to_stop(tmp_path: Path) -> None:
    answers = {
        "POST /base/v1/message:send": whole({"task": PROTO_TASK}),
        "POST /base/v1/tasks/theirs-1:cancel": whole({}, "404 Not Found"),
    }
    async with resting(tmp_path, answers) as (gateway, _):
        asked = await gateway.task("hi", agent="far")
        canceled = await gateway.result("CancelTask", {"id": asked["id"]}, agent="far")
        assert canceled["status"]["state"] == "TASK_STATE_CANCELED"


@pytest.mark.requirement("a2a.v03.agent-stream-taken-up")
async def test_the_other_verb_of_subscribe_is_tried(tmp_path: Path) -> None:
    """The text of 0.3.0 says POST, its proto GET."""
    begun = {**PROTO_TASK, "status": {"state": "TASK_STATE_WORKING"}}
    done = {"taskId": "theirs-1", "contextId": "ctx", "status": {"state": "TASK_STATE_CANCELLED"}, "final": True}
    events = b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in ({"task": begun}, {"statusUpdate": done}))
    answers = {
        "POST /base/v1/message:stream": loopback.answer(
            b'data: {"task": %s}\n\n' % json.dumps(begun).encode(), content_type="text/event-stream"
        ),
        "POST /base/v1/tasks/theirs-1:subscribe": loopback.answer(b"", "405 No"),
        "GET /base/v1/tasks/theirs-1:subscribe": loopback.answer(events, content_type="text/event-stream"),
    }
    async with resting(tmp_path, answers) as (gateway, lines):
        seen = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert seen[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_CANCELED"
        assert lines[-2:] == ["POST /base/v1/tasks/theirs-1:subscribe", "GET /base/v1/tasks/theirs-1:subscribe"]
