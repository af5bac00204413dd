"""A caller's own authorization at a tool server or a remote agent: the link that it is sent to, and what comes back.

The link is sealed for one caller and one place, and opens nothing by itself: whoever follows it shows the caller's own
credential first. Otherwise a link that its owner passes on would collect another person's authorization (2026-07-28,
client/elicitation: the person who goes there must be the one who was asked).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs, quote, urlsplit

from gateway.core.audit import Recorder, Ticket
from gateway.core.tools.state import Sealer
from gateway.model.asking import ELICIT, ELICITED, lacking
from gateway.model.audit import Decision, Verdict
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.login import Accounts
from gateway.model.principal import Kind, Principal
from gateway.model.tool import Caller, PeerError, Tree
from gateway.model.value import value

LINK_MS = 900_000  # a person reads the message, finds the credential and decides; a new call gives a new link
TASK_LINK_MS = 86_400_000  # of a task, which waits: who reads it the next morning can still go there
VISIT_MS = 600_000  # from the gateway's page to the answer of the authorization server
MAX_VISITS = 1_000  # people who are on their way, in all; the one who left first is forgotten first
MAX_WAITING = 1_000  # sessions that are told when somebody has been there

URL_ELICITATION = -32042  # 2025-11-25: the request can go on once the user has been at these URLs
CONNECT, CONNECTED = "/oauth/connect", "/oauth/connected"

OWN = Decision(Verdict.PASS, "own-authorization", "everybody decides about an authorization of their own")

# Where an authorization is for: `tools/docs`, `agents/far`. A server and an agent may have one name.
Find = Callable[[str], Accounts | None]
# Told who has authorized the gateway, and where.
Heard = Callable[[str, Principal], Awaitable[None]]


def tool_server(id: str) -> str:
    return f"tools/{id}"


def remote_agent(id: str) -> str:
    return f"agents/{id}"


class ConnectNeeded(GatewayError):
    """The caller has not authorized the gateway at this place, or not for enough. `url` is where that is done, `why`
    the first half of a sentence."""

    def __init__(self, place: str, owner: str, url: str, why: str) -> None:
        super().__init__(
            Reason.UNAVAILABLE,
            f"{why} of your own: open {url} in a browser and call again",
            metadata={"delivered": "no", "connect": url},
        )
        self.place = place
        self.owner = owner
        self.url = url
        self.why = why

    @property
    def visit(self) -> Tree:
        """Parameters of an elicitation in URL mode."""
        return {"mode": "url", "message": f"Let the gateway use {_name(self.place)} in your name", "url": self.url}


@value
class Visit:
    """Somebody between the gateway's page and the authorization server. `browser` is the hash of what only that
    browser knows."""

    place: str
    who: Principal
    browser: bytes
    since: int


class Connections:
    """`url` is the gateway's own, without a slash at its end."""

    def __init__(
        self,
        find: Find,
        sealer: Sealer,
        recorder: Recorder,
        now: Callable[[], int],
        new_id: Callable[[], str],
        url: str,
    ) -> None:
        self._find = find
        self._sealer = sealer
        self._recorder = recorder
        self._now = now
        self._new_id = new_id
        self._url = url
        self._visits: dict[str, Visit] = {}
        self._waiting: dict[str, tuple[str, str, Caller]] = {}  # elicitation id -> place, owner, whom to tell
        self.heard: list[Heard] = []

    # For a call.

    def needed(self, place: str, owner: str, why: str, **task: str | bool) -> ConnectNeeded:
        """What a call is answered with for which somebody has to log in. `task` goes into the link: what `claims` gives
        back of it."""
        until = self._now() + (TASK_LINK_MS if task else LINK_MS)
        ticket = self._sealer.seal({"s": place, "o": owner, "e": until, **task})
        return ConnectNeeded(place, owner, f"{self._url}{CONNECT}?ticket={quote(ticket)}", why)

    def claims(self, url: object) -> Tree:
        """What a link of ours says, also one that is too old to be followed. Nothing for any other text."""
        if not isinstance(url, str) or not url.startswith(f"{self._url}{CONNECT}?ticket="):
            return {}
        return self._sealer.open(parse_qs(urlsplit(url).query)["ticket"][-1]) or {}

    def refusal(self, needed: ConnectNeeded, caller: Caller) -> GatewayError:
        """The same for a caller with a session: with the URL as data, and word when somebody has been there, if it
        knows such a thing."""
        if not takes_urls(caller):
            return needed
        id = self._new_id()
        self._waiting[id] = (needed.place, needed.owner, caller)
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        return PeerError(URL_ELICITATION, needed.message, {"elicitations": [{**needed.visit, "elicitationId": id}]})

    # For a person.

    def name(self, ticket: str) -> str:
        """What a link is for. Raises INVALID_PARAMS for a link that is none, or too old."""
        return _name(self._opened(ticket)[0])

    async def begin(self, ticket: str, who: Principal, browser: str) -> str:
        """The URL where `who` says yes. `browser` is a word that only the person's browser will show again. Raises
        PERMISSION_DENIED when the link is for somebody else."""
        place, owner, accounts = self._opened(ticket)
        if owner != owner_of(who):
            self._note(who, _CONNECT, place, Reason.PERMISSION_DENIED)
            raise GatewayError(Reason.PERMISSION_DENIED, "This link is for another caller of the gateway")
        try:
            url = await accounts.login(owner).begin(f"{self._url}{CONNECTED}")
        except GatewayError as error:
            self._note(who, _CONNECT, place, error.reason)
            raise
        state = parse_qs(urlsplit(url).query).get("state", [""])[-1]
        self._visits[state] = Visit(place, who, _hash(browser), self._now())
        if len(self._visits) > MAX_VISITS:
            del self._visits[next(iter(self._visits))]
        self._note(who, _CONNECT, place, "ok")
        return url

    async def finish(self, response: str, browser: str) -> str:
        """Take the answer: the redirect URI as the browser called it. Gives what may be used now."""
        state = parse_qs(urlsplit(response).query).get("state", [""])[-1]
        visit = self._visits.get(state)
        late = visit is None or self._now() > visit.since + VISIT_MS
        if visit is None or late or not hmac.compare_digest(visit.browser, _hash(browser)):
            raise invalid(
                "state", "belongs to no visit of this browser; open the link once more, or call for a new one"
            )
        del self._visits[state]
        place, owner = visit.place, owner_of(visit.who)
        try:
            await self._accounts(place).login(owner).finish(response)
        except GatewayError as error:
            self._note(visit.who, _CONNECTED, place, error.reason)
            raise
        await self._recorder.keep(self._ticket(visit.who, _CONNECTED, place), "ok")
        await self._tell(place, owner)
        for heard in self.heard:
            await heard(place, visit.who)
        return _name(place)

    async def _tell(self, place: str, owner: str) -> None:
        for id, (where, whose, caller) in tuple(self._waiting.items()):
            if (where, whose) == (place, owner):
                del self._waiting[id]
                await caller.notify(ELICITED, {"elicitationId": id})

    def _opened(self, ticket: str) -> tuple[str, str, Accounts]:
        claims = self._sealer.open(ticket)
        if claims is None or "s" not in claims or claims["e"] < self._now():
            raise invalid("ticket", "is no link of this gateway, or too old; make the call again for a new one")
        return claims["s"], claims["o"], self._accounts(claims["s"])

    def _accounts(self, place: str) -> Accounts:
        accounts = self._find(place)
        if accounts is None:
            what = f"{_name(place)} takes no authorization of yours just now; try again in a while"
            raise GatewayError(Reason.NOT_FOUND, what)
        return accounts

    def _note(self, who: Principal, verbs: dict[str, str], place: str, outcome: str) -> None:
        self._recorder.note(self._ticket(who, verbs, place), outcome)

    def _ticket(self, who: Principal, verbs: dict[str, str], place: str) -> Ticket:
        kind, _, name = place.partition("/")
        return Ticket(who, verbs[kind], name, OWN, self._new_id())


_CONNECT = {"tools": "ConnectServer", "agents": "ConnectAgent"}
_CONNECTED = {"tools": "ConnectedServer", "agents": "ConnectedAgent"}


def owner_of(who: Principal) -> str:
    """Whose authorization goes with a call: the caller's at the outer end of the chain, also when an agent makes it.
    Raises PERMISSION_DENIED for nobody."""
    root = who.root
    if root.kind is Kind.ANONYMOUS:
        raise GatewayError(Reason.PERMISSION_DENIED, "This is used with an authorization of the caller's own")
    return f"{root.tenant}/{root.id}"


def takes_urls(caller: Caller) -> bool:
    return not lacking(ELICIT, {"mode": "url"}, caller.capabilities)


def _name(place: str) -> str:
    return place.partition("/")[2]


def _hash(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()
