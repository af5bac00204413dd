"""Cards in the admin API: what came, what its signatures are worth, what is served and why it differs."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.core.gateway import Gateway
from gateway.core.registry import Registered, Source
from gateway.dialects.a2a_v1.cards import differences
from gateway.dialects.strict_json import read
from gateway.model.base import timestamp
from gateway.model.call import AcceptCard, ShowCard, VerifyCard
from gateway.model.errors import invalid
from gateway.model.principal import Principal
from gateway.model.provenance import CardRecord, Finding
from gateway.server.admin_json import json_answer, json_object, text
from gateway.server.cards import Cards


class AdminCards:
    def __init__(self, gateway: Gateway, cards: Cards) -> None:
        self._gateway = gateway
        self._cards = cards

    async def show(self, request: Request, who: Principal) -> Response:
        entry: Registered = await self._gateway.handle(ShowCard(request.path_params["id"]), who)
        return json_answer(self._shown(entry))

    async def accept(self, request: Request, who: Principal) -> Response:
        entry: Registered = await self._gateway.handle(AcceptCard(request.path_params["id"]), who)
        return json_answer(self._shown(entry))

    async def verify(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, "cardUrl", "keys")
        keys = body.get("keys")
        if keys is not None and not isinstance(keys, dict):
            raise invalid("keys", "must be a JWK set, an object")
        call = VerifyCard(text(body, "cardUrl"), None if keys is None else orjson.dumps(keys))
        return json_answer(_record(await self._gateway.handle(call, who)))

    def _shown(self, entry: Registered) -> dict[str, Any]:
        served = None if entry.card is None else self._cards.card(entry)
        return {
            "agent": entry.id,
            "kind": entry.kind,
            "requireSignature": entry.require_signature or entry.card_keys is not None,
            "received": [_source(source) for source in entry.sources],
            "served": None if served is None else orjson.Fragment(served),
            "differences": _differences(entry, served),
        }


def _source(source: Source) -> dict[str, Any]:
    taken = {} if source.taken is None else _record(source.taken)
    refused = None if source.refused is None else _record(source.refused)
    return {"cardUrl": source.url, "reason": source.problem, **taken, "refused": refused}


def _record(card: CardRecord) -> dict[str, Any]:
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


def _finding(finding: Finding) -> dict[str, Any]:
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
