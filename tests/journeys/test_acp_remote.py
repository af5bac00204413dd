"""Agents that speak only ACP, called by A2A clients who do not notice: by the gateway's own facade, which is an ACP
server, and through one whose every answer a test writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.model.rows import TaskQuery
from tests.acp import RUN, SESSION, Acp, Asked, Server, run, scripted, told, words
from tests.older import Older
from tests.remote import admin_agent, agents, ended, process, ready, reason, until
from tests.serving import BOUND, ECHO, ROOT, Gateway, message, running


@asynccontextmanager
async def behind(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Server]]:
    async with scripted() as server, running(tmp_path, agents(far=server.manifest)) as gateway:
        await ready(gateway, "far")
        yield gateway, server


@asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """A gateway whose agent is another gateway's echo, reached by ACP."""
    async with (
        running(tmp_path / "far", ECHO, anonymous=True) as far,
        running(tmp_path / "near", agents(far=f"{far.url}/acp/agents/echo")) as near,
    ):
        await ready(near, "far")
        yield near, far


async def send(gateway: Gateway, text: str = "hi", **more: Any) -> httpx2.Response:
    body = {"jsonrpc": "2.0", "id": 7, "method": "SendMessage", "params": {"message": message(text, **more)}}
    return await gateway.post(body, agent="far")


def said(task: Any) -> str:
    return "".join(part["text"] for part in task["status"].get("message", {}).get("parts", ()))


def made(task: Any) -> list[str]:
    return ["".join(part["text"] for part in artifact["parts"]) for artifact in task.get("artifacts", ())]


# Gateway, ACP, gateway.


@pytest.mark.requirement("acp.upstream.any-client")
async def test_an_agent_behind_acp_answers_streams_asks_and_stops_like_any_other(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, far):
        card = (await near.client.get("/agents/far/.well-known/agent-card.json", headers=near.bearer(None))).json()
        assert (card["name"], card["version"]) == ("Echo", "1.0.0")
        assert {each["protocolBinding"] for each in card["supportedInterfaces"]} <= {"JSONRPC", "HTTP+JSON", "GRPC"}
        done = await near.task("hello", agent="far")
        assert (done["status"]["state"], said(done)) == ("TASK_STATE_COMPLETED", "hello")
        events = await near.events("SendStreamingMessage", {"message": message("count 3")}, agent="far")
        chunks = [event["artifactUpdate"] for event in events if "artifactUpdate" in event]
        assert [(each["artifact"]["artifactId"], each["append"]) for each in chunks] == [
            ("count", False),
            ("count", True),
            ("count", True),
        ]
        asked = await near.task("ask", agent="far")
        assert (asked["status"]["state"], said(asked)) == ("TASK_STATE_INPUT_REQUIRED", "What shall I echo?")
        answered = await near.task("blue", agent="far", taskId=asked["id"])
        assert (answered["id"], said(answered)) == (asked["id"], "blue")
        begun = await near.task("wait 60", agent="far", configuration={"returnImmediately": True})
        canceled = await near.result("CancelTask", {"id": begun["id"]}, agent="far")
        assert canceled["status"]["state"] == "TASK_STATE_CANCELED"
        states = [row["task"]["status"]["state"] for row in await _tasks(far)]
        assert sorted(states) == [*["TASK_STATE_CANCELED"], *["TASK_STATE_COMPLETED"] * 3]


async def _tasks(gateway: Gateway) -> list[Any]:
    """Those of the anonymous caller that the other gateway is."""
    page = await gateway.app.store.tasks(TaskQuery("", "anonymous:anonymous", None, 100))
    return [{"task": row.task.model_dump(mode="json", by_alias=True)} for row in page.rows]


@pytest.mark.requirement("acp.upstream.any-client")
@pytest.mark.parametrize("binding", ["jsonrpc", "http"])
async def test_a_client_of_0_3_does_not_notice_either(tmp_path: Path, binding: str) -> None:
    async with two(tmp_path) as (near, _):
        client = Older(near, binding, "far")
        task = await client.call("message/send", message=client.message("hello"), configuration={"blocking": True})
        assert task["status"]["state"] in ("completed", "TASK_STATE_COMPLETED")


