"""The token for one tool server: where it comes from, how long it is good, and what a refusal means."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Iterable, Mapping

from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.login import LoginNeeded
from gateway.upstream.egress import Egress
from gateway.upstream.oauth import response
from gateway.upstream.oauth.challenge import MOST_SCOPES, NOTHING, Challenge
from gateway.upstream.oauth.client import METHODS, Client, ClientSettings, Grant, method_for
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.grants import Grants, Held, held
from gateway.upstream.oauth.metadata import Resource, Server, refused
from gateway.upstream.oauth.response import Pending
from gateway.upstream.oauth.token_endpoint import Denied, Token, TokenEndpoint, register

log = logging.getLogger(__name__)

# A refusal of a token that is younger than this is not about its age: another one would be refused too.
YOUNG_MS = 2_000
# After a renewal that failed, while the old token is still good: callers must not wait for it one by one.
REST_MS = 10_000
# People who are asked at the same time; the oldest question is forgotten first.
MOST_PENDING = 16
# Errors that say that a server does not know its client, any more or in this role (RFC 6749 §5.2).
_UNKNOWN = frozenset({"invalid_client", "unauthorized_client"})


class TokenSource:
    """`random` gives so many random bytes; `now` is epoch milliseconds; `ours` the gateway's own environment. Who the
    gateway is at each issuer stands in `registrations`, where several owners share that; else with the token.
    `subject` is our word for an issuer on who the caller is (RFC 8693 §2.1), `otherwise` what to do for a login where
    nobody can be sent to a link.

    Whatever two calls want of it at the same time is done once. Every method raises GatewayError."""

    def __init__(
        self,
        upstream: str,
        settings: ClientSettings,
        discovery: Discovery,
        grants: Grants,
        egress: Egress,
        *,
        ours: Mapping[str, str],
        now: Callable[[], int],
        random: Callable[[int], bytes],
        registrations: Grants | None = None,
        subject: Callable[[str], str] | None = None,
        otherwise: str = "",
    ) -> None:
        self._registrations = registrations or grants
        self._upstream = upstream
        self._settings = settings
        self._discovery = discovery
        self._grants = grants
        self._egress = egress
        self._ours = ours
        self._now = now
        self._random = random
        self._subject = subject
        self._otherwise = otherwise
        self._one = asyncio.Lock()
        self._pending: dict[str, Pending] = {}
        self._challenge = NOTHING
        self._judged: Held | None = None
        self._rest = 0  # until then what could not be renewed is not tried again
        self._more: tuple[str, ...] = ()  # scopes that a server has asked for since

    # For each request.

    async def token(self) -> str | None:
        """The access token to send, renewed ahead of its end; None as long as there is none."""
        now = self._held
        if now is None:
            return None
        if self._now() < max(now.renew_at, self._rest):
            return now.access
        async with self._one:
            now = self._held
            if now is not None and self._now() >= max(now.renew_at, self._rest):
                now = await self._renewed(now)
            return None if now is None else now.access

    async def refused(self, status: int, challenge: Challenge, used: str | None) -> bool:
        """What to do about 401 or 403: True when there is another token to try with, False when that is the answer.

        Raises LoginNeeded when only a person can go on."""
        if status == 403 and (challenge.error != "insufficient_scope" or not challenge.scopes):
            return False
        async with self._one:
            now = self._held
            if now is not None and now.access != used:
                return True  # somebody else has got a new one meanwhile
            if status == 403:
                return await self._stepped_up(now, challenge)
            return await self._replaced(now, challenge)

    # For a person.

    async def begin(self, redirect_uri: str) -> str:
        """The URL at which a person authorizes the gateway. `redirect_uri` is on this machine."""
        if not self._settings.grant.of_a_person:
            raise GatewayError(
                Reason.UNSUPPORTED_OPERATION, f"{self._upstream} takes the gateway's own credentials; nobody logs in"
            )
        async with self._one:
            found, server = await self._found(self._challenge)
            if server.authorization_endpoint is None:
                raise refused("The authorization server has no authorization endpoint")
            if not server.pkce:
                raise refused("The authorization server does not say that it supports PKCE with S256")
            client = await self._client(server, redirect_uri)
            scopes = self._scopes(found, server)
            state, verifier = self._word(), self._word()
            pending = Pending(server, client, found.id, scopes, verifier, self._now())
            while len(self._pending) >= MOST_PENDING:
                del self._pending[next(iter(self._pending))]
            self._pending[state] = pending
            endpoint = self._endpoint(server, client)
            return endpoint.authorization_url(server.authorization_endpoint, state, verifier, found.id, scopes)

    async def finish(self, url: str) -> None:
        """Take the answer that came to the redirect URI, once."""
        found = response.parameters(url)
        pending = self._pending.pop(found.get("state", ""), None)
        if pending is None or self._now() > pending.since + response.PENDING_MS:
            raise invalid("response", "answers no question that is open; begin again")
        code = response.code(found, pending)
        async with self._one:
            endpoint = self._endpoint(pending.server, pending.client)
            token = await endpoint.exchange(code, pending.verifier, pending.resource)
            self._hold(
                held(pending.server.issuer, pending.resource, pending.client, token, pending.scopes, self._now())
            )

    async def forget(self) -> bool:
        """Forget token and registrations; whether there was a token."""
        async with self._one:
            self._pending.clear()
            self._challenge, self._more = NOTHING, ()
            return self._grants.forget()

    @property
    def _held(self) -> Held | None:
        """The token, if it is one for what the operator's file says now: another address, issuer or client of the same
        name gets nothing that was meant for the one before."""
        held, settings = self._grants.held, self._settings
        if held is None or held is self._judged:
            return held  # every request asks, and the answer changes with the token only
        if not self._discovery.reaches(held.resource):
            return None
        if settings.issuer not in (None, held.issuer) or settings.client_id not in (None, held.client.id):
            return None
        self._judged = held
        return held

    # Getting another token, inside the lock.

    async def _renewed(self, old: Held) -> Held | None:
        """Ahead of its end. What cannot be renewed just now is used as long as it lasts."""
        try:
            return await self._again(old)
        except GatewayError as error:
            log.warning("%s: the token was not renewed: %s", self._upstream, error.message)
            if old.expires is not None and self._now() < old.expires and not isinstance(error, LoginNeeded):
                self._rest = min(self._now() + REST_MS, old.expires)
                return old
            raise

    async def _again(self, old: Held) -> Held | None:
        """The same grant once more, from the issuer that it came from and no other."""
        person = self._settings.grant.of_a_person
        if person and old.refresh is None:
            if old.expires is None or self._now() < old.expires:
                return old
            self._grants.hold(None)
            return None
        server = await self._discovery.server(old.issuer)
        endpoint = self._endpoint(server, old.client)
        try:
            if old.refresh is not None:
                token = await endpoint.refresh(old.refresh, old.resource)
            else:
                token = await self._without_a_person(endpoint, old.issuer, old.resource, old.asked)
        except Denied as error:
            self._denied(error, old.issuer, old.client)
            if person and self._held is None:
                raise self._needed("no longer accepts its authorization") from error
            raise
        return self._hold(old.renewed(token, self._now()))

    async def _replaced(self, old: Held | None, challenge: Challenge) -> bool:
        """After 401: who gives tokens now, and can we get one without a person?"""
        self._challenge = challenge
        found, server = await self._found(challenge)
        if old is not None and old.issuer != server.issuer:
            self._grants.hold(None)  # its refresh token is for the other one
            old = None
        if old is not None and self._now() < old.since + YOUNG_MS:
            return False
        if not self._settings.grant.of_a_person:
            before = old.asked if old is not None else ()
            await self._own(found, server, _union(before, self._scopes(found, server)))
            return True
        if old is not None and old.refresh is not None:
            await self._again(old)
            return True
        if self._held is not None:
            self._grants.hold(None)
        raise self._needed("needs an authorization")

    async def _stepped_up(self, old: Held | None, challenge: Challenge) -> bool:
        """After 403: ask for what was asked before and what is wanted now, and for nothing twice."""
        wanted = challenge.scopes or ()
        asked = old.asked if old is not None else ()
        if set(wanted) <= set(asked):
            return False  # asked for and not given, or given and not enough: once more changes nothing
        self._challenge = challenge
        self._more = _union(self._more, asked, wanted)[:MOST_SCOPES]
        if not self._settings.grant.of_a_person:
            found, server = await self._found(challenge)
            await self._own(found, server, self._more)
            return True
        raise self._needed(f"needs an authorization for more ({' '.join(wanted)[:200]})")

    def _denied(self, error: Denied, issuer: str, client: Client) -> None:
        """Forget what is gone for good. An operator's client that is refused may merely have a secret to be changed."""
        if error.error == "invalid_grant":
            self._grants.hold(None)
        elif error.error in _UNKNOWN and client.id != self._settings.client_id:
            self._registrations.unregister(issuer)
            self._grants.hold(None)

    async def _own(self, found: Resource, server: Server, scopes: tuple[str, ...]) -> None:
        client = await self._client(server, None)
        try:
            token = await self._without_a_person(self._endpoint(server, client), server.issuer, found.id, scopes)
        except Denied as error:
            self._denied(error, server.issuer, client)
            raise
        self._hold(held(server.issuer, found.id, client, token, scopes, self._now()))

    async def _without_a_person(
        self, endpoint: TokenEndpoint, issuer: str, resource: str, scopes: tuple[str, ...]
    ) -> Token:
        if self._settings.grant is Grant.TOKEN_EXCHANGE and self._subject is not None:
            return await endpoint.on_behalf(self._subject(issuer), resource, scopes)
        return await endpoint.credentials(resource, scopes)

    async def _found(self, challenge: Challenge) -> tuple[Resource, Server]:
        found = await self._discovery.resource(challenge)
        now = self._held
        issuer = self._discovery.choose(found, now.issuer if now is not None else None)
        return found, await self._discovery.server(issuer)

    async def _client(self, server: Server, redirect_uri: str | None) -> Client:
        """As whom we go there: the operator's client, our metadata document, or a registration, in this order."""
        settings = self._settings
        if settings.client_id is not None:
            bound = self._registrations.bound(settings.client_id)
            if settings.issuer is None and bound not in (None, server.issuer):
                raise refused("The server names another authorization server than the one that client_id was used with")
            self._registrations.bind(settings.client_id, server.issuer)
            method = method_for(server.methods, secret=settings.client_secret is not None)
            return Client(settings.client_id, None, method, redirect_uri)
        if settings.client_metadata is not None and server.takes_documents:
            return Client(settings.client_metadata, None, "none", redirect_uri)
        known = self._registrations.client(server.issuer)
        if known is not None and known.redirect_uri == redirect_uri:
            return known
        if server.registration_endpoint is None:
            raise refused("The authorization server registers nobody by itself; set oauth.client_id")
        method = next((each for each in METHODS if each in server.methods), "none")
        client = await register(
            server.registration_endpoint,
            redirect_uri,
            settings.grant,
            method,
            self._egress,
            trusted=self._discovery.trusts(server.registration_endpoint),
        )
        self._registrations.register(server.issuer, client)
        return client

    def _scopes(self, found: Resource, server: Server) -> tuple[str, ...]:
        """The operator's, else those of the challenge, else those of the resource, else none; `offline_access` only
        where the authorization server lists it."""
        base = self._settings.scopes or self._challenge.scopes or found.scopes or ()
        wanted = _union(self._more, base)
        offline = ("offline_access",) if "offline_access" in server.scopes and wanted else ()
        if not self._settings.grant.of_a_person:
            offline = ()
        return _union(wanted, offline)

    def _endpoint(self, server: Server, client: Client) -> TokenEndpoint:
        url = server.token_endpoint
        if client.id == self._settings.client_id:
            # The operator's secret is read at each use and never kept.
            client = Client(client.id, self._settings.secret(self._ours), client.method, client.redirect_uri)
        return TokenEndpoint(url, client, self._egress, trusted=self._discovery.trusts(url))

    def _hold(self, token: Held) -> Held:
        self._grants.hold(token)
        self._more = ()
        return token

    def _needed(self, why: str) -> LoginNeeded:
        return LoginNeeded(self._upstream, f"{self._upstream} {why}", self._otherwise)

    def _word(self) -> str:
        """43 characters that nobody can guess (RFC 7636 §4.1)."""
        return base64.urlsafe_b64encode(self._random(32)).decode().rstrip("=")


def _union(*scopes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for each in scopes for word in each))
