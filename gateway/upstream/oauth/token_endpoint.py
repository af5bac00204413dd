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
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import quote_plus

import httpx2
import orjson

from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Tree
from gateway.model.value import value
from gateway.upstream.egress import Egress
from gateway.upstream.httpx2_transport import EgressTransport, control_client, gateway_error
from gateway.upstream.oauth.challenge import scopes_of
from gateway.upstream.oauth.client import METHODS, Client
from gateway.upstream.oauth.metadata import refused

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

_KEPT = ("access_token", "refresh_token", "scope", "token_type")
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
    """`life` is seconds from now, None when the server does not say. `scopes` None: as asked (RFC 6749 §5.1)."""

    access: str
    refresh: str | None
    life: int | None
    scopes: tuple[str, ...] | None

    def __repr__(self) -> str:
        return "Token(…)"


class TokenEndpoint:
    """One token endpoint, as one client of it. Every method raises GatewayError; Denied for what it refused."""

    def __init__(
        self, url: str, client: Client, egress: Egress, *, trusted: bool, seconds: float = ANSWER_SECONDS
    ) -> None:
        self._url = url
        self._client = client
        self._egress = egress
        self._trusted = trusted
        self._seconds = seconds

    def authorization_url(
        self, endpoint: str, state: str, verifier: str, resource: str, scopes: tuple[str, ...]
    ) -> str:
        """Where a person says yes (RFC 6749 §4.1.1, RFC 7636 §4.3, RFC 8707 §2.1)."""
        url: str
        url, _ = self._session().create_authorization_url(
            endpoint, state=state, code_verifier=verifier, resource=resource, scope=" ".join(scopes) or None
        )
        return url

    async def exchange(self, code: str, verifier: str, resource: str) -> Token:
        """A code for a token (RFC 6749 §4.1.3, RFC 7636 §4.5)."""
        return await self._fetched("authorization_code", code=code, code_verifier=verifier, resource=resource)

    async def credentials(self, resource: str, scopes: tuple[str, ...]) -> Token:
        """A token for ourselves (RFC 6749 §4.4)."""
        return await self._fetched("client_credentials", resource=resource, scope=" ".join(scopes))

    async def on_behalf(self, subject: str, resource: str, scopes: tuple[str, ...]) -> Token:
        """A token for acting for somebody, by our own signed word on who that is (RFC 8693 §2.1)."""
        return await self._fetched(
            "urn:ietf:params:oauth:grant-type:token-exchange",
            subject_token=subject,
            subject_token_type="urn:ietf:params:oauth:token-type:access_token",
            resource=resource,
            scope=" ".join(scopes),
        )

    async def refresh(self, refresh_token: str, resource: str) -> Token:
        """A new token for an old grant (RFC 6749 §6). Without `scope`: what was granted stays."""
        return await self._fetched("refresh_token", refresh_token=refresh_token, resource=resource)

    async def _fetched(self, grant: str, **parameters: str) -> Token:
        session = self._session()
        try:
            async with asyncio.timeout(self._seconds):
                found = await session.fetch_token(self._url, grant_type=grant, **parameters)
        except TimeoutError as error:
            raise GatewayError(
                Reason.UPSTREAM_TIMEOUT, "The token endpoint did not answer in time", metadata={"delivered": "no"}
            ) from error
        except httpx2.HTTPError as error:
            raise _unreachable(error) from error
        return _token(found)

    def _session(self) -> AsyncOAuth2Client:
        # At the first token: half of what authlib loads is of no use to a gateway without such servers.
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        client = self._client
        session = AsyncOAuth2Client(
            client_id=client.id,
            client_secret=client.secret,
            token_endpoint_auth_method=client.method,
            redirect_uri=client.redirect_uri,
            code_challenge_method="S256",
            transport=EgressTransport(self._egress, trusted=self._trusted, limit=ANSWER_LIMIT),
            follow_redirects=False,
            trust_env=False,
            timeout=self._seconds,
        )
        session.register_client_auth_method(("client_secret_basic", _basic))
        session.register_compliance_hook("access_token_response", _checked)
        return session


async def register(
    url: str, redirect_uri: str | None, grant: str, method: str, egress: Egress, *, trusted: bool
) -> Client:
    """Dynamic registration (RFC 7591 §3). A client whose redirect goes to loopback is a native one."""
    native = redirect_uri is None or redirect_uri.startswith("http://")
    asked: Tree = {
        "client_name": "gateway",
        "application_type": "native" if native else "web",
        "grant_types": [grant, *(["refresh_token"] if redirect_uri else [])],
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


def _token(found: Tree) -> Token:
    access, refresh, scope, kind = (found.get(each) for each in _KEPT)
    if not _is_text(access) or " " in access:
        raise refused("The authorization server gave no access token")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise refused("The authorization server gave a token of a type other than Bearer")
    return Token(
        access,
        refresh if _is_text(refresh) else None,
        found.get("expires_in"),
        scopes_of(scope) if isinstance(scope, str) else None,
    )


def _is_text(found: Any) -> TypeGuard[str]:
    return isinstance(found, str) and len(found) <= LONGEST_TOKEN and _TEXT.fullmatch(found) is not None


def _unreachable(error: httpx2.HTTPError) -> GatewayError:
    return gateway_error(error) or refused("The authorization server could not be reached")
