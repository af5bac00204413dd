"""The settings under `auth`, made into what checks access tokens. Brings joserfc: imported only where they are used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.routing import Route

from gateway.config import Config, ConfigError, Issuer, Settings
from gateway.core.administration import TokenServer
from gateway.core.keys import fingerprint
from gateway.dialects.a2a_v1.entrance import Offer
from gateway.dialects.oauth2.access_token import Rules
from gateway.dialects.oauth2.dpop import ACCEPTED
from gateway.model.ports import Store
from gateway.server.entrances import Advertised
from gateway.server.http import Identity
from gateway.server.oauth import issuers
from gateway.server.oauth.keys import IssuerKeys, IssuerMetadata
from gateway.server.oauth.proofs import Proofs
from gateway.server.oauth.tokens import Tokens
from gateway.upstream.documents import IssuerDocuments
from gateway.upstream.egress import Egress

if TYPE_CHECKING:
    from gateway.server.oauth.approval import ApprovalPages
    from gateway.server.oauth.provider import Provider


@dataclass(frozen=True, slots=True)
class Trust:
    """What `auth` asked for: who knows tokens, what clients are told, and whom we give tokens to ourselves."""

    tokens: Tokens
    identity: Identity
    server: TokenServer | None
    provider: Provider | None = None
    approvals: ApprovalPages | None = None  # where people can log in

    async def start(self) -> None:
        if self.server is not None:
            await self.server.clients.start()
            await self.server.people.start()

    async def aclose(self) -> None:
        await self.tokens.aclose()
        if self.provider is not None:
            await self.provider.aclose()


def trust(
    settings: Settings,
    egress: Egress,
    store: Store,
    secret: bytes,
    used: Callable[[], frozenset[str]],
    now: Callable[[], int],
    new_id: Callable[[], str],
) -> Trust:
    """`secret` seals what people's browsers keep for us, `used` are the scopes that rules ask for.

    Raises ConfigError at the line of what cannot be used, StartError for keys that cannot."""
    config, url = settings.config, settings.public_url.rstrip("/")
    documents, proofs = IssuerDocuments(egress), Proofs(now)
    entries = config.auth.issuers
    found: list[issuers.Issuer] = [
        _issuer(config, index, entry, url, documents, now, lambda: tokens.forget())
        for index, entry in enumerate(entries)
    ]
    scopes = frozenset(scope for entry in entries for scope in entry.required_scopes)
    server, provider, approvals, visitors, routes, own = None, None, None, None, list[Route](), None
    if (entry := config.auth.authorization_server) is not None:
        # Imported at first use: authlib only where tokens are given out.
        from gateway.giving import giving

        made = giving(
            settings,
            entry,
            store,
            documents,
            secret,
            lambda login: _secret(config, _LOGIN, login.client_secret_file),
            lambda: tokens.forget(),
            lambda token: tokens.verify(fingerprint(token), token),
            proofs,
            lambda: scopes | used(),
            now,
            new_id,
        )
        server, provider, approvals, routes = made.server, made.provider, made.approvals, made.routes
        visitors = made.visitors
        own = Offer("oauth", url, made.metadata, bound=made.issuer.rules.bound)
        found.append(made.issuer)
    tokens = Tokens(found, now, proofs)
    names = tuple(issuer.rules.issuer for issuer in found)
    bound = all(issuer.rules.bound for issuer in found)
    advertised = [_offered(index, entry, documents) for index, entry in enumerate(entries)]
    identity = Identity(tokens, names, tuple(sorted(scopes)), routes, ACCEPTED, bound, own, advertised, visitors)
    return Trust(tokens, identity, server, provider, approvals)


def _offered(index: int, entry: Issuer, documents: IssuerDocuments) -> Advertised:
    """What cards may say of an issuer: it alone knows what it offers."""
    name = "issuer" if not index else f"issuer-{index + 1}"
    metadata = IssuerMetadata(entry.issuer, documents)
    return Advertised(name, entry.issuer, metadata, tuple(entry.required_scopes), entry.dpop == "required")


def _issuer(
    config: Config,
    index: int,
    entry: Issuer,
    public_url: str,
    documents: IssuerDocuments,
    now: Callable[[], int],
    forget: Callable[[], None],
) -> issuers.Issuer:
    rules = Rules(
        issuer=entry.issuer,
        audiences=frozenset(entry.audience) or whole(public_url),
        algorithms=frozenset(entry.algorithms),
        types=frozenset(entry.token_types),
        roles_claim=entry.roles_claim,
        tenant_claim=entry.tenant_claim,
        scopes=frozenset(entry.required_scopes),
        bound=entry.dpop == "required",
    )
    if entry.introspection is not None:
        return issuers.IntrospectedIssuer(
            rules,
            documents,
            now,
            client_id=entry.introspection.client_id,
            secret=_secret(
                config,
                ("auth", "issuers", index, "introspection", "client_secret_file"),
                entry.introspection.client_secret_file,
            ),
            endpoint=entry.introspection.endpoint,
        )
    keys = IssuerKeys(entry.issuer, rules.algorithms, documents, now, forget, jwks_uri=entry.jwks_uri)
    return issuers.KeyedIssuer(rules, keys, now)


def whole(public_url: str) -> frozenset[str]:
    """The gateway as an audience. Without a path it has two spellings that mean the same (RFC 3986 §6.2.3)."""
    url = public_url.rstrip("/")
    return frozenset({url, url + "/"} if url.count("/") == 2 else {url})


_LOGIN = ("auth", "authorization_server", "login", "client_secret_file")


def _secret(config: Config, place: tuple[str | int, ...], path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError([config.problem(place, f"cannot read {path}: {reason}", "give the path of a file")]) from None
    if not secret:
        raise ConfigError([config.problem(place, f"{path} is empty", "put the client's secret into it")])
    return secret
