"""The built-in authorization server on authlib's core: client credentials, revocation, introspection.

authlib decides, we read and write: everything that a decision needs is in memory before it is asked (clients, revoked
tokens, keys), and what it decides is written after it has answered and before anybody hears of it. So its core, which
cannot wait, never has to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import AuthorizationServer as Core
from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Request
from authlib.oauth2.rfc6749.errors import InvalidScopeError
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc7009 import RevocationEndpoint
from authlib.oauth2.rfc7662 import IntrospectionEndpoint

from gateway.core.clients import Clients
from gateway.dialects.oauth2.access_token import (
    ACCESS_TOKEN,
    BAD_SIGNATURE,
    NOT_ACTIVE,
    UNKNOWN_KEY,
    BadToken,
    Rules,
    Unverified,
    Verified,
    check_claims,
    check_header,
    parse,
)
from gateway.dialects.oauth2.forms import BASIC, FORM, basic_credentials
from gateway.model.clients import ClientRecord
from gateway.server.auth import resource_path
from gateway.server.oauth.signing import SigningKeys

# It writes tokens into its debug log.
logging.getLogger("authlib").setLevel(logging.INFO)

METHODS = (BASIC, FORM)


class InvalidTarget(OAuth2Error):  # type: ignore[misc]
    """RFC 8707 §2."""

    error = "invalid_target"


class OwnIssuer:
    """Tokens that this gateway has given out, as the door sees them."""

    opaque = False

    def __init__(self, rules: Rules, keys: SigningKeys, clients: Clients, now: Callable[[], int]) -> None:
        self.rules = rules
        self._keys = keys
        self._clients = clients
        self._now = now

    async def verify(self, token: bytes, parsed: Unverified | None) -> Verified:
        if parsed is None:
            raise BadToken(NOT_ACTIVE)
        return self.check(parsed)

    def check(self, parsed: Unverified) -> Verified:
        """Raises BadToken."""
        check_header(parsed, self.rules)
        key = self._keys.find(parsed.kid, parsed.alg)
        if key is None:
            raise BadToken(UNKNOWN_KEY)
        if not key.verifies(parsed.alg, parsed.signed, parsed.signature):
            raise BadToken(BAD_SIGNATURE)
        found = check_claims(parsed.claims, self.rules, self._now() / 1000)
        if self._clients.is_revoked(str(parsed.claims["client_id"]), str(parsed.claims["jti"])):
            raise BadToken(NOT_ACTIVE)
        return found

    async def aclose(self) -> None:
        """Nothing is held."""


class AuthorizationServer(Core):  # type: ignore[misc]
    """One per gateway. `answer` and what it calls never wait; `revoking` is what is still to be written."""

    def __init__(
        self,
        issuer: OwnIssuer,
        keys: SigningKeys,
        clients: Clients,
        *,
        url: str,
        seconds: int,
        now: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        super().__init__()
        self.issuer = issuer
        self.keys = keys
        self.clients = clients
        self.url = url
        self.seconds = seconds
        self.now = now
        self.new_id = new_id
        self.revoking: tuple[str, int] | None = None
        self.register_grant(_ClientCredentials)
        self.register_endpoint(_Revocation)
        self.register_endpoint(_Introspection)
        self.register_client_auth_method(BASIC, lambda _, request: self._by_header(request))
        self.register_client_auth_method(FORM, lambda _, request: self._by_form(request))

    # What authlib asks of a framework.

    def query_client(self, client_id: str) -> _Client | None:
        record = self.clients.active(client_id)
        return None if record is None else _Client(record)

    def create_oauth2_request(self, request: _Request) -> _Request:
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
        return status, dict(body), dict(headers)

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def request(self, path: str, headers: Mapping[str, str], form: Mapping[str, str]) -> _Request:
        return _Request(self.url + path, headers, form)

    # Whom it knows.

    def _by_header(self, request: _Request) -> _Client | None:
        if "authorization" in request.headers and "client_secret" in request.form:
            # RFC 6749 §2.3: not more than one way in one request.
            raise InvalidRequestError("The client authenticates in two ways.")
        return self._known(*basic_credentials(request.headers.get("authorization", "")))

    def _by_form(self, request: _Request) -> _Client | None:
        if "authorization" in request.headers:
            return None
        return self._known(request.form.get("client_id", ""), request.form.get("client_secret", ""))

    def _known(self, id: str, secret: str) -> _Client | None:
        record = self.clients.authenticate(id, secret)
        return None if record is None else _Client(record)

    # What it gives out.

    def issue(self, client: _Client, scopes: list[str], audience: str) -> dict[str, Any]:
        """The answer of RFC 6749 §5.1 with a token of RFC 9068."""
        now = self.now() // 1000
        claims = {
            "iss": self.url,
            "aud": audience,
            "sub": client.id,
            "client_id": client.id,
            "iat": now,
            "exp": now + self.seconds,
            "jti": self.new_id(),
            "scope": " ".join(scopes),
        }
        token = self.keys.sign(ACCESS_TOKEN, claims)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": self.seconds,
            "scope": claims["scope"],
        }

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


class _Request(OAuth2Request):  # type: ignore[misc]
    """A form with its headers. authlib's own refuses a URL that is neither https nor loopback."""

    def __init__(self, url: str, headers: Mapping[str, str], form: Mapping[str, str]) -> None:
        super().__init__("POST", url, headers=headers)
        self.payload = BasicOAuth2Payload(dict(form))

    @property
    def form(self) -> Mapping[str, str]:
        fields: Mapping[str, str] = self.payload.data
        return fields


