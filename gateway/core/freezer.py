"""The kill switch: agents and principals that may do nothing, and whose work is stopped. It survives a restart.

It is the first rule of every policy. A frozen agent takes no messages and calls nothing; its tasks can be read. A
frozen principal can do nothing at all, nor can any agent on its behalf.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from gateway.core.policy import Question, Target, Weighed
from gateway.core.policy.actions import AGENT_VERBS, CALLS
from gateway.core.policy.checks import chain
from gateway.core.policy.rules import FROZEN
from gateway.model.audit import Decision, Verdict
from gateway.model.changes import DropFrozen, PutFrozen
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.governance import Cold, Frozen, GovernanceStore
from gateway.model.ports import Write
from gateway.model.principal import LOCAL, Kind, Principal
from gateway.model.trail import Trail


class Freezer:
    """One rule of the policy's table. `changed` is called when something is frozen or thawed."""

    name = FROZEN
    hopeful = False
    skilled = False
    verbs = None

    def __init__(self, store: GovernanceStore, now: Callable[[], int]) -> None:
        self._store = store
        self._now = now
        self._frozen: dict[tuple[Cold, str], Frozen] = {}
        self._stored: dict[tuple[Cold, str], Frozen] = {}  # less than holds where the disk has failed
        self.changed: list[Callable[[], None]] = []
        self.stopping: list[Callable[[Frozen], None]] = []  # who has work in hand that may have to be stopped
        self.ending: list[Callable[[Frozen], Awaitable[None]]] = []  # who has work that waits and will not go on

    async def start(self) -> None:
        self._stored = {(record.kind, record.name): record for record in await self._store.frozen()}
        self._frozen = dict(self._stored)
        self._tell()

    def all(self) -> Sequence[Frozen]:
        return tuple(self._frozen.values())

    def principals(self) -> frozenset[str]:
        return frozenset(name for kind, name in self._frozen if kind is Cold.PRINCIPAL)

    def about(self, kind: Cold, name: str) -> Sequence[Frozen]:
        """How it is frozen, if it is."""
        found = self._frozen.get((kind, name))
        return () if found is None else (found,)

    def stored(self, kind: Cold, name: str) -> Sequence[Frozen]:
        """How it is frozen on disk, if it is: what a freeze that could not be written left in memory is not that."""
        found = self._stored.get((kind, name))
        return () if found is None else (found,)

    async def freeze(self, kind: Cold, name: str, by: Principal, reason: str, write: Write) -> Frozen:
        """From now on, and durably; what is in hand is stopped before this returns."""
        if kind is Cold.PRINCIPAL and name == LOCAL.id:
            raise invalid("name", "the machine's own credential cannot be frozen; stop the gateway instead")
        record = Frozen(kind, name, by.id, self._now(), reason)
        # In memory first: whatever comes in while the disk is asked meets it.
        self._frozen[kind, name] = record
        self._tell()
        for stop in self.stopping:
            stop(record)
        await write(PutFrozen(record))
        self._stored[kind, name] = record
        for end in self.ending:
            await end(record)
        return record

    async def thaw(self, kind: Cold, name: str, write: Write) -> None:
        if (kind, name) not in self._frozen:
            raise GatewayError(Reason.NOT_FOUND, f"No {kind} {name[:200]!r} is frozen; `gateway frozen` lists what is")
        await write(DropFrozen(kind, name))
        self._stored.pop((kind, name), None)
        self._frozen.pop((kind, name), None)
        self._tell()

    def _tell(self) -> None:
        for told in self.changed:
            told()

    def why(self, who: Principal, verb: str, target: Target) -> Frozen | None:
        """What keeps `who` from this."""
        if not self._frozen:
            return None
        if verb in CALLS and verb in AGENT_VERBS and (cold := self._frozen.get((Cold.AGENT, target.id))) is not None:
            return cold
        return self.stops(who)

    def stops(self, who: Principal) -> Frozen | None:
        """What keeps `who` from everything, or anybody on whose behalf it asks."""
        if not self._frozen:
            return None
        return next((cold for each in chain(who) if (cold := self._of(each)) is not None), None)

    def _of(self, who: Principal) -> Frozen | None:
        if who.kind is Kind.AGENT and (cold := self._frozen.get((Cold.AGENT, who.name))) is not None:
            return cold
        return self._frozen.get((Cold.PRINCIPAL, who.id))

    def bars(self, agent: str, who: Principal, trail: Trail | None) -> Frozen | None:
        """What keeps a run of `agent` for `who` from going on."""
        if not self._frozen:
            return None
        named = (agent, *(trail.agents if trail is not None else ()))
        cold = next((cold for each in named if (cold := self._frozen.get((Cold.AGENT, each))) is not None), None)
        return cold or self.stops(who)

    # As a rule.

    @property
    def people(self) -> frozenset[str] | None:
        """While nothing is frozen, nobody is kept from anything."""
        return None if self._frozen else frozenset()

    def applies(self, question: Question) -> bool:
        return self.why(question.who, question.verb, question.target) is not None

    def settled(self, question: Question) -> Decision | None:
        return self.refusal(question.who, question.verb, question.target)

    def judge(self, question: Question) -> Decision | None:
        return self.settled(question)

    def refusal(self, who: Principal, verb: str, target: Target) -> Decision | None:
        """For calls that no other rule decides about."""
        cold = self.why(who, verb, target)
        return None if cold is None else Decision(Verdict.BLOCK, FROZEN, sentence(cold))

    def weigh(self, question: Question) -> Iterator[Weighed]:
        cold = self.why(question.who, question.verb, question.target)
        if cold is not None:
            mend = f"say gateway thaw {cold.kind} {cold.name}"
            yield Weighed(FROZEN, f"by {cold.by}", Verdict.BLOCK, (), (mend,))

    def shown(self) -> Iterator[Mapping[str, Any]]:
        for cold in self._frozen.values():
            yield {"frozen": f"{cold.kind} {cold.name}", "by": cold.by, "reason": cold.reason}


def sentence(cold: Frozen) -> str:
    return f"the {cold.kind} {cold.name} is frozen" + (f": {cold.reason}" if cold.reason else "")