async def test_an_acp_client_reaches_an_acp_agent_and_loses_nothing(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, far):
        client, direct = Acp(near, "far"), Acp(far)
        parts: list[Any] = [
            {
                "content_type": "text/markdown",
                "content": "*a*",
                "metadata": {"kind": "citation", "url": "https://e.example"},
            },
            {"content_type": "application/json", "content": '{"a": 1.0}'},
            {"content_type": "image/png", "content": "AAEC", "content_encoding": "base64", "name": "p.png"},
            {"content_type": "text/csv", "content_url": "https://e.example/a.csv"},
        ]
        given = [{"role": "user", "parts": parts}]
        through, straight = await client.run("", input=given), await direct.run("", input=given)
        assert through["output"][0]["parts"] == straight["output"][0]["parts"]
        assert [part["content_type"] for part in through["output"][0]["parts"]] == [p["content_type"] for p in parts]
        ours, theirs = await client.events("count 3"), await direct.events("count 3")
        assert [event["type"] for event in ours] == [event["type"] for event in theirs]
        assert [event.get("part") for event in ours] == [event.get("part") for event in theirs]
        asked = await client.run("ask")
        assert words((await client.resume(asked["run_id"], "blue"))["output"]) == "blue"
        failed = await client.run("reject")
        assert failed["error"]["data"]["a2a"]["state"] == "TASK_STATE_REJECTED"


async def test_what_stands_beside_a_message_in_a2a_travels_too(tmp_path: Path) -> None:
    mirror = ECHO + f"  mirror: {{run: 'tests.actors:mirror', card: {ROOT}/agent_cards/echo.json, public: true}}\n"
    async with (
        running(tmp_path / "far", mirror, anonymous=True) as far,
        running(tmp_path / "near", agents(far=f"{far.url}/acp/agents/mirror")) as near,
    ):
        await ready(near, "far")
        sent = {
            "message": message("hi", metadata={"mine": 1}, extensions=["urn:one"]),
            "metadata": {"beside": [1.0]},
            "configuration": {"acceptedOutputModes": ["text/plain"]},
        }
        task = (await near.result("SendMessage", sent, agent="far"))["task"]
        seen = task["status"]["message"]["parts"][0]["data"]
        assert seen["metadata"] == {"beside": [1.0]}
        assert seen["acceptedOutputModes"] == ["text/plain"]
        assert seen["message"]["metadata"]["mine"] == 1
        assert seen["message"]["extensions"] == ["urn:one"]
        assert seen["message"]["messageId"].startswith(sent["message"]["messageId"])


async def test_a_conversation_stays_in_its_session_there(tmp_path: Path) -> None:
    async with two(tmp_path) as (near, far):
        first = await near.task("one", agent="far")
        await near.task("two", agent="far", contextId=first["contextId"])
        contexts = {row["task"]["contextId"] for row in await _tasks(far)}
        assert len(contexts) == 1
        assert contexts != {first["contextId"]}  # to the agent all our callers are one, so the name is its own


async def test_an_agent_is_added_by_the_address_of_its_manifest(tmp_path: Path) -> None:
    async with running(tmp_path / "far", ECHO, anonymous=True) as far:
        async with running(tmp_path / "near") as near:
            asked = {"cardUrl": f"{far.url}/acp/agents/echo", "id": "far"}
            answer = await near.client.post("/admin/agents", json=asked, headers=near.bearer(None))
            assert (answer.status_code, answer.json()["card"]["name"]) == (201, "Echo")
        async with running(tmp_path / "near") as near:  # kept, and it works at once
            assert said(await near.task("still here", agent="far")) == "still here"


