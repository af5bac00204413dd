"""The four combinations of eras, with real servers and the official SDK's client on both ends of the gateway."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import mcp_types as types
import pytest
import pytest_asyncio
from pydantic import FileUrl

from gateway.model.tool import TASKS
from tests.mcp import Door, message_of, modern, soon
from tests.serving import ROOT, Gateway, running
from tests.upstream.mcp_servers import child, fixture

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVERS = ("modern", "legacy", "stdio")
CLIENTS = ("legacy", "2026-07-28")
EVERY_CELL = [(server, client) for server in SERVERS for client in CLIENTS]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    with ExitStack() as stack:
        ports = {
            era: stack.enter_context(child(lambda port, era=era: fixture("--http", str(port), "--era", era)))  # type: ignore[misc]
            for era in ("modern", "legacy")
        }
        config = f"""
tools:
  modern: {{url: "http://127.0.0.1:{ports["modern"]}/mcp"}}
  legacy: {{url: "http://127.0.0.1:{ports["legacy"]}/mcp"}}
  stdio: {{command: [{sys.executable}, -m, conformance.fixtures.tool_server], folder: "{ROOT}"}}
mounts:
  {"".join(f"{server}: {{tools: [{server}], naming: identity}}{chr(10)}  " for server in SERVERS)}
grants:
  - {{to: ann, tools: ["*"], prompts: ["*"], resources: ["*"]}}
  - {{to: bob, tools: ["*"], prompts: ["*"], resources: ["*"]}}
