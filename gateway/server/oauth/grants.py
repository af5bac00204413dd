"""The ways to a token, as classes that authlib's core asks. Each decides at once on what the request already holds
(`Asking`), and leaves in `finish` what is to be written and made when the decision is yes."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc6749.errors import InvalidGrantError, InvalidScopeError, UnauthorizedClientError
from authlib.oauth2.rfc6749.grants import (
    AuthorizationCodeGrant,
    BaseGrant,
    ClientCredentialsGrant,
    RefreshTokenGrant,
    TokenEndpointMixin,
)
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc8628 import DeviceCodeGrant

from gateway.core.keys import random_word
from gateway.core.people import is_last, session
from gateway.dialects.oauth2.forms import BASIC, FORM
from gateway.model.clients import TOKEN_EXCHANGE
from gateway.model.people import GrantRecord, Person
from gateway.server.oauth.asking import Asking, Client, InvalidTarget
from gateway.server.oauth.codes import Asked, Code, Device

SECRET = (BASIC, FORM)
ANY = (BASIC, FORM, "none")

ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"

MAX_ACTORS = 4
"""Actors in the chain of a token: who asked whom to ask whom. The gateway stops callers after eight hops."""

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


class ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]
    """RFC 6749 §4.4."""

    TOKEN_ENDPOINT_AUTH_METHODS = SECRET
    request: Asking

    def validate_requested_scope(self) -> None:
        """RFC 6749 §3.3: all that the client has, or the part of it that it asks for. Clients of MCP ask for all that
        metadata lists, which may be more than this one has."""
        client: Client = self.request.client
        self.scopes = part_of(client.scopes, self.request.payload.scope, self.server.published())
        self.audience = self.server.audience(self.request.form.get("resource"))

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        client: Client = self.request.client
        issued = self.server.issue(client.id, client.id, self.scopes, self.audience, key=self.request.key)
        return 200, issued, self.TOKEN_RESPONSE_HEADER


class S256(CodeChallenge):  # type: ignore[misc]
    """PKCE for every client and in its one sound form (OAuth 2.1 §4.1.1). authlib's own takes `plain`, and a request
    without a challenge from a client with a secret."""

    SUPPORTED_CODE_CHALLENGE_METHOD = ("S256",)
    CODE_CHALLENGE_METHODS: ClassVar = {"S256": CodeChallenge.CODE_CHALLENGE_METHODS["S256"]}

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        form = grant.request.payload.data
        if form.get("code_challenge_method") != "S256":
            raise InvalidRequestError("Send code_challenge_method=S256.")
        if not _CHALLENGE.fullmatch(form.get("code_challenge", "")):
            raise InvalidRequestError("Send a code_challenge of 43 characters.")


class AuthorizationCode(AuthorizationCodeGrant):  # type: ignore[misc]
    """RFC 6749 §4.1. Its first half, up to the person, is consent.py."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY
    request: Asking

    def query_authorization_code(self, word: str, client: Client) -> Code | None:
        code: Code | None = self.server.codes.find(word)
        if code is None or code.asked.client != client.id:
            return None
        if code.grant is not None:
            # Used before: by the client and by somebody else, in an order that nobody knows (RFC 6749 §4.1.2).
            code.replayed = True
            self.request.amends = code.grant
            return None
        # OAuth 2.1 leaves it out, for the verifier has taken its place; where it is sent, it is compared (§10.2).
        self.request.payload.data.setdefault("redirect_uri", code.redirect_uri)
        return code

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        code: Code = self.request.authorization_code
        same_target(self.server, self.request, code.asked.audience)
        if code.key is not None and code.key != self.request.key:
            raise InvalidGrantError("The code is bound to another key.")
        code.grant = random_word(16)  # from now on it is used, whatever becomes of it
        self.request.finish = self._finish
        return 200, {}, self.TOKEN_RESPONSE_HEADER

    async def _finish(self) -> dict[str, Any]:
        code: Code = self.request.authorization_code
        assert code.grant is not None
        issued = await begin(self.server, self.request, code.asked, code.person, code.grant)
        if code.replayed:
            await self.server.people.end_grant(code.grant)
            raise InvalidGrantError()
        return issued


