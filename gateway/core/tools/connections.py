"""A caller's own authorization at a tool server: the link that it is sent to, and what comes back from there.

The link is sealed for one caller and one server, and opens nothing by itself: whoever follows it shows the caller's own
credential first. Otherwise a link that its owner passes on would collect another person's authorization (2026-07-28,
client/elicitation: the person who goes there must be the one who was asked).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from urllib.parse import parse_qs, quote, urlsplit

from gateway.core.audit import Recorder, Ticket
from gateway.core.tools.servers import Served, Servers
from gateway.core.tools.state import Sealer
from gateway.model.asking import ELICIT, ELICITED, lacking
from gateway.model.audit import Decision, Verdict
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.principal import Kind, Principal
from gateway.model.tool import Accounts, Caller, PeerError, Tree
from gateway.model.value import value

LINK_MS = 900_000  # a person reads the message, finds the credential and decides; a new call gives a new link
VISIT_MS = 600_000  # from the gateway's page to the answer of the authorization server
MAX_VISITS = 1_000  # people who are on their way, in all; the one who left first is forgotten first
MAX_WAITING = 1_000  # sessions that are told when somebody has been there

URL_ELICITATION = -32042  # 2025-11-25: the request can go on once the user has been at these URLs
CONNECT, CONNECTED = "/oauth/connect", "/oauth/connected"

_OWN = Decision(Verdict.PASS, "own-authorization", "everybody decides about an authorization of their own")


class ConnectNeeded(GatewayError):
    """The caller has not authorized the gateway at this server, or not for enough. `url` is where that is done."""

    def __init__(self, server: str, owner: str, url: str, why: str) -> None:
        super().__init__(
            Reason.UNAVAILABLE,
            f"{why} of your own: open {url} in a browser and call again",
            metadata={"delivered": "no", "connect": url},
        )
        self.server = server
        self.owner = owner
        self.url = url

    @property
    def visit(self) -> Tree:
        """Parameters of an elicitation in URL mode."""
        return {"mode": "url", "message": f"Let the gateway use {self.server} in your name", "url": self.url}


@value
class Visit:
    """Somebody between the gateway's page and the authorization server. `browser` is the hash of what only that
    browser knows."""

    served: Served
    who: Principal
    browser: bytes
    since: int


class Connections:
    """`url` is the gateway's own, without a slash at its end."""

    def __init__(
        self,
        servers: Servers,
        sealer: Sealer,
        recorder: Recorder,
        now: Callable[[], int],
        new_id: Callable[[], str],
        url: str,
    ) -> None:
        self._servers = servers
        self._sealer = sealer
        self._recorder = recorder
        self._now = now
        self._new_id = new_id
        self._url = url
        self._visits: dict[str, Visit] = {}
        self._waiting: dict[str, tuple[str, str, Caller]] = {}  # elicitation id -> server, owner, whom to tell

    # For a call.

    def needed(self, served: Served, who: Principal, error: GatewayError) -> GatewayError:
        """What a call for which somebody has to log in is answered with."""
        owner = owner_of(who)
        ticket = self._sealer.seal({"s": served.id, "o": owner, "e": self._now() + LINK_MS})
        why = str(error.metadata.get("why", f"{served.id} needs an authorization"))
        return ConnectNeeded(served.id, owner, f"{self._url}{CONNECT}?ticket={quote(ticket)}", why)

    def refusal(self, needed: ConnectNeeded, caller: Caller) -> GatewayError:
        """The same for a caller with a session: with the URL as data, and word when somebody has been there, if it
        knows such a thing."""
        if not takes_urls(caller):
            return needed
        id = self._new_id()
        self._waiting[id] = (needed.server, needed.owner, caller)
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        return PeerError(URL_ELICITATION, needed.message, {"elicitations": [{**needed.visit, "elicitationId": id}]})

    # For a person.

    def server(self, ticket: str) -> str:
        """The server that a link is for. Raises INVALID_PARAMS for a link that is none, or too old."""
        return self._opened(ticket)[0].id

    async def begin(self, ticket: str, who: Principal, browser: str) -> str:
        """The URL where `who` says yes. `browser` is a word that only the person's browser will show again. Raises
        PERMISSION_DENIED when the link is for somebody else."""
        served, owner = self._opened(ticket)
        if owner != owner_of(who):
            self._note(who, "ConnectServer", served.id, Reason.PERMISSION_DENIED)
            raise GatewayError(Reason.PERMISSION_DENIED, "This link is for another caller of the gateway")
        accounts = _accounts(served)
        try:
            url = await accounts.login(owner).begin(f"{self._url}{CONNECTED}")
        except GatewayError as error:
            self._note(who, "ConnectServer", served.id, error.reason)
            raise
        state = parse_qs(urlsplit(url).query).get("state", [""])[-1]
        self._visits[state] = Visit(served, who, _hash(browser), self._now())
        if len(self._visits) > MAX_VISITS:
            del self._visits[next(iter(self._visits))]
        self._note(who, "ConnectServer", served.id, "ok")
        return url

    async def finish(self, response: str, browser: str) -> str:
        """Take the answer: the redirect URI as the browser called it. Gives the server that may be used now."""
        state = parse_qs(urlsplit(response).query).get("state", [""])[-1]
        visit = self._visits.get(state)
        late = visit is None or self._now() > visit.since + VISIT_MS
        if visit is None or late or not hmac.compare_digest(visit.browser, _hash(browser)):
            raise invalid("state", "belongs to no visit of this browser; make the call again for a new link")
        del self._visits[state]
        served, owner = visit.served, owner_of(visit.who)
        try:
            await _accounts(served).login(owner).finish(response)
        except GatewayError as error:
            self._note(visit.who, "ConnectedServer", served.id, error.reason)
            raise
        self._note(visit.who, "ConnectedServer", served.id, "ok")
        await self._tell(served.id, owner)
        return served.id

    async def _tell(self, server: str, owner: str) -> None:
        for id, (where, whose, caller) in tuple(self._waiting.items()):
            if (where, whose) == (server, owner):
                del self._waiting[id]
                await caller.notify(ELICITED, {"elicitationId": id})

    def _opened(self, ticket: str) -> tuple[Served, str]:
        claims = self._sealer.open(ticket)
        served = self._servers.get(claims["s"]) if claims is not None else None
        if claims is None or served is None or served.accounts is None or claims["e"] < self._now():
            raise invalid("ticket", "is no link of this gateway, or too old; make the call again for a new one")
        return served, claims["o"]

    def _note(self, who: Principal, verb: str, server: str, outcome: str) -> None:
        self._recorder.note(Ticket(who, verb, server, _OWN, self._new_id()), outcome)


def owner_of(who: Principal) -> str:
    """Whose authorization goes with a call: the caller's at the outer end of the chain, also when an agent makes it.
    Raises PERMISSION_DENIED for nobody."""
    root = who.root
    if root.kind is Kind.ANONYMOUS:
        raise GatewayError(Reason.PERMISSION_DENIED, "This server is used with an authorization of the caller's own")
    return f"{root.tenant}/{root.id}"


def takes_urls(caller: Caller) -> bool:
    return not lacking(ELICIT, {"mode": "url"}, caller.capabilities)


def _accounts(served: Served) -> Accounts:
    if served.accounts is None:
        raise GatewayError(Reason.NOT_FOUND, f"{served.id} has no accounts of its callers")
    return served.accounts


def _hash(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()
