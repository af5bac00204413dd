"""People who log in elsewhere: the gateway as a client of their identity provider (OpenID Connect Core §3.1, with PKCE
and RFC 9207). It learns who they are and keeps nothing of what the provider gives it."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode, urlsplit

from gateway.dialects.oauth2 import forms, id_token
from gateway.dialects.oauth2.access_token import BadToken, Unverified, parse
from gateway.dialects.oauth2.metadata import BadMetadata, same_origin
from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError
from gateway.model.identity import Documents
from gateway.model.people import Person
from gateway.server.oauth.keys import IssuerKeys, IssuerMetadata

log = logging.getLogger(__name__)

ALGORITHMS = frozenset({"ES256", "ES384", "EdDSA", "Ed25519", "PS256", "RS256"})

_DOWN = "The identity provider cannot be reached now. Try again in a moment."
_NO = "The identity provider did not let you in."
_BAD = "The identity provider answered with something that cannot be used. Tell the operator of this gateway."


class LoginFailed(Exception):
    """Nobody has logged in; the sentence is for the person, and quotes nothing of the provider's."""


class Provider:
    """`secret` is read at each login. `callback` is where people come back to. `now` gives milliseconds."""

    def __init__(
        self,
        issuer: str,
        documents: Documents,
        now: Callable[[], int],
        *,
        client_id: str,
        secret: Callable[[], str],
        callback: str,
        name: str,
        scopes: Sequence[str],
        roles_claim: tuple[str, ...],
        tenant_claim: tuple[str, ...],
    ) -> None:
        self.name = name or urlsplit(issuer).netloc
        self._issuer = issuer
        self._documents = documents
        self._now = now
        self._client_id = client_id
        self._secret = secret
        self._callback = callback
        self._scopes = " ".join(scopes)
        self._claims = {"roles_claim": roles_claim, "tenant_claim": tenant_claim}
        self._metadata = IssuerMetadata(issuer, documents)
        self._keys = IssuerKeys(issuer, ALGORITHMS, documents, now, lambda: None)

    async def url(self, state: str, nonce: str, verifier: str) -> str:
        """Where the person logs in. Raises LoginFailed."""
        try:
            endpoint = await self._metadata.endpoint("authorization_endpoint")
        except (GatewayError, BadMetadata) as error:
            raise self._failed(_DOWN, error) from None
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": self._callback,
            "scope": self._scopes,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def person(self, answer: Mapping[str, str], nonce: str, verifier: str) -> Person:
        """Who has come back with this answer. Raises LoginFailed."""
        try:
            # Before anything else is believed: an answer of another provider is not ours (RFC 9207 §2.4).
            says_iss = await self._metadata.says("authorization_response_iss_parameter_supported")
            if answer.get("iss", "" if says_iss else self._issuer) != self._issuer:
                raise BadToken("came from another issuer")
            if "error" in answer or "code" not in answer:
                raise LoginFailed(_NO)
            token = await self._exchange(answer["code"], verifier)
            parsed = parse(token)
            await self._check(parsed)
            now = self._now() / 1000
            return id_token.person(parsed.claims, self._issuer, self._client_id, nonce, now, **self._claims)
        except BadMetadata as error:
            raise self._failed(_DOWN, error) from None
        except GatewayError as error:
            raise self._failed(_DOWN if error.retryable else _BAD, error) from None
        except (BadToken, ValueError) as error:
            raise self._failed(_BAD, error) from None

    async def aclose(self) -> None:
        await self._keys.aclose()

    async def _exchange(self, code: str, verifier: str) -> bytes:
        url = await self._metadata.endpoint("token_endpoint")
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._callback,
            "code_verifier": verifier,
        }
        offered = (await self._metadata.document()).get("token_endpoint_auth_methods_supported")
        body, credentials = forms.authenticated(form, self._client_id, self._secret(), offered)
        trusted = same_origin(url, self._issuer)
        tree = read(await self._documents.post(url, body, credentials, trusted=trusted))
        token = tree.get("id_token") if isinstance(tree, dict) else None
        if not isinstance(token, str):
            raise ValueError("there is no ID token in the answer")
        return token.encode("ascii", "replace")

    async def _check(self, parsed: Unverified) -> None:
        if parsed.alg not in ALGORITHMS:
            raise BadToken("is signed with an algorithm that is not accepted")
        await self._keys.check(parsed)

    def _failed(self, sentence: str, error: Exception) -> LoginFailed:
        self._metadata.forget()
        log.warning("a login at %s failed: %s", self._issuer, error)
        return LoginFailed(sentence)
