"""An agent that counts at its leisure, so that subscribers have the time to come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

from gateway.model.agent import Context
from gateway.model.message import Message
from gateway.model.task import Event

PAUSE_S = 0.02  # at most, between two chunks; none after many of them, so that groups of all sizes are written


async def count(context: Context, message: Message) -> AsyncIterator[Event]:
    numbers = int(message.text.split()[1])
    chance = random.Random(message.message_id)
    yield context.working()
    for n in range(1, numbers + 1):
        yield context.artifact(f"{n}\n", id="count", append=n > 1, last=n == numbers)
        if chance.random() < 0.5:
            await asyncio.sleep(chance.uniform(0, PAUSE_S))
    yield context.completed(f"Counted to {numbers}.")
