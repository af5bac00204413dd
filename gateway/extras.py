"""The parts that only some configurations ask for. Each brings libraries that are slow to load, so it is imported where
the file asks for it, and nowhere else.

A part of app.py, in a room of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.chance import new_id
from gateway.config import Config, ConfigError, Settings
from gateway.core.compliance.compliance import Compliance
from gateway.listening import Shown
from gateway.model.ports import Store
from gateway.model.problems import Problem, StartError
from gateway.server.cards import KEYS
from gateway.server.published import Signer
from gateway.stores.keyfolder import KeyFolder
from gateway.stores.notary import Notary
from gateway.stores.sqlite import SqliteStore
from gateway.upstream.egress import Egress

if TYPE_CHECKING:
    from gateway import complying
    from gateway.identity import Trust
    from gateway.server.grpc import GrpcServer, Pem


def notary(settings: Settings, store: Store, egress: Egress, now: Callable[[], int]) -> Notary | None:
    """Who signs the audit log, where it is kept."""
    if not isinstance(store, SqliteStore):
        return None
    audit, shown = settings.config.audit, None
    if audit.witness_file or audit.witnesses:
        # Imported where the file asks for it: it brings cryptography.
        from gateway.witnessing import witnesses

        shown = witnesses(audit, store, egress)
    return Notary(store, settings.data / "audit", now, shown)


def screen(config: Config, compliance: Compliance) -> complying.Keeper | None:
    """What may pass; without a file everything, and nothing that looks is loaded."""
    if config.compliance.file is None:
        return None
    from gateway import complying

    return complying.Keeper(config.compliance.file, config.base, compliance.use)


def trust(
    settings: Settings,
    egress: Egress,
    store: Store,
    secret: bytes,
    scopes: Callable[[], frozenset[str]],
    now: Callable[[], int],
) -> Trust | None:
    """Who checks access tokens and gives them out; nobody where the file does not ask for it."""
    auth = settings.config.auth
    if not auth.issuers and auth.authorization_server is None:
        return None
    # Imported at first use: a gateway that knows only its own keys needs no library for tokens.
    from gateway import identity

    return identity.trust(settings, egress, store, secret, scopes, now, new_id)


def pem(shown: Shown) -> Pem:
    from gateway.server.grpc import Pem

    return Pem(shown.cert, shown.key, shown.client_ca)


def grpc(settings: Settings, port: int, shown: Shown | None, not_ready: Callable[[], str | None]) -> GrpcServer:
    """The gRPC port, opened."""
    where = settings.config.problem(("server", "grpc_port"), "")
    try:
        # Imported at first use: a second network stack, and packages that are an extra.
        from gateway.server.grpc import CannotListen, GrpcServer
    except ImportError as error:
        reason = "needs the packages of the extra `grpc`"
        raise ConfigError([replace(where, reason=reason, hint="pip install 'gateway[grpc]'")]) from error
    try:
        tls = None if shown is None else pem(shown)
        return GrpcServer(settings.host, port, tls=tls, not_ready=not_ready)
    except CannotListen as error:
        hint = "choose another with --grpc-port, or stop what listens there"
        raise StartError(Problem(f"{settings.host}:{port}", "cannot listen for gRPC", hint)) from error


def signer(settings: Settings, now: Callable[[], int]) -> Signer:
    """Who signs the cards, when the first of them is served."""
    # Imported at first use: a gateway that nobody asks for a card needs no library for signatures.
    from gateway.server.card_signer import CardSigner

    folder, cards = settings.data / "card-keys", settings.config.cards
    url = settings.public_url.rstrip("/") + KEYS
    return CardSigner(KeyFolder(folder), cards.algorithm, cards.rotate_days, now, url, str(folder))