async def test_an_acp_server_says_which_agents_it_has_when_none_is_named(tmp_path: Path) -> None:
    async with running(tmp_path / "far", ECHO, anonymous=True) as far, running(tmp_path / "near") as near:
        for address in (f"{far.url}/acp", f"{far.url}/acp/"):
            asked = {"cardUrl": address, "id": "far"}
            answer = await near.client.post("/admin/agents", json=asked, headers=near.bearer(None))
            assert f"name one of its agents: {far.url}/acp/agents/echo" in answer.json()["error"]["message"]
        asked = {"cardUrl": f"{far.url}/acp/nothing", "id": "far"}
        answer = await near.client.post("/admin/agents", json=asked, headers=near.bearer(None))
        assert "status 404" in answer.json()["error"]["message"]


# Servers that misbehave.


async def test_plain_words_of_an_acp_agent_are_artifacts_that_stream(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):

        @server.on("create")
        async def _(asked: Asked) -> None:
            await asked.begin()
            await asked.event("generic", generic={"thought": "Hm."})
            await asked.event("generic", generic={"progress": 0.5})
            await asked.event("message.created", message=told())
            for text in ("Hel", "lo"):
                await asked.event("message.part", part=told(text)["parts"][0])
            await asked.event("message.part", part={**told("x")["parts"][0], "name": "a.txt"})
            await asked.event("message.completed", message=told("Hel", "lo", "x"))
            await asked.event("run.completed", run=run("completed", told("Hel", "lo", "x")))

        events = await gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far")
        updates = [event["artifactUpdate"] for event in events if "artifactUpdate" in event]
        assert [(each["artifact"]["artifactId"], each["append"]) for each in updates] == [
            ("message-1", False),
            ("message-1", True),
            ("message-1/a.txt", False),
        ]
        reports = [event["statusUpdate"]["status"].get("message") for event in events if "statusUpdate" in event]
        assert [each["parts"] for each in reports if each] == [[{"text": "Hm."}], [{"data": {"progress": 0.5}}]]
        assert events[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        (asked,) = server.asked_for("create")
        assert (asked.body["agent_name"], asked.body["mode"]) == ("far", "stream")
        assert "session_id" not in asked.body
        assert "authorization" not in asked.headers


@pytest.mark.requirement("acp.upstream.followed-to-its-end")
async def test_a_run_whose_stream_dies_is_looked_at_until_it_ends(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):
        statuses = iter(["in-progress", "in-progress", "completed"])

        @server.on("create")
        async def _(asked: Asked) -> None:
            await asked.begin()
            await asked.event("message.created", message=told())
            await asked.event("message.part", part=told("Hel")["parts"][0])
            asked.break_off()

        @server.on("look")
        async def _(asked: Asked) -> None:
            status = next(statuses)
            asked.answer(run(status, told("Hel") if status == "in-progress" else told("Hel", "lo")))

        task = (await send(gateway)).json()["result"]["task"]
        assert (task["status"]["state"], made(task)) == ("TASK_STATE_COMPLETED", ["Hello"])
        assert len(server.asked_for("create")) == 1
        assert {asked.path for asked in server.asked_for("look")} == {f"/runs/{RUN}"}


async def test_a_run_that_its_server_forgot_fails_with_a_reason(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):

        @server.on("create")
        async def _(asked: Asked) -> None:
            await asked.begin()
            asked.break_off()

        task = (await send(gateway)).json()["result"]["task"]
        assert (task["status"]["state"], reason(task)) == ("TASK_STATE_FAILED", "UPSTREAM_FAILED")
        assert "no longer knows this run" in said(task)


async def test_a_message_whose_answer_never_came_is_not_sent_again(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):

        @server.on("create")
        async def _(asked: Asked) -> None:
            asked.break_off()

        sent = message("hi")
        task = (await gateway.result("SendMessage", {"message": sent}, agent="far"))["task"]
        assert (task["status"]["state"], reason(task)) == ("TASK_STATE_FAILED", "unknown-outcome")
        again = (await gateway.result("SendMessage", {"message": sent}, agent="far"))["task"]
        assert again["id"] == task["id"]
        assert len(server.asked_for("create")) == 1


@pytest.mark.requirement("acp.upstream.errors")
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("404 X", "UPSTREAM_FAILED"),
        ("401 X", "UPSTREAM_FAILED"),
        ("500 X", "UPSTREAM_FAILED"),
        ("422 X", "INVALID_PARAMS"),
        ("429 X", "OVERLOADED"),
        ("503 X", "UNAVAILABLE"),
    ],
)
async def test_a_refusal_is_carried_as_far_as_it_is_the_callers_business(
    tmp_path: Path, status: str, expected: str
) -> None:
    async with behind(tmp_path) as (gateway, server):

        @server.on("create")
        async def _(asked: Asked) -> None:
            asked.answer({"code": "server_error", "message": "Not now.", "data": None}, status)

        error = (await send(gateway)).json()["error"]
        assert error["data"][0]["reason"] == expected
        assert "Not now." in error["message"]


