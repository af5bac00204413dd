"""The agent of the stream benchmarks: a task, eight chunks of one artifact, completed; ten events in all."""

from __future__ import annotations

from collections.abc import AsyncIterator

from gateway.model.agent import Context
from gateway.model.message import Message
from gateway.model.task import Event

CHUNKS = 8


class Chunks:
    resumable = True  # it has no effect outside its task

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        for n in range(CHUNKS):
            yield context.artifact(f"chunk {n}", id="a", append=n > 0, last=n == CHUNKS - 1)
        yield context.completed()
