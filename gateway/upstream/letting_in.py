"""Remote agents that want a credential: a directory around another one, which gives each of them its own way out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol, cast

from gateway.model.agent import Agent, Context
from gateway.model.card import AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message
from gateway.model.ports import Balance, Directory, Fetched
from gateway.model.provenance import CardKeys
from gateway.model.task import Event
from gateway.model.value import value
from gateway.upstream.address import BadUrl, origin_of
from gateway.upstream.agent_credentials import AgentEgress, Given, place
from gateway.upstream.egress import Egress, Outbound, Way
from gateway.upstream.oauth.authorized import AuthorizedEgress
from gateway.upstream.oauth.source import TokenSource
from gateway.upstream.replicas import Endpoint

MAX_CALLERS = 1_000
"""Callers of one agent whose tokens are in memory. The longest unused goes first, and is read or got again."""


@value
class Admission:
    """How one agent lets us in. `source` makes the tokens of a caller, for an agent with that card at that address;
    `per_caller` is whether each caller has their own. `egress` is the agent's own where connections show a
    certificate."""

    given: Given
    origin: str | None
    per_caller: bool
    source: Callable[[str, AgentCard, str], TokenSource] | None
    egress: Egress


class ClosingDirectory(Directory, Protocol):
    async def aclose(self) -> None: ...


class Admitted:
    """The port `Directory`. `inner` makes the directory of agents that are reached by a way out."""

    def __init__(
        self,
        inner: Callable[[Way], ClosingDirectory],
        egress: Egress,
        admissions: Mapping[str, Admission],
        ours: Mapping[str, str],
    ) -> None:
        self._inner = inner
        self._egress = egress
        self._plain = inner(egress)
        self._admissions = admissions
        self._ours = ours

    async def fetch(self, url: str, *, etag: str | None, trusted: bool, keys: CardKeys | None = None) -> Fetched:
        return await self._plain.fetch(url, etag=etag, trusted=trusted, keys=keys)

    def balance(self, agents: Sequence[Agent], how: Balance) -> Agent:
        return self._plain.balance(agents, how)

    def connect(self, id: str, card: AgentCard, *, card_url: str, trusted: bool) -> Agent:
        admission = self._admissions.get(id)
        if admission is None:
            return self._plain.connect(id, card, card_url=card_url, trusted=trusted)
        url = admission.origin or card_url
        try:
            origin = origin_of(url)
        except BadUrl as error:
            raise GatewayError(Reason.EGRESS_REFUSED, f"credentials.origin is no usable URL: {error}") from None
        placed = place(card, admission.given)

        def reached_for(caller: str) -> Agent:
            out: Outbound = admission.egress
            if placed.token and admission.source is not None:
                out = AuthorizedEgress(out, admission.source(caller, card, _resource(card, url)))
            dressed = AgentEgress(out, admission.egress.rules, origin, placed, self._ours)
            return self._inner(dressed).connect(id, card, card_url=card_url, trusted=trusted)

        return PerCaller(reached_for) if admission.per_caller and placed.token else reached_for("")

    async def aclose(self) -> None:
        await self._plain.aclose()
        for admission in self._admissions.values():
            if admission.egress is not self._egress:
                await admission.egress.aclose()


class PerCaller:
    """One agent, which each caller reaches with their own token."""

    resumable = False

    def __init__(self, reached_for: Callable[[str], Agent]) -> None:
        self._reached_for = reached_for
        self._agents: OrderedDict[str, Agent] = OrderedDict()
        # What is wrong with the card is found now, and not by the first caller.
        self._nobodys = cast(Endpoint, reached_for(""))

    def serves(self, url: str) -> bool:
        return self._nobodys.serves(url)

    def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        return self._of(context).run(context, message)

    def follow(self, context: Context) -> AsyncIterator[Event]:
        return self._of(context).follow(context)

    async def cancel(self, context: Context) -> Event | None:
        return await self._of(context).cancel(context)

    async def aclose(self) -> None:
        for agent in self._agents.values():
            await agent.aclose()

    def _of(self, context: Context) -> Agent:
        agent = self._agents.pop(context.caller, None) or self._reached_for(context.caller)
        while len(self._agents) >= MAX_CALLERS:
            self._agents.popitem(last=False)
        self._agents[context.caller] = agent
        return agent


def _resource(card: AgentCard, url: str) -> str:
    """What a token is for (RFC 8707): the agent's own address."""
    interface = card.interface()
    return url if interface is None else interface.url
