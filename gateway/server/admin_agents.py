"""Agents in the admin API: which there are, and what the operator says about remote ones."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

import orjson

from gateway.core.administration import Catalogue, named
from gateway.core.gateway import Gateway
from gateway.core.registry import Registered, Source
from gateway.model.errors import invalid
from gateway.model.operation import AddAgent, ChangeAgent, ListAgents, RemoveAgent
from gateway.model.principal import Principal
from gateway.model.provenance import CardKeys, Standing
from gateway.model.rows import Balance, RemoteSettings
from gateway.server.admin_fields import ABSENT, Field, Wrong, choice, flag, text
from gateway.server.admin_operation import Asked, Operation, Tree
from gateway.server.cards import Cards

MAX_REPLICAS = 32
"""Further servers of one agent. Each card is read anew every five minutes."""


class Endpoint(TypedDict):
    """`signature` is what the signatures of its card are worth."""

    cardUrl: str
    health: Literal["healthy", "unhealthy"]
    reason: str | None
    signature: Standing | None


class Agent(TypedDict):
    """`reason` says why it is unhealthy, `shadowed` that one of the configuration file hides it. `cardKeys` is where
    the keys are that may sign its card, or the SHA-256 of those that were given."""

    id: str
    kind: str
    health: Literal["healthy", "unhealthy"]
    reason: str | None
    public: bool
    shadowed: bool
    cardUrl: str | None
    endpoints: list[Endpoint]
    balance: Balance | None
    cardKeys: str | None
    requireSignature: bool
    card: Tree | None


class Agents(TypedDict):
    agents: list[Agent]


class AdminAgents:
    def __init__(self, gateway: Gateway, cards: Cards) -> None:
        self._gateway = gateway
        self._cards = cards

    def operations(self) -> tuple[Operation, ...]:
        named = (
            text("cardUrl", "Where its card is."),
            text("id", "What it is called here; made of its name without it.", required=False),
        )
        one = "/admin/agents/{id}"
        return (
            Operation("GET", "/admin/agents", ListAgents.verb, "List the agents", self.list, Agents),
            Operation(
                "POST",
                "/admin/agents",
                AddAgent.verb,
                "Add a remote agent",
                self.add,
                Agent,
                201,
                body=(*named, *_FIELDS),
            ),
            Operation(
                "PATCH",
                one,
                ChangeAgent.verb,
                "Change what was said about an agent",
                self.change,
                Agent,
                body=_FIELDS,
                least=1,
            ),
            Operation("DELETE", one, RemoveAgent.verb, "Remove an agent", self.remove),
        )

    async def list(self, asked: Asked, who: Principal) -> Agents:
        catalogue: Catalogue = await self._gateway.handle(ListAgents(), who)
        return {"agents": [self._shown(entry, entry.id in catalogue.shadowed) for entry in catalogue.agents]}

    async def add(self, asked: Asked, who: Principal) -> Agent:
        settings = RemoteSettings(**_settings(asked.body))
        call = AddAgent(asked.body["cardUrl"], asked.body["id"], settings)
        entry: Registered = await self._gateway.handle(call, who)
        return self._shown(entry)

    async def change(self, asked: Asked, who: Principal) -> Agent:
        entry: Registered = await self._gateway.handle(ChangeAgent(asked.path["id"], _settings(asked.body)), who)
        return self._shown(entry)

    async def remove(self, asked: Asked, who: Principal) -> None:
        await self._gateway.handle(RemoveAgent(asked.path["id"]), who)

    def _shown(self, entry: Registered, shadowed: bool = False) -> Agent:
        card = None if entry.card is None else orjson.Fragment(self._cards.card(entry))
        return {
            "id": entry.id,
            "kind": entry.kind,
            "health": "healthy" if entry.problem is None else "unhealthy",
            "reason": entry.problem,
            "public": entry.public,
            "shadowed": shadowed,
            "cardUrl": entry.card_url,
            "endpoints": [_endpoint(source) for source in entry.sources],
            "balance": entry.balance if len(entry.sources) > 1 else None,
            "cardKeys": named(entry.card_keys),
            "requireSignature": entry.require_signature or entry.card_keys is not None,
            "card": card,
        }


def _endpoint(source: Source) -> Endpoint:
    return {
        "cardUrl": source.url,
        "health": "healthy" if source.problem is None else "unhealthy",
        "reason": source.problem,
        "signature": None if source.taken is None else source.taken.verdict,
    }


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    """Those fields of RemoteSettings that the body names. Raises INVALID_PARAMS."""
    if body.keys() >= {"keys", "keysUrl"}:
        raise invalid("keysUrl", "cannot stand beside keys; give one of the two")
    return {name: body[field] for field, name in _SETTINGS.items() if field in body}


def _replicas(sent: Any) -> tuple[str, ...]:
    if not isinstance(sent, list) or len(sent) > MAX_REPLICAS or not all(map(_is_address, sent)):
        raise Wrong(f"must be a list of at most {MAX_REPLICAS} http or https URLs")
    return tuple(sent)


def _is_address(sent: Any) -> bool:
    return isinstance(sent, str) and sent.startswith(("http://", "https://"))


def _keys(sent: Any) -> CardKeys | None:
    if sent is None:
        return None
    if not isinstance(sent, dict) or not isinstance(sent.get("keys"), list):
        raise Wrong('must be a JWK set, {"keys": [...]}, or null for none')
    return CardKeys(orjson.dumps(sent))


def _keys_url(sent: Any) -> CardKeys | None:
    if sent is not None and not _is_address(sent):
        raise Wrong("must be the http or https URL of a JWK set, or null for none")
    return None if sent is None else CardKeys(url=sent)


_ADDRESS = {"type": "string", "pattern": "^https?://"}
_JWKS = {"type": ["object", "null"], "required": ["keys"], "properties": {"keys": {"type": "array"}}}
_SETTINGS = {
    "replicas": "replicas",
    "balance": "balance",
    "keys": "card_keys",
    "keysUrl": "card_keys",
    "requireSignature": "require_signature",
}
_FIELDS = (
    Field(
        "replicas",
        "The cards of further servers that are the same agent.",
        {"type": "array", "items": _ADDRESS, "maxItems": MAX_REPLICAS},
        _replicas,
        default=ABSENT,
    ),
    choice("balance", "Which of them gets a new message.", Balance, required=False, default=ABSENT),
    Field("keys", "The keys that may sign its card, a JWK set; null for none.", _JWKS, _keys, default=ABSENT),
    Field(
        "keysUrl",
        "Where these keys are; null for none.",
        {"type": ["string", "null"], "pattern": "^https?://"},
        _keys_url,
        default=ABSENT,
    ),
    flag("requireSignature", "Whether its card must be signed.", ABSENT),
)
