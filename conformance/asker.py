"""The agent that the 0.3 kit wants to talk to: whatever it hears, it asks back, so that a task can be continued and
canceled as long as the kit likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway.model.agent import Context
from gateway.model.message import Message
from gateway.model.task import Event

# What the kit subscribes to has to be at work for twice the time that it waits for events.
AT_WORK = "test-resubscribe-message-id"
TIMEOUT_S = 2.0


class Asker:
    resumable = True

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        yield context.working()
        if message.message_id.startswith(AT_WORK):
            await asyncio.sleep(2 * TIMEOUT_S + 1)
        yield context.need_input("What else?")
