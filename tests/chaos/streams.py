"""R6: subscribers that hang up in the middle and come back see everything, in order, once."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, suppress
from itertools import chain

from tests.chaos.instance import local_agent
from tests.chaos.sequence import Json, flaws
from tests.chaos.town import LOCAL, REMOTE, Plan, Result, Town, town
from tests.chaos.wire import Caller, Lost, Refused

COUNT = 1000  # as fast as it goes, and slowly: some ten seconds
SLOW = "slow"
SUBSCRIBERS = 5  # of each task
DISCONNECTS = 5  # of each subscriber; then it stays to the end
PATIENCE_S = 60.0


class Subscriber:
    """Reads until it loses interest, comes back, and remembers what each connection brought."""

    def __init__(self, caller: Caller, agent: str, chance: random.Random) -> None:
        self.connections: list[list[Json]] = []
        self.refusals: list[str] = []
        self._caller = caller
        self._agent = agent
        self._chance = chance

    async def begin(self, message: Json, task_id: asyncio.Future[str]) -> None:
        """Send the message and tell the others which task it made."""
        await self._read("SendStreamingMessage", {"message": message}, self._interest(), task_id)
        await self.watch(await task_id)

    async def watch(self, task_id: str) -> None:
        for _ in range(DISCONNECTS):
            if not await self._read("SubscribeToTask", {"id": task_id}, self._interest()):
                return
        while await self._read("SubscribeToTask", {"id": task_id}, None):
            pass

    def _interest(self) -> int:
        return self._chance.choice((0, 1, self._chance.randint(2, 200)))

    async def _read(
        self, method: str, params: Json, interest: int | None, first: asyncio.Future[str] | None = None
    ) -> bool:
        """Whether it is worth coming back: False once the task has ended."""
        seen: list[Json] = []
        self.connections.append(seen)
        lazy = self._chance.random() < 0.3
        try:
            async with aclosing(self._caller.stream(self._agent, method, params)) as events:  # type: ignore[type-var]
                async for event in events:
                    seen.append(event)
                    if first is not None and not first.done():
                        first.set_result(event["task"]["id"])
                    if interest is not None and len(seen) > interest:
                        return True
                    if lazy:
                        await asyncio.sleep(0.002)
        except Refused as error:
            if error.reason == "UNSUPPORTED_OPERATION":  # it has ended: nothing to subscribe to
                return False
            self.refusals.append(str(error))  # read too slowly, perhaps: come back
            await asyncio.sleep(0.05)
        except Lost as error:
            self.refusals.append(str(error))
        return True


async def streams(plan: Plan) -> list[Result]:
    tasks = 4 if plan.short else 20
    slow = local_agent(run="tests.chaos.slow:count")
    async with town(plan, "streams", "alice", agents={SLOW: slow}) as here:
        results = []
        for agent in (LOCAL, REMOTE, SLOW):
            try:
                async with asyncio.timeout(PATIENCE_S):
                    results.append(await _agent(here, agent, tasks))
            except TimeoutError:
                sentence = f"streams of {agent} come to an end"
                results.append(Result(sentence, False, [f"not within {PATIENCE_S} s"]))
        return results


async def _agent(here: Town, agent: str, tasks: int) -> Result:
    found = await asyncio.gather(*(_task(here, agent, number) for number in range(tasks)))
    details = [line for lines, _ in found for line in lines]
    connections = sum(count for _, count in found)
    print(
        f"  {agent}: {tasks * SUBSCRIBERS} subscribers of {tasks} tasks with {COUNT} chunks, {connections} connections"
    )
    sentence = f"I6 subscribers of {agent} miss nothing and see nothing twice"
    return Result(sentence, not details, details[:20])


async def _task(here: Town, agent: str, number: int) -> tuple[list[str], int]:
    caller = here.caller("alice")
    subscribers = [
        Subscriber(caller, agent, random.Random(f"{here.seed}/{agent}/{number}/{n}")) for n in range(SUBSCRIBERS)
    ]
    message: Json = {
        "messageId": f"s-{agent}-{number}",
        "role": "ROLE_USER",
        "parts": [{"text": f"count {COUNT}"}],
    }
    task_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def follow(subscriber: Subscriber) -> None:
        await subscriber.watch(await task_id)

    first, *others = subscribers
    await asyncio.gather(first.begin(message, task_id), *map(follow, others))
    final = await caller.call(agent, "GetTask", {"id": await task_id})
    lines = []
    for n, subscriber in enumerate(subscribers):
        lines += [f"{agent} task {number} subscriber {n}: {line}" for line in _about(subscriber, final)]
    return lines, sum(map(bool, chain.from_iterable(subscriber.connections for subscriber in subscribers)))


def _about(subscriber: Subscriber, final: Json) -> list[str]:
    lines = list(flaws(subscriber.connections, final, COUNT))
    with suppress(StopIteration):
        lines.append(next(line for line in subscriber.refusals if "OVERLOADED" not in line))
    return lines
