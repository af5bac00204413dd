"""Killed and started again: what was accepted comes to an end, and the end is true. Real processes throughout."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.remote import Process, agents, process, reason
from tests.serving import BOUND, ECHO, ROOT, message

# A local agent that cannot be repeated, and one that waits before its one Message; both without a card of their own.
FRAGILE = f"""
  fragile: {{run: "fragile:work", card: {ROOT}/agent_cards/echo.json, public: true}}
  reply: {{run: "fragile:reply", card: {ROOT}/agent_cards/echo.json, public: true}}
"""
CODE = """
import asyncio
import pathlib
async def work(context, message):
    yield context.working("at it")
    await asyncio.sleep(60)
async def reply(context, message):
    pathlib.Path(__file__).with_name("begun").touch()
    await asyncio.sleep(60)
    return "done"
"""
NOW = {"returnImmediately": True}


def start(gateway: Process, text: str, *, agent: str = "echo", id: str | None = None) -> Any:
    """A task at work, its id known."""
    more = {} if id is None else {"messageId": id}
    answer = gateway.rpc("SendMessage", {"message": message(text, **more), "configuration": NOW}, agent=agent)
    task = answer["result"]["task"]

    def at_work() -> bool:
        state: str = gateway.task(task["id"], agent=agent)["status"]["state"]
        return state != "TASK_STATE_SUBMITTED"

    gateway.until(at_work)
    return task


def test_a_killed_gateway_brings_its_tasks_to_their_end(tmp_path: Path) -> None:
    with process(tmp_path, ECHO) as gateway:
        working = start(gateway, "wait 3")
        asked = gateway.rpc("SendMessage", {"message": message("ask")})["result"]["task"]
        done = gateway.rpc("SendMessage", {"message": message("hi")})["result"]["task"]
        gateway.kill()
    with process(tmp_path, ECHO) as gateway:
        assert gateway.task(asked["id"]) == asked
        assert gateway.task(done["id"]) == done
        answer = {"message": message("blue", taskId=asked["id"])}
        answered = gateway.rpc("SendMessage", answer)["result"]["task"]
        assert answered["status"]["message"]["parts"] == [{"text": "blue"}]
        ended = gateway.ended(working["id"])
        assert ended["status"]["state"] == "TASK_STATE_COMPLETED"
        assert ended["status"]["message"]["parts"] == [{"text": "Waited 3 s."}]
        listed = gateway.rpc("ListTasks", {})["result"]["tasks"]
        assert {task["status"]["state"] for task in listed} == {"TASK_STATE_COMPLETED"}


def test_a_remote_run_is_followed_to_its_true_end(tmp_path: Path) -> None:
    """Whether the agent stands in the file or was added; and its end may come while nobody listens."""
    with process(tmp_path / "far", ECHO, "--anonymous") as far:
        config = agents(far=far.url)
        with process(tmp_path / "near", config) as near:
            assert near.call("POST", "/admin/agents", json={"cardUrl": far.url, "id": "added"}).status_code == 201
            near.until(lambda: near.call("GET", "/agents/far/.well-known/agent-card.json").status_code == 200)
            runs = [(agent, n, start(near, f"wait {n}", agent=agent)) for agent in ("far", "added") for n in (1, 3)]
            near.kill()
        time.sleep(1)  # the far one goes on working, and the shorter of its tasks end unseen
        with process(tmp_path / "near", config) as near:
            for agent, n, task in runs:
                ended = near.ended(task["id"], agent=agent)
                assert ended["status"]["state"] == "TASK_STATE_COMPLETED"
                assert ended["status"]["message"]["parts"] == [{"text": f"Waited {n} s."}]


def test_a_remote_run_whose_agent_is_down_at_the_restart_is_waited_for(tmp_path: Path, port: int) -> None:
    with process(tmp_path / "far", ECHO, "--anonymous", port=port) as far:
        config = agents(far=far.url)
        with process(tmp_path / "near", config) as near:
            near.until(lambda: near.call("GET", "/agents/far/.well-known/agent-card.json").status_code == 200)
            task = start(near, "wait 2", agent="far")
            near.kill()
        far.kill()
    with process(tmp_path / "near", config) as near:
        assert near.task(task["id"], agent="far")["status"]["state"] == "TASK_STATE_WORKING"
        with process(tmp_path / "far", ECHO, "--anonymous", port=port):
            ended = near.ended(task["id"], agent="far")
            assert ended["status"]["message"]["parts"] == [{"text": "Waited 2 s."}]


def test_what_cannot_be_resumed_fails_with_a_reason_and_nothing_stays_at_work(tmp_path: Path) -> None:
    tmp_path.joinpath("fragile.py").write_text(CODE)
    with process(tmp_path, ECHO + FRAGILE) as gateway:
        task = start(gateway, "x", agent="fragile")
        removed = start(gateway, "wait 60")
        gateway.kill()
    with process(tmp_path, "agents:" + FRAGILE) as gateway:  # echo is gone from the file
        ended = gateway.ended(task["id"], agent="fragile")
        assert ended["status"]["state"] == "TASK_STATE_FAILED"
        assert reason(ended) == "unknown-outcome"
        assert "not known" in ended["status"]["message"]["parts"][0]["text"]
        shown = gateway.call("GET", f"/admin/tasks/{removed['id']}").json()["task"]
        assert (shown["status"]["state"], reason(shown)) == ("TASK_STATE_FAILED", "agent-removed")
        listed = gateway.call("GET", "/admin/tasks").json()["tasks"]
        assert {row["task"]["status"]["state"] for row in listed} == {"TASK_STATE_FAILED"}


def test_a_message_accepted_and_unanswered_can_be_sent_again(tmp_path: Path) -> None:
    """Both when the run may be repeated and when it may not: one id never makes two tasks."""
    tmp_path.joinpath("fragile.py").write_text(CODE)
    sent = {"message": message("wait 1", messageId="again")}
    reply = {"message": message("x", messageId="reply")}
    with process(tmp_path, ECHO + FRAGILE) as gateway:
        threads = [
            threading.Thread(target=_lost, args=(gateway, params, agent))
            for params, agent in ((sent, "echo"), (reply, "reply"))
        ]
        for thread in threads:
            thread.start()
        gateway.until(lambda: gateway.call("GET", "/admin/tasks").json()["totalSize"] >= 1)
        gateway.until(tmp_path.joinpath("begun").exists)
        gateway.kill()
        for thread in threads:
            thread.join(BOUND)
    with process(tmp_path, ECHO + FRAGILE) as gateway:
        again = gateway.rpc("SendMessage", sent)["result"]["task"]
        assert again["status"]["state"] == "TASK_STATE_COMPLETED"
        answer = gateway.rpc("SendMessage", reply, agent="reply")["result"]["task"]
        assert reason(answer) == "unknown-outcome"
        assert gateway.rpc("SendMessage", reply, agent="reply")["result"]["task"]["id"] == answer["id"]
        assert gateway.call("GET", "/admin/tasks").json()["totalSize"] == 2


def _lost(gateway: Process, params: Any, agent: str) -> None:
    with pytest.raises(httpx2.TransportError):
        gateway.rpc("SendMessage", params, agent=agent)


def test_a_terminated_gateway_answers_ends_its_streams_and_leaves_with_0(tmp_path: Path) -> None:
    with process(tmp_path, ECHO) as gateway:
        answers: list[Any] = []

        def blocking() -> None:
            answers.append(gateway.rpc("SendMessage", {"message": message("wait 1")}))

        caller = threading.Thread(target=blocking)
        caller.start()
        gateway.until(lambda: gateway.call("GET", "/admin/tasks").json()["totalSize"] == 1)
        long = start(gateway, "wait 3")
        lines: list[str] = []
        opened = threading.Event()

        def watch() -> None:
            body = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": long["id"]}}
            headers = {"Authorization": f"Bearer {gateway.token}", "A2A-Version": "1.0"}
            with httpx2.stream(
                "POST", f"{gateway.url}/agents/echo", json=body, headers=headers, timeout=BOUND, trust_env=False
            ) as stream:
                for line in stream.iter_lines():
                    lines.append(line)
                    opened.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert opened.wait(BOUND)
        code, said = gateway.stop()
        for thread in (caller, watcher):
            thread.join(BOUND)
            assert not thread.is_alive()
        assert code == 0
        assert "Traceback" not in said
        assert answers[0]["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert json.loads(lines[0].removeprefix("data: "))["result"]["task"]["id"] == long["id"]
    with process(tmp_path, ECHO) as gateway:
        assert gateway.ended(long["id"])["status"]["state"] == "TASK_STATE_COMPLETED"


def test_livez_and_readyz_say_how_it_is(tmp_path: Path) -> None:
    with process(tmp_path, ECHO) as gateway:
        for path in ("/livez", "/readyz"):
            answer = httpx2.get(gateway.url + path, timeout=BOUND, trust_env=False)
            assert answer.status_code == 200
        start(gateway, "wait 2")
        caller = threading.Thread(target=gateway.rpc, args=("SendMessage", {"message": message("wait 2")}))
        caller.start()
        gateway.until(lambda: gateway.call("GET", "/admin/tasks").json()["totalSize"] == 2)
        with httpx2.Client(base_url=gateway.url, timeout=BOUND, trust_env=False) as client:
            assert client.get("/readyz").status_code == 200
            gateway.popen.terminate()
            # A connection from before still reaches it: it is alive, and wants nothing new.
            gateway.until(lambda: client.get("/readyz").status_code == 503)
            assert client.get("/livez").status_code == 200
        caller.join(BOUND)
        assert gateway.popen.wait(BOUND) == 0


def test_a_backlog_is_taken_up_whole(tmp_path: Path) -> None:
    with process(tmp_path, ECHO) as gateway:

        async def many() -> None:
            async with httpx2.AsyncClient(base_url=gateway.url, timeout=BOUND, trust_env=False) as client:
                headers = {"Authorization": f"Bearer {gateway.token}", "A2A-Version": "1.0"}
                await asyncio.gather(
                    *(
                        client.post(
                            "/agents/echo",
                            headers=headers,
                            json={
                                "jsonrpc": "2.0",
                                "id": 1,
                                "method": "SendMessage",
                                "params": {"message": message("wait 1"), "configuration": NOW},
                            },
                        )
                        for _ in range(60)
                    )
                )

        asyncio.run(many())
        gateway.kill()
    with process(tmp_path, ECHO) as gateway:
        query = {"status": "TASK_STATE_COMPLETED"}
        gateway.until(lambda: gateway.call("GET", "/admin/tasks", params=query).json()["totalSize"] == 60)
