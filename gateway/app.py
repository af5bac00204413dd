"""The only file that knows everybody: settings in, a running gateway out."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.routing import Route
from starlette.types import ASGIApp

from gateway import admitting, policing, tooling
from gateway.authorizing import Authorized
from gateway.config import (
    Config,
    ConfigError,
    RemoteAgent,
    Settings,
    ToolsAgent,
    is_loopback,
)
from gateway.core.administration import Administration
from gateway.core.approvals.approvals import Approvals
from gateway.core.approvals.calls import AgentCalls
from gateway.core.approvals.notices import Notices
from gateway.core.approvals.retention import Retention
from gateway.core.audit import Recorder
from gateway.core.compliance.compliance import Compliance
from gateway.core.compliance.profile import Profile
from gateway.core.connections import Connections
from gateway.core.cursor import Cursors
from gateway.core.engine import Engine
from gateway.core.freezer import Freezer
from gateway.core.gateway import Authority, Gateway, Webhooks
from gateway.core.governance import Governance
from gateway.core.kept import KeptConnections
from gateway.core.keys import KeyRing
from gateway.core.live import Live
from gateway.core.policy import Policy, Situation
from gateway.core.policy.admission import Admission
from gateway.core.push.bells import Bells
from gateway.core.push.letters import Letters
from gateway.core.push.worker import PushWorker
from gateway.core.recovery import Recovery
from gateway.core.registry import Registered, Registry
from gateway.core.services import Services
from gateway.core.tools.agents import AgentTools
from gateway.core.tools.grants import Grants as ToolGrants
from gateway.core.tools.means import Books, Rules
from gateway.core.tools.toolset import Toolset
from gateway.credential import credential
from gateway.dialects.mcp import headers
from gateway.enrolling import enrolled
from gateway.listening import Shown, admin_hosts, certificate, hosts, read_certificate
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.login import Accounts
from gateway.model.ports import Store
from gateway.model.problems import Problem, StartError
from gateway.renewing import Renewal
from gateway.server.auth import Authenticator
from gateway.server.cards import KEYS, Cards
from gateway.server.certificates import Certificates
from gateway.server.entrances import Entrances
from gateway.server.http import admin_application, application
from gateway.server.mcp.seal import Seal
from gateway.server.open_streams import OpenStreams
from gateway.server.openapi import About
from gateway.server.published import PublishedCards, Signer
from gateway.server.webhooks import RING
from gateway.server.webhooks import routes as webhook_routes
from gateway.stores.keyfolder import KeyFolder
from gateway.stores.memory import MemoryStore
from gateway.stores.notary import Notary
from gateway.stores.problems import StoreProblem
from gateway.stores.sqlite import SqliteStore, open_sqlite
from gateway.upstream.address import EgressRules, on_this_machine
from gateway.upstream.directory import RemoteDirectory
from gateway.upstream.documents import IssuerDocuments
from gateway.upstream.egress import Egress
from gateway.upstream.signatures import CardSignatures
from gateway.upstream.webhook import WebhookNotifier
from gateway.webhookkeys import WebhookKeys

if TYPE_CHECKING:
    from gateway import complying
    from gateway.identity import Trust
    from gateway.server.grpc import GrpcServer, Pem

log = logging.getLogger(__name__)


def _derived(token: str, use: bytes) -> bytes:
    """A key for one use, which tells nothing about the others."""
    return hashlib.sha256(use + b"\0" + token.encode()).digest()


def _now() -> int:
    return time.time_ns() // 1_000_000


def _ids() -> Iterator[str]:
    """Ids for ever: 48 bits of milliseconds, then 80 random ones, as hex. Nobody can tell the next, and those of one
    time lie side by side in an index, where random ones would dirty a page each (a durable task: -12 % CPU). The
    kernel is asked for randomness in bulk: a system call for each id costs more than all else about it."""
    while True:
        pool = os.urandom(10 * 256).hex()
        for start in range(0, len(pool), 20):
            yield f"{time.time_ns() // 1_000_000:012x}{pool[start : start + 20]}"


_new_id = _ids().__next__


def _chance() -> float:
    """A number from 0 to 1, which nobody can tell."""
    return int.from_bytes(os.urandom(4)) / 2**32


class App:
    """An assembled gateway: `start`, then serve `asgi`; `drain`, then `aclose`."""

    def __init__(
        self, settings: Settings, store: Store, token: str, node: str, *, now: Callable[[], int] = _now
    ) -> None:
        config, home = settings.config, settings.public_url.rstrip("/")
        self.settings = settings
        self.store = store
        self._renewals: list[Renewal] = []
        self.shown = self._certificate(config)
        self.when_shown: list[Callable[[Shown], Awaitable[None]]] = []  # those whose new connections show another
        self.egress = Egress(EgressRules(**config.egress.model_dump()))
        signing = WebhookKeys(settings.data, now)
        notifier = WebhookNotifier(self.egress, store.task, signing.sign, now)
        give_up_ms = round(config.push.give_up_seconds * 1000)
        freezer = self.freezer = Freezer(store.governance, now)
        self.push = PushWorker(store, notifier, now, _new_id, _chance, give_up_ms, freezer)
        bells = Bells(_derived(token, b"bell"), home + RING, local=on_this_machine(settings.public_url))
        compliance = Compliance(Profile(), Recorder(store, now))
        screen = _screen(config, compliance)
        self.services = Services(store, Live(), now, _new_id, node, self.push.wake, compliance)
        updates = {id: agent.updates for id, agent in config.agents.items() if isinstance(agent, RemoteAgent)}
        signatures = CardSignatures(IssuerDocuments(self.egress))
        statement = self._statement(settings)
        self._authorized = Authorized(settings, self.egress, now)
        self.directory = admitting.admitted(
            settings,
            self.egress,
            self._authorized.agents,
            statement,
            lambda way: RemoteDirectory(way, signatures, bells, updates),
            self._renewals,
        )
        self.registry = Registry(store, self.directory, now, _new_id)
        self.engine = Engine(self.services)
        self.recovery = Recovery(self.services, self.registry, self.engine)
        self.notary = _notary(settings, store, self.egress, now)
        self.keys = KeyRing(store, now, token)
        self.trust = _trust(settings, self.egress, store, token.encode(), self._scopes, now)
        self.entrances = _entrances(config, self.trust, now)
        cursors = Cursors(_derived(token, b"cursor"))
        grants = self._grants = ToolGrants(tooling.grants(config))
        policy = Policy(situation=lambda: Situation(now(), used=self.admission.limits.used))
        admission = self.admission = Admission(policy, store.governance, now)
        seal, recorder = partial(Seal, token.encode()), Recorder(store, now)
        connections = Connections(self._accounts, seal(b"mcp-connect"), recorder, now, _new_id, home)
        self.engine.resting.use(connections, self.registry.get)
        kept = KeptConnections(self._authorized, self._accounts, seal(b"mcp-connect"), store, now, _new_id)
        notices = Notices(config.push.approvals_url, node, self.push.wake, now)
        self.approvals = Approvals(store, policy, notices, now, _new_id)
        self._retention = Retention(self.approvals, store.approvals, config.store.approvals_days, now)
        books = Books(store, recorder, now, _new_id)
        rules = Rules(admission, compliance, AgentCalls(self.engine, self.approvals, _new_id))
        self.tools = tooling.tools(config, books, rules, connections, seal, headers.parameters)
        self.tools.granted, kept.to_connect = grants.standing, self.tools.to_connect
        for id, entry in config.tools.items():
            self.tools.servers.put(tooling.served(config, settings, id, entry, self.egress, self._authorized.tools))
        freezer.changed += (policy.forget, self.tools.servers.changed)
        live = policing.Keeper(policy, grants, freezer, config.policy.file, self.tools.servers.changed, admission)
        self.policies = [live]
        if config.policy.shadow is not None:
            self.policies.append(policing.shadowed(policy, grants, freezer, config.policy.shadow))
        self._kept: list[policing.Keeper | complying.Keeper] = [*self.policies, *([] if screen is None else [screen])]
        bridge = AgentTools(self.registry, _new_id)
        self.tools.servers.put(tooling.bridged(bridge, self.registry))
        governance = Governance(admission, self.registry, self.tools.servers, freezer, store, self.policies, screen)
        token_server = None if self.trust is None else self.trust.server
        challenge = notifier.challenge if config.push.challenge else None
        self.gateway = Gateway(
            self.services,
            self.registry,
            self.engine,
            cursors,
            self.tools,
            Authority(admission, freezer, governance),
            Administration(self.registry, self.keys, token_server, kept),
            Webhooks(self._judge_webhook, challenge, Letters(store, self.push.hosts, self.push.wake)),
        )
        self._tie(bridge)
        self._not_ready: str | None = "starting"
        self._enrol(config)
        self.grpc = (
            None if settings.grpc_port is None else _grpc(settings, settings.grpc_port, self.shown, self.trouble)
        )
        self.admin_asgi: ASGIApp | None = None  # where it has a listener of its own
        self.asgi = self._doors(cursors, webhook_routes(signing.published, bells, self.gateway.refusals.note))

    def _tie(self, bridge: AgentTools) -> None:
        """Give the gateway to what had to be made before it, and to it what only this file knows."""
        gateway = self.gateway
        bridge.doors = gateway
        gateway.held.again = self.recovery.again
        if self.trust is not None and self.trust.server is not None:
            self.services.today = self.trust.server.today
        if self.trust is not None and self.trust.approvals is not None:
            self.trust.approvals.handle = gateway.handle
            self.approvals.page = self.trust.approvals.url(self.settings.public_url.rstrip("/"))
        for keeper in self._kept:
            keeper.unasked = partial(gateway.own_acts.reloaded, keeper.verb)
        self.tools.servers.when_held.append(gateway.own_acts.held)
        for renewal in self._renewals:
            renewal.unasked = gateway.own_acts.renewed
        gateway.auditing.rotate_key = None if self.notary is None else self.notary.rotate

    def _certificate(self, config: Config) -> Shown | None:
        """What the gateway shows, held to its files. Raises ConfigError."""
        if (tls := config.server.tls) is None:
            return None

        async def renew() -> None:
            self.shown = shown = await asyncio.to_thread(read_certificate, tls)
            if self.grpc is not None:
                self.grpc.renew(_pem(shown))
            for use in self.when_shown:
                await use(shown)

        # Before they are read: what is written meanwhile is seen.
        files = [file for file in (tls.cert, tls.key, tls.client_ca) if file is not None]
        self._renewals.append(Renewal("server.tls", files, renew))
        return certificate(config)

    def _enrol(self, config: Config) -> None:
        """Put the agents of the file into the registry."""
        for id, agent in config.agents.items():
            registered = enrolled(config, id, agent, self.egress, self.services.now())
            if isinstance(agent, ToolsAgent):
                self._offer(registered, Toolset(id, agent.tools, self.tools.servers))
            self.registry.put(registered)

    def _authenticator(self) -> Authenticator:
        """The one check of who calls, for every door."""
        settings, listed = self.settings, self.settings.config.auth.client_certificates
        proxies = settings.config.server.trusted_proxies
        return Authenticator(
            self.keys,
            anonymous=settings.anonymous,
            public_url=settings.public_url.rstrip("/"),
            tokens=None if self.trust is None else self.trust.identity.tokens,
            refused=self.gateway.refusals.note,
            certificates=None if listed is None else Certificates(proxies, listed.trust_domains),
        )

    def _doors(self, cursors: Cursors, webhooks: list[Route]) -> ASGIApp:
        """Everything that callers reach, over the one gateway."""
        settings, config, auth, now = self.settings, self.settings.config, self._authenticator(), self.services.now
        self.streams = OpenStreams(auth)
        self.keys.on_revoked = self.streams.look
        if self.trust is not None:
            self.trust.tokens.on_forgotten = self.streams.look
        admin = About(_admin_url(settings), tooling.version(), self.entrances)
        made = PublishedCards(
            settings.public_url,
            anonymous=settings.anonymous,
            entrances=self.entrances,
            default_agent=settings.default_agent,
            grpc=self.grpc_url,
            signer=partial(_signer, settings, now) if config.cards.sign else None,
        )
        cards = Cards(self.gateway, auth, made, default_agent=settings.default_agent)
        if self.grpc is not None:
            self.grpc.serves(self.gateway, auth, cards, settings.default_agent, config.server.trusted_proxies)
        if settings.admin is not None:
            self.admin_asgi = admin_application(
                self.gateway,
                auth,
                cards,
                hosts=admin_hosts(settings, settings.admin),
                proxies=() if settings.admin.local else config.server.trusted_proxies,
                not_ready=self.trouble,
                about=admin,
            )
        return application(
            self.gateway,
            auth,
            cards,
            admin=None if settings.admin is not None else admin,
            public_url=settings.public_url,
            hosts=hosts(settings),
            cors_origins=config.server.cors_origins,
            default_agent=settings.default_agent,
            not_ready=self.trouble,
            new_id=_new_id,
            now=now,
            cursors=cursors,
            version=tooling.version(),
            webhooks=webhooks,
            identity=None if self.trust is None else self.trust.identity,
            proxies=config.server.trusted_proxies,
        )

    def _scopes(self) -> frozenset[str]:
        """Those that rules ask for, once there are some."""
        return self.gateway.scopes.whole()

    async def start(self) -> None:
        await self._authorized.start()
        if self.notary is not None:
            await self.notary.start()
        await self.keys.start()
        if self.trust is not None:
            await self.trust.start()
        self._check_identity()
        await self.freezer.start()
        await self.gateway.halting.start()
        await self.admission.start()
        await self.registry.start()
        await self.tools.start()
        await self.recovery.start()
        await self.approvals.start()
        await self.gateway.halting.finish()
        await self.gateway.held.start()
        self._retention.start()
        self.push.start()
        for each in (*self._kept, *self._renewals):
            each.start()
        if self.grpc is not None:
            await self.grpc.start()
        self._not_ready = None

    def trouble(self) -> str | None:
        """Why the gateway is not ready to serve; None when it is."""
        return self._not_ready or self.store.trouble

    @property
    def grpc_url(self) -> str | None:
        return None if self.grpc is None else self.settings.grpc_url(self.grpc.port)

    def _check_identity(self) -> None:
        """Beyond loopback somebody must be able to say who a caller is; the local credential is for this machine."""
        certificates = self.settings.config.auth.client_certificates is not None
        admin = self.settings.admin
        beyond = [] if is_loopback(self.settings.host) else [self.settings.host]
        beyond += [] if admin is None or admin.local else [admin.host]
        if not beyond or self.keys.shared or certificates or self._tells_apart():
            return
        reason = f"nobody could be told apart on {beyond[0]}, beyond loopback"
        if self.settings.config.auth.authorization_server is not None:
            reason += ": it has no client of its own, no user who may log in, and no identity provider"
            hint = (
                "make one first, on 127.0.0.1: gateway clients add NAME, or gateway users add NAME where users is true"
                "; or name a provider under login"
            )
            raise StartError(Problem("auth.authorization_server", reason, hint))
        hint = "name an identity provider there, or make a key first, on 127.0.0.1: gateway keys add NAME"
        raise StartError(Problem("auth.issuers", reason, hint))

    def _tells_apart(self) -> bool:
        """Whether a token can say who somebody is. Invitations and client documents let programs of people in: they
        name nobody before a person can log in."""
        auth = self.settings.config.auth
        entry, server = auth.authorization_server, None if self.trust is None else self.trust.server
        if auth.issuers or entry is None or server is None:
            return bool(auth.issuers)
        return entry.login is not None or server.clients.acting or (entry.users and server.people.present)

    async def drain(self) -> None:
        """Take nothing new, end streams, let callers have their answers; see `server.drain_seconds`."""
        self._not_ready = "shutting down"
        if self.grpc is not None:
            await self.grpc.retire()
        await self.gateway.drain(self.settings.config.server.drain_seconds)
        if self.grpc is not None:
            await self.grpc.stop()

    async def aclose(self) -> None:
        await self.streams.aclose()
        for each in (*self._kept, *self._renewals):
            await each.aclose()
        if self.grpc is not None:
            await self.grpc.stop()
        await self.recovery.aclose()
        await self._retention.aclose()
        await self.approvals.aclose()
        await self.gateway.halting.aclose()
        await self.engine.aclose()
        await self.push.aclose()
        await self.tools.aclose()
        await self.registry.aclose()
        await self.admission.aclose()
        await self.directory.aclose()
        if self.notary is not None:
            await self.notary.aclose()
        await self.store.aclose()
        if self.trust is not None:
            await self.trust.aclose()
        await self.entrances.aclose()
        await self.egress.aclose()

    def _statement(self, settings: Settings) -> admitting.Statement | None:
        """Who a caller is, signed by us: for those who give tokens for acting on their behalf."""
        if settings.config.auth.authorization_server is None:
            return None

        def statement(caller: str, issuer: str) -> str:
            assert self.trust is not None
            assert self.trust.server is not None
            return self.trust.server.state(caller, issuer)

        return statement

    def _offer(self, entry: Registered, toolset: Toolset) -> None:
        """The agent of a set of tools, whose card follows what its servers offer."""

        def look() -> None:
            card = toolset.card()
            if card != entry.card:
                entry.card, entry.changed = card, self.services.now()

        entry.agent = toolset
        look()
        self.tools.servers.when_changed.append(look)

    async def reload(self, source: Callable[[], Settings]) -> list[str]:
        """Use what the operator's file says now about tools, mounts and grants; all else needs a restart. A file that
        is wrong changes nothing. Gives the names of servers that are new, changed or gone."""
        try:
            settings = source()
            config = settings.config
            before, after = self.settings.config.tools, config.tools
            changed = [id for id in {**before, **after} if before.get(id) != after.get(id)]
            fresh = [
                tooling.served(config, settings, id, after[id], self.egress, self._authorized.tools)
                for id in changed
                if id in after
            ]
            await self._authorized.start(config)
        except ConfigError as error:
            raise GatewayError(Reason.INVALID_REQUEST, str(error)) from error
        for id in changed:
            await self.tools.servers.remove(id)
        for served in fresh:
            await self.tools.servers.add(served)
        self._grants.replace(tooling.grants(config))
        for keeper in self.policies:
            keeper.regrant()
        self.tools.views.mounts = tooling.mounts(config)
        self.tools.servers.changed()
        self.settings = replace(self.settings, config=self.settings.config.model_copy(update={"tools": after}))
        return changed

    def _accounts(self, place: str) -> Accounts | None:
        """Where callers have an authorization of their own (core/connections.py)."""
        kind, _, id = place.partition("/")
        if kind == "agents":
            return self.directory.accounts(id)
        served = self.tools.servers.get(id)
        return None if served is None else served.accounts

    def _judge_webhook(self, url: str) -> None:
        refused = self.egress.rules.judge_url(url)
        if refused is not None:
            raise invalid("url", refused)


async def assemble(settings: Settings, *, store: Store | None = None, now: Callable[[], int] = _now) -> App:
    """A gateway that is ready to start. Raises StartError or ConfigError with everything that stands in its way."""
    token = credential(settings.data)
    node = _new_id()  # this life of the process: what another one left behind is told by it
    try:
        return App(settings, store or await _store(settings, node), token, node, now=now)
    except StoreProblem as problem:
        raise StartError(Problem("", problem.sentence, problem.hint)) from problem


async def _store(settings: Settings, node: str) -> Store:
    if settings.store == "memory:":
        return MemoryStore(now=_now, node=node)
    host = urlsplit(settings.public_url).hostname or "gateway"
    return await open_sqlite(Path(settings.store.removeprefix("sqlite:///")), now=_now, node=node, host=host)


def _notary(settings: Settings, store: Store, egress: Egress, now: Callable[[], int]) -> Notary | None:
    """Who signs the audit log, where it is kept."""
    if not isinstance(store, SqliteStore):
        return None
    audit, shown = settings.config.audit, None
    if audit.witness_file or audit.witnesses:
        # Imported where the file asks for it: it brings cryptography.
        from gateway.witnessing import witnesses

        shown = witnesses(audit, store, egress)
    return Notary(store, settings.data / "audit", now, shown)


def _screen(config: Config, compliance: Compliance) -> complying.Keeper | None:
    """What may pass; without a file everything, and nothing that looks is loaded."""
    if config.compliance.file is None:
        return None
    from gateway import complying

    return complying.Keeper(config.compliance.file, config.base, compliance.use)


def _entrances(config: Config, trust: Trust | None, now: Callable[[], int]) -> Entrances:
    """What cards say of how callers are let in."""
    certificates = config.auth.client_certificates
    domains = () if certificates is None else certificates.trust_domains
    if trust is None:
        return Entrances(now, domains=domains)
    return Entrances(now, own=trust.identity.own, advertised=trust.identity.advertised, domains=domains)


def _trust(
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
    from gateway.identity import trust

    return trust(settings, egress, store, secret, scopes, now, _new_id)


def _pem(shown: Shown) -> Pem:
    from gateway.server.grpc import Pem

    return Pem(shown.cert, shown.key, shown.client_ca)


def _grpc(settings: Settings, port: int, shown: Shown | None, not_ready: Callable[[], str | None]) -> GrpcServer:
    """The gRPC port, opened."""
    where = settings.config.problem(("server", "grpc_port"), "")
    try:
        # Imported at first use: a second network stack, and packages that are an extra.
        from gateway.server.grpc import CannotListen, GrpcServer
    except ImportError as error:
        reason = "needs the packages of the extra `grpc`"
        raise ConfigError([replace(where, reason=reason, hint="pip install 'gateway[grpc]'")]) from error
    try:
        tls = None if shown is None else _pem(shown)
        return GrpcServer(settings.host, port, tls=tls, not_ready=not_ready)
    except CannotListen as error:
        hint = "choose another with --grpc-port, or stop what listens there"
        raise StartError(Problem(f"{settings.host}:{port}", "cannot listen for gRPC", hint)) from error


def _admin_url(settings: Settings) -> str | None:
    """What the paths of the admin API stand behind. A socket in the file system has no URL."""
    if settings.admin is None:
        return settings.public_url.rstrip("/")
    return settings.admin_url if settings.admin.path is None else None


def _signer(settings: Settings, now: Callable[[], int]) -> Signer:
    """Who signs the cards, when the first of them is served."""
    # Imported at first use: a gateway that nobody asks for a card needs no library for signatures.
    from gateway.server.card_signer import CardSigner

    folder, cards = settings.data / "card-keys", settings.config.cards
    url = settings.public_url.rstrip("/") + KEYS
    return CardSigner(KeyFolder(folder), cards.algorithm, cards.rotate_days, now, url, str(folder))
