"""Finding remote agents: a card by its URL, and the agent behind a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from pydantic import ValidationError

import gateway.dialects.a2a_v03.upstream as wire_v03
import gateway.dialects.a2a_v1.upstream as wire_v1
from gateway.dialects.a2a_v03 import cards
from gateway.dialects.a2a_v1.cards import complete
from gateway.dialects.a2a_v1.upstream import Wire
from gateway.dialects.acp import manifests as acp
from gateway.model.agent import Agent
from gateway.model.card import GRPC, HTTP_JSON, JSONRPC, VERSIONS, AgentCard, AgentInterface
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Bells, Fetched
from gateway.model.provenance import CardKeys
from gateway.model.rows import Balance
from gateway.upstream.a2a import RemoteAgent
from gateway.upstream.acp import AcpAgent
from gateway.upstream.address import BadUrl, Origin, on_this_machine, origin_of
from gateway.upstream.cards import CardFetcher
from gateway.upstream.egress import Egress, Way
from gateway.upstream.httpx2_transport import control_client
from gateway.upstream.replicas import Endpoint, Replicas
from gateway.upstream.signatures import CardSignatures

if TYPE_CHECKING:
    from gateway.upstream.a2a_grpc import GrpcAgents

SPOKEN = " or ".join(VERSIONS)
WIRES: dict[str, Wire] = {"1.0": wire_v1, "0.3": wire_v03}


class RemoteDirectory:
    """`bells` are where agents can ring; `updates` says of agents of the file how they tell of their tasks."""

    def __init__(
        self,
        egress: Way,
        signatures: CardSignatures,
        bells: Bells | None = None,
        updates: Mapping[str, str] | None = None,
    ) -> None:
        self._egress = egress
        self._fetcher = CardFetcher(partial(control_client, egress))
        self._signatures = signatures
        self._bells = bells
        self._updates = updates or {}
        self._over_grpc: GrpcAgents | None = None

    async def fetch(
        self, url: str, *, etag: str | None, trusted: bool, keys: CardKeys | None = None, agent: str | None = None
    ) -> Fetched:
        try:
            found = await self._fetcher.fetch(url, etag=etag, trusted=trusted)
        except GatewayError as error:
            raise await self._perhaps_acp(url, error, trusted=trusted) from error
        if found.not_modified:
            return Fetched(None, b"", etag)
        looked = await self._signatures.look(found.tree, url, keys, trusted=trusted)
        try:
            plain = acp.card_tree(looked.card, found.final_url) if acp.is_manifest(looked.card) else looked.card
            tree = complete(cards.read(plain))
            card = AgentCard.model_validate(tree)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise GatewayError(
                Reason.INVALID_AGENT_RESPONSE,
                f"The card at {url} is not an A2A {SPOKEN} card: {where}: {first['msg']}",
            ) from None
        # What is kept is a card of the model's own version, so that reading it again needs no dialect.
        body = found.body if tree is found.tree else card.wire()
        return Fetched(card, body, found.etag, found.body, found.final_url, looked.findings)

    async def _perhaps_acp(self, url: str, error: GatewayError, *, trusted: bool) -> GatewayError:
        """Where there is no card: the addresses of the agents, if it is an ACP server that was meant."""
        if getattr(error, "status", None) != 404:
            return error
        listed = url.rstrip("/") + "/agents"
        try:
            found = await self._fetcher.fetch(listed, trusted=trusted)
        except GatewayError:
            return error
        addresses = acp.addresses(found.tree, found.final_url)
        if not addresses:
            return error
        some = ", ".join(addresses[:5]) + (", …" if len(addresses) > 5 else "")
        return GatewayError(Reason.INVALID_AGENT_RESPONSE, f"{url} is an ACP server; name one of its agents: {some}")

    def connect(self, id: str, card: AgentCard, *, card_url: str, trusted: bool) -> Agent:
        interfaces = self._usable(card)
        if not interfaces:
            offered = ", ".join(f"{i.protocol_binding} {i.protocol_version}" for i in card.supported_interfaces)
            raise GatewayError(
                Reason.INVALID_AGENT_RESPONSE,
                f"The agent offers {offered or 'no interface at all'}; "
                f"this gateway speaks {self._spoken()} {SPOKEN}, and ACP",
            )
        # One interface of each server: another binding of one that cannot be reached is no help.
        places: dict[Origin, Endpoint] = {}
        for interface in interfaces:
            try:
                place = _origin(interface, card_url)
                if place not in places:
                    places[place] = self._endpoint(id, card, interface, place, origin_of(card_url), trusted)
            except BadUrl as error:
                if not places:
                    what = f"The card's interface has no usable URL: {error}"
                    raise GatewayError(Reason.EGRESS_REFUSED, what) from None
            except GatewayError:
                if not places:
                    raise  # what the card prefers decides: its other words only stand in for it
        if len(places) == 1:
            return next(iter(places.values()))
        return Replicas(tuple(places.values()), None)

    def balance(self, agents: Sequence[Agent], how: Balance) -> Agent:
        return Replicas(cast(Sequence[Endpoint], agents), how)

    def _usable(self, card: AgentCard) -> tuple[AgentInterface, ...]:
        """The interfaces that we speak, the preferred one first. Only gRPC stands in for gRPC: it is a network stack of
        its own, which nobody needs who is called without it."""
        interfaces = card.interfaces()
        if interfaces and interfaces[0].protocol_binding == GRPC and self._grpc() is not None:
            return tuple(each for each in interfaces if each.protocol_binding == GRPC)
        spare = acp.interface(card)
        return card.interfaces((JSONRPC, HTTP_JSON)) or (() if spare is None else (spare,))

    def _endpoint(
        self, id: str, card: AgentCard, interface: AgentInterface, origin: Origin, named: Origin, trusted: bool
    ) -> Endpoint:
        # What the operator trusts is the origin they named; where its card points is somebody else's word.
        trusted = trusted and origin == named
        refused = self._egress.rules.judge_text(origin, trusted=trusted)
        if refused is not None:
            raise GatewayError(Reason.EGRESS_REFUSED, refused)
        if interface.protocol_binding == acp.BINDING:
            return AcpAgent(interface, self._egress, trusted=trusted)
        updates = self._updates.get(id, "stream")
        streams = updates == "stream"
        bells = self._bells if updates != "poll" and self._reaches_us(str(origin)) else None
        if interface.protocol_binding == GRPC and (grpc := self._grpc()) is not None:
            return grpc.agent(card, interface, origin, trusted=trusted, streams=streams, bells=bells)
        wire = WIRES[interface.version]
        return RemoteAgent(card, interface, wire, self._egress, trusted=trusted, streams=streams, bells=bells)

    def _reaches_us(self, url: str) -> bool:
        """A gateway that only this machine can call is out of reach for whoever is elsewhere."""
        return self._bells is not None and (not self._bells.local or on_this_machine(url))

    async def aclose(self) -> None:
        if self._over_grpc is not None:
            await self._over_grpc.aclose()

    def _grpc(self) -> GrpcAgents | None:
        """Agents over gRPC, where its packages are installed."""
        if not isinstance(self._egress, Egress):
            return None  # a way out that adds credentials adds them to HTTP requests: such an agent is called over JSON
        if self._over_grpc is None:
            try:
                # Imported at first use: a second network stack, and packages that are an extra.
                from gateway.upstream.a2a_grpc import GrpcAgents
            except ImportError:
                return None
            self._over_grpc = GrpcAgents(self._egress)
        return self._over_grpc

    def _spoken(self) -> str:
        if self._grpc() is not None:
            return "JSONRPC, HTTP+JSON and GRPC"
        return "JSONRPC and HTTP+JSON, and GRPC with the extra (pip install 'gateway[grpc]'),"


def _origin(interface: AgentInterface, card_url: str) -> Origin:
    """Where an interface leads to. gRPC's is `host:port` without a scheme (§4.4.6): with TLS if its card came so."""
    url = interface.url
    if interface.protocol_binding == GRPC and "://" not in url:
        url = f"{origin_of(card_url).scheme}://{url}"
    return origin_of(url)
