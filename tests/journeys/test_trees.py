"""Trees of tasks, over restarts: what agents asked for ends with a HALT and with whom it would go on for, whatever this
life of the gateway has seen of it. Real processes, killed where it hurts."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.remote import Process, command, process
from tests.serving import ECHO, ROOT, message

CARD = f"card: {ROOT}/agent_cards/echo.json, public: true"
CONFIG = f"""
agents:
  lead: {{run: "tree:lead", {CARD}}}
  middle: {{run: "tree:middle", {CARD}}}
  slow: {{run: "tree:slow", {CARD}}}
  asker: {{run: "tree:asker", {CARD}}}
  boss: {{run: "tree:boss", {CARD}}}
  stopper: {{run: "tree:stopper", {CARD}}}
policy: {{file: policy.yaml}}
"""
POLICY = """
rules:
  - rule: enough
    who: "agent:*"
    do: delegate
    on: agents/asker
    when: {arguments: {text: stop}}
    verdict: HALT
    because: it said stop
  - rule: enough-for-good
    who: "agent:*"
    do: delegate
    on: agents/asker
    when: {arguments: {text: goodbye}}
    verdict: HALT
    freeze: true
    because: it said goodbye
  - {rule: checked, who: "agent:middle", do: delegate, on: agents/asker, when: {arguments: {text: checked}},
     verdict: ESCALATE}
"""
CODE = """
import asyncio, os, pathlib, signal, sqlite3
from gateway.core import recovery
from gateway.stores.sqlite import SqliteStore

here = pathlib.Path(__file__).parent

def noted(word):
    with here.joinpath("begun").open("a") as file:
        file.write(word + "\\n")

async def asker(context, message):
    noted("asker")
    yield context.need_input("And now?")

async def middle(context, message):
    await context.ask("asker", message.text)
    yield context.need_input("And now?")
middle.resumable = True

async def slow(context, message):
    noted("slow")
    yield context.working("for ever")
    await asyncio.Event().wait()
slow.resumable = True

async def lead(context, message):
    noted("lead")
    yield context.working("asking")
    words = message.text.split()
    if "slow" in words:
        slowly = asyncio.ensure_future(context.ask("slow", "please"))
        while not here.joinpath("begun").read_text().count("slow"):
            await asyncio.sleep(0.01)
    if "far" in words:
        asyncio.ensure_future(context.ask("far", "wait 60"))
        file = here.joinpath("gateway.db")
        while not sqlite3.connect(file).execute("SELECT 1 FROM task WHERE agent = 'far' AND state = 2").fetchone():
            await asyncio.sleep(0.01)
    for word in words:
        if word in ("please", "stop", "goodbye"):
            await context.ask("asker", word)
        if word in ("further", "checked"):
            await context.ask("middle", word)
    yield context.need_input("And now?")
lead.resumable = True

async def boss(context, message):
    yield context.working("asking")
    for agent in ("stopper", "slow"):
        asyncio.ensure_future(context.ask(agent, "please"))
        while not here.joinpath("begun").read_text().count(agent):
            await asyncio.sleep(0.01)
    await asyncio.Event().wait()

async def stopper(context, message):
    noted("stopper")
    yield context.working("asking")
    if here.joinpath("begun").read_text().count("stopper") == 1:
        await asyncio.Event().wait()
    await context.ask("asker", "stop")
stopper.resumable = True

if here.joinpath("one-by-one").exists():
    recovery.BATCH, recovery.PAUSE_SECONDS = 1, 1.0

written = SqliteStore.commit
def deadly(self, *changes, records=()):
    future = written(self, *changes, records=records)
    deadly = here.joinpath("deadly")
    if deadly.exists() and any(type(each).__name__ == deadly.read_text() for each in changes):
        future.add_done_callback(lambda done: os.kill(os.getpid(), signal.SIGKILL))
    return future
SqliteStore.commit = deadly
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.joinpath("policy.yaml").write_text(POLICY)
    tmp_path.joinpath("tree.py").write_text(CODE)
    tmp_path.joinpath("begun").write_text("")
    return tmp_path


def key(gateway: Process, name: str) -> str:
    made: str = gateway.call("POST", "/admin/keys", json={"name": name}).json()["key"]
    return made


def sent(gateway: Process, who: str, text: str, **more: Any) -> Any:
    return gateway.rpc("SendMessage", {"message": message(text, **more)}, agent="lead", who=who)["result"]["task"]


def tasks(gateway: Process, who: str, agent: str) -> list[Any]:
    found: list[Any] = gateway.rpc("ListTasks", {}, agent=agent, who=who)["result"]["tasks"]
    return found


