"""Approvals as A2A clients drive them, over every binding, gRPC included, whether the caller waits for its answer or
not (`returnImmediately`; `blocking: false` of 0.3)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests import rpc
from tests.actors import Cue
from tests.bindings import BINDINGS, Caller, state
from tests.journeys.test_approvals import approval_of, listed, reached, said
from tests.mcp import configured, scripted, soon, tool
from tests.older import Older, word
from tests.serving import BOUND, ROOT, Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

CARD = f"card: {ROOT}/agent_cards/echo.json"
AGENTS = f"""
agents:
  desk: {{run: "tests.actors:mirror", {CARD}}}
  own: {{run: "tests.actors:Actor", {CARD}}}
  tooled: {{run: "tests.actors:tooled", {CARD}, public: true}}
grants: [{{to: "agent:tooled", tools: [docs]}}]
"""
POLICY = """
rules:
  - {rule: letters, who: ann, do: call, on: agents/desk, verdict: ESCALATE}
  - {rule: mine, who: ann, do: call, on: agents/own, verdict: ESCALATE, approver: caller}
  - {rule: wipe, who: "agent:tooled", do: tools/call, on: docs/wipe, verdict: ESCALATE}
  - {rule: rest, who: ann, do: use, on: [agents/desk, agents/own], verdict: PASS}
  - {rule: leads, who: lea, do: approve, on: [agents/*, docs], verdict: PASS}
"""
WAITS: dict[str, Any] = {}
AT_ONCE = {"returnImmediately": True}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("approvals")
    (folder / "policy.yaml").write_text(POLICY)
    async with scripted(tool("wipe")) as docs:
        config = f"{AGENTS}policy: {{file: {folder}/policy.yaml}}\n{configured(docs=docs)}"
        async with running(folder / "data", config, grpc_port=0) as gateway:
            yield gateway


@pytest_asyncio.fixture(params=[*BINDINGS, "grpc"], loop_scope="module")
async def caller(request: pytest.FixtureRequest, gateway: Gateway) -> Caller:
    return await rpc.caller(gateway, request.param, "desk").other("ann")


configurations = pytest.mark.parametrize("configuration", [WAITS, AT_ONCE], ids=["waits", "at-once"])


def told(task: Any) -> str:
    text: str = task["status"]["message"]["parts"][0]["text"]
    return text


async def in_state(caller: Caller, id: str, wanted: str) -> Any:
    async def there() -> Any:
        task = await caller.get(id)
        return task if state(task) == wanted else None

    return await soon(there)


@configurations
async def test_a_message_waits_and_goes_on_when_somebody_agrees(
    gateway: Gateway, caller: Caller, configuration: dict[str, Any]
) -> None:
    task = await asyncio.wait_for(caller.task("hello", configuration=configuration), BOUND)
    assert state(task) == "AUTH_REQUIRED"
    assert "waits for an approval by lea, local until 20" in told(task)
    assert task["status"]["message"]["metadata"]["approvers"] == ["lea", "local"]
    async with caller.stream("SubscribeToTask", id=task["id"]) as events:
        seen = [state((await anext(events))["task"])]
        assert (await said(gateway, "lea", approval_of(task), "approve")).json()["state"] == "used"
        seen += [state(event["statusUpdate"]) async for event in events]
    assert seen == ["AUTH_REQUIRED", "WORKING", "COMPLETED"]
    assert reached(await caller.get(task["id"]))["message"]["parts"] == [{"text": "hello"}]


@configurations
async def test_a_message_that_is_rejected_or_canceled_reaches_nobody(
    gateway: Gateway, caller: Caller, configuration: dict[str, Any]
) -> None:
    rejected, canceled = [await caller.task(text, configuration=configuration) for text in ("no", "never mind")]
    await said(gateway, "lea", approval_of(rejected), "reject", reason="not now")
    task = await caller.get(rejected["id"])
    assert state(task) == "REJECTED"
    assert told(task).endswith("was rejected: by key:lea: not now")
    assert state(await caller.call("CancelTask", id=canceled["id"])) == "CANCELED"
    late = await said(gateway, "lea", approval_of(canceled), "approve")
    assert "void already" in late.json()["error"]["message"]


async def test_a_stream_stays_open_while_somebody_is_asked(gateway: Gateway, caller: Caller) -> None:
    seen = []
    message = {"messageId": f"stream-{caller.binding}", "role": "ROLE_USER", "parts": [{"text": "hi"}]}
    async with asyncio.timeout(BOUND), caller.stream("SendStreamingMessage", message=message) as events:
        async for event in events:
            task = event.get("task") or event["statusUpdate"]
            seen.append(state(task))
            if seen[-1] == "AUTH_REQUIRED":
                assert (await said(gateway, "lea", approval_of(task), "approve")).status_code == 200
    assert seen == ["AUTH_REQUIRED", "WORKING", "COMPLETED"]


@configurations
async def test_a_caller_that_is_asked_itself_says_so_in_its_task_and_waits_for_what_follows_or_not(
    caller: Caller, configuration: dict[str, Any]
) -> None:
    own, cue = caller.to("own"), Cue()
    task = await own.task(cue.text, configuration=configuration)
    assert state(task) == "INPUT_REQUIRED"
    answering = asyncio.create_task(own.task("approve", taskId=task["id"], configuration=configuration))
    if configuration is AT_ONCE:
        answer = await asyncio.wait_for(answering, BOUND)
        assert state(answer) == "WORKING"
        await asyncio.wait_for(cue.began.wait(), BOUND)
        assert state(await own.get(task["id"])) == "WORKING"
        cue.done()
    else:
        await asyncio.wait_for(cue.began.wait(), BOUND)
        assert not answering.done()
        cue.done()
        assert state(await asyncio.wait_for(answering, BOUND)) == "COMPLETED"
    assert state(await in_state(own, task["id"], "COMPLETED")) == "COMPLETED"


@configurations
async def test_an_agent_that_waits_in_the_middle_shows_it_in_its_callers_task(
    gateway: Gateway, caller: Caller, configuration: dict[str, Any]
) -> None:
    tooled = caller.to("tooled")
    parts = [{"text": "docs/wipe"}, {"data": {"by": f"{caller.binding}-{len(configuration)}"}}]
    task = await asyncio.wait_for(tooled.task("", parts=parts, configuration=configuration), BOUND)
    if configuration is WAITS:
        assert state(task) == "AUTH_REQUIRED", "who waits is told when somebody else is waited for"
    task = await in_state(tooled, task["id"], "AUTH_REQUIRED")
    (found,) = [each for each in await listed(gateway, "lea") if each["task"] == task["id"]]
    assert found["id"] == approval_of(task)
    await said(gateway, "lea", found["id"], "approve")
    done = await in_state(tooled, task["id"], "COMPLETED")
    assert reached(done)["failed"] is False


@pytest.mark.parametrize("binding", BINDINGS)
@pytest.mark.parametrize("blocking", [True, False])
async def test_a_client_of_0_3_is_not_kept_while_somebody_is_asked(
    gateway: Gateway, binding: str, blocking: bool
) -> None:
    older = Older(gateway, binding, "desk", who=await gateway.key("ann"))
    sent = older.call("message/send", message=older.message("hello"), configuration={"blocking": blocking})
    task = await asyncio.wait_for(sent, BOUND)
    assert word(task["status"]["state"]) == "AUTH_REQUIRED"
    (found,) = [each for each in await listed(gateway, "lea") if each["task"] == task["id"]]
    await said(gateway, "lea", found["id"], "approve")

    async def done() -> bool:
        return word((await older.call("tasks/get", id=task["id"]))["status"]["state"]) == "COMPLETED"

    await soon(done)
