"""The token for one tool server: where it comes from, how long it is good, and what a refusal means."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.login import Ending, LoginNeeded
from gateway.upstream.egress import Egress
from gateway.upstream.oauth import response
from gateway.upstream.oauth.challenge import MOST_SCOPES, NOTHING, Challenge
from gateway.upstream.oauth.client import Client, ClientSettings, Grant, Proofs
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.finishing import Finishing
from gateway.upstream.oauth.grants import Grants, Held, Identity, held
from gateway.upstream.oauth.identity import Identities, NoIdentity
from gateway.upstream.oauth.metadata import Resource, Server, refused
from gateway.upstream.oauth.ourselves import Ourselves
from gateway.upstream.oauth.proofs import ALGORITHMS, ProofKey
from gateway.upstream.oauth.response import Pending
from gateway.upstream.oauth.token_endpoint import Denied, Token, TokenEndpoint
from gateway.upstream.secret import settle

log = logging.getLogger(__name__)

# A refusal of a token that is younger than this is not about its age: another one would be refused too.
YOUNG_MS = 2_000
# After a renewal that failed, while the old token is still good: callers must not wait for it one by one.
REST_MS = 10_000
# For giving an authorization back: a person waits for it, who can end it at the issuer, too.
END_SECONDS = 10.0
# People who are asked at the same time; the oldest question is forgotten first.
MOST_PENDING = 16
# Errors that say that a server does not know its client, any more or in this role (RFC 6749 §5.2).
_UNKNOWN = frozenset({"invalid_client", "unauthorized_client"})

GiveBack = Callable[[], Awaitable[Ending]]


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
        provider = settings.identity_provider
        self._identities = (
            None if provider is None else Identities(provider, grants, egress, ours=ours, now=now, random=random)
        )
        self._registrations = registrations or grants
        self._we = Ourselves(settings, discovery, self._registrations, egress, ours=ours, now=now, random=random)
        self._key: ProofKey | None = None  # of the token that is held
        self._upstream = upstream
        self._settings = settings
        self._discovery = discovery
        self._grants = grants
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
        self._finishing = Finishing()

    # For each request.

    async def token(self) -> str | None:
        """The access token to send, renewed ahead of its end; None as long as there is none."""
        now = self._held
        if now is None:
            return None
        if self._now() < max(now.renew_at, self._rest):
            return now.access
        return await self._finishing(self._fresh())

    async def _fresh(self) -> str | None:
        async with self._one:
            now = self._held
            if now is not None and self._now() >= max(now.renew_at, self._rest):
                now = await self._renewed(now)
            return None if now is None else now.access

    async def dressed(self, method: str, url: str, headers: Mapping[str, str]) -> tuple[dict[str, str], str | None]:
        """The headers with the token, and with a proof where the token is bound to a key; and the token."""
        held = self._held if await self.token() is not None else None
        if held is None:
            return dict(headers), None
        key = self._key_of(held)
        if key is None:
            return {**headers, "authorization": f"Bearer {held.access}"}, held.access
        proof = self._we.prover.proof(key, method, url, held.access)
        return {**headers, "authorization": f"DPoP {held.access}", "dpop": proof}, held.access

    def heard(self, url: str, headers: Mapping[str, str]) -> bool:
        """What an answer brought for the next proof; whether it did."""
        return self._we.prover.heard(url, headers)

    async def refused(self, status: int, challenge: Challenge, used: str | None) -> bool:
        """What to do about 401 or 403: True when there is another token to try with, False when that is the answer.

        Raises LoginNeeded when only a person can go on."""
        if status == 403 and (challenge.error != "insufficient_scope" or not challenge.scopes):
            return False
        return await self._finishing(self._another(status, challenge, used))

    async def _another(self, status: int, challenge: Challenge, used: str | None) -> bool:
        async with self._one:
            now = self._held
            if now is not None and now.access != used:
                return True  # somebody else has got a new one meanwhile
            if status == 403:
                return await self._stepped_up(now, challenge)
            return await self._replaced(now, challenge)

    # For a person.

    @property
    def connected(self) -> bool:
        """Whether there is something to get in by, good or not."""
        return self._held is not None or self._grants.identity is not None

    async def begin(self, redirect_uri: str) -> str:
        """The URL at which a person authorizes the gateway. `redirect_uri` is on this machine."""
        if not self._settings.needs_login:
            raise GatewayError(
                Reason.UNSUPPORTED_OPERATION, f"{self._upstream} takes the gateway's own credentials; nobody logs in"
            )
        state, verifier = self._word(), self._word()
        if self._identities is not None:
            url, pending = await self._identities.begin(redirect_uri, state, verifier, self._word())
            self._ask(state, pending)
            return url
        async with self._one:
            found, server = await self._found(self._challenge)
            if server.authorization_endpoint is None:
                raise refused("The authorization server has no authorization endpoint")
            if not server.pkce:
                raise refused("The authorization server does not say that it supports PKCE with S256")
            client = await self._we.client(server, redirect_uri)
            scopes = self._scopes(found, server)
            key = self._new_key(found, server)
            self._ask(state, Pending(server, client, found.id, scopes, verifier, self._now(), key))
            return self._we.endpoint(server, client, key).authorization_url(
                server.authorization_endpoint, state, verifier, resource=found.id, scope=" ".join(scopes)
            )

    async def finish(self, url: str) -> None:
        """Take the answer that came to the redirect URI, once."""
        found = response.parameters(url)
        pending = self._pending.pop(found.get("state", ""), None)
        if pending is None or self._now() > pending.since + response.PENDING_MS:
            raise invalid("response", "answers no question that is open; begin again")
        await self._finishing(self._taken(found, pending))

    async def _taken(self, found: dict[str, str], pending: Pending) -> None:
        async with self._one:
            if self._identities is not None:
                await self._identities.finish(found, pending)
                self._grants.hold(None)  # it may be another person than before
                return
            code = response.code(found, pending)
            endpoint = self._we.endpoint(pending.server, pending.client, pending.key)
            token = await endpoint.exchange(code, pending.verifier, pending.resource)
            server, client, key = pending.server, pending.client, pending.key
            self._hold(self._held_of(server, pending.resource, client, token, pending.scopes, key))

    async def end(self) -> Ending | None:
        """Forget the token, and then give it back to its issuer; None where there was none. That it cannot be given
        back keeps nothing here, so nothing is raised for it."""
        give_back = await self.forget()
        return None if give_back is None else await give_back()

    async def forget(self) -> GiveBack | None:
        """Forget token and registrations; what gives the token back to its issuer, where there was one."""
        async with self._one:  # what is being renewed just now is ended as well
            # A secret that the operator's file has by now goes to no issuer that it is not for.
            held, identity = self._held, self._grants.identity
            self._pending.clear()
            self._challenge, self._more = NOTHING, ()
            there = self._grants.forget()
        return partial(self._given_back, held, identity) if there else None

    async def _given_back(self, held: Held | None, identity: Identity | None) -> Ending:
        ends = set()
        if held is not None:
            ends.add(await self._tried(self._revoked(held)))
        if identity is not None and self._identities is not None:
            ends.add(await self._tried(self._identities.revoke(identity)))
        worst_first = (Ending.FAILED, Ending.NO_ENDPOINT, Ending.REVOKED)
        return next((each for each in worst_first if each in ends), Ending.UNASKED)

    async def _tried(self, ending: Awaitable[Ending]) -> Ending:
        try:
            async with asyncio.timeout(END_SECONDS):
                return await ending
        except (GatewayError, TimeoutError) as error:
            why = error.message if isinstance(error, GatewayError) else "no answer in time"
            log.warning("%s: an authorization was not given back: %s", self._upstream, why)
            return Ending.FAILED

    async def _revoked(self, held: Held) -> Ending:
        """The refresh token first: what it can still get is more than what the access token is."""
        server = await self._discovery.server(held.issuer)
        if server.revocation_endpoint is None:
            return Ending.NO_ENDPOINT
        endpoint = self._we.endpoint(server, held.client, None, server.revocation_endpoint)
        if held.refresh is not None:
            await endpoint.revoke(held.refresh, "refresh_token")
        await endpoint.revoke(held.access, "access_token")
        return Ending.REVOKED

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
        if settings.proofs is Proofs.REQUIRED and held.key is None:
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
        key = self._key_of(old) or self._new_key(None, server)
        endpoint = self._we.endpoint(server, old.client, key)
        assertion = None if old.refresh is not None else await self._assertion(old.issuer, old.resource, old.asked)
        try:
            if old.refresh is not None:
                token = await endpoint.refresh(old.refresh, old.resource)
            else:
                token = await self._without_a_person(endpoint, assertion, old.issuer, old.resource, old.asked)
        except Denied as error:
            self._denied(error, old.issuer, old.client)
            if person and self._held is None:
                raise self._needed("no longer accepts its authorization") from error
            raise
        if person and self._grants.held is None:  # it was removed meanwhile, by a way that has no lock
            raise self._needed("needs an authorization")
        return self._hold(self._judged_bound(old.renewed(token, self._now(), key)))

    async def _replaced(self, old: Held | None, challenge: Challenge) -> bool:
        """After 401: who gives tokens now, and can we get one without a person?"""
        self._challenge = challenge
        found, server = await self._found(challenge)
        if old is not None and old.issuer != server.issuer:
            self._grants.hold(None)  # its refresh token is for the other one
            old = None
        unbound = old is not None and old.key is None and self._new_key(found, server) is not None
        if old is not None and self._now() < old.since + YOUNG_MS and not unbound:
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
        client, key = await self._we.client(server, None), self._new_key(found, server)
        endpoint = self._we.endpoint(server, client, key)
        assertion = await self._assertion(server.issuer, found.id, scopes)
        try:
            token = await self._without_a_person(endpoint, assertion, server.issuer, found.id, scopes)
        except Denied as error:
            self._denied(error, server.issuer, client)
            raise
        self._hold(self._held_of(server, found.id, client, token, scopes, key))

    async def _assertion(self, issuer: str, resource: str, scopes: tuple[str, ...]) -> str | None:
        """Somebody's word on who we are, or for whom we act: a platform's, or an identity provider's."""
        if self._settings.assertion is not None:
            return settle(self._settings.assertion, self._ours)
        if self._identities is None:
            return None
        try:
            return await self._identities.id_jag(issuer, resource, scopes)
        except NoIdentity:
            raise self._needed("needs an authorization") from None

    async def _without_a_person(
        self, endpoint: TokenEndpoint, assertion: str | None, issuer: str, resource: str, scopes: tuple[str, ...]
    ) -> Token:
        if assertion is not None:
            return await endpoint.asserted(assertion, resource, scopes)
        if self._settings.grant is Grant.TOKEN_EXCHANGE and self._subject is not None:
            return await endpoint.on_behalf(self._subject(issuer), resource, scopes)
        return await endpoint.credentials(resource, scopes)

    async def _found(self, challenge: Challenge) -> tuple[Resource, Server]:
        found = await self._discovery.resource(challenge)
        now = self._held
        issuer = self._discovery.choose(found, now.issuer if now is not None else None)
        return found, await self._discovery.server(issuer)

    def _scopes(self, found: Resource, server: Server) -> tuple[str, ...]:
        """The operator's, else those of the challenge, else those of the resource, else none; `offline_access` only
        where the authorization server lists it."""
        base = self._settings.scopes or self._challenge.scopes or found.scopes or ()
        wanted = _union(self._more, base)
        offline = ("offline_access",) if "offline_access" in server.scopes and wanted else ()
        if not self._settings.grant.of_a_person:
            offline = ()
        return _union(wanted, offline)

    def _new_key(self, found: Resource | None, server: Server) -> ProofKey | None:
        """A key to bind the next token to; None when it is to be a bearer token."""
        proofs = self._settings.proofs
        takes = self._challenge.proofs or (found is not None and found.proofs)
        if proofs is Proofs.OFF or (proofs is Proofs.OFFERED and not takes):
            return None
        alg = next((each for each in ALGORITHMS if each in server.proofs), None)
        if alg is None and proofs is Proofs.REQUIRED:
            raise refused("The authorization server gives no tokens that are bound to a key (DPoP)")
        return None if alg is None else ProofKey.make(alg)

    def _key_of(self, held: Held) -> ProofKey | None:
        if held.key is None:
            return None
        if self._key is None or self._key.kept != held.key:
            self._key = ProofKey.read(held.key)
        return self._key

    def _held_of(
        self,
        server: Server,
        resource: str,
        client: Client,
        token: Token,
        scopes: tuple[str, ...],
        key: ProofKey | None,
    ) -> Held:
        return self._judged_bound(held(server.issuer, resource, client, token, scopes, self._now(), key))

    def _judged_bound(self, token: Held) -> Held:
        if token.key is None and self._settings.proofs is Proofs.REQUIRED:
            raise refused("The authorization server gave a token that is bound to no key")
        return token

    def _ask(self, state: str, pending: Pending) -> None:
        while len(self._pending) >= MOST_PENDING:
            del self._pending[next(iter(self._pending))]
        self._pending[state] = pending

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
