"""R1, by the book: one kill, one task of each kind in hand, and what must come of each after the next start."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.client import Heard, Told
from tests.chaos.history import Entry, What
from tests.chaos.instance import local_agent
from tests.chaos.streams import SLOW
from tests.chaos.town import LOCAL, REMOTE, Plan, Result, Town, town

WAIT_S = 3
PATIENCE_S = 15.0
OF_EACH = 3
COMPLETED, FAILED, ASKING = "TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_INPUT_REQUIRED"

# The agent, what it is told, the state after the restart, and the promise as a sentence.
CASES = (
    (LOCAL, f"wait {WAIT_S}", COMPLETED, "a local run that may be repeated is repeated and completes"),
    (REMOTE, f"wait {WAIT_S}", COMPLETED, "a remote task is followed to its true end"),
    (LOCAL, "ask", ASKING, "a question still waits for its answer"),
    (SLOW, "count 2000", FAILED, "a run that may not be repeated fails and says why"),
)


async def resume(plan: Plan) -> list[Result]:
    slow = local_agent(run="tests.chaos.slow:count")
    async with town(plan, "resume", "alice", agents={SLOW: slow}) as here:
        client = here.client("alice")
        tasks: dict[str, list[str]] = {}
        for case, (agent, said, _, sentence) in enumerate(CASES):
            for number in range(OF_EACH):
                heard = await client.send(agent, Told(f"r-{case}-{number}", said), immediately=True)
                assert heard is not None
                tasks.setdefault(sentence, []).append(heard.task_id)
        await asyncio.sleep(0.5)
        here.gateway.kill()
        await here.gateway.ended(10)
        here.history.add(Entry(What.KILLED))
        await here.restart()
        results = [await _came(here, agent, tasks[what], state, what) for agent, _, state, what in CASES]
        results.append(await _answered(here, tasks[CASES[2][3]]))
        return results


async def _came(here: Town, agent: str, ids: list[str], state: str, sentence: str) -> Result:
    client = here.client("alice")
    until = time.monotonic() + PATIENCE_S
    while True:
        heard = [await client.get(agent, id) or Heard(id) for id in ids]
        reached = all(one.state == state and (one.text or state != FAILED) for one in heard)
        if reached or time.monotonic() > until:
            return Result(sentence, reached, [f"{one.task_id} is {one.state}: {one.text}" for one in heard])
        await asyncio.sleep(0.2)


async def _answered(here: Town, ids: list[str]) -> Result:
    client = here.client("alice")
    heard = [await client.send(LOCAL, Told(f"answer-{id}", f"for {id}", id)) for id in ids]
    right = [one is not None and (one.task_id, one.state, one.text) == (id, COMPLETED, f"for {id}") for one, id in
             zip(heard, ids, strict=True)]  # fmt: skip
    return Result("and takes it", all(right), [str(one) for one in heard])
