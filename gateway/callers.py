"""Whether callers from beyond this machine can be told apart, which the start asks.

A part of app.py, in a room of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config import Settings, is_loopback
from gateway.core.keys import KeyRing
from gateway.model.problems import Problem, StartError

if TYPE_CHECKING:
    from gateway.identity import Trust


def check_callers(settings: Settings, keys: KeyRing, trust: Trust | None) -> None:
    """Raises StartError where nobody could be told apart beyond loopback; the local credential is for this machine."""
    certificates = settings.config.auth.client_certificates is not None
    admin = settings.admin
    beyond = [] if is_loopback(settings.host) else [settings.host]
    beyond += [] if admin is None or admin.local else [admin.host]
    if not beyond or keys.shared or certificates or _tells_apart(settings, trust):
        return
    reason = f"nobody could be told apart on {beyond[0]}, beyond loopback"
    if settings.config.auth.authorization_server is not None:
        reason += ": it has no client of its own, no user who may log in, and no identity provider"
        hint = (
            "make one first, on 127.0.0.1: gateway clients add NAME, or gateway users add NAME where users is true"
            "; or name a provider under login"
        )
        raise StartError(Problem("auth.authorization_server", reason, hint))
    hint = "name an identity provider there, or make a key first, on 127.0.0.1: gateway keys add NAME"
    raise StartError(Problem("auth.issuers", reason, hint))


def _tells_apart(settings: Settings, trust: Trust | None) -> bool:
    """Whether a token can say who somebody is. Invitations and client documents let programs of people in: they
    name nobody before a person can log in."""
    auth = settings.config.auth
    entry, server = auth.authorization_server, None if trust is None else trust.server
    if auth.issuers or entry is None or server is None:
        return bool(auth.issuers)
    return entry.login is not None or server.clients.acting or (entry.users and server.people.present)
