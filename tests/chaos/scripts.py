"""What clients do all day: short plays with one agent, chosen by chance.

A text with a `#` in it is one message's own and names its sender, so an echo can be told from every other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from tests.chaos.checker import SAYS
from tests.chaos.client import Client, Told


@dataclass(slots=True)
class Stage:
    client: Client
    agent: str
    chance: random.Random
    number: int  # of this play, different for each
    label: str  # the same for principals who use the same messageIds, each for a message of their own

    def told(self, text: str | None = None, prefix: str = "m") -> Told:
        return Told(
            f"{prefix}-{self.label}-{self.number}",
            text or f"{self.client.who}{SAYS}{self.label}-{self.number}",
        )


Play: TypeAlias = Callable[[Stage], Awaitable[None]]


async def plain(on: Stage) -> None:
    await on.client.send(on.agent, on.told(), hang_up=on.chance.random() < 0.1)


async def immediately(on: Stage) -> None:
    heard = await on.client.send(on.agent, on.told(), immediately=True, hang_up=on.chance.random() < 0.1)
    if heard is not None and heard.task_id:
        await on.client.get(on.agent, heard.task_id)


async def streamed(on: Stage) -> None:
    await on.client.send_streaming(on.agent, on.told())


async def counted(on: Stage) -> None:
    await on.client.send_streaming(on.agent, on.told(f"count {on.chance.randint(1, 40)}"))


async def waited(on: Stage) -> None:
    await on.client.send(on.agent, on.told("wait 1"), hang_up=on.chance.random() < 0.1)


async def watched(on: Stage) -> None:
    """Sent in haste, then asked for until it is over."""
    heard = await on.client.send(on.agent, on.told("wait 1"), immediately=True)
    while heard is not None and heard.state in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"):
        await asyncio.sleep(0.3)
        heard = await on.client.get(on.agent, heard.task_id)


async def twice_at_once(on: Stage) -> None:
    told = on.told()
    await asyncio.gather(*(on.client.send(on.agent, told) for _ in range(on.chance.randint(2, 4))))


async def again_later(on: Stage) -> None:
    told = on.told()
    await on.client.send(on.agent, told)
    await on.client.send(on.agent, told)


async def used_otherwise(on: Stage) -> None:
    """A different message under an id that has been answered: must be refused."""
    told = on.told()
    if await on.client.send(on.agent, told) is not None:
        await on.client.send(on.agent, Told(told.message_id, told.text + " differently"))


async def answered_with_message(on: Stage) -> None:
    told = on.told("anything", prefix="tck-message-response")
    await on.client.send(on.agent, told, hang_up=on.chance.random() < 0.3)
    await on.client.send(on.agent, told)


async def asked_back(on: Stage) -> None:
    heard = await on.client.send(on.agent, on.told("ask"))
    if heard is not None and heard.state == "TASK_STATE_INPUT_REQUIRED":
        answer = on.told(prefix="a")
        await on.client.send(on.agent, Told(answer.message_id, answer.text, heard.task_id))


async def canceled(on: Stage) -> None:
    heard = await on.client.send(on.agent, on.told("wait 60"), immediately=True)
    if heard is None:
        return
    await asyncio.sleep(on.chance.uniform(0, 0.5))
    await on.client.cancel(on.agent, heard.task_id)
    await on.client.get(on.agent, heard.task_id)


async def ended_badly(on: Stage) -> None:
    await on.client.send(on.agent, on.told(on.chance.choice(("fail", "reject"))))


WEIGHTS: dict[Play, int] = {
    plain: 30,
    immediately: 20,
    streamed: 12,
    counted: 6,
    waited: 4,
    watched: 3,
    twice_at_once: 6,
    again_later: 5,
    used_otherwise: 5,
    answered_with_message: 5,
    asked_back: 4,
    canceled: 3,
    ended_badly: 2,
}


def choose(chance: random.Random) -> Play:
    return chance.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))[0]
