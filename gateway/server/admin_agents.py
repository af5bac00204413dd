"""Agents in the admin API: which there are, and what the operator says about remote ones."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.core.administration import Catalogue, named
from gateway.core.gateway import Gateway
from gateway.core.registry import Registered, Source
from gateway.model.call import AddAgent, ChangeAgent, ListAgents, RemoveAgent
from gateway.model.errors import invalid
from gateway.model.ports import Balance, RemoteSettings
from gateway.model.principal import Principal
from gateway.model.provenance import CardKeys
from gateway.server.admin_json import json_answer, json_object, text
from gateway.server.cards import Cards

MAX_REPLICAS = 32
"""Further servers of one agent. Each card is read anew every five minutes."""


class AdminAgents:
    def __init__(self, gateway: Gateway, cards: Cards) -> None:
        self._gateway = gateway
        self._cards = cards

    async def list(self, request: Request, who: Principal) -> Response:
        catalogue: Catalogue = await self._gateway.handle(ListAgents(), who)
        return json_answer(
            {"agents": [self._shown(entry, entry.id in catalogue.shadowed) for entry in catalogue.agents]}
        )

    async def add(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, "cardUrl", "id", *_FIELDS)
        settings = RemoteSettings(**_settings(body))
        call = AddAgent(text(body, "cardUrl"), text(body, "id", required=False), settings)
        entry: Registered = await self._gateway.handle(call, who)
        return json_answer(self._shown(entry), 201)

    async def change(self, request: Request, who: Principal) -> Response:
        changes = _settings(await json_object(request, *_FIELDS))
        if not changes:
            raise invalid("body", "names nothing to change: replicas, balance, keys, keysUrl or requireSignature")
        entry: Registered = await self._gateway.handle(ChangeAgent(request.path_params["id"], changes), who)
        return json_answer(self._shown(entry))

    async def remove(self, request: Request, who: Principal) -> Response:
        await self._gateway.handle(RemoveAgent(request.path_params["id"]), who)
        return Response(status_code=204)

    def _shown(self, entry: Registered, shadowed: bool = False) -> dict[str, Any]:
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


def _endpoint(source: Source) -> dict[str, Any]:
    return {
        "cardUrl": source.url,
        "health": "healthy" if source.problem is None else "unhealthy",
        "reason": source.problem,
        "signature": None if source.taken is None else source.taken.verdict,
    }


def _settings(body: dict[str, Any]) -> dict[str, Any]:
    """Those fields of RemoteSettings that the body names. Raises INVALID_PARAMS."""
    read = {name: make(body[field]) for field, (name, make) in _FIELDS.items() if field in body}
    if body.keys() >= {"keys", "keysUrl"}:
        raise invalid("keysUrl", "cannot stand beside keys; give one of the two")
    return read


def _replicas(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_REPLICAS or not all(map(_is_address, value)):
        raise invalid("replicas", f"must be a list of at most {MAX_REPLICAS} http or https URLs")
    return tuple(value)


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _balance(value: Any) -> Balance:
    if value not in list(Balance):
        raise invalid("balance", f"must be {' or '.join(Balance)}")
    return Balance(value)


def _keys(value: Any) -> CardKeys | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
        raise invalid("keys", 'must be a JWK set, {"keys": [...]}, or null for none')
    return CardKeys(orjson.dumps(value))


def _keys_url(value: Any) -> CardKeys | None:
    if value is not None and not _is_address(value):
        raise invalid("keysUrl", "must be the http or https URL of a JWK set, or null for none")
    return None if value is None else CardKeys(url=value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise invalid("requireSignature", "must be true or false")
    return value


_FIELDS = {
    "replicas": ("replicas", _replicas),
    "balance": ("balance", _balance),
    "keys": ("card_keys", _keys),
    "keysUrl": ("card_keys", _keys_url),
    "requireSignature": ("require_signature", _flag),
}
