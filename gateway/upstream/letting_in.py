"""Remote agents that want a credential: a directory around another one, which gives each of them its own way out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

from gateway.model.agent import Agent, Context
from gateway.model.card import AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.login import Ending
from gateway.model.message import Message
from gateway.model.ports import Directory, Fetched
from gateway.model.provenance import CardKeys
from gateway.model.rows import Balance
from gateway.model.task import Event
from gateway.model.value import value
from gateway.upstream.address import BadUrl, origin_of
from gateway.upstream.agent_credentials import Dressing, Given, Wanted, place, wanted
from gateway.upstream.cards import WELL_KNOWN
from gateway.upstream.credentialed import CredentialedEgress
from gateway.upstream.egress import Egress, Way
from gateway.upstream.oauth.source import TokenSource
from gateway.upstream.replicas import Endpoint

_SHUT = (401, 403)
_UNREAD = AgentCard.of()
"""A card that nobody has read yet: it asks for nothing in particular."""

MAX_CALLERS = 1_000
"""Callers of one agent whose tokens are in memory. The longest unused goes first, and is read or got again."""


# The tokens of one caller, as the card has them; of nobody's, where all callers share them.
Make = Callable[[str, Wanted], TokenSource]


@value
class Admission:
    """How one agent lets us in. `make` is for an agent that wants tokens, `per_caller` whether each caller has their
    own; `egress` is the agent's own where connections show a certificate."""

    given: Given
    origin: str | None
    per_caller: bool
    make: Make | None
    egress: Egress


class AgentAccounts:
    """An `Accounts`: the tokens of one agent's callers. What is wanted is as the agent's card last had it; as long as
    that is the same, so is a caller's source."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._known: OrderedDict[tuple[str, Wanted], TokenSource] = OrderedDict()
        self.wanted: Wanted | None = None

    def login(self, owner: str) -> TokenSource:
        if self.wanted is None:
            raise GatewayError(Reason.UNAVAILABLE, "The agent's card was not read yet", retry_after=5)
        return self.source(owner, self.wanted)

    async def end(self, owner: str) -> Ending:
        """Whatever was wanted for it once, it is kept in one place. Raises UNAVAILABLE."""
        return await self.login(owner).end() or Ending.UNASKED

    def source(self, owner: str, wanted: Wanted) -> TokenSource:
        found = self._known.pop((owner, wanted), None) or self._make(owner, wanted)
        while len(self._known) >= MAX_CALLERS:
            self._known.popitem(last=False)
        self._known[owner, wanted] = found
        return found


class ClosingDirectory(Directory, Protocol):
    async def aclose(self) -> None: ...


class Admitted:
    """The port `Directory`. `inner` makes the directory of agents that are reached by a way out, `at` are the ways to
    cards that are not read like all others."""

    def __init__(
        self,
        inner: Callable[[Way], ClosingDirectory],
        egress: Egress,
        admissions: Mapping[str, Admission],
        ours: Mapping[str, str],
        at: Mapping[str, Egress],
    ) -> None:
        self._inner = inner
        # A server that asks everybody for a certificate does so where its card is, too.
        self._at = {url: inner(egress) for url, egress in at.items()}
        self._egress = egress
        self._plain = inner(egress)
        self._admissions = admissions
        self._accounts = {id: AgentAccounts(each.make) for id, each in admissions.items() if each.make is not None}
        self._ours = ours

    async def fetch(
        self, url: str, *, etag: str | None, trusted: bool, keys: CardKeys | None = None, agent: str | None = None
    ) -> Fetched:
        """Cards are for everybody; where one is not (ACP's manifests are behind the same door as all else), the agent's
        credentials are shown, if they may go there."""
        try:
            return await self._at.get(url, self._plain).fetch(url, etag=etag, trusted=trusted, keys=keys)
        except GatewayError as error:
            way = self._way_to_card(agent or "", url) if getattr(error, "status", None) in _SHUT else None
            if way is None:
                raise
        return await self._inner(way).fetch(url, etag=etag, trusted=trusted, keys=keys)

    def _way_to_card(self, id: str, url: str) -> Way | None:
        """With the credentials that need no caller and no word of the card, if they belong to this place."""
        admission, origin = self._admissions.get(id), origin_of(url)
        if admission is None or origin_of(admission.origin or url) != origin:
            return None
        given = replace(admission.given, oauth=None) if admission.per_caller else admission.given
        placed, source = place(_UNREAD, given), None
        if placed.token and id in self._accounts:
            source = self._accounts[id].source("", Wanted(url.removesuffix(WELL_KNOWN[0])))
        return CredentialedEgress(admission.egress, source, Dressing(origin, placed, self._ours))

    def accounts(self, id: str) -> AgentAccounts | None:
        """Of an agent at which each caller has their own authorization."""
        admission = self._admissions.get(id)
        return self._accounts.get(id) if admission is not None and admission.per_caller else None

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
        accounts = self._accounts.get(id) if placed.token else None
        needs = None if accounts is None else wanted(card, _resource(card, url))
        if accounts is not None:
            accounts.wanted = needs

        def reached_for(owner: str) -> Agent:
            source = None if accounts is None or needs is None else accounts.source(owner, needs)
            out = CredentialedEgress(admission.egress, source, Dressing(origin, placed, self._ours))
            return self._inner(out).connect(id, card, card_url=card_url, trusted=trusted)

        return PerCaller(reached_for) if admission.per_caller and accounts is not None else reached_for("")

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
        owner = f"{context.tenant}/{context.caller}"
        agent = self._agents.pop(owner, None) or self._reached_for(owner)
        while len(self._agents) >= MAX_CALLERS:
            self._agents.popitem(last=False)
        self._agents[owner] = agent
        return agent


def _resource(card: AgentCard, url: str) -> str:
    """What a token is for (RFC 8707): the agent's own address, and none at another origin."""
    interface = card.interface()
    try:
        return url if interface is None or origin_of(interface.url) != origin_of(url) else interface.url
    except BadUrl:
        return url
