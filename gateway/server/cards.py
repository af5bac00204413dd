"""Discovery: each agent's card, the default agent's at the host root, and the catalogue (A2A §8.2, §8.4, §8.6).

What is served is always made here (`published.py`), with the gateway's signature: the signature that an agent's card
brought would fit nothing any more.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.gateway import Gateway
from gateway.core.registry import Registered
from gateway.model.card import VERSION, AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import ANONYMOUS, Principal
from gateway.server.auth import Authenticator
from gateway.server.published import PublishedCards
from gateway.server.request import peer_of

# Minutes, not hours: an agent's new skill should be found soon, and a conditional request costs nothing.
PUBLIC_CACHE = "public, max-age=300"
PRIVATE_CACHE = "private, max-age=60"
WELL_KNOWN = "/.well-known/agent-card.json"
OLDER_WELL_KNOWN = "/.well-known/agent.json"  # its name until 0.2, where many clients still look
KEYS = "/.well-known/agent-card-keys.json"


class Cards:
    """Cards as they are served."""

    def __init__(
        self, gateway: Gateway, auth: Authenticator, made: PublishedCards, *, default_agent: str | None
    ) -> None:
        self._gateway = gateway
        self._auth = auth
        self._made = made
        self._default = default_agent

    def routes(self) -> list[Route]:
        return [
            *(Route(path, self.root, methods=["GET"]) for path in (WELL_KNOWN, OLDER_WELL_KNOWN)),
            Route(KEYS, self.keys, methods=["GET"]),
            Route("/agents", self.catalogue, methods=["GET"]),
            *(Route("/agents/{id}" + path, self.one, methods=["GET"]) for path in (WELL_KNOWN, OLDER_WELL_KNOWN)),
        ]

    async def root(self, request: Request) -> Response:
        if self._default is None:
            raise GatewayError(Reason.NOT_FOUND, "No default agent is configured; see /agents for the catalogue")
        return await self._answer(request, self._default)

    async def one(self, request: Request) -> Response:
        return await self._answer(request, request.path_params["id"])

    async def keys(self, request: Request) -> Response:
        """The public keys of our signatures, as a JWK set (RFC 7517 §5)."""
        signer = self._made.signer
        if signer is None:
            raise GatewayError(Reason.NOT_FOUND, "This gateway does not sign cards (cards.sign)")
        return Response(signer.published(), media_type="application/json", headers={"cache-control": PUBLIC_CACHE})

    async def catalogue(self, request: Request) -> Response:
        """The cards of the agents that the caller may see."""
        await self._made.look()
        who = await self.caller(request)
        shown = [self._made.card(entry, self._gateway.card(who, entry)) for entry in self.visible(who)]
        body = b'{"agents":[' + b",".join(each.body for each in shown) + b"]}"
        tag = hashlib.sha256("".join(each.tag for each in shown).encode()).hexdigest()[:32]
        headers = {"cache-control": PRIVATE_CACHE, "vary": "Authorization"}
        return conditional(request, body, f'W/"{tag}"', headers)

    def visible(self, who: Principal) -> list[Registered]:
        """The agents that the caller may see and whose cards are known."""
        every = self._gateway.registry.all()
        return [entry for entry in every if entry.card is not None and self._gateway.may_see(who, entry)]

    def card(self, entry: Registered) -> bytes:
        """The whole card of one agent with this gateway's doors in it."""
        assert entry.card is not None
        return self._made.card(entry, entry.card).body

    def extended(self, entry: Registered, who: Principal, *, older: bool = True) -> AgentCard:
        """The extended card of one agent, with the skills that the caller may use."""
        assert entry.extended is not None
        skills = frozenset(
            skill.id for skill in entry.extended.skills if self._gateway.may_use_skill(who, entry, skill.id)
        )
        return self._made.extended(entry, skills, older=older)

    async def _answer(self, request: Request, id: str) -> Response:
        who = await self.caller(request)
        entry = self._gateway.find(id, who)
        if entry.card is None:
            entry.ready()
            raise GatewayError(Reason.UNAVAILABLE, f"The card of agent {id} was not read yet", retry_after=5)
        await self._made.look()
        card = self._gateway.card(who, entry)
        made = self._made.card(entry, card, older=not _says_1_0(request))
        headers = {"cache-control": PRIVATE_CACHE, "vary": "Authorization, A2A-Version"}
        if card is entry.card:  # what a caller sees of one changes with the rules, at no time that the card knows
            headers["last-modified"] = formatdate(made.changed / 1000, usegmt=True)
            headers["cache-control"] = PUBLIC_CACHE if entry.public else PRIVATE_CACHE
        return conditional(request, made.body, made.tag, headers)

    async def caller(self, request: Request) -> Principal:
        """Public agents' cards are open without a credential; a wrong credential is refused all the same."""
        headers = dict(request.scope["headers"])
        if b"authorization" not in headers:
            return ANONYMOUS
        return await self._auth.principal(headers, request.scope["path"], request.method, peer_of(request.scope))


def _says_1_0(request: Request) -> bool:
    """Who says that it speaks 1.0 gets a card without 0.3's fields, for readers that take no unknown ones. Nothing
    said means 0.3 (§3.6.2), and is what nearly everybody says: one card for both."""
    asked = request.headers.get("a2a-version") or request.query_params.get("A2A-Version") or ""
    return ".".join(asked.split(".")[:2]) == VERSION


def conditional(
    request: Request, body: bytes, tag: str, headers: dict[str, str], media_type: str = "application/json"
) -> Response:
    """200 or 304, by ETag first and by date only without one (RFC 9110 §13.2.2); tags compare weakly (§8.8.3.2)."""
    headers = {**headers, "etag": tag}
    asked = request.headers.get("if-none-match")
    if asked is not None:
        tags = {each.strip().removeprefix("W/") for each in asked.split(",")}
        unchanged = tag.removeprefix("W/") in tags or "*" in tags
    else:
        since = _date(request.headers.get("if-modified-since"))
        changed = _date(headers.get("last-modified"))
        unchanged = since is not None and changed is not None and changed <= since
    if unchanged:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def _date(text: str | None) -> datetime | None:
    """An HTTP date; None where there is none or it cannot be read (RFC 9110 §13.1.3: as if it were not there)."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None
