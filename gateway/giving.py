"""The settings under `auth.authorization_server`, made into what gives out tokens. Brings authlib."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.routing import Route

from gateway.config import AuthorizationServer as Entry
from gateway.config import LoginProvider, Settings
from gateway.core.administration import TokenServer
from gateway.core.attempts import Attempts
from gateway.core.audit import Recorder
from gateway.core.clients import Clients
from gateway.core.people import People
from gateway.dialects.oauth2.access_token import Rules, Verified
from gateway.dialects.oauth2.metadata import authorization_server, read_metadata
from gateway.dialects.oauth2.signature import BadKeys
from gateway.model.identity import Documents
from gateway.model.ports import Store
from gateway.model.problems import Problem, StartError
from gateway.server.oauth.approval import ApprovalPages
from gateway.server.oauth.authorization_server import AuthorizationServer, OwnIssuer
from gateway.server.oauth.browser import Browsers
from gateway.server.oauth.client_documents import ClientDocuments
from gateway.server.oauth.consent import Consent
from gateway.server.oauth.endpoints import Endpoints
from gateway.server.oauth.passwords import Argon2Passwords
from gateway.server.oauth.proofs import Proofs
from gateway.server.oauth.provider import Provider
from gateway.server.oauth.registration import Invitations, Registration
from gateway.server.oauth.signing import SigningKeys
from gateway.server.oauth.visitors import Visitors
from gateway.server.proxies import Proxies
from gateway.stores.keyfolder import KeyFolder

FOLDER = "oauth-keys"
LABEL = "gateway"  # no issuer is called so: they are URLs
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Giving:
    """The authorization server: as an issuer of tokens for the door, as paths, and as the operator's."""

    issuer: OwnIssuer
    routes: list[Route]
    server: TokenServer
    provider: Provider | None
    approvals: ApprovalPages | None  # where people can log in
    visitors: Visitors | None  # likewise
    metadata: dict[str, Any]  # as it is published (RFC 8414)


def giving(
    settings: Settings,
    entry: Entry,
    store: Store,
    documents: Documents,
    secret: bytes,
    read_secret: Callable[[LoginProvider], str],
    forget: Callable[[], None],
    verify: Callable[[bytes], Awaitable[Verified]],
    proofs: Proofs,
    used: Callable[[], frozenset[str]],
    now: Callable[[], int],
    new_id: Callable[[], str],
) -> Giving:
    """`secret` seals pages and cookies, `forget` is called when a token may be good no longer, `verify` knows every
    token that the door takes, `used` the scopes that resources list. Raises StartError."""
    url = settings.public_url.rstrip("/")
    keys = _keys(settings, entry, now)
    attempts = Attempts(now)
    clients = Clients(store.clients, store.commit, now, forget)
    people = People(
        store.people,
        store.commit,
        clients,
        Argon2Passwords(),
        attempts,
        now,
        on_removed=forget,
        tenanted=entry.login.issuer if entry.login is not None and entry.login.tenant_claim else None,
    )
    bound = entry.dpop == "required"
    rules = Rules(
        url,
        frozenset({url, url + "/"}),
        frozenset({"ES256", "EdDSA"}),
        tenant_claim=("tenant",),
        tenant_needed=False,
        label=LABEL,
        bound=bound,
    )
    issuer = OwnIssuer(rules, keys, clients, people, now)
    logins = entry.users or entry.login is not None
    server = AuthorizationServer(
        issuer,
        keys,
        clients,
        people,
        ClientDocuments(documents, entry.client_documents, now),
        url=url,
        seconds=entry.token_seconds,
        grant_seconds=entry.grant_days * DAY,
        scopes=entry.scopes,
        used=used,
        logins=logins,
        registration=entry.registration != "off",
        verify=verify,
        proofs=proofs,
        now=now,
        new_id=new_id,
    )
    recorder = Recorder(store, now)
    invitations = Invitations(issuer, keys, url, now)
    registration = Registration(clients, None if entry.registration == "open" else invitations, now)
    routes = Endpoints(server, recorder, new_id, registration if server.abilities.registration else None).routes()
    provider = None if entry.login is None else _provider(entry.login, url, documents, read_secret, now)
    approvals = ApprovalPages(LABEL) if logins else None
    visitors = None
    if approvals is not None:
        browsers, users = Browsers(secret, now, secure=url.startswith("https:")), entry.users
        visitors = Visitors(browsers, people, LABEL)
        routes += Consent(
            server,
            browsers,
            recorder,
            attempts,
            users=users,
            provider=provider,
            approvals=approvals,
            proxies=Proxies(settings.config.server.trusted_proxies),
        ).routes()
    metadata = read_metadata(authorization_server(url, server.abilities), url)
    operator = TokenServer(clients, people, invitations.make, server.state, LABEL)
    return Giving(issuer, routes, operator, provider, approvals, visitors, metadata)


def _keys(settings: Settings, entry: Entry, now: Callable[[], int]) -> SigningKeys:
    folder = settings.data / FOLDER
    try:
        return SigningKeys(KeyFolder(folder), entry.algorithm, entry.rotate_days, now)
    except (BadKeys, ValueError) as error:
        hint = "remove the file that is not one; a new key is made at the start"
        raise StartError(Problem(str(folder), f"does not hold signing keys only: {error}", hint)) from None


def _provider(
    entry: LoginProvider,
    url: str,
    documents: Documents,
    read_secret: Callable[[LoginProvider], str],
    now: Callable[[], int],
) -> Provider:
    read_secret(entry)  # a file that is not there is found at the start
    return Provider(
        entry.issuer,
        documents,
        now,
        client_id=entry.client_id,
        secret=lambda: read_secret(entry),
        callback=f"{url}/oauth/callback",
        name=entry.name,
        scopes=entry.scopes,
        roles_claim=entry.roles_claim,
        tenant_claim=entry.tenant_claim,
    )
