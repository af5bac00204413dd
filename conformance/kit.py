"""The official A2A kit: found, run in its own environment, and read."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

HOW_TO_GET = (
    "No kit: git clone -b 1.0-dev https://github.com/a2aproject/a2a-tck DIR && python3 -m venv DIR/.venv && "
    "DIR/.venv/bin/pip install -e DIR, then A2A_TCK=DIR make conformance (or --kit DIR)"
)
SUITE = "tests/compatibility"
TRANSPORTS = "jsonrpc,http_json,grpc"
# A minute and a half of waiting by design (several streams that nobody ends), and a slow machine on top.
TIMEOUT_S = 300.0

FIXTURES = Path(__file__).with_name("fixtures")
CREDENTIAL_PLUGIN = "kit_with_credential"
OUTCOMES = ("passed", "failed", "skipped", "xfailed")


@dataclass(frozen=True)
class Verdict:
    name: str
    outcome: str
    message: str = ""


@dataclass(frozen=True)
class Report:
    tests: list[Verdict]
    # What the kit itself makes of it, as it prints it: its scores count what it never tests as failed.
    score: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        counted = Counter(test.outcome for test in self.tests)
        return {outcome: counted[outcome] for outcome in OUTCOMES}


class KitError(Exception):
    """The kit did not run, so there is nothing to compare."""


def find(named: str | None) -> Path | None:
    """The kit's folder, from the argument or A2A_TCK; None if neither names one that holds the kit."""
    folder = named or os.environ.get("A2A_TCK")
    if not folder or not (Path(folder) / SUITE).is_dir():
        return None
    return Path(folder).resolve()


def arguments(host: str, select: str | None, reports: Path, plugin: str | None = None) -> list[str]:
    """What pytest gets; `localhost` could mean ::1, and the kit's webhooks listen on 127.0.0.1 alone."""
    return [
        SUITE,
        f"--sut-host={host}",
        f"--transport={TRANSPORTS}",
        "--webhook-host=127.0.0.1",
        f"--compatibility-report={reports / 'compatibility'}",
        f"--junitxml={reports / 'junit.xml'}",
        "-q",
        "--tb=line",
        "-p",
        "no:cacheprovider",
        *(["-p", plugin] if plugin else []),
        *(["-k", select] if select else []),
    ]


def run(kit: Path, host: str, reports: Path, select: str | None = None, credential: Path | None = None) -> Report:
    """The kit against the agent whose card is at `host`; `select` is a pytest -k expression. With the file of a
    credential, the kit shows it in every request (fixtures/kit_with_credential.py)."""
    reports.mkdir(parents=True, exist_ok=True)
    own = kit / ".venv" / "bin" / "python"
    command = [
        str(own if own.exists() else sys.executable),
        "-m",
        "pytest",
        *arguments(host, select, reports, CREDENTIAL_PLUGIN if credential else None),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{kit}{os.pathsep}{FIXTURES}", "PYTHONDONTWRITEBYTECODE": "1"}
    if credential:
        environment["KIT_CREDENTIAL"] = str(credential)
    try:
        done = subprocess.run(
            command, cwd=kit, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise KitError(f"the kit did not end within {TIMEOUT_S:.0f} s") from None
    junit = reports / "junit.xml"
    # 0: all passed, 1: some failed. Anything else is pytest's own trouble.
    if done.returncode not in (0, 1) or not junit.exists():
        raise KitError(f"the kit did not run:\n{(done.stdout + done.stderr)[-2000:]}")
    # The score of a part is no score of the kit.
    return Report(list(read(junit)), {} if select else _score(reports / "compatibility.json"))


def read(junit: Path) -> Iterator[Verdict]:
    """The tests of a JUnit report, with names relative to the kit's suite."""
    for case in ElementTree.parse(junit).iter("testcase"):
        # removeprefix leaves `markers` and the like alone; a class of the suite always has the prefix.
        module = case.get("classname", "").removeprefix(SUITE.replace("/", ".") + ".")
        yield Verdict(f"{module}.{case.get('name')}", *_outcome(case))


def _outcome(case: ElementTree.Element) -> tuple[str, str]:
    for child in case:
        message = child.get("message") or ""
        if child.tag in ("failure", "error"):
            return "failed", message
        if child.tag == "skipped":
            return ("xfailed" if child.get("type") == "pytest.xfail" else "skipped"), message
    return "passed", ""


def _score(compatibility: Path) -> dict[str, Any]:
    if not compatibility.exists():
        return {}
    summary = json.loads(compatibility.read_text("utf-8"))["summary"]
    return {key: value for key, value in summary.items() if key.endswith("_compatibility")}


def version(kit: Path) -> dict[str, str]:
    """Which kit this is: what it calls itself, and its commit if the folder is a clone, else a digest."""
    with (kit / "pyproject.toml").open("rb") as file:
        called = tomllib.load(file)["project"]["version"]
    commit = _commit(kit)
    exact = {"kit_commit": commit} if commit else {"kit_digest": _digest(kit)}
    return {"kit": f"a2a-tck {called}", **exact}


def _commit(kit: Path) -> str:
    # A copy inside somebody else's repository has that one's commit, which would be a lie here.
    if not (kit / ".git").exists():
        return ""
    command = ["git", "-C", str(kit), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _digest(kit: Path) -> str:
    """Of every Python file that makes the kit's verdicts."""
    digest = hashlib.sha256()
    files = [file for part in ("tck", SUITE) for file in (kit / part).rglob("*.py")]
    for file in sorted(files):
        digest.update(f"{file.relative_to(kit).as_posix()}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return f"sha256:{digest.hexdigest()}"
