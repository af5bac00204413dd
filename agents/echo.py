"""Echo: says back what it is told. The agent to try things with, and the one the official A2A kit talks to.

One idea: a *scene* is a list of steps, and a step is an event to make or a number of seconds to wait. A scene
is chosen by the first of these that fits, and then played:

1. the message id, by the prefixes that the kit prescribes (`scenarios/*.feature` of a2aproject/a2a-tck);
2. the text, if it is exactly one of `wait 5`, `count 10`, `ask`, `fail`, `reject`;
3. otherwise the message's own parts come back, in one event.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from gateway.model.agent import Content, Context
from gateway.model.message import Message, Part
from gateway.model.task import Event

Step: TypeAlias = Callable[[Context], Event] | float
Scene: TypeAlias = Iterable[Step]


class Echo:
    resumable = True  # a scene has no effect outside its task, so it may be played again from the beginning

    def __init__(self) -> None:
        self.sleep: Callable[[float], Awaitable[object]] = asyncio.sleep  # tests put their own clock here

    async def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        for step in _scene(context, message):
            if callable(step):
                yield step(context)
            else:
                await self.sleep(step)


def _scene(context: Context, message: Message) -> Scene:
    if message.message_id.startswith(("tck-", "test-")):
        for prefix, scene in KIT:
            if message.message_id.startswith(prefix):
                return scene
    # After `ask` the answer is only an answer, also when it reads like one of the words.
    if len(message.parts) == 1 and context.resume != ASKED:
        spoken = WORDS.fullmatch(message.parts[0].text or "")
        if spoken is not None:
            plain, counted, number = spoken.groups()
            return PLAIN[plain] if plain else COUNTED[counted](int(number))
    return (completed(message.parts),)


# Steps: each gives a function that makes the event once the context is there.

working: Step = Context.working
done: Step = Context.completed


def completed(content: Content) -> Step:
    return lambda context: context.completed(content)


def reporting(content: Content) -> Step:
    return lambda context: context.working(content)


def artifact(content: Content, *, id: str, append: bool = False, last: bool = True) -> Step:
    # Fixed ids: a scene that is played again after a crash replaces its artifact and adds no second one.
    return lambda context: context.artifact(content, id=id, name=id, append=append, last=last)


# --- Words for people. -------------------------------------------------------------------------------------

WORDS: Final = re.compile(r"(ask|fail|reject)|(wait|count) ([0-9]{1,6})")
ASKED: Final = "echo-the-answer"
WAIT_S_MAX = 600  # long enough to kill a gateway in the middle, short enough not to hold a run for ever
WAIT_REPORTS_MAX = 20  # every report stays in the task's history
COUNT_MAX = 1000  # a stream that is worth measuring, in an artifact that is still a small one


def _wait(seconds: int) -> Scene:
    seconds = min(seconds, WAIT_S_MAX)
    pause = max(1, math.ceil(seconds / WAIT_REPORTS_MAX))
    for waited in range(0, seconds, pause):
        yield reporting(f"{waited} of {seconds} s")
        yield min(pause, seconds - waited)
    yield completed(f"Waited {seconds} s.")


def _count(numbers: int) -> Scene:
    numbers = max(1, min(numbers, COUNT_MAX))
    yield working
    for n in range(1, numbers + 1):
        yield artifact(f"{n}\n", id="count", append=n > 1, last=n == numbers)
    yield completed(f"Counted to {numbers}.")


PLAIN: Final[dict[str, Scene]] = {
    "ask": (lambda context: context.need_input("What shall I echo?", resume=ASKED),),
    "fail": (lambda context: context.failed("Failed, as you asked."),),
    "reject": (lambda context: context.rejected("Rejected, as you asked."),),
}
COUNTED: Final[dict[str, Callable[[int], Scene]]] = {"wait": _wait, "count": _count}


# --- The kit's scenes: what each message id must lead to, in the kit's own texts. --------------------------

FILE = Part(raw="dGNr", filename="output.txt", media_type="text/plain")  # base64 of b"tck"
FILE_URL = Part(url="https://example.com/output.txt", filename="output.txt", media_type="text/plain")
DATA = Part(data={"key": "value", "count": 42})
STREAM_TIMEOUT_S = 2.0  # the kit's default; what it subscribes to has to live twice as long


def _stream(content: Content) -> Scene:
    return (working, artifact(content, id="stream"), done)


_KIT: dict[str, Scene] = {
    "tck-complete-task": (completed("Hello from TCK"),),
    "tck-artifact-text": (artifact("Generated text content", id="text"), done),
    "tck-artifact-file": (artifact(FILE, id="file"), done),
    "tck-artifact-file-url": (artifact(FILE_URL, id="file-url"), done),
    "tck-artifact-data": (artifact(DATA, id="data"), done),
    "tck-message-response": (lambda context: context.reply("Direct message response"),),
    "tck-input-required": (lambda context: context.need_input("Input required"),),
    "tck-auth-required": (lambda context: context.need_auth("Authentication required"),),
    "tck-reject-task": (lambda context: context.rejected("rejected"),),
    "tck-delayed-complete": (working, STREAM_TIMEOUT_S, completed("Done after delay")),
    "tck-stream-001": _stream("Stream hello from TCK"),
    "tck-stream-002": (done,),
    "tck-stream-003": _stream("Stream task lifecycle"),
    "tck-stream-ordering-001": _stream("Ordered output"),
    "tck-stream-artifact-text": _stream("Streamed text content"),
    "tck-stream-artifact-file": _stream(FILE),
    "tck-stream-artifact-chunked": (
        working,
        artifact("chunk-1 ", id="chunks", last=False),
        artifact("chunk-2", id="chunks", append=True),
        done,
    ),
    "test-resubscribe-message-id": (working, 2 * STREAM_TIMEOUT_S, done),
}
# The longest first: `tck-artifact-file-url` also begins with `tck-artifact-file`.
KIT: Final = sorted(_KIT.items(), key=lambda entry: -len(entry[0]))
