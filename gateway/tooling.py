"""The tools of the configuration: its servers, mounts and grants, made into what the core works with; and the use cases
of them, put together.

A part of app.py, in a room of its own. No other file makes a command that is started.
"""

from __future__ import annotations

import importlib.metadata
import os
import shlex
from collections.abc import Callable
from functools import partial

from gateway.authorizing import Authorizations, client, value_of
from gateway.config import (
    Config,
    ConfigError,
    GrantEntry,
    LimitsEntry,
    Settings,
    ToolsAgent,
    ToolServerEntry,
)
from gateway.core.connections import Connections
from gateway.core.gate import Gate
from gateway.core.policy import Target
from gateway.core.registry import Registry
from gateway.core.tools.agents import AgentTools
from gateway.core.tools.grants import Grant
from gateway.core.tools.hygiene import CheckSchema
from gateway.core.tools.means import Books, Rules, Seals
from gateway.core.tools.naming import Mount, Naming
from gateway.core.tools.pins import Quarantine
from gateway.core.tools.served import Served
from gateway.core.tools.state import Sealer
from gateway.core.tools.tools import Tools
from gateway.model.call import SendMessage
from gateway.model.principal import Kind
from gateway.model.tool import ToolServer
from gateway.model.whom import whole
from gateway.upstream.credentialed import CredentialedEgress
from gateway.upstream.egress import Egress, Outbound
from gateway.upstream.mcp.limits import MIB, Limits
from gateway.upstream.mcp.server import HttpServer, StdioServer
from gateway.upstream.oauth.callers import CallerAccounts
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.source import TokenSource
from gateway.upstream.oauth.vault import SHARED
from gateway.upstream.process import Bounds, Command


def tools(
    config: Config,
    books: Books,
    rules: Rules,
    connections: Connections,
    seal: Callable[[bytes], Sealer],
    check_schema: CheckSchema,
) -> Tools:
    """The use cases of tools, over the mounts of the configuration; no servers yet. `seal` makes one for each use."""
    seals = Seals(seal(b"mcp-request-state"), seal(b"mcp-task"))
    return Tools(books, rules, seals, check_schema, mounts(config), connections)


def served(
    config: Config, settings: Settings, id: str, entry: ToolServerEntry, egress: Egress, authorizations: Authorizations
) -> Served:
    """One MCP server of the configuration file. Raises ConfigError at the line that is to blame."""
    limits = Limits(call_seconds=entry.timeout, concurrency=entry.concurrency)
    info = {"name": "gateway", "version": version()}
    server: ToolServer
    source: TokenSource | None = None
    accounts: CallerAccounts | None = None
    said: Callable[[], tuple[str, ...]] = tuple
    place = entry.url or shlex.join([*(entry.command or ()), *(["in", str(entry.folder)] if entry.folder else ())])
    if entry.url is not None:
        url, values = entry.url, {name: value_of(each) for name, each in entry.headers.items()}

        def at(outbound: Outbound) -> HttpServer:
            return HttpServer(
                id,
                url,
                outbound,
                info=info,
                limits=limits,
                headers=values,
                ours=os.environ,
                trusted=True,
                chance=_chance,
            )

        server = at(egress)
        if (oauth := entry.oauth) is not None:
            settled, discovery = client(oauth), Discovery(url, oauth.issuer, egress)
            hint = f": run `gateway tools login {id}` on the gateway's machine"
            sources = partial(authorizations.source, id, settled, discovery, otherwise=hint)
            source = sources(SHARED)
            server = at(CredentialedEgress(egress, source))
            if oauth.login == "caller":

                def account(owner: str) -> tuple[TokenSource, HttpServer]:
                    own = sources(owner)
                    return own, at(CredentialedEgress(egress, own))

                vault = authorizations.vault
                accounts = CallerAccounts(
                    account, partial(vault.has, id), partial(vault.owners, id), partial(vault.forget_callers, id)
                )
    else:
        folder = entry.folder or settings.data / "tools" / id
        command = Command(
            entry.command or (),
            {name: value_of(each) for name, each in entry.env.items()},
            str(folder.absolute()),
            entry.sandbox,
            _bounds(entry.limits),
        )
        if (reason := command.problem()) is not None:
            raise ConfigError([config.problem(("tools", id, "command"), reason, "gateway tools add finds programs")])
        if entry.folder is None:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        server = process = StdioServer(
            id, command, info=info, ours=os.environ, limits=limits, shared=entry.shared, chance=_chance
        )
        said = process.said
    requires = tuple((f"*/{pattern}", frozenset(needs)) for pattern, needs in entry.requires.items())
    gate = Gate(entry.concurrency, entry.queue)
    mode = Quarantine(entry.quarantine)
    return Served(id, server, gate, place, mode, requires, login=source, accounts=accounts, said=said)


def _bounds(entry: LimitsEntry | None) -> Bounds:
    if entry is None:
        return Bounds()
    memory, file_size = (None if each is None else each * MIB for each in (entry.memory, entry.file_size))
    return Bounds(memory, entry.files, entry.processes, file_size)


def bridged(bridge: AgentTools, registry: Registry) -> Served:
    """The agents as one more server. Whoever may send a message to an agent may call it as a tool, and nobody else."""

    def judged(agent: str) -> tuple[str, Target]:
        entry = registry.get(agent)
        return SendMessage.verb, Target(agent) if entry is None else entry.target

    # The agents have gates of their own.
    return Served(bridge.id, bridge, Gate(10_000, 0), quarantine=Quarantine.OFF, judged=judged)


def mounts(config: Config) -> dict[str, Mount]:
    named = {
        id: Mount(id, tuple(entry.tools), Naming(entry.naming), dict(entry.aliases), entry.search)
        for id, entry in config.mounts.items()
    }
    return {"": Mount(""), **named}


def grants(config: Config) -> list[Grant]:
    """Those of the file; and a set of tools as an agent may use these tools and no others."""
    toolsets = {id: agent for id, agent in config.agents.items() if isinstance(agent, ToolsAgent)}
    return [
        *map(_grant, config.grants),
        *(Grant(f"{Kind.AGENT}:{id}", tuple(agent.tools)) for id, agent in toolsets.items()),
    ]


def _grant(entry: GrantEntry) -> Grant:
    return Grant(
        whole(entry.to),
        tuple(entry.tools),
        tuple(entry.prompts),
        tuple(entry.resources),
        frozenset(entry.permissions),
        {name: tuple(values) for name, values in entry.arguments.items()},
    )


def _chance() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32


def version() -> str:
    return importlib.metadata.version("gateway")
