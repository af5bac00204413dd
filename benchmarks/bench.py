"""One scenario or one pair, from its servers' start to its figures."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import generators, machine
from benchmarks.calls import Target, echo
from benchmarks.figures import differences, ratios
from benchmarks.load import Round
from benchmarks.processes import Launch, Running, free_port, running
from benchmarks.scenarios import SCENARIOS, Pair, Place, Scenario

CONNECTIONS = (32, 1)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how often, and on which cores."""

    rounds: int
    seconds: float
    warm_up: float
    cold_starts: int
    server_core: int | None
    other_core: int | None


class Bench:
    def __init__(self, plan: Plan, folder: Path, stub: Path) -> None:
        self._plan = plan
        self._folder = folder
        self._stub = stub
        self._starts = 0

    async def scenario(self, scenario: Scenario) -> dict[str, Any]:
        """One server: its cold starts, then under many connections, then under one."""
        async with self._upstream() as upstream:
            cold = [await self._cold_start(scenario, upstream) for _ in range(self._plan.cold_starts - 1)]
            async with self._server(scenario, upstream) as server:
                cold.append(server.cold_start_s)
                result: dict[str, Any] = {"about": scenario.about}
                for connections in CONNECTIONS:
                    rounds = [await self._round(server, connections) for _ in range(self._plan.rounds)]
                    result[f"connections_{connections}"] = document(rounds)
                return result | _process(server, cold)

    async def pair(self, pair: Pair) -> dict[str, Any]:
        """Both servers up at once, loaded in turn."""
        a, b = SCENARIOS[pair.a], SCENARIOS[pair.b]
        async with self._upstream() as upstream, AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(self._server(each, upstream)) for each in (a, b)]
            turns = [
                (await self._round(one, pair.connections), await self._round(other, pair.connections))
                for _ in range(self._plan.rounds)
            ]
            of_one, of_other = ([turn[side] for turn in turns] for side in (0, 1))
            return {
                "about": f"{pair.a} / {pair.b}",
                "connections": pair.connections,
                "a": {"scenario": pair.a} | document(of_one) | _process(one, [one.cold_start_s]),
                "b": {"scenario": pair.b} | document(of_other) | _process(other, [other.cold_start_s]),
                **comparison(of_one, of_other),
            }

    async def _round(self, server: Running, connections: int) -> Round:
        plan = self._plan
        return await generators.run(
            server.target, connections=connections, seconds=plan.seconds, warm_up=plan.warm_up, server=server.pid
        )

    async def _cold_start(self, scenario: Scenario, upstream: int) -> float:
        async with self._server(scenario, upstream) as server:
            return server.cold_start_s

    @asynccontextmanager
    async def _upstream(self) -> AsyncIterator[int]:
        """The stub that stands for a remote agent, on the load generator's core; its port."""
        port = free_port()
        launch = Launch((str(self._stub), str(port)))
        target = Target(port, "/", echo())
        log = self._folder / "upstream.log"
        async with running(launch, lambda _: target, core=self._plan.other_core, log=log):
            yield port

    @asynccontextmanager
    async def _server(self, scenario: Scenario, upstream: int) -> AsyncIterator[Running]:
        self._starts += 1
        folder = self._folder / f"{self._starts}-{scenario.name}"
        folder.mkdir()
        port, call = free_port(), scenario.call()
        launch = scenario.server(Place(port, folder, self._stub, upstream))

        def aim(credential: str | None) -> Target:
            return Target(port, scenario.path, call, credential)

        async with running(launch, aim, core=self._plan.server_core, log=folder / "server.log") as server:
            yield server


def document(rounds: Sequence[Round]) -> dict[str, Any]:
    """What the rounds of one server come to."""
    cpu = [each.cpu_us for each in rounds if each.cpu_us is not None]
    return {
        "requests_per_s": round(statistics.median(each.rate for each in rounds), 1),
        "rounds": [round(each.rate, 1) for each in rounds],
        "p50_ms": round(statistics.median(each.p50_ms for each in rounds), 3),
        "p99_ms": round(statistics.median(each.p99_ms for each in rounds), 3),
        "cpu_us_per_request": round(statistics.median(cpu), 1) if cpu else None,
        "generator_cpu": round(max(each.generator_cpu for each in rounds), 2),
        "errors": dict(sum((Counter(each.errors) for each in rounds), Counter())),
        "first_error": next((each.first_error for each in rounds if each.first_error), None),
    }


def comparison(a: Sequence[Round], b: Sequence[Round]) -> dict[str, Any]:
    """A against the B of the same minute: the ratio of requests per second, the same by processor time per request
    (what others on the machine disturb less), and the difference of the medians."""
    found: dict[str, Any] = {"ratio": None, "ratio_by_cpu": None}
    if all(each.requests for each in b):
        found["ratio"] = ratios([each.rate for each in a], [each.rate for each in b]).rounded(3)._asdict()
    cost_a, cost_b = ([each.cpu_us for each in side if each.cpu_us] for side in (a, b))
    if cost_a and len(cost_a) == len(cost_b):
        found["ratio_by_cpu"] = ratios(cost_b, cost_a).rounded(3)._asdict()
    added = differences([each.p50_ms for each in a], [each.p50_ms for each in b])
    return found | {"added_p50_ms": added.rounded(3)._asdict()}


def _process(server: Running, cold_starts: Sequence[float]) -> dict[str, Any]:
    peak = machine.peak_memory_mib(server.pid)
    return {
        "peak_memory_mib": None if peak is None else round(peak, 1),
        "cold_start_s": round(statistics.median(cold_starts), 3),
    }
