"""Enterprise-managed authorization: the identity provider decides which tool servers a person may use, and with what.

The person logs in there once; for the authorization server of each tool server the provider then gives an ID-JAG
(draft-ietf-oauth-identity-assertion-authz-grant): a word that only this one accepts, only from us, and only for that
tool server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from gateway.model.errors import GatewayError, Reason
from gateway.model.login import Ending
from gateway.upstream.egress import Egress
from gateway.upstream.oauth import response
from gateway.upstream.oauth.assertion import ClientKey
from gateway.upstream.oauth.client import Client, IdentityProvider, method_for
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.grants import Grants, Identity
from gateway.upstream.oauth.metadata import Server, refused
from gateway.upstream.oauth.response import Pending
from gateway.upstream.oauth.token_endpoint import Denied, Token, TokenEndpoint
from gateway.upstream.secret import settle

# An ID token is renewed so long before its end: the provider's clock is another one.
AHEAD_MS = 30_000


class NoIdentity(Exception):
    """Nobody has logged in at the identity provider, or not of late."""


class Identities:
    """Who one owner is at the identity provider. `now` gives epoch milliseconds, `random` so many random bytes."""

    def __init__(
        self,
        settings: IdentityProvider,
        grants: Grants,
        egress: Egress,
        *,
        ours: Mapping[str, str],
        now: Callable[[], int],
        random: Callable[[int], bytes],
    ) -> None:
        self._settings = settings
        self._discovery = Discovery(settings.issuer, settings.issuer, egress)
        self._grants = grants
        self._egress = egress
        self._ours = ours
        self._now = now
        self._random = random

    async def id_jag(self, audience: str, resource: str, scopes: tuple[str, ...]) -> str:
        """For the authorization server `audience`. Raises NoIdentity when a person has to log in (again), GatewayError
        for everything else, above all what the provider's policy does not allow."""
        server = await self._discovery.server(self._settings.issuer)
        endpoint = self._endpoint(server)
        subject = await self._subject(endpoint)
        try:
            return await endpoint.id_jag(subject, audience, resource, scopes)
        except Denied as error:
            if error.error == "invalid_grant" and self._settings.subject is None:
                self._grants.identify(None)
                raise NoIdentity from error
            raise _refused(error) from error

    # For a person.

    async def begin(self, redirect_uri: str, state: str, verifier: str, nonce: str) -> tuple[str, Pending]:
        """The URL where the person logs in, and what is to be remembered until then."""
        server = await self._discovery.server(self._settings.issuer)
        if server.authorization_endpoint is None:
            raise refused("The identity provider has no authorization endpoint")
        client = self._client(server, redirect_uri)
        scopes = ("openid", *(("offline_access",) if "offline_access" in server.scopes else ()))
        url = self._endpoint(server, redirect_uri).authorization_url(
            server.authorization_endpoint, state, verifier, scope=" ".join(scopes), nonce=nonce
        )
        return url, Pending(server, client, self._settings.issuer, scopes, verifier, self._now(), nonce=nonce)

    async def finish(self, found: dict[str, str], pending: Pending) -> None:
        """Take the provider's answer."""
        code = response.code(found, pending)
        endpoint = self._endpoint(pending.server, pending.client.redirect_uri)
        self._take(await endpoint.exchange(code, pending.verifier, ""), pending.nonce)

    async def revoke(self, identity: Identity) -> Ending:
        """Give back what `identity` was renewed by. Raises GatewayError."""
        ours = (self._settings.issuer, self._settings.client_id)
        if identity.refresh is None or (identity.issuer, identity.client_id) != ours:
            return Ending.UNASKED
        server = await self._discovery.server(self._settings.issuer)
        if server.revocation_endpoint is None:
            return Ending.NO_ENDPOINT
        await self._endpoint(server, url=server.revocation_endpoint).revoke(identity.refresh, "refresh_token")
        return Ending.REVOKED

    async def _subject(self, endpoint: TokenEndpoint) -> str:
        """An ID token that is good. The operator's is read anew each time; a person's is renewed without them, if they
        have let us."""
        if self._settings.subject is not None:
            return settle(self._settings.subject, self._ours)
        known = self._grants.identity
        if known is None or (known.issuer, known.client_id) != (self._settings.issuer, self._settings.client_id):
            raise NoIdentity
        if self._now() < known.expires - AHEAD_MS:
            return known.id_token
        if known.refresh is None:
            self._grants.identify(None)
            raise NoIdentity
        try:
            return self._take(await endpoint.refresh(known.refresh, ""), None, known)
        except Denied as error:
            if error.error != "invalid_grant":
                raise _refused(error) from error
            self._grants.identify(None)
            raise NoIdentity from error

    def _take(self, token: Token, nonce: str | None, before: Identity | None = None) -> str:
        """Keep an ID token that came straight from the provider, so that its signature says nothing new (OpenID Connect
        Core §3.1.3.7). One that takes the place of another is about the same person (§12.2)."""
        # joserfc comes with it, at the first login.
        from gateway.dialects.oauth2.access_token import BadToken, parse
        from gateway.dialects.oauth2.id_token import person

        said, issuer, client_id = token.identity, self._settings.issuer, self._settings.client_id
        if said is None:
            raise refused("The identity provider gave no ID token")
        try:
            claims = parse(said.encode("ascii", "replace")).claims
            asked = nonce if nonce is not None else str(claims.get("nonce"))
            person({"nonce": asked, **claims}, issuer, client_id, asked, self._now() / 1000)
            if before is not None and parse(before.id_token.encode()).claims.get("sub") != claims["sub"]:
                raise BadToken("is about somebody else")
        except BadToken:
            raise refused("The identity provider gave an ID token that is not for this login") from None
        expires = int(float(str(claims["exp"])) * 1000)
        refresh = token.refresh or (None if before is None else before.refresh)
        self._grants.identify(Identity(issuer, client_id, said, refresh, expires))
        return said

    def _endpoint(self, server: Server, redirect_uri: str | None = None, url: str | None = None) -> TokenEndpoint:
        url, key = url or server.token_endpoint, self._settings.client_key
        assertion = None
        if key is not None:
            held = ClientKey(key, self._ours, self._now, self._random)
            assertion = partial(held.assertion, self._settings.client_id, server)
        return TokenEndpoint(
            url,
            self._client(server, redirect_uri),
            self._egress,
            trusted=self._discovery.trusts(url),
            assertion=assertion,
        )

    def _client(self, server: Server, redirect_uri: str | None) -> Client:
        settings = self._settings
        secret = None if settings.client_secret is None else settle(settings.client_secret, self._ours)
        method = "none"  # whether a client without a secret is let in there, the provider says itself
        if secret is not None or settings.client_key is not None:
            method = method_for(server.methods, secret=True, key=settings.client_key is not None)
        return Client(settings.client_id, secret, method, redirect_uri)


def _refused(error: Denied) -> GatewayError:
    what = f"The identity provider does not let the gateway use this server ({error.error})"
    return GatewayError(Reason.UPSTREAM_FAILED, what, metadata={"delivered": "no"})
