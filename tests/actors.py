"""Agents that tests can see into. They live in the process of the test, as the gateway does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.model.agent import Context
from gateway.model.message import Message, Part
from gateway.model.task import Event, StatusUpdate, Task

Step = Callable[[Context], Event]

_numbers = itertools.count(1)


@dataclass
class Cue:
    """What an Actor plays, step by step, when the test says so. The message that starts it is `text`."""

    text: str = field(default_factory=lambda: f"cue {next(_numbers)}")
    steps: asyncio.Queue[Step] = field(default_factory=asyncio.Queue)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)  # the run was cancelled

    def __post_init__(self) -> None:
        _cues[self.text] = self

    def say(self, text: str) -> None:
        self.steps.put_nowait(lambda context: context.working(text))

    def ask(self) -> None:
        self.steps.put_nowait(lambda context: context.need_input("And now?"))

    def done(self) -> None:
        self.steps.put_nowait(lambda context: context.completed("Done"))


_cues: dict[str, Cue] = {}


class Actor:
    """Plays the cue that its message names."""

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        cue = _cues[message.text]
        cue.began.set()
        try:
            while True:
                event = (await cue.steps.get())(context)
                yield event
                if isinstance(event, StatusUpdate) and _at_rest(event):
                    return
        except asyncio.CancelledError:
            cue.stopped.set()
            raise


def _at_rest(event: StatusUpdate) -> bool:
    return event.status.state.terminal or event.status.state.interrupted


async def mirror(context: Context, message: Message) -> Part:
    """Replies with everything that reached it."""
    seen = {
        "metadata": context.metadata,
        "acceptedOutputModes": list(context.accepted_output_modes),
        "message": message.model_dump(by_alias=True, exclude_unset=True, mode="json"),
    }
    return Part(data=seen, media_type="application/json")


async def tooled(context: Context, message: Message) -> Part:
    """Calls the tool that its message names, with the arguments in its data."""
    data: Any = next((part.data for part in message.parts if part.data is not None), {})
    result = await context.call_tool(message.text, data)
    return Part(data={"text": result.text, "structured": result.structured, "failed": result.failed})


async def answering(context: Context, message: Message) -> Part:
    """Calls a tool as `tooled` does, and answers what it asks with the message of the question."""
    asked: list[Any] = []

    async def answer(question: dict[str, Any]) -> dict[str, Any]:
        asked.append(question["params"]["message"])
        return {"action": "accept", "content": {"said": asked[-1]}}

    result = await context.call_tool(message.text, {}, answer=answer)
    return Part(data={"text": result.text, "asked": asked})


async def fan(context: Context, message: Message) -> Part:
    """Asks the agents that its data names, all at once: `[["agent", "text"], …]`; with the text of a cue as a third
    word, once that cue is played."""

    async def ask(agent: str, text: str, cue: str | None = None) -> Any:
        if cue is not None:
            await _cues[cue].began.wait()
        return await context.ask(agent, text)

    asked: Any = next(part.data for part in message.parts if part.data is not None)
    answers = await asyncio.gather(*(ask(*each) for each in asked))
    return Part(data=[answer.model_dump(by_alias=True, exclude_unset=True, mode="json") for answer in answers])


async def onward(context: Context, message: Message) -> Part:
    """Asks `peer` the same."""
    answer = await context.ask("peer", message.text)
    said = answer if isinstance(answer, Message) else answer.status.message
    return Part(text="" if said is None else said.text)


async def ring(context: Context, message: Message) -> Part:
    """Asks the other one of two agents, `left` and `right`, what it was asked itself."""
    answer = await context.ask("right" if context.agent == "left" else "left", message.text)
    return Part(text=str(answer.message_id if isinstance(answer, Message) else answer.id))


async def diligent(context: Context, message: Message) -> AsyncIterator[Event]:
    """Says something, then calls the tool that its message names, twice."""
    yield context.artifact("before", name="before", id="before")
    for number in range(2):
        result = await context.call_tool(message.text)
        yield context.artifact(result.text, name="result", id=f"result-{number}")


async def eager(context: Context, message: Message) -> str:
    """Asks `peer` first, then calls the tool that its message names."""
    await context.ask("peer", "hello")
    return (await context.call_tool(message.text)).text


async def twice(context: Context, message: Message) -> AsyncIterator[Event]:
    """Calls the tool that its message names two times at once."""
    results = await asyncio.gather(*(context.call_tool(message.text) for _ in range(2)))
    yield context.completed(" ".join(result.text for result in results))


async def asking(context: Context, message: Message) -> Part:
    """Asks the agent that its message names, and says what it answered."""
    answer = await context.ask(message.text, "please")
    text = answer.status.state if isinstance(answer, Task) else answer.parts[0].data
    return Part(data={"answer": text})
