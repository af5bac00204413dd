"""Agents as MCP tools for clients that take tasks: the A2A task is the MCP task, through either protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.model.tool import TASKS
from tests.mcp import MODERN, Door, Tree, message_of, modern, soon
from tests.serving import BOUND, ROOT, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAKES: Tree = {"elicitation": {}, "extensions": {TASKS: {}}}
TOWN = f"""
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
mounts:
  other: {{search: true}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("gateway"), TOWN, base=ROOT) as gateway:
        yield gateway


async def begun(door: Door, message: str) -> Tree:
    """The handle that a call of echo is answered with."""
    return await door.call("agents__echo", TAKES, message=message)


async def ask(door: Door, verb: str, id: Any, **more: Any) -> Tree:
    return await door.result(f"tasks/{verb}", {"taskId": id, **more}, capabilities=TAKES)


async def in_status(door: Door, id: str, *wanted: str) -> Tree:
    """The task once it is in one of these."""

    async def look() -> Tree | None:
        task = await ask(door, "get", id)
        return task if task["status"] in wanted else None

    found: Tree = await soon(look)
    return found


@pytest.mark.requirement("mcp.tasks.advertised")
async def test_the_extension_is_named_to_clients_that_discover_and_not_to_sessions(gateway: Gateway) -> None:
    offered = (await Door(gateway).result("server/discover"))["capabilities"]
    assert (offered["extensions"], "tasks" in offered) == ({TASKS: {}}, False)
    assert "extensions" not in (await Door(gateway).session()).offer["capabilities"]


@pytest.mark.requirement("mcp.tasks.created-durably")
async def test_a_call_is_answered_with_a_task_that_is_there_at_once(gateway: Gateway) -> None:
    door = Door(gateway, who=await gateway.key("ann"))
    handle = await begun(door, "wait 600")
    assert (handle["resultType"], handle["status"]) == ("task", "working")
    assert {"ttlMs", "pollIntervalMs", "createdAt", "lastUpdatedAt"} <= handle.keys()
    assert not {"result", "error", "inputRequests", "requestState", "task"} & handle.keys()
    task = await ask(door, "get", handle["taskId"])
    assert (task["resultType"], task["taskId"]) == ("complete", handle["taskId"])
    assert (await in_status(door, handle["taskId"], "working"))["status"] == "working"
    assert await ask(door, "cancel", handle["taskId"]) == {"resultType": "complete"}


