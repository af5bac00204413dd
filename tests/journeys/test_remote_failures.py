"""Remote agents that misbehave: every answer here is written by the test."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.remote import Asked, Gone, Scripted, agents, ended, ready, reason, scripted, status, task, until
from tests.serving import BOUND, Gateway, message, running


@asynccontextmanager
async def behind(tmp_path: Path, **about: Any) -> AsyncIterator[tuple[Gateway, Scripted]]:
    async with scripted(**about) as agent, running(tmp_path, agents(far=agent.url)) as gateway:
        await ready(gateway, "far")
        yield gateway, agent


async def send(gateway: Gateway, **more: Any) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": message("hi", **more)}}
    return await gateway.post(body, agent="far")


# Refusals.

CARRIED = [
    (-32602, "INVALID_PARAMS", 200),
    (-32004, "UNSUPPORTED_OPERATION", 200),
    (-32005, "CONTENT_TYPE_NOT_SUPPORTED", 200),
    (-32044, "OVERLOADED", 429),
]


async def test_a_refusal_is_carried_by_its_reason(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        for code, reason, status in CARRIED:
            # The reason decides, whatever the number; without a reason the number does.
            for number, word in ((-32099, reason), (code, None)):

                @agent.on("SendMessage")
                async def _(asked: Asked, number: int = number, word: str | None = word) -> None:
                    asked.refuse(number, word, "Not this one.")

                answer = await send(gateway)
                assert answer.status_code == status
                error = answer.json()["error"]
                assert (error["code"], error["message"]) == (code, "Not this one.")
                assert error["data"][0]["reason"] == reason


BETWEEN = [
    ("401 X", b'{"error":"unauthorized"}'),
    ("401 X", b"<html>"),
    ("403 X", b'{"jsonrpc":"2.0","id":1,"error":{"code":-32040,"message":"Who?"}}'),
    ("500 X", b"Traceback"),
    ("502 X", b""),
    ("307 X", b"moved"),
]


async def test_what_is_between_the_gateway_and_the_agent_is_never_asked_of_the_caller(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        for status, body in BETWEEN:

            @agent.on("SendMessage")
            async def _(asked: Asked, status: str = status, body: bytes = body) -> None:
                asked.whole(body, status, www_authenticate="Basic", location=f"{agent.url}/elsewhere")

            agent.asked.clear()
            answer = await send(gateway)
            assert answer.status_code == 200
            assert "www-authenticate" not in answer.headers
            assert answer.json()["error"]["data"][0]["reason"] == "UPSTREAM_FAILED"
            over_http = await gateway.http("POST", "/message:send", agent="far", json={"message": message("hi")})
            assert over_http.status_code == 502
            assert "www-authenticate" not in over_http.headers
            assert len(agent.asked) == 2  # no redirect was followed, nothing was sent twice


RUBBISH = [
    b"not json",
    b'{"jsonrpc":"2.0","id":2,"result":{"task":{}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"unknown":{}}}',
    b'{"jsonrpc":"2.0","id":1,"result":{"task":{"status":{"state":"DANCING"}}}}',
    b'{"jsonrpc":"2.0","id":1,"id":1,"result":{}}',
    b"[]",
    b"17",
]


@pytest.mark.requirement("a2a.error.invalid-agent-response")
async def test_rubbish_is_called_an_invalid_answer_of_the_agent(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        for body in RUBBISH:

            @agent.on("SendMessage")
            async def _(asked: Asked, body: bytes = body) -> None:
                asked.whole(body)

            error = (await send(gateway)).json()["error"]
            assert error["code"] == -32006, body
            assert error["data"][0]["reason"] == "INVALID_AGENT_RESPONSE"


async def test_the_agents_own_ids_leave_its_errors(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            if "taskId" not in asked.params["message"]:
                asked.answer({"task": task("INPUT_REQUIRED")})
                return
            asked.refuse(-32004, "UNSUPPORTED_OPERATION", "Task theirs-1 is busy", taskId="theirs-1", contextId="other")

        @agent.on("CancelTask")
        async def _(asked: Asked) -> None:
            asked.refuse(-32002, "TASK_NOT_CANCELABLE", "Task theirs-1 goes on", taskId="theirs-1", contextId="other")

        mine = await gateway.task("hi", agent="far")
        error = await gateway.error("CancelTask", {"id": mine["id"]}, agent="far")
        assert error["code"] == -32002
        assert error["message"] == f"Task {mine['id']} goes on"
        assert error["data"][0]["metadata"] == {"taskId": mine["id"]}
        failed = await gateway.task("again", agent="far", taskId=mine["id"])
        assert "theirs" not in json.dumps(failed)
        assert reason(failed) == "UNSUPPORTED_OPERATION"


async def test_a_cancellation_that_the_agent_refuses_leaves_the_task_at_work(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        go = asyncio.Event()

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": task("WORKING")})

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            await go.wait()
            await asked.event(status("COMPLETED"))

        @agent.on("CancelTask")
        async def _(asked: Asked) -> None:
            assert asked.params == {"id": "theirs-1"}
            asked.refuse(-32002)

        mine = await gateway.task("hi", agent="far", configuration={"returnImmediately": True})
        assert (await gateway.error("CancelTask", {"id": mine["id"]}, agent="far"))["code"] == -32002
        go.set()
        assert (await ended(gateway, mine["id"], agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


# Credentials and what else travels.


async def test_the_callers_credential_and_headers_stay_here(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"message": {"messageId": "r", "role": "ROLE_AGENT", "parts": [{"text": "ok"}]}})

        body = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": message("hi")}}
        answer = await gateway.post(body, agent="far", Cookie="a=b", X_Api_Key="k", Forwarded="for=me")
        assert answer.json()["result"]["message"]["parts"] == [{"text": "ok"}]
        (asked,) = agent.asked
        assert not asked.headers.keys() & {"authorization", "cookie", "x-api-key", "forwarded"}
        assert gateway.token.encode() not in asked.raw
        assert asked.headers["a2a-version"] == "1.0"


@pytest.mark.requirement("a2a.send.metadata-reaches-agent")
async def test_metadata_and_output_modes_reach_the_agent_unchanged(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": task("COMPLETED")})

        await gateway.result(
            "SendMessage",
            {
                "message": message("hi", metadata={"a": [1, 2.5]}),
                "configuration": {"acceptedOutputModes": ["text/plain"]},
                "metadata": {"trace": {"x": 1}},
            },
            agent="far",
        )
        params = agent.asked[0].params
        assert params["metadata"] == {"trace": {"x": 1}}
        assert params["message"]["metadata"] == {"a": [1, 2.5]}
        assert params["configuration"] == {"returnImmediately": True, "acceptedOutputModes": ["text/plain"]}
        assert "taskId" not in params["message"]
        assert "contextId" not in params["message"]


ASKED_FOR = (
    "https://e.example/x",
    "https://e.example/not-on-its-card",
    "https://e.example/y?token=s",
    "https://me:s@e.example/z",
    "gw_secret",
)


@pytest.mark.requirement("a2a.extension.required")
@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
async def test_an_extension_that_the_agent_requires_can_be_had_through_the_gateway(tmp_path: Path, method: str) -> None:
    needed = {"streaming": True, "extensions": [{"uri": "https://e.example/x", "required": True}]}
    async with behind(tmp_path, capabilities=needed) as (gateway, agent):

        @agent.on(method)
        async def _(asked: Asked) -> None:
            if method == "SendMessage":
                asked.answer({"task": task("COMPLETED")})
            else:
                await asked.event({"task": task("COMPLETED")})

        body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {"message": message("hi")}}
        refused = await gateway.post(body, agent="far")
        assert refused.json()["error"]["code"] == -32008
        assert not agent.asked
        answer = await gateway.post(body, agent="far", A2A_Extensions=", ".join(ASKED_FOR))
        assert "TASK_STATE_COMPLETED" in answer.text
        told = re.split(", *", agent.asked[0].headers["a2a-extensions"])
        assert told == ["https://e.example/x", "https://e.example/not-on-its-card"], "names alone, no secrets"


@pytest.mark.requirement("a2a.send.reference-tasks")
async def test_references_reach_the_agent_under_its_own_ids_and_only_the_callers(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": task("COMPLETED", id=f"theirs-{len(agent.asked)}")})

        bob = await gateway.key("bob")
        foreign, mine = await gateway.task("a", agent="far", who=bob), await gateway.task("b", agent="far")
        await gateway.task("c", agent="far", referenceTaskIds=[foreign["id"], mine["id"], "unknown"])
        assert agent.asked[-1].params["message"]["referenceTaskIds"] == ["theirs-2"]


async def test_the_tenant_of_the_interface_goes_with_every_call_to_it(tmp_path: Path) -> None:
    async with scripted(streaming=False) as agent:
        agent.card["supportedInterfaces"][0]["tenant"] = "acme"
        async with running(tmp_path, agents(far=agent.url)) as gateway:
            await ready(gateway, "far")

            @agent.on("SendMessage")
            async def _(asked: Asked) -> None:
                asked.answer({"task": task("WORKING")})

            @agent.on("GetTask")
            async def _(asked: Asked) -> None:
                asked.answer(task("COMPLETED"))

            await gateway.task("hi", agent="far")
            assert [asked.params["tenant"] for asked in agent.asked] == ["acme", "acme"]


# Broken streams.


async def test_a_stream_that_dies_is_taken_up_again_where_it_stands(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("SUBMITTED")})
            await asked.event(status("WORKING", text="one"))
            raise Gone

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            assert asked.params == {"id": "theirs-1"}
            await asked.event({"task": task("WORKING")})
            await asked.event(status("WORKING", text="two"))
            await asked.event(status("COMPLETED", text="three"))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        said = [e["statusUpdate"]["status"].get("message", {}).get("parts") for e in events if "statusUpdate" in e]
        assert [parts[0]["text"] for parts in said if parts] == ["one", "two", "three"]
        assert len(agent.asked_for("SendStreamingMessage")) == 1
        assert "theirs" not in json.dumps(events)


async def test_an_agent_that_restarts_in_mid_stream_is_waited_for(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            agent.up = False
            asyncio.get_running_loop().call_later(0.5, setattr, agent, "up", True)
            raise Gone

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            asked.refuse(-32004)

        @agent.on("GetTask")
        async def _(asked: Asked) -> None:
            asked.answer(task("COMPLETED", artifacts=[{"artifactId": "a", "parts": [{"text": "found"}]}]))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-2]["artifactUpdate"]["artifact"]["parts"] == [{"text": "found"}]
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_an_agent_that_stays_away_fails_the_task_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.doze.POLL_SECONDS", (0.02,))
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            agent.up = False
            raise Gone

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        last = events[-1]["statusUpdate"]
        assert last["status"]["state"] == "TASK_STATE_FAILED"
        assert reason(last) == "UPSTREAM_FAILED"
        assert last["status"]["message"]["parts"][0]["text"].startswith("Contact with the agent was lost")


async def test_an_agent_that_forgot_the_task_fails_it_with_a_reason(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            raise Gone

        for method in ("SubscribeToTask", "GetTask"):

            @agent.on(method)
            async def _(asked: Asked) -> None:
                asked.refuse(-32001)

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        last = events[-1]["statusUpdate"]
        assert reason(last) == "UPSTREAM_FAILED"
        assert "no longer knows this task" in last["status"]["message"]["parts"][0]["text"]


@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
async def test_a_message_is_never_sent_twice_when_its_answer_is_lost(tmp_path: Path, method: str) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on(method)
        async def _(asked: Asked) -> None:
            raise Gone

        params = {"message": message("pay")}
        if method == "SendMessage":
            failed = (await gateway.result(method, params, agent="far"))["task"]
        else:
            told = await gateway.events(method, params, agent="far")
            failed = told[0]["task"] | told[-1]["statusUpdate"]
        assert failed["status"]["state"] == "TASK_STATE_FAILED"
        assert reason(failed) == "unknown-outcome"
        again = (await gateway.result("SendMessage", params, agent="far"))["task"]
        assert again["id"] == failed["id"]
        assert len(agent.asked) == 1


async def test_a_message_that_never_left_may_be_sent_again(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        params = {"message": message("hi")}

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            if len(agent.asked) == 1:
                asked.refuse(-32044, message="Not now")
            else:
                asked.answer({"task": task("COMPLETED")})

        assert (await gateway.error("SendMessage", params, agent="far"))["code"] == -32044
        again = (await gateway.result("SendMessage", params, agent="far"))["task"]
        assert again["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_an_error_in_the_middle_of_a_stream_is_looked_into_and_not_believed(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            error = {"code": -32044, "message": "read too slowly"}
            await asked.chunk(
                b"event: error\ndata: %s\n\n" % json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()
            )

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            await asked.event(status("COMPLETED"))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("garbage", [b"data: {{{\n\n", b"data: [1]\n\n", b'data: {"jsonrpc":"2.0","id":9}\n\n'])
async def test_rubbish_in_a_stream_is_not_passed_on(tmp_path: Path, garbage: bytes) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            await asked.chunk(garbage)

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("COMPLETED")})

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_rubbish_instead_of_a_first_event_is_an_invalid_answer(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.chunk(b"data: hello\n\n")

        error = await gateway.error("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert error["code"] == -32006


async def test_events_of_another_task_are_not_taken_for_this_one(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            await asked.event(status("FAILED", task="theirs-2"))

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("COMPLETED")})

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.requirement("a2a.task.ended-stays-ended")
async def test_nothing_after_the_end_is_taken(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            await asked.event(status("COMPLETED"))
            await asked.event(status("FAILED"))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        mine = await gateway.result("GetTask", {"id": events[0]["task"]["id"]}, agent="far")
        assert mine["status"]["state"] == "TASK_STATE_COMPLETED"


# Slow and huge.


@pytest.mark.parametrize("declared", [True, False])
async def test_an_answer_without_measure_is_cut_off(tmp_path: Path, declared: bool) -> None:
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            if declared:
                asked.whole(b'"' + b"x" * (5 << 20) + b'"')
                return
            for _ in range(6):
                await asked.chunk(b"x" * (1 << 20))

        failed = (await send(gateway)).json()["result"]["task"]
        assert failed["status"]["state"] == "TASK_STATE_FAILED"
        assert "more than" in failed["status"]["message"]["parts"][0]["text"]


async def test_a_task_with_a_slow_agent_ends_at_its_deadline(tmp_path: Path) -> None:
    async with scripted() as agent:
        config = f"agents:\n  far: {{card_url: '{agent.url}', public: true, deadline: 1}}\n"
        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")

            @agent.on("SendMessage")
            async def _(asked: Asked) -> None:
                await asyncio.sleep(BOUND)

            failed = (await send(gateway)).json()["result"]["task"]
            assert failed["status"]["state"] == "TASK_STATE_FAILED"
            assert reason(failed) == "deadline"


async def test_an_agent_whose_time_is_up_is_told_to_stop(tmp_path: Path) -> None:
    told = asyncio.Event()
    async with scripted() as agent:
        config = f"agents:\n  far: {{card_url: '{agent.url}', public: true, deadline: 1}}\n"
        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")

            @agent.on("SendMessage")
            async def _(asked: Asked) -> None:
                asked.answer({"task": task("WORKING")})

            @agent.on("SubscribeToTask")
            async def _(asked: Asked) -> None:
                await asked.event({"task": task("WORKING")})
                await told.wait()

            @agent.on("CancelTask")
            async def _(asked: Asked) -> None:
                told.set()
                asked.answer(task("CANCELED"))

            failed = (await send(gateway)).json()["result"]["task"]
            assert reason(failed) == "deadline"
            await asyncio.wait_for(told.wait(), BOUND)
            assert [call.params["id"] for call in agent.asked_for("CancelTask")] == [task("WORKING")["id"]]
            still = await gateway.result("GetTask", {"id": failed["id"]}, agent="far")
            assert still["status"] == failed["status"]


@pytest.mark.requirement("a2a.send.return-immediately")
async def test_a_slow_agent_does_not_keep_a_caller_who_will_not_wait(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        go = asyncio.Event()

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            await go.wait()
            asked.answer({"task": task("COMPLETED")})

        mine = await gateway.task("hi", agent="far", configuration={"returnImmediately": True})
        assert mine["status"]["state"] == "TASK_STATE_SUBMITTED"
        go.set()
        assert (await ended(gateway, mine["id"], agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_snake_case_ids_of_an_agent_stay_there_too(tmp_path: Path) -> None:
    """ProtoJSON lets a peer write proto names."""
    async with behind(tmp_path) as (gateway, agent):

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            if "taskId" in asked.params["message"]:
                assert asked.params["message"]["contextId"] == "ctx-theirs"
                asked.answer({"task": task("COMPLETED")})
                return
            said = {"message_id": "q", "role": "ROLE_AGENT", "parts": [{"text": "?"}], "task_id": "theirs-1"}
            told = {"state": "TASK_STATE_INPUT_REQUIRED", "message": said | {"reference_task_ids": ["theirs-0"]}}
            asked.answer({"task": {"id": "theirs-1", "context_id": "ctx-theirs", "status": told}})

        mine = await gateway.task("hi", agent="far")
        assert "theirs" not in json.dumps(mine)
        answered = await gateway.task("blue", agent="far", taskId=mine["id"])
        assert "theirs" not in json.dumps(answered)


async def test_a_task_that_waits_for_authorisation_goes_on_when_its_agent_does(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        go = asyncio.Event()

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": task("AUTH_REQUIRED")})

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("AUTH_REQUIRED")})
            await go.wait()
            await asked.event(status("COMPLETED"))

        mine = await gateway.task("hi", agent="far")
        assert mine["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        go.set()
        assert (await ended(gateway, mine["id"], agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_an_agent_without_streams_is_asked_again_with_growing_pauses(tmp_path: Path) -> None:
    async with behind(tmp_path, streaming=False) as (gateway, agent):

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": task("WORKING")})

        @agent.on("GetTask")
        async def _(asked: Asked) -> None:
            looks = len(agent.asked_for("GetTask"))
            asked.answer(task("COMPLETED" if looks == 3 else "WORKING"))

        mine = await gateway.task("hi", agent="far")
        assert mine["status"]["state"] == "TASK_STATE_COMPLETED"
        assert [asked.method for asked in agent.asked] == ["SendMessage", "GetTask", "GetTask", "GetTask"]

        async def settled() -> bool:
            return gateway.app.engine.active == 0

        await until(settled)
