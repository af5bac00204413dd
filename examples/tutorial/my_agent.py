import asyncio
from collections.abc import AsyncIterator

from gateway.model.agent import Context
from gateway.model.message import Message
from gateway.model.task import Event


async def hello(context: Context, message: Message) -> str:
    """What it returns is the answer."""
    return f"Hello, {message.text or 'world'}!"


class Counter:
    """Counts the words of a text, slowly enough to watch."""

    resumable = True  # a run that died may be repeated from its message: this one changes nothing outside

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        words = message.text.split()
        if not words:
            yield context.need_input("Which text shall I count?")
            return
        for number, word in enumerate(words, start=1):
            yield context.working(f"{number}: {word}")
            await asyncio.sleep(1)
        yield context.artifact(f"{len(words)} words\n", id="count", name="count.txt")
        yield context.completed("Done.")
