"""Runs acp-sdk's own client and server against the real gateway: one at its door, the other behind it.

    make conformance ARGS=--acp ACP_PYTHON=PYTHON     writes results/acp-1.0.3.json

The client talks to a local agent and, through the gateway, to the server's agent. a2a-sdk's client talks to that agent
too, in every binding and version, and makes all its checks with an agent that a second gateway reaches by ACP.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from conformance import peers, players, processes
from conformance.peers import Result
from conformance.results import FOLDER, machine

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures"
SDK = "1.0.3"
TIMEOUT_S = 120.0
# ACP knows runs only, so an agent behind it never answers with a message.
AGAIN = tuple(check for check in peers.CHECKS if check is not peers.a_message_may_be_answered_with_a_message)
HOW_TO_GET = (
    f"No acp-sdk: python -m venv DIR && DIR/bin/pip install acp-sdk=={SDK} uvicorn==0.35.0 fastapi==0.116.1 "
    "'starlette<0.48', then make conformance ARGS=--acp ACP_PYTHON=DIR/bin/python"
)


class ClientError(Exception):
    """acp-sdk's client did not run, so there is nothing to judge."""


def find() -> Path | None:
    """The interpreter that has acp-sdk, from ACP_PYTHON."""
    named = os.environ.get("ACP_PYTHON")
    if not named:
        return None
    python = Path(named).absolute()
    told = subprocess.run([python, "-c", "import acp_sdk"], capture_output=True, timeout=60, check=False)
    return python if told.returncode == 0 else None


def main() -> int:
    python = find()
    if python is None:
        print(HOW_TO_GET, file=sys.stderr)
        return 2
    try:
        return 1 if _all(python) else 0
    except (ClientError, processes.StartError) as error:
        print(error, file=sys.stderr)
        return 2


def _all(python: Path) -> int:
    """How much went wrong."""
    with tempfile.TemporaryDirectory(prefix="conformance-acp-") as name, ExitStack() as stack:
        folder = Path(name)
        port = processes.free_port()
        stack.enter_context(processes.acp_server(python, FIXTURES / "acp_server.py", port, folder / "server.log"))
        base = stack.enter_context(processes.gateway(_config("acp.yaml", folder, "8333", port), folder / "first"))
        config = _config("acp-again.yaml", folder, "8333", port)
        config.write_text(config.read_text("utf-8").replace("http://127.0.0.1:8334", base), "utf-8")
        again = stack.enter_context(processes.gateway(config, folder / "second"))
        acp = {
            agent: _client(python, f"{base}/acp", agent, processes.credential(folder / "first"))
            for agent in ("echo", "player")
        }
        a2a = [peers.run(again, "/agents/player", players.ACP, version=spoken) for spoken in peers.VERSIONS]
        a2a += [peers.run(again, "", AGAIN, version=spoken) for spoken in peers.VERSIONS]
    return _judge(acp, a2a)


def _config(name: str, folder: Path, stated: str, port: int) -> Path:
    text = (HERE / name).read_text("utf-8").replace(stated, str(port)).replace("../", f"{HERE.parent}/")
    (folder / name).write_text(text, "utf-8")
    return folder / name


def _client(python: Path, base: str, agent: str, token: str) -> dict[str, str]:
    words = [str(python), str(FIXTURES / "acp_client.py"), base, agent]
    environment = {**os.environ, "ACP_TOKEN": token}
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    try:
        found: dict[str, str] = json.loads(done.stdout)
    except ValueError:
        raise ClientError(f"acp-sdk's client did not run:\n{done.stderr[-2000:]}") from None
    return found


def _judge(acp: dict[str, dict[str, str]], a2a: list[Result]) -> int:
    for agent, found in acp.items():
        failed = {check: why for check, why in found.items() if why}
        print(f"acp-sdk's client with {agent}: {len(found) - len(failed)} passed, {len(failed)} failed")
        for check, why in failed.items():
            print(f"  UNEXPECTED {check.replace('_', ' ')}: {why}")
    for result in a2a:
        peers.show(result)
    file = FOLDER / f"acp-{SDK}.json"
    file.write_text(json.dumps(document(acp, a2a), indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"written: {file.relative_to(HERE.parent)}")
    return sum(bool(why) for found in acp.values() for why in found.values()) + sum(len(each.failed) for each in a2a)


def document(acp: dict[str, dict[str, str]], a2a: list[Result]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python -m conformance --acp",
        "versions": {"gateway": version("gateway"), "acp-sdk": SDK, "a2a-sdk": version("a2a-sdk")},
        "machine": machine(),
        "acp_sdk_client": {
            agent: {
                "passed": sum(not why for why in found.values()),
                "failed": {check: why for check, why in found.items() if why},
            }
            for agent, found in acp.items()
        },
        "a2a_sdk_client": [asdict(each) for each in a2a],
    }
