"""Tasks of MCP servers: handed through to clients that take them, waited for on behalf of everybody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
import pytest
import pytest_asyncio

from gateway.model.tool import TASKS
from tests.mcp import Door, Scripted, Tree, configured, says, scripted, soon, tool
from tests.serving import BOUND, ROOT, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

TAKES: Tree = {"elicitation": {}, "extensions": {TASKS: {}}}
REQUIRED = {"code": -32021, "message": "no", "data": {"requiredCapabilities": {"extensions": {TASKS: {}}}}}
SURE = {"type": "object", "properties": {"sure": {"type": "boolean"}}}
QUESTION = {"method": "elicitation/create", "params": {"mode": "form", "message": "Sure?", "requestedSchema": SURE}}
LINK = {"type": "resource_link", "uri": "file:///report", "name": "report"}


@dataclass
class Job:
    """A task of a scripted server: a test says what state it is in."""

    state: Tree = field(default_factory=lambda: {"status": "working"})
    answers: list[Tree] = field(default_factory=list)
    canceled: asyncio.Event = field(default_factory=asyncio.Event)
    required: bool = False

    async def call(self, params: Tree) -> Tree:
        if TASKS not in params["_meta"]["io.modelcontextprotocol/clientCapabilities"].get("extensions", {}):
            return {"error": REQUIRED} if self.required else says("at once")
        return {"resultType": "task", **self.handle, "status": "working"}

    async def get(self, params: Tree) -> Tree:
        if params["taskId"] != "job-1":
            return {"error": {"code": -32602, "message": "Task not found"}}
        return {"resultType": "complete", **self.handle, **self.state}

    async def update(self, params: Tree) -> Tree:
        self.answers.append(params["inputResponses"])
        self.state = {"status": "completed", "result": says("thank you")}
        return {"resultType": "complete"}

    async def cancel(self, params: Tree) -> Tree:
        self.canceled.set()
        self.state = {"status": "cancelled"}
        return {"resultType": "complete"}

    @property
    def handle(self) -> Tree:
        at = "2026-08-01T10:00:00Z"
        return {"taskId": "job-1", "createdAt": at, "lastUpdatedAt": at, "ttlMs": 60_000, "pollIntervalMs": 100}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docs() -> AsyncIterator[Scripted]:
    async with scripted(tool("build")) as script:
        yield script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, docs: Scripted) -> AsyncIterator[Gateway]:
    config = configured(
        "grants: [{to: ann, tools: [docs]}, {to: 'agent:caller', tools: [docs]}]",
        f"agents: {{caller: {{run: 'tests.actors:tooled', card: {ROOT}/agent_cards/echo.json, public: true}}}}",
        docs=docs,
    )
    async with running(tmp_path_factory.mktemp("gateway"), config) as gateway:
        yield gateway


@pytest.fixture
def job(docs: Scripted) -> Job:
    job = Job()
    docs.answers = {"build": job.call, "tasks/get": job.get, "tasks/update": job.update, "tasks/cancel": job.cancel}
    docs.requests.clear()
    docs.raw.clear()
    return job


async def ask(door: Door, verb: str, id: Any, **more: Any) -> Tree:
    return await door.result(f"tasks/{verb}", {"taskId": id, **more}, capabilities=TAKES)


async def begun(door: Door) -> Tree:
    return await door.call("docs__build", TAKES)


@pytest.mark.requirement("mcp.tasks.relayed")
@pytest.mark.requirement("mcp.tasks.routing-headers")
async def test_a_servers_task_is_its_callers_under_an_id_of_the_gateways(
    gateway: Gateway, docs: Scripted, job: Job
) -> None:
    door = Door(gateway)
    handle = await begun(door)
    assert (handle["resultType"], handle["status"], handle["ttlMs"]) == ("task", "working", 60_000)
    assert "job-1" not in handle["taskId"]
    job.state = {"status": "completed", "result": {"content": [LINK], "more": 2**60}}
    task = await ask(door, "get", handle["taskId"])
    assert (task["taskId"], task["status"]) == (handle["taskId"], "completed")
    assert task["result"] == {"content": [{**LINK, "uri": "docs+file:///report"}], "more": 2**60}
    assert docs.asked("tasks/get")[-1]["taskId"] == "job-1"
    assert (docs.raw[-1]["mcp-method"], docs.raw[-1]["mcp-name"]) == ("tasks/get", "job-1")


@pytest.mark.requirement("mcp.tasks.relayed")
async def test_what_a_servers_task_asks_is_answered_through_the_gateway(gateway: Gateway, job: Job) -> None:
    door = Door(gateway)
    id = (await begun(door))["taskId"]
    job.state = {"status": "input_required", "inputRequests": {"sure": QUESTION}}
    assert (await ask(door, "get", id))["inputRequests"] == {"sure": QUESTION}
    given = {"sure": {"action": "accept", "content": {}}}
    assert await ask(door, "update", id, inputResponses=given) == {"resultType": "complete"}
    assert job.answers == [given]
    assert (await ask(door, "get", id))["result"]["content"][0]["text"] == "thank you"


@pytest.mark.requirement("mcp.tasks.relayed")
async def test_cancel_reaches_the_server_and_a_task_it_forgot_is_none(gateway: Gateway, docs: Scripted) -> None:
    job = Job()
    docs.answers = {"build": job.call, "tasks/get": job.get, "tasks/cancel": job.cancel}
    door = Door(gateway)
    id = (await begun(door))["taskId"]
    assert await ask(door, "cancel", id) == {"resultType": "complete"}
    assert job.canceled.is_set()
    assert (await ask(door, "get", id))["status"] == "cancelled"

    async def forgotten(params: Tree) -> Tree:
        return {"error": {"code": -32602, "message": "Task has expired"}}

    docs.answers["tasks/get"] = forgotten
    error = await door.error("tasks/get", {"taskId": id}, capabilities=TAKES)
    assert error == {"code": -32602, "message": "There is no such task"}


@pytest.mark.requirement("mcp.tasks.belong-to-their-caller")
async def test_a_servers_task_is_nobody_elses_and_gone_with_the_permission(gateway: Gateway, job: Job) -> None:
    ann, local = Door(gateway, who=await gateway.key("ann")), Door(gateway)
    eve = Door(gateway, who=await gateway.key("eve"))
    id = (await begun(local))["taskId"]
    for door in (ann, eve):
        error = await door.error("tasks/get", {"taskId": id}, capabilities=TAKES)
        assert error == {"code": -32602, "message": "There is no such task"}
    assert (await ask(ann, "get", (await begun(ann))["taskId"]))["status"] == "working"


@pytest.mark.requirement("mcp.tasks.notifications")
async def test_who_listens_hears_what_becomes_of_a_servers_task(gateway: Gateway, job: Job) -> None:
    door = Door(gateway)
    id = (await begun(door))["taskId"]
    wanted = {"notifications": {"taskIds": [id]}}
    async with asyncio.timeout(BOUND), door.stream("subscriptions/listen", wanted, capabilities=TAKES) as told:
        assert (await anext(told))["params"]["notifications"] == {"taskIds": [id]}
        assert (await anext(told))["params"]["status"] == "working"
        job.state = {"status": "completed", "result": says("built")}
        last = (await anext(told))["params"]
    assert (last["taskId"], last["status"], last["result"]) == (id, "completed", says("built"))


@pytest.mark.requirement("mcp.tasks.undeclared-is-refused")
async def test_a_client_that_could_take_tasks_and_does_not_hears_what_the_server_needs(
    gateway: Gateway, job: Job
) -> None:
    door = Door(gateway)
    assert (await door.call("docs__build"))["content"][0]["text"] == "at once"
    job.required = True
    error = await door.error("tools/call", {"name": "docs__build", "arguments": {}})
    assert (error["code"], error["data"]) == (-32021, REQUIRED["data"])


@pytest.mark.requirement("mcp.tasks.waited-for")
async def test_for_a_session_the_gateway_waits_and_tells_and_asks(gateway: Gateway, job: Job) -> None:
    job.required = True
    job.state = {"status": "input_required", "statusMessage": "building", "inputRequests": {"sure": QUESTION}}

    async def answer(context: Any, params: Any) -> Any:
        assert params.message == "Sure?"
        return types.ElicitResult(action="accept", content={"sure": True})

    told: list[Any] = []

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with Door(gateway).sdk("legacy", elicitation_callback=answer) as sdk:
        result = await sdk.call_tool("docs__build", {}, progress_callback=progressed)
    assert "thank you" in str(result.content)
    assert [each["sure"]["action"] for each in job.answers] == ["accept"]
    assert told == ["building"]


@pytest.mark.requirement("mcp.tasks.waited-for")
@pytest.mark.parametrize(
    ("state", "code"),
    [
        ({"status": "failed", "error": {"code": -32001, "message": "broke"}}, -32001),
        ({"status": "cancelled"}, -31050),
        ({"status": "asleep"}, -31050),
    ],
)
async def test_how_a_task_ends_is_how_the_call_of_a_session_ends(
    gateway: Gateway, job: Job, state: Tree, code: int
) -> None:
    job.required, job.state = True, state
    session = await Door(gateway).session()
    answer = await session.ask("tools/call", {"name": "docs__build", "arguments": {}})
    assert answer["error"]["code"] == code


@pytest.mark.requirement("mcp.tasks.waited-for")
async def test_a_session_that_gives_up_cancels_the_servers_task(gateway: Gateway, docs: Scripted, job: Job) -> None:
    job.required = True
    session = await Door(gateway).session()
    calling = asyncio.ensure_future(session.ask("tools/call", {"name": "docs__build", "arguments": {}}))

    async def polled() -> bool:
        return bool(docs.asked("tasks/get"))

    await soon(polled)
    calling.cancel()
    async with asyncio.timeout(BOUND):
        await job.canceled.wait()


@pytest.mark.requirement("mcp.tasks.waited-for")
async def test_an_agent_of_ours_waits_for_a_task_without_knowing(gateway: Gateway, job: Job) -> None:
    job.required = True
    job.state = {"status": "completed", "result": says("built")}
    assert "built" in str(await gateway.send("docs/build", agent="caller"))


async def test_a_task_without_a_usable_id_is_the_servers_fault(gateway: Gateway, docs: Scripted) -> None:
    async def endless(params: Tree) -> Tree:
        return {"resultType": "task", "taskId": "x" * 600, "status": "working"}

    docs.answers = {"build": endless}
    error = await Door(gateway).error("tools/call", {"name": "docs__build", "arguments": {}}, capabilities=TAKES)
    assert error["data"]["reason"] == "UPSTREAM_FAILED"
