"""A remote agent with every fault at once: a third of its answers are 5xx, connections break, streams die or fall
silent, events come twice. Nothing is done twice, everything ends, and what is said of it is true."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.core import runner
from gateway.upstream import a2a, doze
from tests.remote import Asked, Gone, Scripted, agents, ended, ready, reason, scripted
from tests.serving import Gateway, message, running

MESSAGES, AT_ONCE = 60, 12
FAILURE_SHARE = 0.3


@dataclass
class Faulty:
    """`done` counts how often each message was worked on, `told` are the tasks whose id has certainly left."""

    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)  # by message
    told: set[str] = field(default_factory=set)

    def plays(self, agent: Scripted) -> None:
        agent.plays |= {"SendStreamingMessage": self.send, "GetTask": self.look, "SubscribeToTask": self.subscribe}

    def fails(self, asked: Asked) -> bool:
        """In a third of all calls, before anything was done."""
        if self.chance.random() >= FAILURE_SHARE:
            return False
        asked.whole(b"busy", self.chance.choice(("500 X", "502 X", "503 X")))
        return True

    async def send(self, asked: Asked) -> None:
        if self.fails(asked):
            return
        id = asked.params["message"]["messageId"].partition("-")[0]  # the gateway adds whose it is
        fault = self.chance.choice(("none", "none", "none", "lost", "died", "silent"))
        self.done[id] += 1
        task = self.tasks[id] = {
            "id": f"theirs-{id}",
            "contextId": f"ctx-{id}",
            "status": {"state": "TASK_STATE_WORKING"},
        }
        if fault == "lost":  # the work is done, and nobody hears of it
            self._finish(id)
            raise Gone
        for _ in range(2):
            await asked.event({"task": task})
        self.told.add(id)
        await self._tell(asked, id)
        if fault == "died":
            self._finish(id)
            raise Gone
        if fault == "silent":
            self._finish(id)
            await asyncio.sleep(a2a.IDLE_SECONDS * 4)
            raise Gone
        self._finish(id)
        for _ in range(2):
            await asked.event(self._status(id))

    async def _tell(self, asked: Asked, id: str) -> None:
        working, made = self._status(id), {"artifactId": "a", "parts": [{"text": f"made of {id}"}]}
        for event in (working, {"artifactUpdate": {**self._ids(id), "artifact": made, "lastChunk": True}}):
            for _ in range(2):
                await asked.event(event)

    def _finish(self, id: str) -> None:
        task = self.tasks[id]
        task["status"] = {"state": "TASK_STATE_COMPLETED"}
        task["artifacts"] = [{"artifactId": "a", "parts": [{"text": f"made of {id}"}]}]

    def _status(self, id: str) -> dict[str, Any]:
        return {"statusUpdate": {**self._ids(id), "status": self.tasks[id]["status"]}}

    def _ids(self, id: str) -> dict[str, str]:
        task = self.tasks[id]
        return {"taskId": task["id"], "contextId": task["contextId"]}

    async def look(self, asked: Asked) -> None:
        if not self.fails(asked):
            asked.answer(self.tasks[asked.params["id"].removeprefix("theirs-")])

    async def subscribe(self, asked: Asked) -> None:
        if not self.fails(asked):
            asked.refuse(-32004, "UNSUPPORTED_OPERATION")  # its tasks have ended by then


@pytest.mark.parametrize("seed", [1, 2])
async def test_nothing_is_done_twice_everything_ends_and_the_truth_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(a2a, "IDLE_SECONDS", 0.5)
    # Looks that fail in a row stand further and further apart: a few of them outlast the test's client.
    monkeypatch.setattr(doze, "POLL_SECONDS", (0.02,))
    # A busy machine takes half a second to hear a refusal; then there would be a task, and it would fail.
    monkeypatch.setattr(runner, "PATIENCE_SECONDS", 3600.0)
    faulty, gate = Faulty(random.Random(seed)), asyncio.Semaphore(AT_ONCE)
    async with scripted() as agent, running(tmp_path, agents(far=agent.url)) as gateway:
        faulty.plays(agent)
        await ready(gateway, "far")

        async def one(number: int) -> tuple[str, Any]:
            id = f"m{number}"
            async with gate:
                return id, await _answer(gateway, id)

        answers = dict(await asyncio.gather(*(one(number) for number in range(MESSAGES))))
        for id, task in answers.items():
            assert faulty.done[id] <= 1, f"{id} was done {faulty.done[id]} times"
            if task is None:
                assert faulty.done[id] == 0, "a call that was refused has left nothing"
            elif task["status"]["state"] == "TASK_STATE_COMPLETED":
                assert [part["text"] for each in task["artifacts"] for part in each["parts"]] == [f"made of {id}"]
            else:
                assert (task["status"]["state"], reason(task)) == ("TASK_STATE_FAILED", "unknown-outcome"), task
                assert id not in faulty.told, "its id had come, so it could be asked"
        ends = Counter("refused" if task is None else task["status"]["state"] for task in answers.values())
        assert all(ends[end] for end in ("refused", "TASK_STATE_COMPLETED", "TASK_STATE_FAILED")), ends


async def _answer(gateway: Gateway, id: str) -> Any:
    """The task as it ended; None for a call that was refused."""
    sent = {"message": {**message("hi"), "messageId": id}}
    answer = await gateway.post(
        {"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": sent}, agent="far"
    )
    if not answer.headers["content-type"].startswith("text/event-stream"):
        assert "error" in answer.json()
        return None
    (first, *_) = (json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:"))
    if "error" in first:
        return None
    return await ended(gateway, first["result"]["task"]["id"], agent="far", seconds=60)