@pytest.mark.requirement("mcp.tasks.get-shows-the-whole")
async def test_what_the_agent_made_is_the_result_and_is_the_a2a_task_too(gateway: Gateway) -> None:
    who = await gateway.key("bea")
    door = Door(gateway, who=who)
    handle = await begun(door, "hello")
    task = await in_status(door, handle["taskId"], "completed")
    assert task["result"]["content"][0] == {"type": "text", "text": "hello"}
    same = await gateway.result("GetTask", {"id": task["result"]["structuredContent"]["taskId"]}, who=who)
    assert same["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_what_the_agent_reports_is_the_message_of_the_status(gateway: Gateway) -> None:
    door = Door(gateway)
    handle = await begun(door, "wait 600")
    task = await soon(lambda: _said(door, handle["taskId"]))
    assert task["statusMessage"] == "0 of 600 s"
    await ask(door, "cancel", handle["taskId"])


async def _said(door: Door, id: str) -> Tree | None:
    task = await ask(door, "get", id)
    return task if "statusMessage" in task else None


@pytest.mark.requirement("mcp.tasks.errors-of-tools-are-results")
@pytest.mark.parametrize("word", ["fail", "reject"])
async def test_an_agent_that_fails_leaves_a_completed_call_with_an_error_in_it(gateway: Gateway, word: str) -> None:
    door = Door(gateway)
    task = await in_status(door, (await begun(door, word))["taskId"], "completed", "failed")
    assert (task["status"], task["result"]["isError"], "error" in task) == ("completed", True, False)
    assert f"{word}ed" in task["result"]["content"][0]["text"].lower()


@pytest.mark.requirement("mcp.tasks.input")
async def test_a_question_of_the_agents_is_asked_and_answered_through_the_task(gateway: Gateway) -> None:
    door = Door(gateway)
    id = (await begun(door, "ask"))["taskId"]
    task = await in_status(door, id, "input_required")
    ((key, request),) = task["inputRequests"].items()
    assert (request["method"], request["params"]["message"]) == ("elicitation/create", "What shall I echo?")
    stray = {"never-asked": {"action": "accept", "content": {"answer": "no"}}}
    assert await ask(door, "update", id, inputResponses=stray) == {"resultType": "complete"}
    assert key in (await ask(door, "get", id))["inputRequests"]
    given = {key: {"action": "accept", "content": {"answer": "this"}}}
    for _ in range(2):  # a client that is not sure whether it was heard sends it again
        assert await ask(door, "update", id, inputResponses=given) == {"resultType": "complete"}
    task = await in_status(door, id, "completed")
    assert task["result"]["content"][0]["text"] == "this"


async def test_who_will_not_answer_ends_the_task(gateway: Gateway) -> None:
    door = Door(gateway)
    id = (await begun(door, "ask"))["taskId"]
    (key,) = (await in_status(door, id, "input_required"))["inputRequests"]
    await ask(door, "update", id, inputResponses={key: {"action": "decline"}})
    assert (await ask(door, "get", id))["status"] == "cancelled"


@pytest.mark.requirement("mcp.tasks.cancel")
async def test_either_protocol_cancels_and_the_other_one_sees_it(gateway: Gateway) -> None:
    who = await gateway.key("cat")
    door = Door(gateway, who=who)
    first, second = (await begun(door, "wait 600"))["taskId"], (await begun(door, "wait 600"))["taskId"]
    assert await ask(door, "cancel", first) == {"resultType": "complete"}
    assert (await ask(door, "get", first))["status"] == "cancelled"
    states = [each["status"]["state"] for each in (await gateway.result("ListTasks", {}, who=who))["tasks"]]
    assert sorted(states)[0] == "TASK_STATE_CANCELED"
    (running_one,) = [
        each["id"]
        for each in (await gateway.result("ListTasks", {}, who=who))["tasks"]
        if each["status"]["state"] != "TASK_STATE_CANCELED"
    ]
    await gateway.result("CancelTask", {"id": running_one}, who=who)
    assert (await ask(door, "get", second))["status"] == "cancelled"
    assert await ask(door, "cancel", second) == {"resultType": "complete"}, "again is well too"


@pytest.mark.requirement("mcp.tasks.belong-to-their-caller")
async def test_a_task_of_anybody_elses_is_like_one_that_never_was(gateway: Gateway) -> None:
    owner, eve = Door(gateway, who=await gateway.key("dan")), Door(gateway, who=await gateway.key("eve"))
    id = (await begun(owner, "hello"))["taskId"]
    elsewhere = Door(gateway, "other", owner.who)
    for verb in ("get", "update", "cancel"):
        more: Tree = {"inputResponses": {}} if verb == "update" else {}
        answers = [
            await door.post(f"tasks/{verb}", modern({"taskId": each, **more}, TAKES))
            for door, each in ((eve, id), (eve, "never-was"), (owner, id[:-4] + "AAAA"), (elsewhere, id), (owner, ""))
        ]
        assert {answer.status_code for answer in answers} == {400}
        errors = [message_of(answer)["error"] for answer in answers]
        assert errors == [{"code": -32602, "message": "There is no such task"}] * 5
    assert (await in_status(owner, id, "completed"))["status"] == "completed"


@pytest.mark.requirement("mcp.tasks.undeclared-is-refused")
async def test_a_client_that_did_not_declare_tasks_gets_none_and_may_not_ask_after_any(gateway: Gateway) -> None:
    door = Door(gateway)
    assert (await door.call("agents__echo", message="hello"))["resultType"] == "complete"
    id = (await begun(door, "hello"))["taskId"]
    for verb in ("get", "update", "cancel"):
        answer = await door.post(f"tasks/{verb}", modern({"taskId": id, "inputResponses": {}}))
        error = message_of(answer)["error"]
        assert (answer.status_code, error["code"]) == (400, -32021)
        assert error["data"] == {"requiredCapabilities": {"extensions": {TASKS: {}}}}
    error = await door.error("subscriptions/listen", {"notifications": {"taskIds": [id]}})
    assert error["code"] == -32021


async def test_a_session_gets_results_whatever_its_client_declares(gateway: Gateway) -> None:
    session = await Door(gateway).session(TAKES)
    result = await session.result("tools/call", {"name": "agents__echo", "arguments": {"message": "hello"}})
    assert result["content"][0]["text"] == "hello"
    assert (await session.ask("tasks/get", {"taskId": "x"}))["error"]["code"] == -32601


@pytest.mark.requirement("mcp.tasks.routing-headers")
async def test_the_id_in_the_head_must_be_that_of_the_body(gateway: Gateway) -> None:
    door = Door(gateway)
    params = modern({"taskId": (await begun(door, "hello"))["taskId"]}, TAKES)
    answer = await door.post("tasks/get", params, mcp_name="another")
    assert (answer.status_code, message_of(answer)["error"]["code"]) == (400, -32020)
    missing = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tasks/get"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": params}
    assert (await door.raw(body, missing)).status_code == 400


