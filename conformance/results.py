"""What a conformance run leaves behind: one JSON file per agent, to be read and compared by people."""

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conformance.expected import Comparison
from conformance.kit import Report
from conformance.peers import Result

FOLDER = Path(__file__).with_name("results")
SPECIFICATION = "A2A 1.0.1"


@dataclass(frozen=True)
class Run:
    """The kit against one agent of the gateway."""

    name: str
    report: Report
    comparison: Comparison
    kit_command: str


@dataclass(frozen=True)
class Outcome:
    """All runs with one kind of agent."""

    agent: str
    command: str
    kit: dict[str, str]
    branch: str = "1.0-dev"  # of the kit
    specification: str = SPECIFICATION
    clients: list[Result] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)

    @property
    def unexpected(self) -> list[str]:
        return [
            *(f"a2a-sdk client at {result.agent}: {failure}" for result in self.clients for failure in result.failed),
            *(f"{run.name}: {surprise}" for run in self.runs for surprise in run.comparison.unexpected),
        ]


def write(outcome: Outcome, folder: Path = FOLDER) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / f"a2a-{outcome.branch}-{outcome.agent}.json"
    file.write_text(json.dumps(document(outcome), indent=2, ensure_ascii=False) + "\n", "utf-8")
    return file


def document(outcome: Outcome) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "agent": outcome.agent,
        "command": outcome.command,
        "versions": versions(outcome.specification) | outcome.kit,
        "machine": machine(),
        "a2a_sdk_client": [asdict(result) for result in outcome.clients],
        "runs": [_run(run) for run in outcome.runs],
        "unexpected": outcome.unexpected,
    }


def versions(specification: str = SPECIFICATION) -> dict[str, str]:
    return {
        "specification": specification,
        "gateway": version("gateway"),
        "a2a-sdk": version("a2a-sdk"),
        "python": platform.python_version(),
    }


def machine() -> dict[str, Any]:
    """The class of machine; never its name or its paths."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "architecture": platform.machine(),
        "system": platform.system(),
    }


def _run(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "kit_command": run.kit_command,
        "counts": run.report.counts,
        "kit_score": run.report.score,
        "not_passed": [asdict(explained) for explained in run.comparison.explained],
        "unexpected": run.comparison.unexpected,
    }
