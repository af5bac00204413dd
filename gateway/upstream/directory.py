"""Finding remote agents: a card by its URL, and the agent behind a card."""

from __future__ import annotations

from pydantic import ValidationError

from gateway.model.agent import Agent
from gateway.model.card import VERSION, AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Fetched
from gateway.upstream.a2a import RemoteAgent
from gateway.upstream.address import BadUrl, origin_of
from gateway.upstream.cards import CardFetcher
from gateway.upstream.egress import Egress


class RemoteDirectory:
    def __init__(self, egress: Egress, fetcher: CardFetcher) -> None:
        self._egress = egress
        self._fetcher = fetcher

    async def fetch(self, url: str, *, etag: str | None, trusted: bool) -> Fetched:
        found = await self._fetcher.fetch(url, etag=etag, trusted=trusted)
        if found.not_modified:
            return Fetched(None, b"", etag)
        try:
            return Fetched(AgentCard.model_validate(found.tree), found.body, found.etag)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise GatewayError(
                Reason.INVALID_AGENT_RESPONSE,
                f"The card at {url} is not an A2A {VERSION} card: {where}: {first['msg']}",
            ) from None

    def connect(self, id: str, card: AgentCard, *, card_url: str, trusted: bool) -> Agent:
        interface = card.interface()
        if interface is None:
            offered = ", ".join(f"{i.protocol_binding} {i.protocol_version}" for i in card.supported_interfaces)
            raise GatewayError(
                Reason.INVALID_AGENT_RESPONSE,
                f"The agent offers {offered or 'no interface at all'}; "
                f"this gateway speaks JSONRPC and HTTP+JSON {VERSION}",
            )
        # What the operator trusts is the origin they named; where its card points is somebody else's word.
        try:
            same = origin_of(interface.url) == origin_of(card_url)
        except BadUrl as error:
            raise GatewayError(Reason.EGRESS_REFUSED, f"The card's interface has no usable URL: {error}") from None
        refused = self._egress.rules.judge_url(interface.url, trusted=trusted and same)
        if refused is not None:
            raise GatewayError(Reason.EGRESS_REFUSED, refused)
        return RemoteAgent(card, interface, self._egress, trusted=trusted and same)
