"""The token endpoint and the registration endpoint, with authlib's client over our egress.

What authlib leaves open is closed here: answers are read by our strict reader before it sees them, only Bearer tokens
and lifetimes that are numbers pass, `client_secret_basic` is encoded as RFC 6749 §2.3.1 says, `resource` (RFC 8707)
is in every request, and no text of the authorization server reaches anybody but the log.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import quote_plus, urlencode

import httpx2
import orjson

from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Tree
from gateway.model.value import value
from gateway.upstream.egress import Egress
from gateway.upstream.httpx2_transport import EgressTransport, control_client, gateway_error
from gateway.upstream.oauth.assertion import ASSERTION_TYPE
from gateway.upstream.oauth.challenge import scopes_of
from gateway.upstream.oauth.client import JWT_BEARER, METHODS, PRIVATE_KEY_JWT, TOKEN_EXCHANGE, Client, Grant
from gateway.upstream.oauth.metadata import refused
from gateway.upstream.oauth.proofs import ProofKey, Prover

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import AsyncOAuth2Client

log = logging.getLogger(__name__)

# A token with claims is a few kB, a registration repeats what we sent.
ANSWER_LIMIT = 64 * 1024
# A caller waits for it, and some servers are slow to check a secret.
ANSWER_SECONDS = 15.0
# A token is at most a header of our client.
LONGEST_TOKEN = 16 * 1024
# Longer than any honest lifetime; only keeps a lie from being arithmetic.
LONGEST_LIFE = 366 * 86_400

_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"
ID_JAG = f"{_TOKEN_TYPE}id-jag"

_HEADERS = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"}
_KEPT = ("access_token", "refresh_token", "scope", "token_type", "issued_token_type", "id_token")
_ERROR = re.compile(r"[a-z_]{1,64}")
_TEXT = re.compile(r"[\x20-\x7e]+")


class Denied(GatewayError):
    """An error of RFC 6749 §5.2. `error` is its code, and no other text of the server's."""

    def __init__(self, error: str) -> None:
        super().__init__(
            Reason.UPSTREAM_FAILED,
            f"The authorization server refused the request ({error})",
            metadata={"delivered": "no"},
        )
        self.error = error


@value
class Token:
    """`life` is seconds from now, None when the server does not say. `scopes` None: as asked (RFC 6749 §5.1). `bound`:
    to the key of the proof that was sent. `identity` is an ID token, which only an identity provider gives."""

    access: str
    refresh: str | None
    life: int | None
    scopes: tuple[str, ...] | None
    bound: bool = False
    identity: str | None = None

    def __repr__(self) -> str:
        return "Token(…)"


