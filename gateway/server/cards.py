"""Discovery: each agent's card, the default agent's at the host root, and the catalogue (A2A §8.2, §8.6)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.gateway import Gateway
from gateway.core.registry import Registered
from gateway.dialects.a2a_v03.cards import also
from gateway.dialects.a2a_v1.cards import published
from gateway.model.card import VERSION, AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import ANONYMOUS, Principal
from gateway.server.auth import Authenticator

# Minutes, not hours: an agent's new skill should be found soon, and a conditional request costs nothing.
PUBLIC_CACHE = "public, max-age=300"
PRIVATE_CACHE = "private, max-age=60"
WELL_KNOWN = "/.well-known/agent-card.json"
OLDER_WELL_KNOWN = "/.well-known/agent.json"  # its name until 0.2, where many clients still look


@dataclass(frozen=True, slots=True)
class _Served:
    source: AgentCard
    body: bytes
    etag: str
    modified: str


class Cards:
    """Cards as they are served, written once per version of the agent's own card."""

    def __init__(
        self,
        gateway: Gateway,
        auth: Authenticator,
        *,
        public_url: str,
        default_agent: str | None,
        anonymous: bool,
        grpc: str | None = None,
    ) -> None:
        self._gateway = gateway
        self._auth = auth
        self._url = public_url.rstrip("/")
        self._default = default_agent
        self._anonymous = anonymous
        self._grpc = grpc  # host:port, where gRPC is served
        self._served: dict[tuple[str, bool], _Served] = {}

    def routes(self) -> list[Route]:
        return [
            *(Route(path, self.root, methods=["GET"]) for path in (WELL_KNOWN, OLDER_WELL_KNOWN)),
            Route("/agents", self.catalogue, methods=["GET"]),
            *(Route("/agents/{id}" + path, self.one, methods=["GET"]) for path in (WELL_KNOWN, OLDER_WELL_KNOWN)),
        ]

    async def root(self, request: Request) -> Response:
        if self._default is None:
            raise GatewayError(Reason.NOT_FOUND, "No default agent is configured; see /agents for the catalogue")
        return await self._answer(request, self._default)

    async def one(self, request: Request) -> Response:
        return await self._answer(request, request.path_params["id"])

    async def catalogue(self, request: Request) -> Response:
        """The cards of the agents that the caller may see."""
        who = await self._who(request)
        entries = [entry for entry in self._gateway.registry.all() if self._gateway.may_see(who, entry)]
        bodies = [self.card(entry).wire() for entry in entries if entry.card is not None]
        body = b'{"agents":[' + b",".join(bodies) + b"]}"
        headers = {"cache-control": PRIVATE_CACHE, "vary": "Authorization"}
        return _conditional(request, body, hashlib.sha256(body).hexdigest()[:32], headers)

    def card(self, entry: Registered, *, older: bool = True) -> AgentCard:
        """The card of one agent with this gateway's doors in it; with `older`, for clients of 0.3 as well."""
        assert entry.card is not None
        return self._published(entry, entry.card, older)

    def extended(self, entry: Registered, *, older: bool = True) -> AgentCard:
        assert entry.extended is not None
        return self._published(entry, entry.extended, older)

    def _published(self, entry: Registered, card: AgentCard, older: bool) -> AgentCard:
        url = f"{self._url}/agents/{entry.id}"
        shown = published(
            card,
            url,
            streaming=entry.streaming,
            pushes=entry.pushes,
            extended=entry.extended is not None,
            anonymous=self._anonymous,
            tenants=entry.tenants,
            grpc=None if self._grpc is None else (self._grpc, self._words(entry)),
        )
        # 0.3 has no word that could name an agent on a port for many.
        return also(shown, url, fields=older, grpc=self._grpc if entry.id == self._default else None)

    def _words(self, entry: Registered) -> tuple[str, ...]:
        """What stands in `tenant` where one port serves all agents (a2a_grpc.py); the default agent needs no word."""
        own = "" if entry.id == self._default else entry.id
        return (own, *(f"{entry.id}/{tenant}" for tenant in entry.tenants))

    async def _answer(self, request: Request, id: str) -> Response:
        entry = self._gateway.find(id, await self._who(request))
        if entry.card is None:
            entry.ready()
            raise GatewayError(Reason.UNAVAILABLE, f"The card of agent {id} was not read yet", retry_after=5)
        older = not _says_1_0(request)
        served = self._served.get((id, older))
        if served is None or served.source is not entry.card:
            body = self.card(entry, older=older).wire()
            modified = formatdate(entry.changed / 1000, usegmt=True)
            served = _Served(entry.card, body, hashlib.sha256(body).hexdigest()[:32], modified)
            self._served[id, older] = served
        cache = PUBLIC_CACHE if entry.public else PRIVATE_CACHE
        headers = {"cache-control": cache, "last-modified": served.modified, "vary": "Authorization, A2A-Version"}
        return _conditional(request, served.body, served.etag, headers)

    async def _who(self, request: Request) -> Principal:
        """Public agents' cards are open without a credential; a wrong credential is refused all the same."""
        headers = dict(request.scope["headers"])
        if b"authorization" not in headers:
            return ANONYMOUS
        return await self._auth.principal(headers, request.scope["path"])


def _says_1_0(request: Request) -> bool:
    """Who says that it speaks 1.0 gets a card without 0.3's fields, for readers that take no unknown ones. Nothing
    said means 0.3 (§3.6.2), and is what nearly everybody says: one card for both."""
    asked = request.headers.get("a2a-version") or request.query_params.get("A2A-Version") or ""
    return ".".join(asked.split(".")[:2]) == VERSION


def _conditional(request: Request, body: bytes, etag: str, headers: dict[str, str]) -> Response:
    """200 or 304, by ETag first and by date only without one (RFC 9110 §13.2.2)."""
    headers = {**headers, "etag": f'"{etag}"'}
    asked = request.headers.get("if-none-match")
    if asked is not None:
        tags = {tag.strip().removeprefix("W/") for tag in asked.split(",")}
        unchanged = f'"{etag}"' in tags or "*" in tags
    else:
        since = _date(request.headers.get("if-modified-since"))
        changed = _date(headers.get("last-modified"))
        unchanged = since is not None and changed is not None and changed <= since
    if unchanged:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


def _date(text: str | None) -> datetime | None:
    """An HTTP date; None where there is none or it cannot be read (RFC 9110 §13.1.3: as if it were not there)."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return moment if moment.tzinfo is not None else None