async def test_an_id_that_is_no_text_and_answers_that_are_none_are_refused(gateway: Gateway) -> None:
    door = Door(gateway)
    assert (await door.error("tasks/get", {"taskId": 7}, capabilities=TAKES))["code"] == -32602
    id = (await begun(door, "hello"))["taskId"]
    error = await door.error("tasks/update", {"taskId": id, "inputResponses": []}, capabilities=TAKES)
    assert error["code"] == -32602
    error = await door.error("subscriptions/listen", {"notifications": {"taskIds": "x"}}, capabilities=TAKES)
    assert error["code"] == -32602


@pytest.mark.requirement("mcp.tasks.notifications")
async def test_who_listens_hears_of_its_tasks_and_of_no_others(gateway: Gateway) -> None:
    door, eve = Door(gateway), Door(gateway, who=await gateway.key("eva"))
    mine, foreign = (await begun(door, "ask"))["taskId"], (await begun(eve, "hello"))["taskId"]
    wanted = {"notifications": {"taskIds": [mine, foreign, "never-was"]}}
    async with asyncio.timeout(BOUND), door.stream("subscriptions/listen", wanted, capabilities=TAKES) as told:
        first = await anext(told)
        assert first["params"]["notifications"] == {"taskIds": [mine]}
        heard = [await anext(told)]
        while heard[-1]["params"]["status"] != "input_required":
            heard.append(await anext(told))
        (key,) = heard[-1]["params"]["inputRequests"]
        await ask(door, "update", mine, inputResponses={key: {"action": "accept", "content": {"answer": "this"}}})
        while heard[-1]["params"]["status"] != "completed":
            heard.append(await anext(told))
    assert {(each["method"], each["params"]["taskId"]) for each in heard} == {("notifications/tasks", mine)}
    last = {name: each for name, each in heard[-1]["params"].items() if name != "_meta"}
    assert {"resultType": "complete", **last} == await ask(door, "get", mine)


@pytest.mark.requirement("mcp.tasks.created-durably")
async def test_a_task_outlives_the_gateway_that_made_it(tmp_path: Path) -> None:
    async with running(tmp_path, TOWN, base=ROOT) as before:
        waiting, done = await begun(Door(before), "ask"), await begun(Door(before), "hello")
        await in_status(Door(before), waiting["taskId"], "input_required")
        ended = await in_status(Door(before), done["taskId"], "completed")
    async with running(tmp_path, TOWN, base=ROOT) as after:
        door = Door(after)
        assert await ask(door, "get", done["taskId"]) == ended
        (key,) = (await ask(door, "get", waiting["taskId"]))["inputRequests"]
        given = {key: {"action": "accept", "content": {"answer": "still here"}}}
        await ask(door, "update", waiting["taskId"], inputResponses=given)
        task = await in_status(door, waiting["taskId"], "completed")
        assert task["result"]["content"][0]["text"] == "still here"


async def test_who_cannot_be_asked_is_told_what_the_question_needs_and_may_still_cancel(gateway: Gateway) -> None:
    door = Door(gateway)
    deaf: Tree = {"extensions": {TASKS: {}}}
    id = (await door.call("agents__echo", deaf, message="ask"))["taskId"]
    await in_status(door, id, "input_required")
    error = await door.error("tasks/get", {"taskId": id}, capabilities=deaf)
    assert (error["code"], error["data"]) == (-32021, {"requiredCapabilities": {"elicitation": {}}})
    assert await door.result("tasks/cancel", {"taskId": id}, capabilities=deaf) == {"resultType": "complete"}
    assert (await door.result("tasks/get", {"taskId": id}, capabilities=deaf))["status"] == "cancelled"
