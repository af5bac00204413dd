"""Calls that wait for a person while the gateway is killed or stopped: real processes, answered by command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.remote import Process, command, process
from tests.serving import ROOT, message

CARD = f"card: {ROOT}/agent_cards/echo.json, public: true"
CONFIG = f"""
agents:
  worker: {{run: "held:worker", {CARD}}}
  again: {{run: "held:again", {CARD}}}
  once: {{run: "held:once", {CARD}}}
policy: {{file: policy.yaml}}
"""
POLICY = """
rules:
  - {rule: looked-at, who: [ann, "agent:*"], do: call, on: agents/worker, verdict: ESCALATE}
  - {rule: asks, who: "agent:*", do: delegate, on: agents/worker, verdict: PASS}
"""
CODE = """
import pathlib
async def worker(context, message):
    with pathlib.Path(__file__).with_name("worked").open("a") as file:
        file.write(message.text + "\\n")
    return "worked"
async def again(context, message):
    yield context.working("asking")
    await context.ask("worker", message.text)
    yield context.completed("asked")
again.resumable = True
async def once(context, message):
    yield context.working("asking")
    await context.ask("worker", message.text)
    yield context.completed("asked")
"""


def prepared(folder: Path) -> None:
    folder.joinpath("policy.yaml").write_text(POLICY)
    folder.joinpath("held.py").write_text(CODE)


def worked(folder: Path) -> list[str]:
    file = folder / "worked"
    return file.read_text().splitlines() if file.exists() else []


def key(gateway: Process, name: str) -> str:
    made: str = gateway.call("POST", "/admin/keys", json={"name": name}).json()["key"]
    return made


def sent(gateway: Process, who: str, text: str, agent: str) -> Any:
    answer = gateway.rpc("SendMessage", {"message": message(text)}, agent=agent, who=who)
    task = answer["result"]["task"]
    assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED", task
    return task


def shown(gateway: Process, who: str, task: Any, agent: str) -> Any:
    return gateway.rpc("GetTask", {"id": task["id"]}, agent=agent, who=who)["result"]


def in_state(gateway: Process, who: str, task: Any, agent: str, state: str) -> Callable[[], bool]:
    return lambda: bool(shown(gateway, who, task, agent)["status"]["state"] == f"TASK_STATE_{state}")


def approval(task: Any) -> str:
    id: str = task["status"]["message"]["metadata"]["approval"]
    return id


def approvals(gateway: Process, *words: str) -> Any:
    done = command(gateway.data, "approvals", *words, "--json", url=gateway.url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_message_that_waits_goes_on_once_after_the_gateway_was_killed(tmp_path: Path) -> None:
    prepared(tmp_path)
    with process(tmp_path, CONFIG) as gateway:
        ann = key(gateway, "ann")
        yes, no = (sent(gateway, ann, text, "worker") for text in ("yes", "no"))
        gateway.kill()
    with process(tmp_path, CONFIG) as gateway:
        assert shown(gateway, ann, yes, "worker") == yes
        assert {each["id"] for each in approvals(gateway, "list")["approvals"]} == {approval(yes), approval(no)}
        newest = approvals(gateway, "list", "--limit", "1")
        oldest = approvals(gateway, "list", "--limit", "1", "--before", newest["before"])
        assert [each["id"] for page in (newest, oldest) for each in page["approvals"]] == [approval(no), approval(yes)]
        assert oldest["before"] is None
        approvals(gateway, "approve", approval(yes))
        approvals(gateway, "reject", approval(no), "--reason", "not this one")
        assert approvals(gateway, "list", "--all", "--limit", "1")["before"] == approval(no)
        gateway.until(in_state(gateway, ann, yes, "worker", "COMPLETED"))
        assert in_state(gateway, ann, no, "worker", "REJECTED")()
        late = command(gateway.data, "approvals", "approve", approval(yes), url=gateway.url)
        assert late.returncode != 0
        assert "used already" in late.stderr
        gateway.kill()
    with process(tmp_path, CONFIG) as gateway:
        assert in_state(gateway, ann, yes, "worker", "COMPLETED")()
    assert worked(tmp_path) == ["yes"]


def test_an_agent_that_may_begin_anew_finds_its_call_released_after_the_gateway_was_killed(tmp_path: Path) -> None:
    prepared(tmp_path)
    with process(tmp_path, CONFIG) as gateway:
        ann = key(gateway, "ann")
        task = sent(gateway, ann, "please", "again")
        gateway.kill()
    with process(tmp_path, CONFIG) as gateway:
        assert in_state(gateway, ann, task, "again", "AUTH_REQUIRED")()
        approvals(gateway, "approve", approval(task))
        gateway.until(in_state(gateway, ann, task, "again", "COMPLETED"))
        assert approvals(gateway, "show", approval(task))["state"] == "used"
    assert worked(tmp_path) == ["please"]


def test_an_agent_that_may_not_begin_anew_ends_and_what_it_waited_for_is_void(tmp_path: Path) -> None:
    prepared(tmp_path)
    with process(tmp_path, CONFIG) as gateway:
        ann = key(gateway, "ann")
        task = sent(gateway, ann, "please", "once")
        gateway.kill()
    with process(tmp_path, CONFIG) as gateway:
        gateway.until(in_state(gateway, ann, task, "once", "FAILED"))
        ended = shown(gateway, ann, task, "once")
        assert "this agent cannot begin anew" in ended["status"]["message"]["parts"][0]["text"]
        assert approvals(gateway, "show", approval(task))["state"] == "void"
        assert approvals(gateway, "list")["approvals"] == []
    assert worked(tmp_path) == []


def test_a_gateway_stops_at_once_though_somebody_waits_and_everything_waits_on(tmp_path: Path) -> None:
    prepared(tmp_path)
    with process(tmp_path, CONFIG) as gateway:
        ann = key(gateway, "ann")
        held, asking = sent(gateway, ann, "held", "worker"), sent(gateway, ann, "asked", "again")
        code, said = gateway.stop()
        assert (code, "Traceback" in said) == (0, False), said
    with process(tmp_path, CONFIG) as gateway:
        for task, agent in ((held, "worker"), (asking, "again")):
            approvals(gateway, "approve", approval(task))
            gateway.until(in_state(gateway, ann, task, agent, "COMPLETED"))
    assert sorted(worked(tmp_path)) == ["asked", "held"]
