"""Finding remote agents: a card by its URL, and the agent behind a card."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

import gateway.dialects.a2a_v03.upstream as wire_v03
import gateway.dialects.a2a_v1.upstream as wire_v1
from gateway.dialects.a2a_v03 import cards
from gateway.dialects.a2a_v1.upstream import Wire
from gateway.dialects.acp import manifests as acp
from gateway.model.agent import Agent
from gateway.model.card import VERSIONS, AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Bells, Fetched
from gateway.upstream.a2a import RemoteAgent
from gateway.upstream.acp import AcpAgent
from gateway.upstream.address import BadUrl, on_this_machine, origin_of
from gateway.upstream.cards import CardFetcher
from gateway.upstream.egress import Egress

SPOKEN = " or ".join(VERSIONS)
WIRES: dict[str, Wire] = {"1.0": wire_v1, "0.3": wire_v03}


class RemoteDirectory:
    """`bells` are where agents can ring; `updates` says of agents of the file how they tell of their tasks."""

    def __init__(
        self, egress: Egress, fetcher: CardFetcher, bells: Bells | None = None, updates: Mapping[str, str] | None = None
    ) -> None:
        self._egress = egress
        self._fetcher = fetcher
        self._bells = bells
        self._updates = updates or {}

    async def fetch(self, url: str, *, etag: str | None, trusted: bool) -> Fetched:
        found = await self._fetcher.fetch(url, etag=etag, trusted=trusted)
        if found.not_modified:
            return Fetched(None, b"", etag)
        try:
            plain = acp.card_tree(found.tree, found.final_url) if acp.is_manifest(found.tree) else found.tree
            tree = cards.read(plain)
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
        interface = card.interface() or acp.interface(card)
        if interface is None:
            offered = ", ".join(f"{i.protocol_binding} {i.protocol_version}" for i in card.supported_interfaces)
            raise GatewayError(
                Reason.INVALID_AGENT_RESPONSE,
                f"The agent offers {offered or 'no interface at all'}; "
                f"this gateway speaks JSONRPC and HTTP+JSON {SPOKEN}, and ACP",
            )
        # What the operator trusts is the origin they named; where its card points is somebody else's word.
        try:
            same = origin_of(interface.url) == origin_of(card_url)
        except BadUrl as error:
            raise GatewayError(Reason.EGRESS_REFUSED, f"The card's interface has no usable URL: {error}") from None
        refused = self._egress.rules.judge_url(interface.url, trusted=trusted and same)
        if refused is not None:
            raise GatewayError(Reason.EGRESS_REFUSED, refused)
        if interface.protocol_binding == acp.BINDING:
            return AcpAgent(interface, self._egress, trusted=trusted and same)
        wire = WIRES[interface.version]
        updates = self._updates.get(id, "stream")
        return RemoteAgent(
            card, interface, wire, self._egress, trusted=trusted and same,
            streams=updates == "stream",
            bells=self._bells if updates != "poll" and self._reaches_us(interface.url) else None,
        )  # fmt: skip

    def _reaches_us(self, url: str) -> bool:
        """A gateway that only this machine can call is out of reach for whoever is elsewhere."""
        return self._bells is not None and (not self._bells.local or on_this_machine(url))
