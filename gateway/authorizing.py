"""The settings under `oauth`, of tool servers and remote agents, made into what gets their tokens. A part of app.py."""

from __future__ import annotations

import os
from collections.abc import Callable

from gateway.config import OAuthEntry, Value
from gateway.upstream.egress import Egress
from gateway.upstream.oauth.client import ClientSettings, Grant, IdentityProvider, Proofs
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.grants import Grants
from gateway.upstream.oauth.source import TokenSource
from gateway.upstream.oauth.vault import CALLERS, SHARED, Vault
from gateway.upstream.secret import Secret


class Authorizations:
    """What is kept in one vault. All callers are the same client at an issuer: theirs is a redirect to the gateway, the
    operator's one to loopback."""

    def __init__(self, vault: Vault, egress: Egress, now: Callable[[], int]) -> None:
        self.vault = vault
        self._egress = egress
        self._now = now

    def source(
        self,
        upstream: str,
        settings: ClientSettings,
        discovery: Discovery,
        owner: str,
        *,
        subject: Callable[[str], str] | None = None,
        otherwise: str = "",
    ) -> TokenSource:
        """How one upstream's tokens are got for an owner; "" for what all callers share."""
        shared = owner in ("", SHARED)
        return TokenSource(
            upstream,
            settings,
            discovery,
            Grants(upstream, self.vault, owner or SHARED),
            self._egress,
            ours=os.environ,
            now=self._now,
            random=os.urandom,
            registrations=None if shared else Grants(upstream, self.vault, CALLERS),
            subject=subject,
            otherwise=otherwise,
        )


def client(entry: OAuthEntry) -> ClientSettings:
    return ClientSettings(
        Grant(entry.grant),
        entry.client_id,
        _place(entry.client_secret),
        entry.client_metadata,
        entry.issuer,
        tuple(entry.scopes),
        _place(entry.client_key),
        _place(entry.assertion),
        _provider(entry),
        Proofs(entry.dpop),
    )


def secret(value: Value) -> str | Secret:
    return value.text if value.text is not None else Secret(value.file, value.variable, value.before)


def _provider(entry: OAuthEntry) -> IdentityProvider | None:
    found = entry.identity_provider
    if found is None:
        return None
    key, secret, subject = map(_place, (found.client_key, found.client_secret, found.subject))
    return IdentityProvider(found.issuer, found.client_id, secret, key, subject)


def _place(found: Value | None) -> Secret | None:
    return None if found is None else Secret(found.file, found.variable)