@pytest.mark.parametrize(
    "tree",
    [b"<html>", {"type": "run.created"}, {"type": "run.created", "run": {"run_id": 1}}],
    ids=str,
)
async def test_rubbish_is_an_invalid_answer_of_the_agent(tmp_path: Path, tree: Any) -> None:
    async with behind(tmp_path) as (gateway, server):

        @server.on("create")
        async def _(asked: Asked) -> None:
            asked.answer(tree)

        assert (await send(gateway)).json()["error"]["data"][0]["reason"] == "INVALID_AGENT_RESPONSE"


async def test_a_server_without_streams_is_believed_when_it_answers_whole(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):

        @server.on("create")
        async def _(asked: Asked) -> None:
            asked.answer(run("completed", told("Hello")))

        task = (await send(gateway)).json()["result"]["task"]
        assert (task["status"]["state"], made(task)) == ("TASK_STATE_COMPLETED", ["Hello"])


@pytest.mark.requirement("acp.upstream.await-and-resume")
async def test_a_question_becomes_input_required_and_the_answer_resumes_the_run(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):

        @server.on("create")
        async def _(asked: Asked) -> None:
            await asked.begin()
            await asked.event("message.created", message=told())
            await asked.event("message.part", part=told("So far. ")["parts"][0])
            request = {"type": "message", "message": told("Which?")}
            await asked.event("run.awaiting", run=run("awaiting", told("So far. "), await_request=request))

        @server.on("resume")
        async def _(asked: Asked) -> None:
            await asked.begin()  # acp-sdk's server leaves the old request in the run
            await asked.event("run.in-progress", run=run("in-progress", told("So far. ")))
            await asked.event("message.part", part=told("Blue.")["parts"][0])
            await asked.event("run.completed", run=run("completed", told("So far. ", "Blue.")))

        asked = (await send(gateway)).json()["result"]["task"]
        assert (asked["status"]["state"], said(asked)) == ("TASK_STATE_INPUT_REQUIRED", "Which?")
        done = (await send(gateway, "blue", taskId=asked["id"])).json()["result"]["task"]
        assert (done["status"]["state"], made(done)) == ("TASK_STATE_COMPLETED", ["So far. Blue."])
        (resumed,) = server.asked_for("resume")
        assert resumed.path == f"/runs/{RUN}"
        assert resumed.body["await_resume"]["message"]["parts"][0]["content"] == "blue"
        again = (await send(gateway, contextId=asked["contextId"])).json()["result"]["task"]
        assert again["contextId"] == asked["contextId"]
        assert server.asked_for("create")[-1].body["session_id"] == SESSION


async def test_a_run_that_ended_while_its_question_stood_is_looked_at(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):

        @server.on("create")
        async def _(asked: Asked) -> None:
            await asked.begin()
            request = {"type": "message", "message": told("Which?")}
            await asked.event("run.awaiting", run=run("awaiting", await_request=request))

        @server.on("resume")
        async def _(asked: Asked) -> None:
            asked.answer({"code": "server_error", "message": "No await request.", "data": None}, "403 X")

        @server.on("look")
        async def _(asked: Asked) -> None:
            asked.answer(run("cancelled"))

        asked = (await send(gateway)).json()["result"]["task"]
        done = (await send(gateway, "blue", taskId=asked["id"])).json()["result"]["task"]
        assert done["status"]["state"] == "TASK_STATE_CANCELED"


