"""Runs the client mode of the official MCP suite: each scenario is a tool server that a gateway uses (mcp_driver.py).

    make conformance ARGS=--mcp-client MCP_SUITE=DIR      both revisions; writes results/mcp-client-REVISION.json

A run fails on every required scenario that did not pass. What the suite runs without scoring it is in the results too.
"""

import json
import os
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conformance import mcp
from conformance.results import FOLDER, machine

ROOT = Path(__file__).parent.parent
# The suite starts all scenarios at once, each with a gateway of its own: 25 to 40 starts on however few cores.
TIMEOUT_S = 900.0
SCENARIO_MS = 120_000

# Why what is not scored does not pass; a test compares the names with the results.
NOT_DONE: dict[str, str] = {}


def main() -> int:
    found = mcp.find()
    if found is None:
        print(mcp.HOW_TO_GET.replace("--mcp", "--mcp-client"), file=sys.stderr)
        return 2
    try:
        return 1 if sum([_revision(revision, found) for revision in mcp.REVISIONS]) else 0
    except mcp.SuiteError as error:
        print(error, file=sys.stderr)
        return 2


def _revision(revision: str, found: mcp.Found) -> int:
    """All scenarios of one revision; how many required ones failed."""
    scenarios = _run(found, revision)
    told = document(revision, scenarios)
    print(f"MCP client {revision}: {told['required']} required")
    for name in told["failed"]:
        print(f"  UNEXPECTED {name}")
    file = FOLDER / f"mcp-client-{revision}.json"
    file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"written: {file.relative_to(ROOT)}")
    return len(told["failed"])


def _run(found: mcp.Found, revision: str) -> list[mcp.Scenario]:
    driver = shlex.join([sys.executable, "-m", "conformance.mcp_driver"])
    with tempfile.TemporaryDirectory(prefix="conformance-mcp-client-") as folder:
        words = [
            *(found.node, str(found.program), "client", "--command", driver),
            *("--requirements", revision, "--timeout", str(SCENARIO_MS), "-o", folder),
        ]
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=folder, env=environ, check=False
        )
    scenarios = mcp.read(done.stdout)
    if not scenarios:
        raise mcp.SuiteError(f"The suite ran no scenario:\n{(done.stdout + done.stderr)[-2000:]}")
    return scenarios


def document(revision: str, scenarios: list[mcp.Scenario]) -> dict[str, Any]:
    required = [each for each in scenarios if each.not_scored is None]
    passed = [each for each in required if not each.failed]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python -m conformance --mcp-client",
        "versions": {"gateway": version("gateway"), "suite": mcp.SUITE_VERSION, "revision": revision},
        "machine": machine(),
        "required": f"{len(passed)}/{len(required)}",
        "checks": f"{sum(each.passed for each in required)}/{sum(each.passed + each.failed for each in required)}",
        "failed": [each.name for each in required if each.failed],
        "not_scored": {each.name: _not_scored(each) for each in scenarios if each.not_scored is not None},
    }


def _not_scored(scenario: mcp.Scenario) -> dict[str, Any]:
    told = {"why": scenario.not_scored, "passed": scenario.passed, "failed": scenario.failed}
    return {**told, "reason": NOT_DONE.get(scenario.name, "unknown")} if scenario.failed else told
