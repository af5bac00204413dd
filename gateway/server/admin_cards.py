"""Cards in the admin API: what came, what its signatures are worth, what is served and why it differs."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import orjson

from gateway.core.gateway import Gateway
from gateway.core.registry import Registered, Source
from gateway.dialects.a2a_v1.cards import differences
from gateway.dialects.strict_json import read
from gateway.model.base import timestamp
from gateway.model.operation import AcceptCard, ShowCard, VerifyCard
from gateway.model.principal import Principal
from gateway.model.provenance import CardRecord, Finding, Standing
from gateway.server.admin_fields import Field, Wrong, text
from gateway.server.admin_operation import Asked, Moment, Operation, Tree
from gateway.server.cards import Cards


class Signature(TypedDict):
    """`form` is the spelling of the card that it fits."""

    verdict: Standing
    says: str
    kid: str | None
    alg: str | None
    jku: str | None
    form: str | None


class Card(TypedDict):
    """A card as it came. `changed` is when it last said something else than before."""

    cardUrl: str
    source: str
    fetched: Moment
    changed: Moment | None
    changes: list[str]
    verdict: Standing
    signatures: list[Signature]
    card: Tree


class Received(TypedDict):
    """What one place had to say: the card that was taken, if one was, `reason`, why none can be read now, and a later
    one that was `refused`."""

    cardUrl: str
    reason: str | None
    source: NotRequired[str]
    fetched: NotRequired[Moment]
    changed: NotRequired[Moment | None]
    changes: NotRequired[list[str]]
    verdict: NotRequired[Standing]
    signatures: NotRequired[list[Signature]]
    card: NotRequired[Tree]
    refused: Card | None


class AgentCards(TypedDict):
    """`differences` has the fields of the card that is served otherwise than it came, and why."""

    agent: str
    kind: str
    requireSignature: bool
    received: list[Received]
    served: Tree | None
    differences: dict[str, str]


class AdminCards:
    def __init__(self, gateway: Gateway, cards: Cards) -> None:
        self._gateway = gateway
        self._cards = cards

    def operations(self) -> tuple[Operation, ...]:
        fields = (
            text("cardUrl", "Where the card is."),
            Field("keys", "A JWK set: only these keys count.", {"type": ["object", "null"]}, _keys),
        )
        one = "/admin/cards/{id}"
        verify, show = "Check a card's signatures", "Show an agent's card: as it came and as it is served"
        accept = "Take an agent's card as it is now"
        return (
            Operation("POST", "/admin/cards:verify", VerifyCard.verb, verify, self.verify, Card, body=fields),
            Operation("POST", one + ":accept", AcceptCard.verb, accept, self.accept, AgentCards),
            Operation("GET", one, ShowCard.verb, show, self.show, AgentCards),
        )

    async def show(self, asked: Asked, who: Principal) -> AgentCards:
        entry: Registered = await self._gateway.handle(ShowCard(asked.path["id"]), who)
        return self._shown(entry)

    async def accept(self, asked: Asked, who: Principal) -> AgentCards:
        entry: Registered = await self._gateway.handle(AcceptCard(asked.path["id"]), who)
        return self._shown(entry)

    async def verify(self, asked: Asked, who: Principal) -> Card:
        return _record(await self._gateway.handle(VerifyCard(asked.body["cardUrl"], asked.body["keys"]), who))

    def _shown(self, entry: Registered) -> AgentCards:
        served = None if entry.card is None else self._cards.card(entry)
        return {
            "agent": entry.id,
            "kind": entry.kind,
            "requireSignature": entry.require_signature or entry.card_keys is not None,
            "received": [_source(source) for source in entry.sources],
            "served": None if served is None else orjson.Fragment(served),
            "differences": _differences(entry, served),
        }


def _keys(sent: Any) -> bytes | None:
    if sent is not None and not isinstance(sent, dict):
        raise Wrong("must be a JWK set, an object")
    return None if sent is None else orjson.dumps(sent)


def _source(source: Source) -> Received:
    refused = None if source.refused is None else _record(source.refused)
    if source.taken is None:
        return {"cardUrl": source.url, "reason": source.problem, "refused": refused}
    return {**_record(source.taken), "reason": source.problem, "refused": refused}


def _record(card: CardRecord) -> Card:
    return {
        "cardUrl": card.card_url,
        "source": card.source,
        "fetched": timestamp(card.fetched),
        "changed": timestamp(card.changed) if card.changed else None,
        "changes": list(card.changes),
        "verdict": card.verdict,
        "signatures": [_finding(finding) for finding in card.findings],
        "card": orjson.Fragment(card.body),
    }


def _finding(finding: Finding) -> Signature:
    return {
        "verdict": finding.verdict,
        "says": finding.says,
        "kid": finding.kid,
        "alg": finding.alg,
        "jku": finding.jku,
        "form": finding.form,
    }


def _differences(entry: Registered, served: bytes | None) -> dict[str, str]:
    taken = next((source.taken for source in entry.sources if source.taken is not None), None)
    if served is None or taken is None:
        return {}
    received, shown = read(taken.body), read(served)
    assert isinstance(received, dict)
    assert isinstance(shown, dict)
    return differences(received, shown)