class TokenEndpoint:
    """One token endpoint, as one client of it. `assertion` makes what `private_key_jwt` shows; with `key`, tokens are
    asked for that are bound to it. Every method raises GatewayError; Denied for what it refused."""

    def __init__(
        self,
        url: str,
        client: Client,
        egress: Egress,
        *,
        trusted: bool,
        seconds: float = ANSWER_SECONDS,
        assertion: Callable[[], str] | None = None,
        prover: Prover | None = None,
        key: ProofKey | None = None,
    ) -> None:
        self._url = url
        self._client = client
        self._egress = egress
        self._trusted = trusted
        self._seconds = seconds
        self._assertion = assertion
        self._prover = prover
        self._key = key
        self._nonce = False  # whether the last answer brought one

    def authorization_url(self, endpoint: str, state: str, verifier: str, **parameters: str) -> str:
        """Where a person says yes (RFC 6749 §4.1.1, RFC 7636 §4.3, RFC 8707 §2.1, RFC 9449 §10)."""
        if self._key is not None:
            parameters["dpop_jkt"] = self._key.thumbprint
        url: str
        url, _ = self._session().create_authorization_url(
            endpoint, state=state, code_verifier=verifier, **_present(parameters)
        )
        return url

    async def exchange(self, code: str, verifier: str, resource: str) -> Token:
        """A code for a token (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
        return await self._token("authorization_code", code=code, code_verifier=verifier, resource=resource)

    async def credentials(self, resource: str, scopes: tuple[str, ...]) -> Token:
        """A token for ourselves (RFC 6749 §4.4)."""
        return await self._token("client_credentials", resource=resource, scope=" ".join(scopes))

    async def on_behalf(self, subject: str, resource: str, scopes: tuple[str, ...]) -> Token:
        """A token for acting for somebody, by our own signed word on who that is (RFC 8693 §2.1)."""
        return await self._token(
            TOKEN_EXCHANGE,
            subject_token=subject,
            subject_token_type=f"{_TOKEN_TYPE}access_token",
            resource=resource,
            scope=" ".join(scopes),
        )

    async def asserted(self, assertion: str, resource: str, scopes: tuple[str, ...]) -> Token:
        """A token by somebody's signed word, which that server believes (RFC 7523 §2.1)."""
        return await self._token(JWT_BEARER, assertion=assertion, resource=resource, scope=" ".join(scopes))

    async def id_jag(self, subject: str, audience: str, resource: str, scopes: tuple[str, ...]) -> str:
        """An identity assertion for the authorization server `audience`, by a person's ID token (enterprise-managed
        authorization §4)."""
        found = await self._fetched(
            TOKEN_EXCHANGE,
            requested_token_type=ID_JAG,
            audience=audience,
            resource=resource,
            scope=" ".join(scopes),
            subject_token=subject,
            subject_token_type=f"{_TOKEN_TYPE}id_token",
        )
        if found.get("issued_token_type") != ID_JAG or not _is_text(said := found.get("access_token")):
            raise refused("The identity provider gave something else than an ID-JAG")
        return said

    async def refresh(self, refresh_token: str, resource: str) -> Token:
        """A new token for an old grant (RFC 6749 §6). Without `scope`: what was granted stays."""
        return await self._token("refresh_token", refresh_token=refresh_token, resource=resource)

    async def revoke(self, token: str, kind: str) -> None:
        """Give back a token of this kind; the URL is that of the revocation endpoint (RFC 7009 §2.1)."""
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._session().revoke_token(self._url, token, kind, headers=dict(_HEADERS))
        except TimeoutError as error:
            raise GatewayError(Reason.UPSTREAM_TIMEOUT, "The revocation endpoint did not answer in time") from error
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error
        if answer.status_code != 200:  # §2.2: also for a token that it does not know
            raise refused(f"The authorization server did not take the token back (HTTP {answer.status_code})")

    async def _token(self, grant: str, **parameters: str) -> Token:
        return _token(await self._fetched(grant, **parameters), proved=self._key is not None)

    async def _fetched(self, grant: str, **parameters: str) -> Tree:
        """The answer; once more with the nonce, if that is what the server wants (RFC 9449 §8)."""
        try:
            return await self._asked(grant, parameters)
        except Denied as error:
            if error.error != "use_dpop_nonce" or not self._nonce:
                raise
        return await self._asked(grant, parameters)

    async def _asked(self, grant: str, parameters: Mapping[str, str]) -> Tree:
        session = self._session()
        headers = dict(_HEADERS)
        if self._prover is not None and self._key is not None:
            headers["DPoP"] = self._prover.proof(self._key, "POST", self._url)
        try:
            async with asyncio.timeout(self._seconds):
                found: Tree = await session.fetch_token(
                    self._url, grant_type=grant, headers=headers, **_present(parameters)
                )
        except TimeoutError as error:
            raise GatewayError(
                Reason.UPSTREAM_TIMEOUT, "The token endpoint did not answer in time", metadata={"delivered": "no"}
            ) from error
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error
        return found

    def _session(self) -> AsyncOAuth2Client:
        # At the first token: half of what authlib loads is of no use to a gateway without such servers.
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        client = self._client
        session = AsyncOAuth2Client(
            client_id=client.id,
            client_secret=client.secret,
            token_endpoint_auth_method=client.method,
            revocation_endpoint_auth_method=client.method,
            redirect_uri=client.redirect_uri,
            code_challenge_method="S256",
            transport=EgressTransport(self._egress, trusted=self._trusted, limit=ANSWER_LIMIT),
            follow_redirects=False,
            trust_env=False,
            timeout=self._seconds,
        )
        session.register_client_auth_method(("client_secret_basic", _basic))
        session.register_client_auth_method((PRIVATE_KEY_JWT, self._with_assertion))
        session.register_compliance_hook("access_token_response", self._checked)
        return session

    def _with_assertion(self, _client: Any, _method: str, uri: str, headers: Any, body: bytes) -> Any:
        """RFC 7521 §4.2."""
        if self._assertion is None:
            raise GatewayError(Reason.UNAVAILABLE, "There is no key for this authorization server; set client_key")
        said = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": self._assertion()}
        return uri, headers, body + b"&" + urlencode(said).encode()

    def _checked(self, answer: httpx2.Response) -> httpx2.Response:
        if self._prover is not None:
            self._nonce = self._prover.heard(self._url, answer.headers)
        return _checked(answer)


