"""The settings under `credentials` of remote agents, made into what lets the gateway in there. A part of app.py."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gateway.config import AgentCredentials, AgentOAuth, Config, ConfigError, RemoteAgent, Settings, Value
from gateway.model.card import AgentCard
from gateway.upstream.agent_credentials import Given, openid_issuer, token_url
from gateway.upstream.egress import BadCertificate, Egress, Way, showing
from gateway.upstream.letting_in import Admission, Admitted, ClosingDirectory
from gateway.upstream.oauth.client import ClientSettings, Grant
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.grants import Grants
from gateway.upstream.oauth.metadata import Server, bare
from gateway.upstream.oauth.source import TokenSource
from gateway.upstream.oauth.vault import SHARED, Vault
from gateway.upstream.secret import Secret

# Who the caller is, for an issuer: our signed word on it.
Statement = Callable[[str, str], str]


def admitted(
    settings: Settings,
    egress: Egress,
    now: Callable[[], int],
    statement: Statement | None,
    inner: Callable[[Way], ClosingDirectory],
) -> Admitted:
    """The directory of remote agents, whatever they ask for. Raises ConfigError."""
    config, vault = settings.config, Vault(settings.data / "agent-oauth")
    admissions = {
        id: _admission(config, id, entry.credentials, egress, vault, now, statement)
        for id, entry in config.agents.items()
        if isinstance(entry, RemoteAgent) and entry.credentials is not None
    }
    return Admitted(inner, egress, admissions, os.environ)


def _admission(
    config: Config,
    id: str,
    entry: AgentCredentials,
    egress: Egress,
    vault: Vault,
    now: Callable[[], int],
    statement: Statement | None,
) -> Admission:
    headers = {name: _value(each) for name, each in entry.headers.items()}
    key = None if entry.key is None else Secret(entry.key.file, entry.key.variable)
    oauth = None if entry.oauth is None else _client(entry.oauth)
    if oauth is not None and oauth.grant is Grant.TOKEN_EXCHANGE and statement is None:
        what = "needs the gateway's own signature on who the caller is"
        hint = "set auth.authorization_server; {} will do"
        raise ConfigError([config.problem(("agents", id, "credentials", "oauth", "grant"), what, hint)])
    source = None if oauth is None else partial(_source, id, oauth, egress, vault, now, statement)
    own = _own_egress(config, id, entry.cert, entry.cert_key, egress)
    given = Given(key, entry.user, headers, oauth, certificate=entry.cert is not None)
    per_caller = oauth is not None and oauth.grant is not Grant.CLIENT_CREDENTIALS
    return Admission(given, entry.origin, per_caller, source, own)


def _source(
    id: str,
    client: ClientSettings,
    egress: Egress,
    vault: Vault,
    now: Callable[[], int],
    statement: Statement | None,
    caller: str,
    card: AgentCard,
    resource: str,
) -> TokenSource:
    """How the tokens of one caller are got; of nobody's, when all callers share them."""
    otherwise: Server | str | None = openid_issuer(card)
    if otherwise is None and (url := token_url(card)) is not None:
        otherwise = bare(url)
    return TokenSource(
        id,
        client,
        Discovery(resource, client.issuer, egress, otherwise=otherwise),
        Grants(id, vault, caller or SHARED),
        egress,
        ours=os.environ,
        now=now,
        random=os.urandom,
        subject=None if statement is None else partial(statement, caller),
    )


def _own_egress(config: Config, id: str, cert: Path | None, key: Path | None, egress: Egress) -> Egress:
    if cert is None or key is None:
        return egress
    try:
        return showing(egress.rules, cert, key)
    except BadCertificate as error:
        place = ("agents", id, "credentials", "cert")
        raise ConfigError([config.problem(place, str(error), "give PEM files that belong together")]) from error


def _client(entry: AgentOAuth) -> ClientSettings:
    return ClientSettings(
        Grant(entry.grant),
        entry.client_id,
        None if entry.client_secret is None else Secret(entry.client_secret.file, entry.client_secret.variable),
        entry.client_metadata,
        entry.issuer,
        tuple(entry.scopes),
    )


def _value(value: Value) -> str | Secret:
    return value.text if value.text is not None else Secret(value.file, value.variable, value.before)