class DeviceCode(DeviceCodeGrant):  # type: ignore[misc]
    """RFC 8628 §3.4."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY
    request: Asking

    def query_device_credential(self, word: str) -> Device:
        device: Device | None = self.server.devices.find(word)
        if device is None:  # used before, or never given out; authlib would call the request wrong
            raise InvalidGrantError("There is no such device code.")
        self._device = device
        return device

    def validate_device_credential(self, device: Device) -> Person:
        self._slow: bool = self.server.devices.too_soon(device)
        person: Person = super().validate_device_credential(_Waiting(device, self.server.devices.is_over(device)))
        return person

    def query_user_grant(self, user_code: str) -> tuple[Person | None, bool] | None:
        device = self._device
        assert device is not None
        if device.denied:
            return None, False
        return None if device.person is None else (device.person, True)

    def should_slow_down(self, device: object) -> bool:
        return self._slow

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        device: Device = self.request.credential
        same_target(self.server, self.request, device.asked.audience)
        self.server.devices.drop(self.request.form["device_code"])
        self.request.finish = self._finish
        return 200, {}, self.TOKEN_RESPONSE_HEADER

    async def _finish(self) -> dict[str, Any]:
        device: Device = self.request.credential
        return await begin(self.server, self.request, device.asked, self.request.user, random_word(16))


class _Waiting:
    """A device as authlib asks for it."""

    def __init__(self, device: Device, over: bool) -> None:
        self._device = device
        self._over = over

    def is_expired(self) -> bool:
        return self._over

    def get_user_code(self) -> str:
        return self._device.user_code


class RefreshToken(RefreshTokenGrant):  # type: ignore[misc]
    """RFC 6749 §6, with rotation for every client (RFC 9700 §4.14.2)."""

    TOKEN_ENDPOINT_AUTH_METHODS = ANY
    request: Asking

    def _validate_request_token(self, client: Client) -> GrantRecord:
        word, grant = self.request.form.get("refresh_token"), self.request.grant
        if word is None:
            raise InvalidRequestError("Missing 'refresh_token' in request.")
        if grant is None or grant.client != client.id or not self.server.people.may_go_on(grant.person):
            raise InvalidGrantError()
        if grant.key is not None and grant.key != self.request.key:
            raise InvalidGrantError("The refresh token is bound to another key.")
        if not is_last(grant, word):
            self.request.amends = grant.id
            raise InvalidGrantError()
        return grant

    def _validate_token_scope(self, grant: GrantRecord) -> None:
        self.scopes = part_of(grant.scopes, self.request.payload.scope)

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        same_target(self.server, self.request, self.request.refresh_token.audience)
        self.request.finish = self._finish
        return 200, {}, self.TOKEN_RESPONSE_HEADER

    async def _finish(self) -> dict[str, Any]:
        rotation = await self.server.people.rotate(self.request.refresh_token)
        if rotation is None:
            raise InvalidGrantError()
        grant: GrantRecord = rotation.grant
        issued: dict[str, Any] = self.server.issue(
            grant.person.subject,
            grant.client,
            self.scopes,
            grant.audience,
            key=self.request.key,
            claims=claims_of(grant.person, grant.id),
        )
        return {**issued, "refresh_token": rotation.refresh_token}


class TokenExchange(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
    """RFC 8693: a token for acting on behalf of whoever holds `subject_token`. The client is the actor, the chain of
    those before it stays inside, and nothing grows: not the scopes, not the time."""

    GRANT_TYPE = TOKEN_EXCHANGE
    TOKEN_ENDPOINT_AUTH_METHODS = SECRET
    request: Asking

    def validate_token_request(self) -> None:
        self.request.client = client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError("The client may not exchange tokens.")
        form = self.request.form
        if form.get("subject_token_type") not in (ACCESS_TOKEN_TYPE, JWT_TYPE):
            raise InvalidRequestError(f"subject_token_type must be {ACCESS_TOKEN_TYPE} or {JWT_TYPE}.")
        if form.get("requested_token_type", ACCESS_TOKEN_TYPE) != ACCESS_TOKEN_TYPE:
            raise InvalidRequestError(f"requested_token_type must be {ACCESS_TOKEN_TYPE}.")
        if "actor_token" in form or "actor_token_type" in form:
            raise InvalidRequestError("The actor is the client that asks; leave actor_token out.")
        if "audience" in form:
            raise InvalidTarget("Name the target by its URL, as resource.")
        if self.request.subject is None:
            raise InvalidRequestError(self.request.subject_problem or "Missing 'subject_token' in request.")
        self.audience = self.server.audience(form.get("resource"))

    def create_token_response(self) -> tuple[int, dict[str, Any], Any]:
        subject, client = self.request.subject, self.request.client
        assert subject is not None
        if subject.may_act is not None and subject.may_act != client.id:
            raise InvalidGrantError("The subject token names another actor.")
        if len(subject.actors) >= MAX_ACTORS:
            raise InvalidGrantError("The chain of actors is too long.")
        if subject.client == client.id and subject.parts is not None and self.audience not in subject.parts:
            raise InvalidTarget("The subject token is the client's own, and for another resource.")
        scopes = part_of(subject.scopes, self.request.payload.scope)
        chain: dict[str, Any] | None = None
        for actor in reversed((client.id, *subject.actors)):
            chain = {"sub": actor} if chain is None else {"sub": actor, "act": chain}
        claims: dict[str, Any] = {"act": chain, **subject.claims}
        issued = self.server.issue(
            subject.name, client.id, scopes, self.audience, key=self.request.key, claims=claims, until=subject.until
        )
        return 200, {**issued, "issued_token_type": ACCESS_TOKEN_TYPE}, {}


async def begin(server: Any, request: Asking, asked: Asked, person: Person, id: str) -> dict[str, Any]:
    """The first tokens of what a person has just allowed."""
    client: Client = request.client
    refreshable = client.check_grant_type("refresh_token")
    rotation = await server.people.allow(
        id,
        client.id,
        person,
        asked.scopes,
        asked.audience,
        server.grant_until(),
        refreshable=refreshable,
        # RFC 9449 §5: a client with a secret shows that instead.
        key=request.key if client.record.public else None,
    )
    if not server.people.is_here(person):  # looked at when the grant is kept: whoever ends it later finds it
        await server.people.end_grant(id)
        raise InvalidGrantError("The person has to log in again.")
    issued: dict[str, Any] = server.issue(
        person.subject, client.id, asked.scopes, asked.audience, key=request.key, claims=claims_of(person, id)
    )
    return {**issued, "refresh_token": rotation.refresh_token} if refreshable else issued


def claims_of(person: Person, grant: str) -> dict[str, Any]:
    said: dict[str, Any] = {"roles": list(person.roles), "tenant": person.tenant}
    return {"sid": session(grant), **{name: each for name, each in said.items() if each}}


def part_of(granted: tuple[str, ...], asked: str | None, published: frozenset[str] = frozenset()) -> list[str]:
    """All that was granted, or the part of it that is asked for. Raises InvalidScopeError where anything else is, but
    for what is `published`."""
    words = list(dict.fromkeys((asked or "").split()))
    if not published.union(granted).issuperset(words):
        raise InvalidScopeError()
    return [word for word in words if word in granted] if words else list(granted)


def same_target(server: Any, request: Asking, audience: str) -> None:
    """RFC 8707 §2.2: the token request may name the target again, and no other one."""
    resource = request.form.get("resource")
    if resource is not None and server.audience(resource) != audience:
        raise InvalidTarget("The person allowed another resource.")