async def register(
    url: str, redirect_uri: str | None, grant: Grant, method: str, egress: Egress, *, trusted: bool
) -> Client:
    """Dynamic registration (RFC 7591 §3). A client whose redirect goes to loopback is a native one."""
    native = redirect_uri is None or redirect_uri.startswith("http://")
    asked: Tree = {
        "client_name": "gateway",
        "application_type": "native" if native else "web",
        "grant_types": [grant.grant_type, *(["refresh_token"] if redirect_uri else [])],
        "token_endpoint_auth_method": method,
        **({"redirect_uris": [redirect_uri], "response_types": ["code"]} if redirect_uri else {}),
    }
    try:
        async with (
            asyncio.timeout(ANSWER_SECONDS),
            control_client(egress, trusted=trusted, limit=ANSWER_LIMIT) as http,
        ):
            answer = await http.post(url, content=orjson.dumps(asked), headers={"content-type": "application/json"})
            tree = _tree(answer)
    except TimeoutError as error:
        raise GatewayError(Reason.UPSTREAM_TIMEOUT, "The registration endpoint did not answer in time") from error
    except httpx2.HTTPError as error:
        raise _unreachable(error) from error
    id, secret, given = tree.get("client_id"), tree.get("client_secret"), tree.get("token_endpoint_auth_method", method)
    if not _is_text(id) or not (secret is None or _is_text(secret)) or given not in METHODS:
        raise refused("The authorization server registered the gateway in a way that it cannot use")
    if given != "none" and secret is None:
        raise refused("The authorization server registered the gateway without the secret that it asks for")
    return Client(id, None if given == "none" else secret, given, redirect_uri)


def _basic(client: Any, _method: str, uri: str, headers: Any, body: Any) -> Any:
    pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret or '')}"
    headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return uri, headers, body


def _checked(answer: httpx2.Response) -> httpx2.Response:
    """The answer in a form that authlib can do nothing wrong with. Raises GatewayError."""
    tree = _tree(answer)
    life = tree.get("expires_in")
    if isinstance(life, str) and life.isascii() and life.isdigit() and len(life) < 12:
        life = int(life)  # some servers write it so
    clean: Tree = {name: tree[name] for name in _KEPT if name in tree}
    if isinstance(life, int | float) and not isinstance(life, bool) and 0 < life <= LONGEST_LIFE:
        clean["expires_in"] = int(life) or 1
    return httpx2.Response(200, content=orjson.dumps(clean))


def _tree(answer: httpx2.Response) -> Tree:
    try:
        tree = read(answer.content)
    except GatewayError:
        tree = None
    if answer.status_code in (200, 201) and isinstance(tree, dict) and "error" not in tree:
        return tree
    error = tree.get("error") if isinstance(tree, dict) else None
    if isinstance(error, str) and _ERROR.fullmatch(error):
        log.info("the authorization server refused: %s", error)
        raise Denied(error)
    raise refused(f"The authorization server answered with something that is no token (HTTP {answer.status_code})")


def _token(found: Tree, *, proved: bool) -> Token:
    access, refresh, scope, kind, _, identity = (found.get(each) for each in _KEPT)
    if not _is_text(access) or " " in access:
        raise refused("The authorization server gave no access token")
    kinds = ("bearer", "dpop") if proved else ("bearer",)
    if not isinstance(kind, str) or kind.lower() not in kinds:
        raise refused(f"The authorization server gave a token of a type other than {' or '.join(kinds)}")
    return Token(
        access,
        refresh if _is_text(refresh) else None,
        found.get("expires_in"),
        scopes_of(scope) if isinstance(scope, str) else None,
        kind.lower() == "dpop",
        identity if _is_text(identity) else None,
    )


def _present(parameters: Mapping[str, str]) -> dict[str, str]:
    """Without those that are empty (RFC 6749 §3.2)."""
    return {name: each for name, each in parameters.items() if each}


def _is_text(found: Any) -> TypeGuard[str]:
    return isinstance(found, str) and len(found) <= LONGEST_TOKEN and _TEXT.fullmatch(found) is not None


def _unreachable(error: httpx2.HTTPError) -> GatewayError:
    return gateway_error(error) or refused("The authorization server could not be reached")