@pytest.mark.requirement("acp.upstream.cancel")
async def test_a_cancellation_waits_for_what_the_server_makes_of_it(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):
        go, statuses = asyncio.Event(), iter(["cancelling", "cancelled"])

        @server.on("create")
        async def _(asked: Asked) -> None:
            await asked.begin()
            await go.wait()

        @server.on("cancel")
        async def _(asked: Asked) -> None:
            asked.answer(run("cancelling"), "202 X")

        @server.on("look")
        async def _(asked: Asked) -> None:
            asked.answer(run(next(statuses)))

        sent = {"message": message("hi"), "configuration": {"returnImmediately": True}}
        begun = (await gateway.result("SendMessage", sent, agent="far"))["task"]
        await until(lambda: _asked(server, "create"))
        canceled = await gateway.result("CancelTask", {"id": begun["id"]}, agent="far")
        assert canceled["status"]["state"] == "TASK_STATE_CANCELED"
        go.set()


async def _asked(server: Server, what: str) -> bool:
    return bool(server.asked_for(what))


async def test_a_run_that_cannot_be_canceled_stays_at_work(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, server):
        go = asyncio.Event()

        @server.on("create")
        async def _(asked: Asked) -> None:
            await asked.begin()
            await go.wait()
            await asked.event("run.completed", run=run("completed"))

        @server.on("cancel")
        async def _(asked: Asked) -> None:
            asked.answer({"code": "server_error", "message": "Too late.", "data": None}, "403 X")

        sent = {"message": message("hi"), "configuration": {"returnImmediately": True}}
        begun = (await gateway.result("SendMessage", sent, agent="far"))["task"]
        await until(lambda: _asked(server, "create"))
        error = await gateway.error("CancelTask", {"id": begun["id"]}, agent="far")
        assert error["data"][0]["reason"] == "TASK_NOT_CANCELABLE"
        go.set()
        assert (await ended(gateway, begun["id"], agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.requirement("acp.upstream.followed-to-its-end")
async def test_a_run_is_followed_again_after_the_gateway_was_killed(tmp_path: Path) -> None:
    async with scripted() as server:
        go = asyncio.Event()

        @server.on("create")
        async def _(asked: Asked) -> None:
            await asked.begin()
            await asked.event("message.created", message=told())
            await asked.event("message.part", part=told("Hel")["parts"][0])
            await go.wait()

        @server.on("look")
        async def _(asked: Asked) -> None:
            asked.answer(run("completed", told("Hel", "lo")))

        def first() -> str:
            with process(tmp_path, agents(far=server.manifest)) as gateway:
                gateway.until(lambda: gateway.call("GET", "/agents/far/.well-known/agent-card.json").status_code == 200)
                sent = {"message": message("hi"), "configuration": {"returnImmediately": True}}
                id: str = gateway.rpc("SendMessage", sent, agent="far")["result"]["task"]["id"]
                gateway.until(lambda: gateway.task(id, agent="far").get("artifacts"))
                gateway.kill()
                return id

        def second(id: str) -> Any:
            with process(tmp_path, agents(far=server.manifest)) as gateway:
                return gateway.ended(id, agent="far")

        id = await asyncio.to_thread(first)
        go.set()
        task = await asyncio.wait_for(asyncio.to_thread(second, id), 3 * BOUND)
        assert (task["status"]["state"], made(task)) == ("TASK_STATE_COMPLETED", ["Hello"])
        assert len(server.asked_for("create")) == 1


async def test_a_server_that_is_down_leaves_its_agent_unhealthy(tmp_path: Path) -> None:
    async with running(tmp_path, agents(far="http://127.0.0.1:9/agents/far")) as gateway:

        async def unhealthy() -> bool:
            return bool((await admin_agent(gateway, "far"))["reason"])

        await until(unhealthy)
        assert (await send(gateway)).json()["error"]["data"][0]["reason"] == "UNAVAILABLE"