class _Client:
    """A client as authlib sees it."""

    def __init__(self, record: ClientRecord) -> None:
        self.id = record.id
        self.scopes = record.scopes

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method in METHODS

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "client_credentials"


class _Token:
    """An access token as authlib sees it; it exists only while it is good."""

    def __init__(self, claims: dict[str, Any]) -> None:
        self.claims = claims

    def check_client(self, client: _Client) -> bool:
        return bool(self.claims["client_id"] == client.id)

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False


class _ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = METHODS

    def validate_requested_scope(self) -> None:
        """RFC 6749 §3.3: all that the client has, or the part of it that it asks for."""
        client: _Client = self.request.client
        asked = (self.request.payload.scope or "").split()
        if not set(asked) <= set(client.scopes):
            raise InvalidScopeError()
        self.scopes = list(dict.fromkeys(asked)) or list(client.scopes)
        self.audience = self.server.audience(self.request.form.get("resource"))

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        return 200, self.server.issue(self.request.client, self.scopes, self.audience), self.TOKEN_RESPONSE_HEADER


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    """RFC 7009. An unknown token, or another client's, is answered like one that was revoked."""

    CLIENT_AUTH_METHODS = METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> _Token | None:
        found: _Token | None = self.server.own(token_string)
        return found

    def authenticate_token(self, request: _Request, client: _Client) -> _Token | None:
        self.check_params(request, client)
        token = self.query_token(request.form["token"], None)
        return token if token is not None and token.check_client(client) else None

    def revoke_token(self, token: _Token, request: _Request) -> None:
        self.server.revoking = str(token.claims["jti"]), int(token.claims["exp"]) * 1000


class _Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    """RFC 7662, for a client's own tokens: what others hold is not its business."""

    CLIENT_AUTH_METHODS = METHODS

    def query_token(self, token_string: str, token_type_hint: str | None) -> _Token | None:
        found: _Token | None = self.server.own(token_string)
        return found

    def check_permission(self, token: _Token, client: _Client, request: _Request) -> bool:
        return bool(token.check_client(client))

    def introspect_token(self, token: _Token) -> dict[str, Any]:
        return {"active": True, "token_type": "Bearer", **token.claims}
