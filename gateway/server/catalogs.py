"""The catalogue for programs that look for agents: RFC 9727's api-catalog, an AI Catalog, and a search.

All three show what the caller may see, and nothing else. https://agent-card.github.io/ai-card/ is where the AI Catalog
is described; it is a draft, and its entries name our cards by URL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.finding import DEFAULT_RESULTS, Finder, Found
from gateway.core.gateway import Gateway
from gateway.core.registry import Registered
from gateway.dialects.strict_json import write
from gateway.model.base import timestamp
from gateway.model.card import AgentCard
from gateway.model.errors import invalid
from gateway.server.cards import PRIVATE_CACHE, WELL_KNOWN, Cards, conditional

API_CATALOG = "/.well-known/api-catalog"
AI_CATALOG = "/.well-known/ai-catalog.json"
_LINKSET = 'application/linkset+json; profile="https://www.rfc-editor.org/info/rfc9727"'
_AI = "application/ai-catalog+json"
MAX_TAGS = 20  # of one entry: for a first choice, the card has them all


class Catalogs:
    def __init__(self, gateway: Gateway, cards: Cards, public_url: str) -> None:
        self._gateway = gateway
        self._cards = cards
        self._url = public_url.rstrip("/")
        self._finder = Finder()

    def routes(self) -> list[Route]:
        return [
            Route(API_CATALOG, self.api_catalog, methods=["GET"]),
            Route(AI_CATALOG, self.ai_catalog, methods=["GET"]),
            Route("/agents:find", self.find, methods=["GET"]),
        ]

    async def api_catalog(self, request: Request) -> Response:
        entries, here = self._cards.visible(await self._cards.caller(request)), self._url + API_CATALOG
        items = [{"href": self._agent(entry), "title": _name(entry)} for entry in entries]
        linkset = [{"anchor": here, "item": items}, *(self._links(entry) for entry in entries)]
        # §3.1: HEAD says by a Link header that this is the catalogue.
        return _answer(request, {"linkset": linkset}, _LINKSET, {"link": f'<{here}>; rel="api-catalog"'})

    async def ai_catalog(self, request: Request) -> Response:
        who = await self._cards.caller(request)
        entries = [self._entry(entry, self._gateway.card(who, entry)) for entry in self._cards.visible(who)]
        host = {"displayName": urlsplit(self._url).netloc}
        catalog = {"specVersion": "1.0", "host": host, "entries": entries}
        return _answer(request, catalog, _AI, {})

    async def find(self, request: Request) -> Response:
        """`query` in a few words, at most `limit` agents."""
        query, limit = request.query_params.get("query", ""), request.query_params.get("limit", str(DEFAULT_RESULTS))
        if not limit.isdecimal() or len(limit) > 6:
            raise invalid("limit", "must be a number")
        who = await self._cards.caller(request)
        cards = {entry.id: self._gateway.card(who, entry) for entry in self._cards.visible(who)}
        every: Sequence[Registered] = tuple(self._gateway.registry.all())
        found = self._finder.find(every, cards, query, int(limit))
        return _answer(request, {"agents": [self._found(each) for each in found]}, "application/json", {})

    def _links(self, entry: Registered) -> dict[str, Any]:
        links: dict[str, Any] = {
            "anchor": self._agent(entry),
            "service-desc": [{"href": self._card(entry), "type": "application/json"}],
            "status": [{"href": self._url + "/readyz", "type": "application/json"}],
        }
        assert entry.card is not None
        documentation = entry.card.documentation_url
        if documentation and documentation.lower().startswith(("https://", "http://")):
            links["service-doc"] = [{"href": documentation}]
        return links

    def _entry(self, entry: Registered, card: AgentCard) -> dict[str, Any]:
        tags = list(dict.fromkeys(tag for skill in card.skills for tag in skill.tags))
        return {
            "identifier": self._identifier(entry),
            "displayName": _name(entry),
            "type": "application/a2a-agent-card+json",
            "url": self._card(entry),
            "description": card.description,
            "tags": tags[:MAX_TAGS],
            "version": card.version,
            "updatedAt": timestamp(entry.changed),
        }

    def _identifier(self, entry: Registered) -> str:
        """A name under our domain; where we have none, the agent's address."""
        host = urlsplit(self._url).hostname or ""
        domain = "." in host and not host.rpartition(".")[2].isdigit()
        return f"urn:air:{host}:agent:{entry.id}" if domain else self._agent(entry)

    def _found(self, found: Found) -> dict[str, Any]:
        card = found.entry.card
        assert card is not None
        return {
            "id": found.entry.id,
            "name": card.name,
            "description": card.description,
            "cardUrl": self._card(found.entry),
            "skills": [
                {"id": skill.id, "name": skill.name, "description": skill.description} for skill in found.skills
            ],
        }

    def _agent(self, entry: Registered) -> str:
        return f"{self._url}/agents/{entry.id}"

    def _card(self, entry: Registered) -> str:
        return self._agent(entry) + WELL_KNOWN


def _name(entry: Registered) -> str:
    assert entry.card is not None
    return entry.card.name


def _answer(request: Request, tree: dict[str, Any], media_type: str, headers: dict[str, str]) -> Response:
    body = write(tree)
    kept = {"cache-control": PRIVATE_CACHE, "vary": "Authorization", **headers}
    return conditional(request, body, f'"{hashlib.sha256(body).hexdigest()[:32]}"', kept, media_type)
