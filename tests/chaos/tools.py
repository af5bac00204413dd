"""A2, I8, with tools: SIGKILL while tools of an MCP server are called. What the server saw was begun in the audit log
before; what a caller was told is there, and ended; and a call without an end is one that was under way.

Every try is a call of its own with a trace of its own, which the audit log keeps: so each entry has its call.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp

from gateway.dialects.mcp import headers
from gateway.stores.auditlog import entry_of
from gateway.verifier import Database, Exit, Trust, notes_in, verify
from tests.chaos.checker import Audited, ToolCalls, Violation, tool_calls_are_audited
from tests.chaos.instance import START_S, Instance
from tests.chaos.moments import COMMITTED, LOG_WRITTEN, Executioner
from tests.chaos.town import Plan, Result
from tests.chaos.wire import FIRST_BYTE, REQUEST_SENT, Signals, http
from tests.mcp import MODERN, Tree, modern, says, scripted, tool

MOMENTS = (REQUEST_SENT, COMMITTED, LOG_WRITTEN, FIRST_BYTE)
LANES = 12
SHARE = 3  # of the kills that the other scenario has
SHOWN = 5


async def tools(plan: Plan) -> list[Result]:
    seen: Counter[str] = Counter()
    chance = random.Random(f"{plan.seed}/tools")

    async def note(params: Tree) -> Tree:
        seen[params["arguments"]["mark"]] += 1
        await asyncio.sleep(chance.uniform(0, 0.02))
        return says(params["arguments"]["mark"])

    async with scripted(tool("note"), answers={"note": note}) as server:
        config = {"tools": {"book": {"url": server.url}}}
        gateway = Instance("gateway", plan.folder / "tools" / "gateway", config)
        signals = Signals()
        try:
            await gateway.start()
            async with http(signals) as session:
                callers = Callers(session, gateway, signals, random.Random(f"{plan.seed}/callers"))
                kills = max(plan.kills // SHARE, len(MOMENTS))
                done = await _killed(gateway, callers, Executioner(signals, gateway.data / "gateway.db", chance), kills)
            gateway.terminate()
            await gateway.ended(20)
            return _judged(gateway, ToolCalls(frozenset(callers.told), seen, _audited(gateway.data)), done)
        finally:
            await gateway.aclose()


class Callers:
    """`told` are the marks that came back."""

    def __init__(
        self, session: aiohttp.ClientSession, gateway: Instance, signals: Signals, chance: random.Random
    ) -> None:
        self.told: set[str] = set()
        self._session = session
        self._gateway = gateway
        self._signals = signals
        self._chance = chance
        self._count = 0
        self._heard = asyncio.Event()

    async def answered(self, count: int) -> None:
        async with asyncio.timeout(START_S):
            for _ in range(count):
                self._heard.clear()
                await self._heard.wait()

    async def lane(self, over: asyncio.Event) -> None:
        while not over.is_set():
            try:
                await self._call()
            except (aiohttp.ClientError, TimeoutError, ValueError):
                await asyncio.sleep(self._chance.uniform(0, 0.05))

    async def _call(self) -> None:
        self._count += 1
        mark = f"{self._count:032x}"
        params = modern({"name": "book__note", "arguments": {"mark": mark}})
        sent = {
            "Authorization": f"Bearer {self._gateway.token}",
            "Accept": "application/json, text/event-stream",
            "traceparent": f"00-{mark}-{1:016x}-01",
            **headers.make("tools/call", params, MODERN),
        }
        body = {"jsonrpc": "2.0", "id": self._count, "method": "tools/call", "params": params}
        async with self._session.post(f"{self._gateway.url}/mcp", json=body, headers=sent) as answer:
            self._signals.fire(FIRST_BYTE)
            tree: Any = json.loads(await answer.read())
        if "result" in tree and tree["result"]["content"] == [{"type": "text", "text": mark}]:
            self.told.add(mark)
            self._heard.set()


async def _killed(gateway: Instance, callers: Callers, executioner: Executioner, kills: int) -> Counter[str]:
    over = asyncio.Event()
    lanes = [asyncio.create_task(callers.lane(over)) for _ in range(LANES)]
    done: Counter[str] = Counter()
    try:
        while sum(done.values()) < kills:
            await callers.answered(LANES)  # it works again
            done[await executioner.strike(MOMENTS[sum(done.values()) % len(MOMENTS)], gateway.kill)] += 1
            await gateway.ended(10)
            await gateway.start()
        over.set()
        await asyncio.gather(*lanes)
    finally:
        for lane in lanes:
            lane.cancel()
    return done


def _audited(data: Path) -> list[Audited]:
    with closing(Database(data / "gateway.db")) as log:
        every = (entry_of(line) for _, lines, _ in log.runs() for line in lines)
        return [Audited(each.trace or "", each.target, each.phase, each.outcome) for each in every if each.trace]


def _judged(gateway: Instance, calls: ToolCalls, kills: Counter[str]) -> list[Result]:
    found = list(tool_calls_are_audited(calls))
    since = notes_in((gateway.data / "audit" / "head").read_text())
    with closing(Database(gateway.data / "gateway.db")) as log:
        report = verify(log, Trust.parse((gateway.data / "audit" / "keys").read_text()), since)
    print(f"  {sum(kills.values())} kills: {', '.join(f'{count} {name}' for name, count in kills.items())}")
    print(f"  {len(calls.told)} answers, {calls.seen.total()} calls at the server, {len(calls.unknown)} unknown")
    print(f"  start to first 200: median {statistics.median(gateway.starts):.2f} s; {report.sentence}")
    early = gateway.early_end
    return [
        Result(f"I8 what a tool server saw was begun, and what was told has ended: {len(found)} violations", not found,
               _shown(found)),
        Result("the audit log is as it was written", report.exit is Exit.OK, [report.sentence]),
        Result("each call has an end", report.unknown == len(calls.open) == 0, [str(report.unknown)]),
        Result("the gateway ended only when it was killed", early is None, [early or ""]),
    ]  # fmt: skip


def _shown(found: Sequence[Violation]) -> list[str]:
    return [each.sentence for each in found[:SHOWN]]
