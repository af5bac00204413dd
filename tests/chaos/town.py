"""What every scenario needs around it: a gateway, the agent behind it, principals with keys, a session."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.chaos.client import Client
from tests.chaos.history import History
from tests.chaos.instance import Instance, local_agent
from tests.chaos.wire import Caller, Lost, Refused, Signals, http

LOCAL, REMOTE = "echo", "far"  # the agent in the gateway's process, and the one behind another server


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything. `seed` decides what chance decides, as far as one machine repeats itself."""

    folder: Path
    seed: int
    short: bool = False
    kills: int = 60
    wanted: int = 3000  # accepted messages


@dataclass(slots=True)
class Result:
    """One sentence that held or did not, and what there is to say about it."""

    sentence: str
    passed: bool
    details: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Town:
    gateway: Instance
    far: Instance
    session: aiohttp.ClientSession
    history: History
    signals: Signals
    up: asyncio.Event
    keys: dict[str, str]
    seed: int

    def caller(self, who: str) -> Caller:
        return Caller(self.session, self.gateway.url, self.keys[who], who, self.signals)

    def client(self, who: str, number: int = 0) -> Client:
        chance = random.Random(f"{self.seed}/{who}/{number}")
        return Client(self.caller(who), self.history, self.up, chance)

    def beyond(self) -> Client:
        """The far agent as the gateway calls it, without a credential."""
        caller = Caller(self.session, self.far.url, None, "far")
        return Client(caller, self.history, self.up, random.Random(0))

    async def restart(self) -> None:
        await self.gateway.spawn()
        await self.gateway.ready()

    async def reachable(self, agent: str, timeout: float = 15.0) -> None:
        """Returns when the gateway has read the agent's card."""
        async with asyncio.timeout(timeout):
            while True:
                try:
                    await self.caller("local").call(agent, "ListTasks", {"pageSize": 1})
                    await self.caller("local").admin("GET", f"/agents/{agent}/.well-known/agent-card.json")
                    return
                except (Refused, Lost, aiohttp.ClientError):
                    await asyncio.sleep(0.05)

    async def settled(self, agents: tuple[str, ...], clients: tuple[Client, ...], timeout: float) -> None:
        """Returns when every task has come to rest, at the latest after `timeout`."""
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if not sum([await client.active(agent) for agent in agents for client in clients]):
                return
            await asyncio.sleep(0.2)


@asynccontextmanager
async def town(plan: Plan, name: str, *principals: str, **settings: Any) -> AsyncIterator[Town]:
    """A gateway with a local and a remote echo, both started, and a key for each principal."""
    folder = plan.folder / name
    far = Instance(
        "far",
        folder / "far",
        {"agents": {"echo": local_agent(concurrency=1024)}, "auth": {"anonymous": True}},
        "--anonymous",
    )
    card = f"{far.url}/agents/echo/.well-known/agent-card.json"
    config = {
        "agents": {
            LOCAL: local_agent(concurrency=512),
            REMOTE: {"card_url": card, "public": True, "concurrency": 512},
            **settings.pop("agents", {}),
        },
        **settings,
    }
    gateway = Instance("gateway", folder / "gateway", config)
    signals = Signals()
    history = History(folder / "history.jsonl")
    up = asyncio.Event()
    try:
        await far.start()
        await gateway.start()
        async with http(signals) as session:
            keys = {"local": gateway.token}
            operator = Caller(session, gateway.url, gateway.token, "local")
            for who in principals:
                keys[who] = (await operator.admin("POST", "/admin/keys", {"name": who}))["key"]
            here = Town(gateway, far, session, history, signals, up, keys, plan.seed)
            await here.reachable(REMOTE)
            up.set()
            yield here
    finally:
        await gateway.aclose()
        await far.aclose()
        history.close()
