"""Finding remote agents: a card by its URL, and the agent behind a card."""

from __future__ import annotations

from pydantic import ValidationError

import gateway.dialects.a2a_v03.upstream as wire_v03
import gateway.dialects.a2a_v1.upstream as wire_v1
from gateway.dialects.a2a_v03 import cards
from gateway.dialects.a2a_v1.upstream import Wire
from gateway.model.agent import Agent
from gateway.model.card import VERSIONS, AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Fetched
from gateway.upstream.a2a import RemoteAgent
from gateway.upstream.address import BadUrl, origin_of
from gateway.upstream.cards import CardFetcher
from gateway.upstream.egress import Egress

SPOKEN = " or ".join(VERSIONS)
WIRES: dict[str, Wire] = {"1.0": wire_v1, "0.3": wire_v03}


class RemoteDirectory:
    def __init__(self, egress: Egress, fetcher: CardFetcher) -> None:
        self._egress = egress
        self._fetcher = fetcher

    async def fetch(self, url: str, *, etag: str | None, trusted: bool) -> Fetched:
        found = await self._fetcher.fetch(url, etag=etag, trusted=trusted)
        if found.not_modified:
            return Fetched(None, b"", etag)
        try:
            tree = cards.read(found.tree)
            card = AgentCard.model_validate(tree)
            # What is kept is a card of the model's own version, so that reading it again needs no dialect.
            return Fetched(card, found.body if tree is found.tree else card.wire(), found.etag)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise GatewayError(
                Reason.INVALID_AGENT_RESPONSE,
                f"The card at {url} is not an A2A {SPOKEN} card: {where}: {first['msg']}",
            ) from None

    def connect(self, id: str, card: AgentCard, *, card_url: str, trusted: bool) -> Agent:
        interface = card.interface()
        if interface is None:
            offered = ", ".join(f"{i.protocol_binding} {i.protocol_version}" for i in card.supported_interfaces)
            raise GatewayError(
                Reason.INVALID_AGENT_RESPONSE,
                f"The agent offers {offered or 'no interface at all'}; "
                f"this gateway speaks JSONRPC and HTTP+JSON {SPOKEN}",
            )
        # What the operator trusts is the origin they named; where its card points is somebody else's word.
        try:
            same = origin_of(interface.url) == origin_of(card_url)
        except BadUrl as error:
            raise GatewayError(Reason.EGRESS_REFUSED, f"The card's interface has no usable URL: {error}") from None
        refused = self._egress.rules.judge_url(interface.url, trusted=trusted and same)
        if refused is not None:
            raise GatewayError(Reason.EGRESS_REFUSED, refused)
        wire = WIRES[interface.version]
        return RemoteAgent(card, interface, wire, self._egress, trusted=trusted and same)