"""
        async with running(tmp_path_factory.mktemp("gateway"), config) as gateway:

            async def up() -> bool:
                states = (await gateway.client.get("/admin/tools", headers=gateway.bearer(None))).json()["servers"]
                return all(each["state"] == "up" for each in states)

            await soon(up)
            yield gateway


async def elicit(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"response": "blue", "name": "Ann"})


async def sample(context: Any, params: Any) -> types.CreateMessageResult:
    return types.CreateMessageResult(role="assistant", content=types.TextContent(type="text", text="Paris"), model="m")


async def roots(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl(f"file:///{name}")) for name in "ab"])


def words(result: Any) -> str:
    return str(result.content[0].text)


@pytest.mark.requirement("mcp.eras.questions-reach-the-caller")
@pytest.mark.parametrize(("server", "client"), EVERY_CELL)
async def test_a_server_can_ask_the_user_the_model_and_for_roots(gateway: Gateway, server: str, client: str) -> None:
    door = Door(gateway, server)
    async with door.sdk(
        client, elicitation_callback=elicit, sampling_callback=sample, list_roots_callback=roots
    ) as sdk:
        assert "blue" in words(await sdk.call_tool("test_elicitation", {"message": "Color?"}))
        assert "Paris" in words(await sdk.call_tool("test_sampling", {"prompt": "Capital?"}))
        assert words(await sdk.call_tool("test_input_required_result_list_roots", {})) == "2 roots"
        assert words(await sdk.call_tool("test_input_required_result_multiple_inputs", {})) == "all three are there"


@pytest.mark.requirement("mcp.eras.rounds")
@pytest.mark.parametrize(("server", "client"), EVERY_CELL)
async def test_questions_can_follow_each_other(gateway: Gateway, server: str, client: str) -> None:
    asked: list[str] = []

    async def answer(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"name": "Ann", "color": "red"})

    async with Door(gateway, server).sdk(client, elicitation_callback=answer) as sdk:
        result = await sdk.call_tool("test_input_required_result_multi_round", {})
    assert words(result) == "Ann likes red"
    assert asked == ["Step 1: What is your name?", "Step 2: What is your favorite color?"]


@pytest.mark.requirement("mcp.eras.progress-and-log")
@pytest.mark.parametrize(("server", "client"), EVERY_CELL)
async def test_progress_and_log_come_while_the_tool_runs(gateway: Gateway, server: str, client: str) -> None:
    heard: list[Any] = []

    async def logged(params: Any) -> None:
        heard.append(params.data)

    async def progressed(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with Door(gateway, server).sdk(client, logging_callback=logged, log_level="info") as sdk:
        await sdk.call_tool("test_tool_with_progress", {}, progress_callback=progressed)
        assert heard == [0, 50, 100]
        heard.clear()
        await sdk.call_tool("test_tool_with_logging", {})
        assert heard == ["Tool execution started", "Tool processing data", "Tool execution completed"]


@pytest.mark.requirement("mcp.log.only-when-asked-for")
@pytest.mark.parametrize("server", SERVERS)
async def test_without_a_log_level_there_is_no_log(gateway: Gateway, server: str) -> None:
    door = Door(gateway, server)
    answer = await door.ask("tools/call", {"name": "test_tool_with_logging", "arguments": {}})
    assert answer["result"]["content"][0]["text"] == "logged three messages"
    async with door.stream("tools/call", {"name": "test_tool_with_logging", "arguments": {}}, logLevel="info") as told:
        assert [each.get("method") async for each in told] == ["notifications/message"] * 3 + [None]


@pytest.mark.parametrize(("server", "client"), EVERY_CELL)
async def test_prompts_resources_and_completion_are_there_too(gateway: Gateway, server: str, client: str) -> None:
    async with Door(gateway, server).sdk(client) as sdk:
        assert "test_simple_prompt" in [each.name for each in (await sdk.list_prompts()).prompts]
        prompt = await sdk.get_prompt("test_prompt_with_arguments", {"arg1": "x", "arg2": "y"})
        assert "arg1='x', arg2='y'" in prompt.messages[0].content.text  # type: ignore[union-attr]
        assert "test://static-text" in [str(each.uri) for each in (await sdk.list_resources()).resources]
        found = (await sdk.read_resource("test://template/7/data")).contents[0]
        assert '"id": "7"' in found.text  # type: ignore[union-attr]
        templates = (await sdk.list_resource_templates()).resource_templates
        assert [each.uri_template for each in templates] == ["test://template/{id}/data"]
        ref = types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments")
        assert (await sdk.complete(ref, {"name": "arg1", "value": "p"})).completion.total == 0


@pytest.mark.requirement("mcp.resources.not-found")
@pytest.mark.parametrize("server", SERVERS)
async def test_a_resource_that_is_not_there_has_the_code_of_the_callers_era(gateway: Gateway, server: str) -> None:
    door = Door(gateway, server)
    assert (await door.error("resources/read", {"uri": "test://nothing"}))["code"] == -32602
    answer = await (await door.session()).ask("resources/read", {"uri": "test://nothing"})
    assert answer["error"]["code"] == -32002


@pytest.mark.requirement("mcp.capabilities.the-callers-own")
@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_asks_only_what_this_very_caller_declared(gateway: Gateway, server: str) -> None:
    door = Door(gateway, server)
    asked = {}
    for capability in ("sampling", "elicitation"):
        result = await door.call("test_input_required_result_capabilities", {capability: {}})
        asked[capability] = [each["method"] for each in result["inputRequests"].values()]
    assert asked == {"sampling": ["sampling/createMessage"], "elicitation": ["elicitation/create"]}


@pytest.mark.parametrize("server", SERVERS)
async def test_a_caller_that_cannot_be_asked_hears_so_and_nothing_hangs(gateway: Gateway, server: str) -> None:
    async with asyncio.timeout(10):
        session = await Door(gateway, server).session()
        told = await session.ask("tools/call", {"name": "test_elicitation", "arguments": {"message": "?"}})
        assert "error" in told or told["result"]["isError"], told


async def asked(door: Door, tool: str = "test_input_required_result_request_state") -> dict[str, Any]:
    result = await door.call(tool, {"elicitation": {}})
    assert result["resultType"] == "input_required"
    return result


async def again(
    door: Door, came: dict[str, Any], tool: str = "test_input_required_result_request_state", **more: Any
) -> Any:
    answers = {key: {"action": "accept", "content": {"ok": True, "name": "Ann"}} for key in came["inputRequests"]}
    params = {"name": tool, "arguments": {}, "inputResponses": answers, "requestState": came["requestState"], **more}
    return await door.ask("tools/call", params, capabilities={"elicitation": {}})


@pytest.mark.security
@pytest.mark.requirement("mcp.mrtr.state-is-sealed")
@pytest.mark.parametrize("server", SERVERS)
async def test_a_request_state_is_good_for_one_caller_and_one_request(gateway: Gateway, server: str) -> None:
    ann = Door(gateway, server, await gateway.key("ann"))
    bob = Door(gateway, server, await gateway.key("bob"))
    came = await asked(ann)
    assert "waiting" not in came["requestState"]
    flipped = ("A" if came["requestState"][20] != "A" else "B").join(
        (came["requestState"][:20], came["requestState"][21:])
    )
    for answer in (
        await again(bob, came),
        await again(ann, {**came, "requestState": flipped}),
        await again(ann, {**came, "requestState": "x"}),
        await again(ann, {**came, "requestState": 7}),
        await again(ann, came, arguments={"other": 1}),
        await again(ann, came, tool="test_input_required_result_tampered_state"),
        await again(Door(gateway, "", ann.who), came, tool=f"{server}__test_input_required_result_request_state"),
    ):
        assert answer["error"]["code"] == -32602, answer
        assert "requestState" in answer["error"]["message"]
    assert (await again(ann, came))["result"]["content"][0]["text"] == "state-ok: confirmed"


@pytest.mark.parametrize("server", SERVERS)
async def test_what_was_not_answered_is_asked_again(gateway: Gateway, server: str) -> None:
    door = Door(gateway, server)
    came = await asked(door)
    still = await again(door, {**came, "inputRequests": {}})
    assert still["result"]["inputRequests"].keys() == came["inputRequests"].keys()
    assert (await again(door, still["result"]))["result"]["content"][0]["text"] == "state-ok: confirmed"


async def test_a_parked_request_is_gone_on_with_once(gateway: Gateway) -> None:
    door = Door(gateway, "legacy")
    came = await asked(door)
    assert "result" in await again(door, came)
    over = await again(door, came)
    assert (over["error"]["code"], "is over" in over["error"]["message"]) == (-32602, True)


@pytest.mark.requirement("mcp.resources.subscribe")
@pytest.mark.parametrize("server", SERVERS)
async def test_resources_can_be_subscribed_to_in_both_eras(gateway: Gateway, server: str) -> None:
    door = Door(gateway, server)
    session = await door.session()
    for method in ("resources/subscribe", "resources/unsubscribe"):
        assert await session.result(method, {"uri": "test://watched-resource"}) == {}
    async with door.stream(
        "subscriptions/listen", {"notifications": {"resourceSubscriptions": ["test://watched-resource"]}}
    ) as told:
        first = await anext(told)
        assert first["method"] == "notifications/subscriptions/acknowledged"
        assert first["params"]["notifications"] == {"resourceSubscriptions": ["test://watched-resource"]}


async def test_two_callers_of_one_session_server_are_kept_apart(gateway: Gateway) -> None:
    ann = Door(gateway, "legacy", await gateway.key("ann"))
    bob = Door(gateway, "legacy", await gateway.key("bob"))
    first, second = await asked(ann), await asked(bob)
    assert (await again(bob, second))["result"]["content"][0]["text"] == "state-ok: confirmed"
    assert (await again(ann, first))["result"]["content"][0]["text"] == "state-ok: confirmed"


TRACE = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=1",
    "baggage": "user=ann",
}


@pytest.mark.requirement("mcp.trace-context")
@pytest.mark.parametrize("server", SERVERS)
async def test_the_callers_trace_reaches_the_server_in_every_combination(gateway: Gateway, server: str) -> None:
    door = Door(gateway, server)
    params = modern({"name": "show_trace", "arguments": {}})
    params["_meta"] |= TRACE
    told = message_of(await door.post("tools/call", params))["result"]
    assert json.loads(told["content"][0]["text"]) == TRACE
    session = await door.session()
    told = await session.result("tools/call", {"name": "show_trace", "arguments": {}, "_meta": TRACE})
    assert json.loads(told["content"][0]["text"]) == TRACE


@pytest.mark.requirement("mcp.tasks.relayed")
@pytest.mark.parametrize("server", ["modern", "stdio"])
async def test_a_job_of_a_real_server_asks_and_ends_through_the_gateway(gateway: Gateway, server: str) -> None:
    door = Door(gateway, server)
    takes: dict[str, Any] = {"elicitation": {}, "extensions": {TASKS: {}}}
    handle = await door.call("confirm_delete", takes, filename="a.txt")

    async def in_status(status: str) -> Any:
        task = await door.result("tasks/get", {"taskId": handle["taskId"]}, capabilities=takes)
        return task if task["status"] == status else None

    asked = (await soon(lambda: in_status("input_required")))["inputRequests"]
    given = {key: {"action": "accept", "content": {"confirm": True}} for key in asked}
    await door.result("tasks/update", {"taskId": handle["taskId"], "inputResponses": given}, capabilities=takes)
    ended = await soon(lambda: in_status("completed"))
    assert ended["result"]["content"] == [{"type": "text", "text": "Deleted a.txt"}]


@pytest.mark.requirement("mcp.tasks.waited-for")
@pytest.mark.parametrize("server", ["modern", "stdio"])
async def test_a_job_that_is_a_task_only_is_waited_for_in_a_session(gateway: Gateway, server: str) -> None:
    async with Door(gateway, server).sdk("legacy", elicitation_callback=confirm) as sdk:
        assert words(await sdk.call_tool("confirm_delete", {"filename": "b.txt"})) == "Deleted b.txt"


async def confirm(context: Any, params: Any) -> types.ElicitResult:
    return types.ElicitResult(action="accept", content={"confirm": True})
