"""The settings under `credentials` of remote agents, made into what lets the gateway in there. A part of app.py."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial

from gateway.authorizing import Authorizations, client, secret, value_of
from gateway.config import AgentCredentials, Config, ConfigError, RemoteAgent, Settings
from gateway.model.problems import BadCertificate
from gateway.renewing import Renewal
from gateway.upstream.agent_credentials import Given, Wanted
from gateway.upstream.egress import Egress, Way, showing
from gateway.upstream.letting_in import Admission, Admitted, ClosingDirectory
from gateway.upstream.oauth.client import ClientSettings, Grant
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.source import TokenSource

# Who the caller is, for an issuer: our signed word on it.
Statement = Callable[[str, str], str]


def admitted(
    settings: Settings,
    egress: Egress,
    authorizations: Authorizations,
    statement: Statement | None,
    inner: Callable[[Way], ClosingDirectory],
    renewals: list[Renewal],
) -> Admitted:
    """The directory of remote agents, whatever they ask for; `renewals` gets what keeps their certificates new. Raises
    ConfigError."""
    config = settings.config
    admissions, at = {}, dict[str, Egress]()
    for id, entry in config.agents.items():
        if isinstance(entry, RemoteAgent) and entry.credentials is not None:
            made = admissions[id] = _admission(
                config, id, entry.credentials, egress, authorizations, statement, renewals
            )
            at |= {url: made.egress for url in (entry.card_url, *entry.replicas) if made.egress is not egress}
    return Admitted(inner, egress, admissions, os.environ, at)


def _admission(
    config: Config,
    id: str,
    entry: AgentCredentials,
    egress: Egress,
    authorizations: Authorizations,
    statement: Statement | None,
    renewals: list[Renewal],
) -> Admission:
    headers = {name: value_of(each) for name, each in entry.headers.items()}
    key = None if entry.key is None else secret(entry.key)
    oauth = None if entry.oauth is None else client(entry.oauth)
    if oauth is not None and oauth.grant is Grant.TOKEN_EXCHANGE and statement is None:
        what = "needs the gateway's own signature on who the caller is"
        hint = "set auth.authorization_server; {} will do"
        raise ConfigError([config.problem(("agents", id, "credentials", "oauth", "grant"), what, hint)])
    own = _own_egress(config, id, entry, egress, renewals)
    make = None if oauth is None else partial(_source, id, oauth, egress, own, authorizations, statement)
    given = Given(key, entry.user, headers, oauth, certificate=entry.cert is not None)
    per_caller = oauth is not None and oauth.grant is not Grant.CLIENT_CREDENTIALS
    return Admission(given, entry.origin, per_caller, make, own)


def _source(
    id: str,
    settings: ClientSettings,
    egress: Egress,
    own: Egress,
    authorizations: Authorizations,
    statement: Statement | None,
    owner: str,
    wanted: Wanted,
) -> TokenSource:
    """How the tokens of one caller (tenant and id) are got; of nobody's, when all callers share them."""
    discovery = Discovery(
        wanted.resource,
        settings.issuer,
        egress,
        otherwise=wanted.otherwise,
        metadata=wanted.metadata,
        scopes=wanted.scopes,
        home=own,
    )
    caller = owner.partition("/")[2]
    subject = None if statement is None else partial(statement, caller)
    return authorizations.source(id, settings, discovery, owner, subject=subject)


def _own_egress(config: Config, id: str, entry: AgentCredentials, egress: Egress, renewals: list[Renewal]) -> Egress:
    """One of its own for an agent that wants a certificate of ours, or is vouched for by authorities of its own."""
    shown = None if entry.cert is None or entry.cert_key is None else (entry.cert, entry.cert_key)
    if shown is None and entry.ca is None:
        return egress
    own, ca = Egress(egress.rules), entry.ca

    async def renew() -> None:
        own.renew(await asyncio.to_thread(showing, shown, ca))

    # Before they are read: what is written meanwhile is seen.
    files = [file for file in (*(shown or ()), ca) if file is not None]
    renewals.append(Renewal(f"agents.{id}.credentials", files, renew))
    try:
        own.renew(showing(shown, ca))
    except BadCertificate as error:
        place = ("agents", id, "credentials", "cert" if shown is not None else "ca")
        raise ConfigError([config.problem(place, str(error), "give PEM files that belong together")]) from error
    return own
