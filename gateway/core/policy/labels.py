"""Labels: what a conversation has met. At most two of the three in one conversation, or somebody has to agree.

An agent that has read private data and untrusted words can be talked into sending the one to whoever wrote the other.
Taking any one of the three away stops that. A conversation is the context of the outermost caller's task, whatever is
asked on its behalf; tools that a client of MCP calls itself share one conversation, which ends after an hour of rest.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any

from gateway.core.policy.checks import On
from gateway.core.policy.question import Question, Situation, Target
from gateway.model.audit import Decision, Verdict
from gateway.model.governance import GovernanceStore, Labelled
from gateway.model.principal import LOCAL, Principal

log = logging.getLogger(__name__)

LABELS = frozenset({"private-data", "untrusted-input", "can-send-out"})
RULE = "rule-of-two"
MCP = "mcp"  # the conversation of a client's own tool calls

MAX_CONVERSATIONS = 200_000  # whose labels are kept, the latest; one weighs some 300 bytes
KEEP_MS = 30 * 86_400_000  # since the last label: who goes on with a conversation after a month begins afresh
MCP_REST_MS = 3_600_000  # without a label; clients of MCP do not say where a conversation ends

_REASON = "the conversation would have read private data, met untrusted input, and be able to send out"


class Labels:
    def __init__(self, store: GovernanceStore, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now
        self._patterns: tuple[tuple[str, On], ...] = ()
        self._kept: OrderedDict[str, Labelled] = OrderedDict()
        self._writing: set[asyncio.Future[None]] = set()

    def use(self, patterns: Iterable[tuple[str, On]]) -> None:
        self._patterns = tuple(patterns)

    @property
    def any(self) -> bool:
        return bool(self._patterns)

    @property
    def skilled(self) -> bool:
        """Whether one of them tells one skill of an agent from another."""
        return any(on.skilled for _, on in self._patterns)

    def shown(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        for label, on in self._patterns:
            yield label, on.patterns

    async def start(self) -> None:
        self._kept = OrderedDict((row.conversation, row) for row in await self._store.labels())

    def of(self, conversation: str) -> frozenset[str]:
        """What the conversation has met so far."""
        kept = self._kept.get(conversation)
        rest = MCP_REST_MS if conversation.endswith(f"\n{MCP}") else KEEP_MS
        return frozenset() if kept is None or kept.at < self._now() - rest else kept.labels

    def brings(self, verb: str, target: Target) -> frozenset[str]:
        question = Question(LOCAL, verb, target, {}, _NOWHERE)
        return frozenset(label for label, on in self._patterns if on.holds(question))

    def judge(self, decision: Decision, verb: str, target: Target, met: frozenset[str]) -> Decision:
        """The decision, unless the call would bring all three together."""
        if not decision.allowed or not self.brings(verb, target) - met or met | self.brings(verb, target) != LABELS:
            return decision
        return Decision(Verdict.ESCALATE, RULE, _REASON, policy=decision.policy)

    def gather(self, conversation: str, verb: str, target: Target) -> None:
        """The call is made: what it brings stays with the conversation. Written before what the call itself writes."""
        met = self.of(conversation)
        fresh = self.brings(verb, target)
        if not fresh:
            return
        row = Labelled(conversation, met | fresh, self._now())
        self._kept[conversation] = row
        self._kept.move_to_end(conversation)
        if len(self._kept) > MAX_CONVERSATIONS:
            self._kept.popitem(last=False)
        if fresh - met or conversation.endswith(f"\n{MCP}"):
            self._write(self._store.label(row, row.at - KEEP_MS))

    def _write(self, written: Awaitable[None]) -> None:
        future = asyncio.ensure_future(written)
        self._writing.add(future)
        future.add_done_callback(self._written)

    def _written(self, future: asyncio.Future[None]) -> None:
        self._writing.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("the labels of a conversation could not be written, a restart will not know them: %s", error)


_NOWHERE = Situation()


def conversation(who: Principal, context: str) -> str:
    """The key of a conversation: contexts are words of their owner's."""
    return f"{who.tenant}\n{who.owner}\n{context}"


def shown(labels: Labels) -> Mapping[str, Any]:
    return {label: list(patterns) for label, patterns in labels.shown()}
