"""One run: the chosen scenarios and pairs, one after the other, and what became of each."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.bench import Bench, Plan
from benchmarks.processes import StartError, compile_stub
from benchmarks.scenarios import PAIRS, SCENARIOS

QUIET = 0.3  # a load above this before a run says that others are at work on the machine


class Run:
    def __init__(self, names: Sequence[str], *, plan: Plan, command: str, label: str = "") -> None:
        self._plan = plan
        self._command = command
        self._label = label  # behind the names of the result files
        self._scenarios = [SCENARIOS[name] for name in names if name in SCENARIOS]
        self._pairs = [PAIRS[name] for name in names if name in PAIRS]
        self.measured: dict[str, Mapping[str, Any]] = {}
        self.compared: dict[str, Mapping[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self.failed: dict[str, str] = {}

    async def go(self, folder: Path) -> None:
        about: dict[str, Any] = {
            "command": self._command,
            "machine": machine.describe(folder),
            "versions": machine.versions(),
        }
        _warn(about["machine"])
        # The load generator is this program. The servers get their own core when they start.
        machine.pin(self._plan.other_core)
        bench = Bench(self._plan, folder, compile_stub(folder))
        for scenario in self._scenarios:
            if scenario.skipped:
                self._skip(scenario.name, scenario.skipped)
            else:
                await self._take(scenario.name, bench.scenario(scenario), self.measured, about)
        for pair in self._pairs:
            reason = SCENARIOS[pair.a].skipped or SCENARIOS[pair.b].skipped
            if reason:
                self._skip(pair.name, reason)
            else:
                await self._take(pair.name, bench.pair(pair), self.compared, about)

    @property
    def wrong(self) -> int:
        """Answers that were not right, and servers that did not come up."""
        return len(self.failed) + sum(map(report.errors, [*self.measured.values(), *self.compared.values()]))

    def show(self) -> None:
        if self.measured:
            print(f"\n{report.scenario_table(self.measured)}")
        if self.compared:
            print(f"\n{report.pair_tables(self.compared)}")
            print(f"\n{report.target_table(self.compared, self.skipped)}")
        for name, result in (self.measured | self.compared).items():
            for text in report.first_errors(result):
                print(f"\nERROR in {name}: {text}")
        for name, reason in self.failed.items():
            print(f"\nFAILED {name}: {reason}")

    def _skip(self, name: str, reason: str) -> None:
        self.skipped[name] = reason
        print(f"{name}: skipped, {reason}", flush=True)

    async def _take(
        self,
        name: str,
        measuring: Awaitable[dict[str, Any]],
        results: dict[str, Mapping[str, Any]],
        about: Mapping[str, Any],
    ) -> None:
        try:
            results[name] = await measuring
        except StartError as error:
            self.failed[name] = str(error)
            print(f"{name}: failed", flush=True)
            return
        print(f"{name}: measured", flush=True)
        date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        report.write(f"{name}{self._label}", {"date": date, **about}, results[name])


def _warn(described: Mapping[str, Any]) -> None:
    if described["load_before"] > QUIET:
        print(f"Others are at work on this machine (load {described['load_before']}): only ratios mean something.")
    if described["cores"] < 2:
        print("One core for servers and load generator: the figures show less than the servers can do.")
    if described["data_on"] == "tmpfs":
        print("Data is on tmpfs, where a commit costs nothing: set TMPDIR to a folder on a disk.")
