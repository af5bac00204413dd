"""The only file that knows everybody: settings in, a running gateway out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.routing import Route
from starlette.types import ASGIApp

from gateway import admitting, extras, policing, tooling
from gateway.authorizing import Authorized
from gateway.callers import check_callers
from gateway.chance import chance, derived, new_id
from gateway.chance import now as wall_clock
from gateway.config import Config, ConfigError, RemoteAgent, Settings, ToolsAgent
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
from gateway.server.cards import Cards
from gateway.server.certificates import Certificates
from gateway.server.entrances import Entrances
from gateway.server.http import admin_application, application
from gateway.server.mcp.seal import Seal
from gateway.server.open_streams import OpenStreams
from gateway.server.openapi import About
from gateway.server.published import PublishedCards
from gateway.server.webhooks import RING
from gateway.server.webhooks import routes as webhook_routes
from gateway.stores.memory import MemoryStore
from gateway.stores.problems import StoreProblem
from gateway.stores.sqlite import open_sqlite
from gateway.upstream.address import EgressRules, on_this_machine
from gateway.upstream.directory import RemoteDirectory
from gateway.upstream.documents import IssuerDocuments
from gateway.upstream.egress import Egress
from gateway.upstream.letting_in import Admitted
from gateway.upstream.signatures import CardSignatures
from gateway.upstream.webhook import WebhookNotifier
from gateway.webhookkeys import WebhookKeys

if TYPE_CHECKING:
    from gateway import complying
    from gateway.identity import Trust

log = logging.getLogger(__name__)


class App:
    """An assembled gateway: `start`, then serve `asgi`; `drain`, then `aclose`."""

    def __init__(
        self, settings: Settings, store: Store, token: str, node: str, *, now: Callable[[], int] = wall_clock
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
        self.push = PushWorker(store, notifier, now, new_id, chance, give_up_ms, freezer)
        bells = Bells(derived(token, b"bell"), home + RING, local=on_this_machine(settings.public_url))
        compliance = Compliance(Profile(), Recorder(store, now))
        screen = extras.screen(config, compliance)
        self.services = Services(store, Live(), now, new_id, node, self.push.wake, compliance)
        self._authorized = Authorized(settings, self.egress, now)
        self.directory = self._directory(bells)
        self.registry = Registry(store, self.directory, now, new_id)
        self.engine = Engine(self.services)
        self.recovery = Recovery(self.services, self.registry, self.engine)
        self.notary = extras.notary(settings, store, self.egress, now)
        self.keys = KeyRing(store, now, token)
        self.trust = extras.trust(settings, self.egress, store, token.encode(), self._scopes, now)
        self.entrances = _entrances(config, self.trust, now)
        cursors = Cursors(derived(token, b"cursor"))
        grants = self._grants = ToolGrants(tooling.grants(config))
        policy = Policy(situation=lambda: Situation(now(), used=self.admission.limits.used))
        admission = self.admission = Admission(policy, store.governance, now)
        seal, recorder = partial(Seal, token.encode()), Recorder(store, now)
        connections = Connections(self._accounts, seal(b"mcp-connect"), recorder, now, new_id, home)
        self.engine.resting.use(connections, self.registry.get)
        kept = KeptConnections(self._authorized, self._accounts, seal(b"mcp-connect"), store, now, new_id)
        notices = Notices(config.push.approvals_url, node, self.push.wake, now)
        self.approvals = Approvals(store, policy, notices, now, new_id)
        self._retention = Retention(self.approvals, store.approvals, config.store.approvals_days, now)
        books = Books(store, recorder, now, new_id)
        rules = Rules(admission, compliance, AgentCalls(self.engine, self.approvals, new_id))
        self.tools = tooling.tools(config, books, rules, connections, seal, headers.parameters)
        self.tools.granted, kept.to_connect = grants.standing, self.tools.to_connect
        bridge = self._serve_tools()
        freezer.changed += (policy.forget, self.tools.servers.changed)
        self.policies = self._policies(policy, grants)
        self._kept: list[policing.Keeper | complying.Keeper] = [*self.policies, *([] if screen is None else [screen])]
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
            None if settings.grpc_port is None else extras.grpc(settings, settings.grpc_port, self.shown, self.trouble)
        )
        self.admin_asgi: ASGIApp | None = None  # where it has a listener of its own
        self.asgi = self._doors(cursors, webhook_routes(signing.published, bells, self.gateway.refusals.note))

    def _directory(self, bells: Bells) -> Admitted:
        """How remote agents are reached, each with what it wants to be shown."""
        agents, signatures = self.settings.config.agents, CardSignatures(IssuerDocuments(self.egress))
        updates = {id: agent.updates for id, agent in agents.items() if isinstance(agent, RemoteAgent)}
        return admitting.admitted(
            self.settings,
            self.egress,
            self._authorized.agents,
            self._statement(),
            lambda way: RemoteDirectory(way, signatures, bells, updates),
            self._renewals,
        )

    def _serve_tools(self) -> AgentTools:
        """Put the servers of the file among the tools, and the agents as one more, which is returned."""
        settings, servers = self.settings, self.tools.servers
        for id, entry in settings.config.tools.items():
            servers.put(tooling.served(settings.config, settings, id, entry, self.egress, self._authorized.tools))
        bridge = AgentTools(self.registry, new_id)
        servers.put(tooling.bridged(bridge, self.registry))
        return bridge

    def _policies(self, policy: Policy, grants: ToolGrants) -> list[policing.Keeper]:
        """The one that holds, and the one that is tried out where there is one."""
        files, changed = self.settings.config.policy, self.tools.servers.changed
        live = policing.Keeper(policy, grants, self.freezer, files.file, changed, self.admission)
        if files.shadow is None:
            return [live]
        return [live, policing.shadowed(policy, grants, self.freezer, files.shadow)]

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
                self.grpc.renew(extras.pem(shown))
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
        identity = None if self.trust is None else self.trust.identity
        return Authenticator(
            self.keys,
            anonymous=settings.anonymous,
            public_url=settings.public_url.rstrip("/"),
            tokens=None if identity is None else identity.tokens,
            proofs=() if identity is None else identity.proofs,
            bound=identity is not None and identity.bound,
            refused=self.gateway.refusals.note,
            frozen=self.freezer.stops,
            certificates=None if listed is None else Certificates(proxies, listed.trust_domains),
        )

    def _doors(self, cursors: Cursors, webhooks: list[Route]) -> ASGIApp:
        """Everything that callers reach, over the one gateway."""
        settings, config, auth, now = self.settings, self.settings.config, self._authenticator(), self.services.now
        self.streams = OpenStreams(auth, now)
        self.keys.on_revoked = self.gateway.halting.put_out = self.streams.look
        if self.trust is not None:
            self.trust.tokens.on_forgotten = self.streams.look
        admin = About(_admin_url(settings), tooling.version(), self.entrances)
        made = PublishedCards(
            settings.public_url,
            anonymous=settings.anonymous,
            entrances=self.entrances,
            default_agent=settings.default_agent,
            grpc=self.grpc_url,
            signer=partial(extras.signer, settings, now) if config.cards.sign else None,
        )
        cards = Cards(self.gateway, auth, made, default_agent=settings.default_agent)
        if self.grpc is not None:
            url = f"{settings.public_url.partition(':')[0]}://{self.grpc_url}"
            proxies = config.server.trusted_proxies
            self.grpc.serves(self.gateway, auth, cards, settings.default_agent, proxies, url, now)
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
            new_id=new_id,
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
        check_callers(self.settings, self.keys, self.trust)
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

    def _statement(self) -> admitting.Statement | None:
        """Who a caller is, signed by us: for those who give tokens for acting on their behalf."""
        if self.settings.config.auth.authorization_server is None:
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


async def assemble(settings: Settings, *, store: Store | None = None, now: Callable[[], int] = wall_clock) -> App:
    """A gateway that is ready to start. Raises StartError or ConfigError with everything that stands in its way."""
    token = credential(settings.data)
    node = new_id()  # this life of the process: what another one left behind is told by it
    try:
        return App(settings, store or await _store(settings, node), token, node, now=now)
    except StoreProblem as problem:
        raise StartError(Problem("", problem.sentence, problem.hint)) from problem


async def _store(settings: Settings, node: str) -> Store:
    if settings.store == "memory:":
        return MemoryStore(now=wall_clock, node=node)
    host = urlsplit(settings.public_url).hostname or "gateway"
    return await open_sqlite(Path(settings.store.removeprefix("sqlite:///")), now=wall_clock, node=node, host=host)


def _entrances(config: Config, trust: Trust | None, now: Callable[[], int]) -> Entrances:
    """What cards say of how callers are let in."""
    certificates = config.auth.client_certificates
    domains = () if certificates is None else certificates.trust_domains
    if trust is None:
        return Entrances(now, domains=domains)
    return Entrances(now, own=trust.identity.own, advertised=trust.identity.advertised, domains=domains)


def _admin_url(settings: Settings) -> str | None:
    """What the paths of the admin API stand behind. A socket in the file system has no URL."""
    if settings.admin is None:
        return settings.public_url.rstrip("/")
    return settings.admin_url if settings.admin.path is None else None
