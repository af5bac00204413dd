"""The built-in authorization server on authlib's core.

authlib decides, we read and write: everything that a decision needs is in memory before it is asked (`prepare`), and
what it decides is written after it has answered and before anybody hears of it (`finish`). So its core, which cannot
wait, never has to.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import AuthorizationServer as Core
from authlib.oauth2.rfc6749 import InvalidClientError, InvalidRequestError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from gateway.core.clients import Clients, is_document
from gateway.core.people import People
from gateway.dialects.oauth2.access_token import (
    ACCESS_TOKEN,
    BAD_AUDIENCE,
    BAD_SIGNATURE,
    EXPIRED,
    NEEDS_PROOF,
    NOT_ACTIVE,
    UNKNOWN_KEY,
    BadToken,
    Rules,
    Unverified,
    Verified,
    check_claims,
    check_header,
    looks_like_jwt,
    needs_scopes,
    parse,
)
from gateway.dialects.oauth2.client_metadata import NONE, BadClient
from gateway.dialects.oauth2.dpop import ACCEPTED, BadProof, Proof
from gateway.dialects.oauth2.forms import BASIC, FORM, basic_credentials
from gateway.dialects.oauth2.metadata import Abilities
from gateway.model.clients import TOKEN_EXCHANGE, ClientRecord, Origin
from gateway.model.people import GrantRecord
from gateway.server.auth import resource_path
from gateway.server.oauth import grants
from gateway.server.oauth.asking import Asking, Client, InvalidProof, InvalidTarget, subject_of
from gateway.server.oauth.client_documents import ClientDocuments
from gateway.server.oauth.codes import Asked, Codes, Devices
from gateway.server.oauth.proofs import Proofs
from gateway.server.oauth.signing import SigningKeys

# It writes tokens into its debug log.
logging.getLogger("authlib").setLevel(logging.INFO)

STATEMENT_SECONDS = 60
"""Life of our word on a caller: one request to a token endpoint."""

OFFLINE = "offline_access"
"""What clients ask for when they want a refresh token. They get one anyway where they registered for it."""


class OwnIssuer:
    """Tokens that this gateway has given out, as the door sees them."""

    opaque = False

    def __init__(
        self, rules: Rules, keys: SigningKeys, clients: Clients, people: People, now: Callable[[], int]
    ) -> None:
        self.rules = rules
        self._keys = keys
        self._clients = clients
        self._people = people
        self._now = now

    async def verify(self, token: bytes, parsed: Unverified | None) -> Verified:
        if parsed is None:
            raise BadToken(NOT_ACTIVE)
        return self.check(parsed)

    def check(self, parsed: Unverified) -> Verified:
        """Raises BadToken."""
        check_header(parsed, self.rules)
        self.check_signature(parsed)
        found = check_claims(parsed.claims, self.rules, self._now() / 1000)
        if found.until <= self._now() / 1000:  # by our own clock, so without leeway: what is revoked is forgotten then
            raise BadToken(EXPIRED)
        client, *ids = (str(parsed.claims.get(claim, "")) for claim in ("client_id", "jti", "sid"))
        gone = self._clients.is_revoked(client, *ids) or not self._people.is_active(str(parsed.claims["sub"]))
        issued = float(parsed.claims["iat"])  # type: ignore[arg-type]
        named = {client, *_clients_in(parsed.claims)}
        if gone or any(self._clients.is_blocked(each) or self._clients.is_stale(each, issued) for each in named):
            raise BadToken(NOT_ACTIVE)
        return found

    def check_signature(self, parsed: Unverified) -> None:
        """Raises BadToken."""
        key = self._keys.find(parsed.kid, parsed.alg)
        if key is None:
            raise BadToken(UNKNOWN_KEY)
        if not key.verifies(parsed.alg, parsed.signed, parsed.signature):
            raise BadToken(BAD_SIGNATURE)

    async def aclose(self) -> None:
        """Nothing is held."""


def _clients_in(claims: Mapping[str, Any]) -> Iterator[str]:
    """Who may be a client of ours among those that a good token names: whom it is about, and all who act for them."""
    named: Any = claims
    while named is not None:
        yield named["sub"]
        named = named.get("act")


class AuthorizationServer(Core):  # type: ignore[misc]
    """One per gateway. `scopes` are what any client may ask a person for, `used` those that rules ask for;
    `grant_seconds` is how long a person is not asked again."""

    def __init__(
        self,
        issuer: OwnIssuer,
        keys: SigningKeys,
        clients: Clients,
        people: People,
        documents: ClientDocuments,
        *,
        url: str,
        seconds: int,
        grant_seconds: int,
        scopes: Sequence[str],
        used: Callable[[], frozenset[str]],
        logins: bool,
        registration: bool,
        verify: Callable[[bytes], Awaitable[Verified]],
        proofs: Proofs,
        now: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        super().__init__()
        self.issuer = issuer
        self.keys = keys
        self.clients = clients
        self.people = people
        self.documents = documents
        self.codes = Codes(now)
        self.devices = Devices(now)
        self.url = url
        self.seconds = seconds
        self._used = used
        self.logins = logins
        self.registration = registration
        self._verify = verify
        self._proofs = proofs
        self.now = now
        self.new_id = new_id
        self._grant_ms = grant_seconds * 1000
        self._scopes = tuple(scopes)
        for each in self._ways():
            self.register_grant(*each)
        self.register_endpoint(_Revocation)
        self.register_endpoint(_Introspection)
        self.register_client_auth_method(BASIC, lambda _, request: self._by_header(request))
        self.register_client_auth_method(FORM, lambda _, request: self._by_form(request))
        self.register_client_auth_method(NONE, lambda _, request: self._by_name(request))

    def _ways(self) -> list[tuple[Any, ...]]:
        for_people = [
            (grants.AuthorizationCode, [grants.S256()]),
            (grants.DeviceCode,),
            (grants.RefreshToken,),
        ]
        return [(grants.ClientCredentials,), (grants.TokenExchange,), *(for_people if self.logins else [])]

    @property
    def abilities(self) -> Abilities:
        ways = tuple(each[0].GRANT_TYPE for each in self._ways())
        methods = (BASIC, FORM, NONE) if self.logins else (BASIC, FORM)
        scopes = (*self._scopes, OFFLINE) if self.logins else ()
        documents = self.logins and self.documents.taken
        return Abilities(ways, methods, scopes, self.logins, self.logins and self.registration, documents, ACCEPTED)

    def published(self) -> frozenset[str]:
        """All scopes that metadata lists, the resources' and this server's own."""
        return self._used().union(self.abilities.scopes)

    def authenticate_client(self, request: Asking, methods: Sequence[str], endpoint: str = "token") -> Client:
        """Raises InvalidClientError, in words that help whoever sees them; authlib's are about methods."""
        try:
            client: Client = super().authenticate_client(request, methods, endpoint)
        except InvalidClientError as error:
            error.description = f"This client is not known, or its secret is wrong; it can send {' or '.join(methods)}."
            raise
        return client

    # What authlib asks of a framework.

    def query_client(self, client_id: str) -> Client | None:
        """A document is there when `prepare` or `known` has just looked for it."""
        record = self.clients.active(client_id)
        if record is None and not self.clients.is_blocked(client_id):
            record = self.documents.kept(client_id)
        return None if record is None else Client(record)

    def create_oauth2_request(self, request: Asking) -> Asking:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        return status, dict(body), dict(headers)

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    # One request.

    async def prepare(self, path: str, headers: Mapping[str, str], form: Mapping[str, str]) -> Asking:
        """The request with what a decision about it needs. Raises GatewayError when that cannot be had now."""
        asking = Asking(self.url + path, headers, form)
        if path.endswith("/token"):
            asking.proof = self._proof(headers.get("dpop"), self.url + path)
        id = form.get("client_id", "")
        if is_document(id) and not self.clients.is_blocked(id):
            with contextlib.suppress(BadClient):  # then nobody knows this client
                await self.documents.find(id)
        word = form.get("refresh_token") or form.get("token", "")
        if word and word.count(".") == 1:
            asking.grant = await self.people.named(word)
        if form.get("grant_type") == TOKEN_EXCHANGE and "subject_token" in form:
            await self._look_at_subject(asking, form["subject_token"].encode("latin-1", "replace"))
        return asking

    def _proof(self, proof: str | None, url: str) -> Proof | None:
        """Of the key that the token is to be bound to (RFC 9449 §5). Raises InvalidProof."""
        if proof is None:
            if self.issuer.rules.bound:
                raise InvalidProof("Send a proof of the key that the token is to be bound to.")
            return None
        try:
            return self._proofs.found(proof.encode("latin-1", "replace"), method="POST", url=url, token=None)
        except BadProof as refused:
            raise InvalidProof(f"{refused}.") from None

    async def _look_at_subject(self, asking: Asking, token: bytes) -> None:
        """Only for clients that may ask: an issuer elsewhere may have to be asked about the token."""
        client = self._by_header(asking) or self._by_form(asking)
        if client is None or not client.check_grant_type(TOKEN_EXCHANGE):
            return
        try:
            found = await self._verify(token)
        except BadToken as refused:
            asking.subject_problem = str(refused)
            return
        if found.key is not None and found.key != asking.key:
            asking.subject_problem = NEEDS_PROOF
            return
        if not (found.meant_for_all or any(map(self._is_ours, found.audiences))):
            asking.subject_problem = BAD_AUDIENCE
            return
        if found.until <= self.now() / 1000:  # within the leeway: there is no time left to give on
            asking.subject_problem = EXPIRED
            return
        if found.lacks_scope:
            asking.subject_problem = needs_scopes(found.rules)
            return
        claims = parse(token).claims if looks_like_jwt(token) else {}
        asking.subject = subject_of(found, claims, self.issuer.rules)

    def _is_ours(self, audience: str) -> bool:
        """Whether it is a part of the gateway."""
        return audience.startswith(self.url + "/")

    async def finish(self, asking: Asking, status: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Write what was decided. Only then is there an answer."""
        if status == 200 and asking.proof is not None:
            try:
                self._proofs.use(asking.proof)  # before anything is awaited: of two with one proof one is the second
            except BadProof as refused:
                status, body, _ = self.handle_error_response(asking, InvalidProof(f"{refused}."))
        if asking.revoking is not None:
            await self.clients.revoke_token(*asking.revoking)
        if asking.amends is not None:
            await self.people.end_grant(asking.amends)
        if status != 200 or asking.finish is None:
            return status, body
        try:
            return 200, await asking.finish()
        except OAuth2Error as error:
            status, body, _ = self.handle_error_response(asking, error)
            return status, body

    # Whom it knows.

    async def known(self, id: str) -> ClientRecord:
        """A client that a person is sent by. Raises BadClient with a sentence for that person; GatewayError."""
        record = self.clients.active(id)
        if record is not None:
            return record
        if is_document(id) and not self.clients.is_blocked(id):
            return await self.documents.find(id)
        raise BadClient("This client is not known here")

    def _by_header(self, request: Asking) -> Client | None:
        if "authorization" in request.headers and "client_secret" in request.form:
            # RFC 6749 §2.3: not more than one way in one request.
            raise InvalidRequestError("The client authenticates in two ways.")
        return self._with_secret(*basic_credentials(request.headers.get("authorization", "")))

    def _by_form(self, request: Asking) -> Client | None:
        if "authorization" in request.headers:
            return None
        return self._with_secret(request.form.get("client_id", ""), request.form.get("client_secret", ""))

    def _by_name(self, request: Asking) -> Client | None:
        """A client without a secret proves nothing by its name; what it comes with has to."""
        if "authorization" in request.headers or "client_secret" in request.form:
            return None
        client = self.query_client(request.form.get("client_id", ""))
        return client if client is not None and client.record.public else None

    def _with_secret(self, id: str, secret: str) -> Client | None:
        record = self.clients.authenticate(id, secret)
        return None if record is None else Client(record)

    # What it gives out.

    def asked(self, client: ClientRecord, scope: str | None, resource: str | None) -> Asked:
        """What a person will be asked for: of the scopes, those that this client may have (RFC 6749 §3.3 lets a
        server give less than was asked for). Raises InvalidTarget."""
        may = set(client.scopes) | ({OFFLINE} if client.origin is Origin.OPERATOR else {OFFLINE, *self._scopes})
        words = tuple(word for word in dict.fromkeys((scope or "").split()) if word in may)
        return Asked(client.id, words or client.scopes, self.audience(resource))

    def grant_until(self) -> int:
        return self.now() + self._grant_ms

    def issue(
        self,
        subject: str,
        client: str,
        scopes: Sequence[str],
        audience: str,
        *,
        key: str | None = None,
        claims: Mapping[str, Any] | None = None,
        until: float | None = None,
    ) -> dict[str, Any]:
        """The answer of RFC 6749 §5.1 with a token of RFC 9068, good for `seconds` and not beyond `until`."""
        now = self.now() // 1000
        ends = now + self.seconds if until is None else min(now + self.seconds, int(until))
        token = {
            "iss": self.url,
            "aud": audience,
            "sub": subject,
            "client_id": client,
            "iat": now,
            "exp": ends,
            "jti": self.new_id(),
            "scope": " ".join(scopes),
            **(claims or {}),
        }
        if key is not None:
            token["cnf"] = {"jkt": key}
        return {
            "access_token": self.keys.sign(ACCESS_TOKEN, token),
            "token_type": "Bearer" if key is None else "DPoP",
            "expires_in": ends - now,
            "scope": token["scope"],
        }

    def state(self, caller: str, issuer: str) -> str:
        """Our word on who a caller is, for another issuer alone and for a minute: what it gives a token for (RFC 8693
        §2.1). Here it opens nothing: it names no client of ours."""
        now = self.now() // 1000
        said = {
            "iss": self.url,
            "aud": issuer,
            "sub": caller,
            "client_id": "gateway",
            "iat": now,
            "exp": now + STATEMENT_SECONDS,
            "jti": self.new_id(),
        }
        return self.keys.sign(ACCESS_TOKEN, said)

    def audience(self, resource: str | None) -> str:
        """RFC 8707: the gateway, or one part of it. Raises InvalidTarget for what is not ours."""
        if resource is None or resource.rstrip("/") == self.url:
            return self.url
        path = resource.removeprefix(self.url)
        if not resource.startswith(self.url + "/") or resource_path(path) != path:
            raise InvalidTarget("This server gives out tokens for this gateway and its agents only.")
        return resource

    def own(self, token: str) -> _Token | None:
        """One of our tokens that is still good."""
        try:
            parsed = parse(token.encode("latin-1", "replace"))
            if parsed.issuer != self.url:
                return None
            self.issuer.check(parsed)
        except BadToken:
            return None
        return _Token(dict(parsed.claims))


class _Token:
    """An access token as authlib sees it; it exists only while it is good."""

    def __init__(self, claims: dict[str, Any]) -> None:
        self.claims = claims

    def check_client(self, client: Client) -> bool:
        return bool(self.claims["client_id"] == client.id)

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False


def _check_token(request: Asking) -> None:
    """A hint that is not known here means nothing (RFC 7009 §2.2, RFC 7662 §2.1); authlib refuses it."""
    if "token" not in request.form:
        raise InvalidRequestError("Missing 'token' in request.")


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    """RFC 7009. An unknown token, or another client's, is answered like one that was revoked. A refresh token takes
    all that came of its grant with it (§2.1)."""

    CLIENT_AUTH_METHODS = (BASIC, FORM, NONE)

    def check_params(self, request: Asking, client: Client) -> None:
        _check_token(request)

    def authenticate_token(self, request: Asking, client: Client) -> _Token | GrantRecord | None:
        self.check_params(request, client)
        if request.grant is not None:
            return request.grant if request.grant.client == client.id else None
        token: _Token | None = self.server.own(request.form["token"])
        return token if token is not None and token.check_client(client) else None

    def revoke_token(self, token: _Token | GrantRecord, request: Asking) -> None:
        if isinstance(token, GrantRecord):
            request.amends = token.id
        else:
            request.revoking = str(token.claims["jti"]), int(token.claims["exp"]) * 1000


class _Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    """RFC 7662, for a client's own tokens: what others hold is not its business."""

    CLIENT_AUTH_METHODS = (BASIC, FORM)

    def check_params(self, request: Asking, client: Client) -> None:
        _check_token(request)

    def query_token(self, token_string: str, token_type_hint: str | None) -> _Token | None:
        found: _Token | None = self.server.own(token_string)
        return found

    def check_permission(self, token: _Token, client: Client, request: Asking) -> bool:
        return bool(token.check_client(client))

    def introspect_token(self, token: _Token) -> dict[str, Any]:
        kind = "DPoP" if "cnf" in token.claims else "Bearer"
        return {"active": True, "token_type": kind, **token.claims}
