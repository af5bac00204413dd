"""An engine over a memory store with one scripted agent: what the tests of the core share."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gateway.core.answers import Answer
from gateway.core.audit import Recorder, Ticket
from gateway.core.compliance.compliance import Compliance
from gateway.core.compliance.profile import Profile
from gateway.core.engine import Engine
from gateway.core.gate import Gate
from gateway.core.live import Live
from gateway.core.policy import Policy, Target
from gateway.core.registry import Registered
from gateway.core.services import Services
from gateway.core.turn import Turn
from gateway.model.agent import Ask, Context
from gateway.model.call import SendMessage
from gateway.model.message import Message, Part, Role
from gateway.model.principal import LOCAL, Principal
from gateway.model.task import Task
from gateway.model.tool import ToolRequest, ToolResult
from gateway.model.trail import Trail
from gateway.stores.memory import MemoryStore
from gateway.upstream.local import LocalAgent

BOUND = 30.0
Work = Callable[[Context, Message], Any]


@dataclass
class Elsewhere:
    """What an agent reaches from here: other agents by `reply`, and no tools."""

    reply: Ask

    async def ask(self, who: Principal, agent: str, message: Message, trail: Trail) -> Task | Message:
        return await self.reply(agent, message)

    async def use_tool(self, who: Principal, name: str, request: ToolRequest, trail: Trail) -> ToolResult:
        raise AssertionError("no tool is used in these tests")


@dataclass
class Bench:
    """The engine on a bench: `send` accepts a message, `ended` waits for what comes of it."""

    engine: Engine
    services: Services
    store: MemoryStore
    entry: Registered

    async def send(self, text: str = "hi", *, who: Principal = LOCAL, **more: Any) -> Turn | Answer:
        digest, ask = more.pop("digest", text.encode()), more.pop("ask", no_ask)
        call = SendMessage("agent", message(text, **more), digest)
        decision = Policy().decide(who, call.verb, Target("agent", public=True))
        ticket = Ticket(who, call.verb, "agent", decision, "request")
        self.engine.contexts.front = Elsewhere(ask)
        return await self.engine.send(call, ticket, self.entry)

    async def ended(self, text: str = "hi", **more: Any) -> Answer:
        answer = await self.send(text, **more)
        return await answer.done if isinstance(answer, Turn) else answer

    async def stored(self, task_id: str) -> Task | None:
        row = await self.store.task("", task_id)
        return None if row is None else row.task

    async def outcomes(self) -> list[tuple[str, str]]:
        return [(entry.phase, entry.outcome) for _, entry in await self.store.audit(0, 100)]


def unexamined(store: MemoryStore) -> Compliance:
    return Compliance(Profile(), Recorder(store, lambda: next(_TICKS)))


def bench(work: Work, *, store: MemoryStore | None = None, node: str = "life-1", **entry: Any) -> Bench:
    store = store or MemoryStore(node=node)
    ids = (f"{node}-{number}" for number in itertools.count(1))
    services = Services(store, Live(), lambda: next(_TICKS), ids.__next__, node, lambda: None, unexamined(store))
    gate = entry.pop("gate", None) or Gate(8, 8)
    registered = Registered("agent", "local", gate, agent=LocalAgent(work, work), public=True, **entry)
    return Bench(Engine(services), services, store, registered)


# Time moves by a millisecond each time that somebody looks: order is visible, nothing waits.
_TICKS = itertools.count(1_790_000_000_000)
_MESSAGES = itertools.count(1)


def message(text: str, *, id: str | None = None, **more: Any) -> Message:
    return Message(message_id=id or f"m-{next(_MESSAGES)}", role=Role.USER, parts=(Part(text=text),), **more)


async def no_ask(agent: str, message: Message) -> Task | Message:
    raise AssertionError("nobody is asked in these tests")


async def idle(on: Bench) -> None:
    """Nothing is left over: no turn, no place taken."""
    async with asyncio.timeout(BOUND):
        while on.engine.active:
            await turns(1)
    assert on.entry.gate.inside == 0


async def turns(count: int) -> None:
    """So many turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)