def states(gateway: Process, who: str, agent: str) -> list[str]:
    return [task["status"]["state"].removeprefix("TASK_STATE_") for task in tasks(gateway, who, agent)]


def anonymously(far: Process) -> list[str]:
    """How the tasks stand that somebody without a credential has begun there."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {}}
    headers = {"A2A-Version": "1.0"}
    answer = httpx2.post(f"{far.url}/agents/echo", json=body, headers=headers, trust_env=False)
    return [task["status"]["state"] for task in answer.json()["result"]["tasks"]]


def why(task: Any) -> str:
    text: str = task["status"]["message"]["parts"][0]["text"]
    return text


def canceled(gateway: Process, who: str, agent: str) -> list[Any]:
    """All of the agent's tasks, once they are."""
    gateway.until(lambda: set(states(gateway, who, agent)) == {"CANCELED"})
    return tasks(gateway, who, agent)


def begun(folder: Path) -> Counter[str]:
    return Counter(folder.joinpath("begun").read_text().split())


def halted(folder: Path) -> list[Any]:
    """Trees that the database still has something of."""
    with closing(sqlite3.connect(folder / "gateway.db")) as db:
        return db.execute("SELECT root FROM halted").fetchall()


def ends_it(gateway: Process, verb: str, kind: str, name: str) -> None:
    done = command(gateway.data, verb, kind, name, url=gateway.url)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "kind", "name", "ends"),
    [
        ("please", "agent", "lead", {"lead", "asker"}),
        ("further", "agent", "lead", {"lead", "middle", "asker"}),
        ("further", "agent", "middle", {"middle", "asker"}),
        ("further", "principal", "agent:lead", {"middle", "asker"}),
        ("further", "principal", "ann", {"lead", "middle", "asker"}),
    ],
)
def test_whom_a_task_would_go_on_for_is_known_after_the_gateway_was_killed(
    folder: Path, text: str, kind: str, name: str, ends: set[str]
) -> None:
    with process(folder, CONFIG) as gateway:
        ann, bob = key(gateway, "ann"), key(gateway, "bob")
        for who in (ann, bob):
            assert sent(gateway, who, text)["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        gateway.kill()
    there = {"lead", "asker"} | ({"middle"} if text == "further" else set())
    with process(folder, CONFIG) as gateway:
        ends_it(gateway, "freeze", kind, name)
        ends_it(gateway, "thaw", kind, name)
        for agent in there:
            expected = ["CANCELED" if agent in ends else "INPUT_REQUIRED"]
            assert states(gateway, ann, agent) == expected, agent
            assert states(gateway, bob, agent) == (["INPUT_REQUIRED"] if name == "ann" else expected), agent


def test_a_halt_ends_what_waited_in_its_tree_before_the_gateway_was_killed(folder: Path) -> None:
    with process(folder, CONFIG) as gateway:
        ann = key(gateway, "ann")
        first, other = sent(gateway, ann, "please further"), sent(gateway, ann, "please")
        gateway.kill()
    with process(folder, CONFIG) as gateway:
        assert sent(gateway, ann, "stop", taskId=first["id"])["status"]["state"] == "TASK_STATE_CANCELED"
        ended = [task for task in tasks(gateway, ann, "asker") if task["status"]["state"] == "TASK_STATE_CANCELED"]
        assert [why(task) for task in ended] == ["Stopped by the rule enough: it said stop"] * 2
        assert sorted(states(gateway, ann, "asker")) == ["CANCELED", "CANCELED", "INPUT_REQUIRED"]
        assert states(gateway, ann, "middle") == ["CANCELED"]
        shown = gateway.rpc("GetTask", {"id": other["id"]}, agent="lead", who=ann)["result"]
        assert shown["status"]["state"] == "TASK_STATE_INPUT_REQUIRED"
        gateway.until(lambda: not halted(folder))


@pytest.mark.parametrize("word", ["stop", "goodbye"])
def test_a_tree_stays_halted_though_the_gateway_was_killed_right_behind_the_halt(folder: Path, word: str) -> None:
    rule = {"stop": "enough", "goodbye": "enough-for-good"}[word]
    with process(folder, CONFIG) as gateway:
        ann = key(gateway, "ann")
        folder.joinpath("deadly").write_text("PutHalted")
        body = {"message": message(f"slow please further {word}"), "configuration": {"returnImmediately": True}}
        gateway.rpc("SendMessage", body, agent="lead", who=ann)
        assert gateway.popen.wait(10) == -signal.SIGKILL
        folder.joinpath("deadly").unlink()
    assert len(halted(folder)) == 1
    before = begun(folder)
    with process(folder, CONFIG) as gateway:
        for agent in ("lead", "slow", "middle", "asker"):
            ended = {why(task) for task in canceled(gateway, ann, agent)}
            assert ended == {f"Stopped by the rule {rule}: it said {word}"}
        assert len(tasks(gateway, ann, "asker")) == 2
        assert begun(folder) == before == Counter(lead=1, slow=1, asker=2)
        gateway.until(lambda: not halted(folder))
        cold = [each["name"] for each in gateway.call("GET", "/admin/frozen").json()["frozen"]]
        assert cold == (["lead"] if word == "goodbye" else []), "both are one commit"


def test_a_freeze_that_was_cut_off_is_finished_by_the_next_start(folder: Path) -> None:
    with process(folder, CONFIG) as gateway:
        ann = key(gateway, "ann")
        sent(gateway, ann, "please")
        folder.joinpath("deadly").write_text("PutFrozen")
        assert command(gateway.data, "freeze", "agent", "lead", url=gateway.url).returncode != 0
        assert gateway.popen.wait(10) == -signal.SIGKILL
        folder.joinpath("deadly").unlink()
    with process(folder, CONFIG) as gateway:
        for agent in ("lead", "asker"):
            (task,) = canceled(gateway, ann, agent)
            assert why(task) == "Stopped: the agent lead is frozen"


def test_a_remote_agent_is_told_that_its_tree_was_halted_in_an_earlier_life(folder: Path) -> None:
    with process(folder / "far", ECHO, "--anonymous") as far:
        config = CONFIG.replace("policy:", f"  far: {{card_url: '{far.url}', public: true}}\npolicy:")
        with process(folder, config) as gateway:
            gateway.until(lambda: gateway.call("GET", "/agents/far/.well-known/agent-card.json").status_code == 200)
            ann = key(gateway, "ann")
            task = sent(gateway, ann, "far please")
            gateway.kill()
        with closing(sqlite3.connect(folder / "gateway.db", isolation_level=None)) as db:
            # As a HALT leaves it that came to its commit and no further.
            db.execute("INSERT INTO halted VALUES ('', ?, 'enough', 'it said stop')", (task["id"],))
        assert anonymously(far) == ["TASK_STATE_WORKING"]
        with process(folder, config) as gateway:
            for agent in ("lead", "asker", "far"):
                (ended,) = canceled(gateway, ann, agent)
                assert why(ended) == "Stopped by the rule enough: it said stop"
            far.until(lambda: anonymously(far) == ["TASK_STATE_CANCELED"])


def test_what_was_not_taken_up_yet_when_its_tree_was_halted_does_not_begin(folder: Path) -> None:
    with process(folder, CONFIG) as gateway:
        ann = key(gateway, "ann")
        body = {"message": message("please"), "configuration": {"returnImmediately": True}}
        gateway.rpc("SendMessage", body, agent="boss", who=ann)
        gateway.until(lambda: states(gateway, ann, "slow") == ["WORKING"])
        gateway.kill()
    folder.joinpath("one-by-one").touch()
    with process(folder, CONFIG) as gateway:
        for agent in ("stopper", "slow"):
            (task,) = canceled(gateway, ann, agent)
            assert why(task) == "Stopped by the rule enough: it said stop"
        assert states(gateway, ann, "boss") == ["FAILED"], "what became of its work is not known"
        assert begun(folder) == Counter(stopper=2, slow=1)
        (entry,) = gateway.call("GET", "/admin/audit?rule=enough&action=SendMessage&object=asker").json()["entries"]
        told = str(entry)
        assert all(who in told for who in ("agent:stopper", "agent:boss", "key:ann")), "it is asked as it was before"
        assert gateway.stop()[0] == 0
    with process(folder, CONFIG) as gateway:
        gateway.until(lambda: not halted(folder))


def test_an_approval_that_a_tree_waits_for_is_void_when_its_asker_is_frozen_after_a_kill(folder: Path) -> None:
    with process(folder, CONFIG) as gateway:
        ann = key(gateway, "ann")
        task = sent(gateway, ann, "checked")
        assert task["status"]["state"] == "TASK_STATE_AUTH_REQUIRED"
        gateway.kill()
    with process(folder, CONFIG) as gateway:
        approval = task["status"]["message"]["metadata"]["approval"]
        ends_it(gateway, "freeze", "agent", "lead")
        assert states(gateway, ann, "lead") == ["CANCELED"]
        assert gateway.call("GET", f"/admin/approvals/{approval}").json()["state"] == "void"
