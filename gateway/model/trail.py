"""Where a call comes from, when it is not the first one: the task that began it all and what was asked on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.value import value

HOPS = "Gateway-Hops"
"""Header of a call to another agent: how many agents asked each other to get there. It can only make a chain look
longer than it is, so it is believed from anybody; a ring of gateways ends by it."""

TRACEPARENT = "traceparent"
"""Header of a call to another agent, where the caller sent one: whose trace it belongs to (W3C Trace Context)."""


def onward(headers: Mapping[str, str], hops: int, traceparent: str | None) -> dict[str, str]:
    """`headers` of a call to another agent, with how deep it is and the caller's trace. Here no span is recorded, so
    the caller's own stays the parent, as in the `_meta` of a tool's call."""
    sent = {**headers, HOPS: str(hops + 1)}
    if traceparent is not None:
        sent[TRACEPARENT] = traceparent
    return sent


@value
class Asked:
    """An agent, and a digest of what it was asked."""

    agent: str
    digest: bytes


@value
class Trail:
    """`root` is the outermost caller's task and `conversation` its context; `task` is the one that asks now. `asked`
    goes from the outside in, the asking agent last."""

    root: str
    conversation: str
    task: str
    asked: tuple[Asked, ...]

    @property
    def agents(self) -> frozenset[str]:
        return frozenset(each.agent for each in self.asked)

    def asker(self, outermost: Principal) -> Principal:
        """The agent that asks now, on behalf of those before it and of the outermost caller."""
        who = outermost
        for each in self.asked:
            who = who.delegate(each.agent)
        return who


def asked(agent: str, message: Message) -> Asked:
    """What it is asked is the parts: every message has an id of its own."""
    parts = b"\n".join(part.wire() for part in message.parts)
    return Asked(agent, hashlib.sha256(parts).digest())
