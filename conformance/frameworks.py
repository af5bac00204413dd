"""Runs agents of frameworks behind the real gateway: Google's ADK by its `to_a2a`, AG2 by its `A2AServer`.

    make conformance ARGS=--frameworks ADK_PYTHON=PYTHON AG2_PYTHON=PYTHON     writes results/frameworks.json

Each is a process of its own framework with a made-up model (fixtures/adk_agent.py, ag2_agent.py); a2a-sdk's client uses
it through the gateway, in every binding and version. One of the two interpreters is enough for its half; results are
written where both are there.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from a2a.client import ClientCallContext
from a2a.types.a2a_pb2 import Part, TaskState
from google.protobuf.json_format import MessageToDict, ParseDict

from conformance import peers, players, processes
from conformance.peers import Check, Peer, Result
from conformance.results import FOLDER, machine

HERE = Path(__file__).parent
CONFIG = HERE / "frameworks.yaml"
STATED = ("8341", "8342", "8343", "8344", "8345", "8346")  # the ports of that file

COMMON: tuple[Check, ...] = (
    players.a_message_becomes_a_finished_task,
    players.a_task_can_be_read_again,
    players.a_task_is_canceled,
    players.a_subscriber_sees_the_task_and_its_end,
)


@dataclass(frozen=True, eq=False)
class Framework:
    """`agents` are those of frameworks.yaml that it serves, each with the words that its program gets; a word of STATED
    becomes a free port, and the first of them is the one of the card. `newest` are checks that only 1.0 can make."""

    package: str
    variable: str
    requirements: str
    program: str
    agents: dict[str, tuple[str, ...]]
    checks: tuple[Check, ...]
    newest: tuple[Check, ...] = ()

    def find(self) -> Path | None:
        """The interpreter that has it, from `variable`."""
        named = os.environ.get(self.variable)
        python = None if not named else Path(named).absolute()
        return python if python is not None and self.version(python) else None

    def checks_in(self, version: str) -> tuple[Check, ...]:
        return self.checks + (self.newest if version == peers.VERSIONS[0] else ())

    def version(self, python: Path) -> str:
        """ "" where that interpreter does not have it."""
        code = f"from importlib.metadata import version; print(version({self.package!r}))"
        told = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        return told.stdout.strip()


# --- What only one of them does. ---


async def adk_asks_by_a_long_running_tool(peer: Peer) -> None:
    asked = await players.tell(peer, "ask")
    assert peers.state(asked) == "TASK_STATE_INPUT_REQUIRED", peers.state(asked)
    call = _data(asked.status.message.parts[0])
    assert (call["name"], call["args"]) == ("ask_person", {"question": "What?"}), call
    answer = {"data": {"name": call["name"], "id": call["id"], "response": {"result": "blue"}}}
    part = _part({**answer, "metadata": {"adk_type": "function_response"}})
    done = await players.send(peer, part, task_id=asked.id, context_id=asked.context_id)
    assert (done.id, players.said(done)) == (asked.id, "You said blue"), done


async def adk_tells_of_its_steps_as_they_come(peer: Peer) -> None:
    events = [event async for event in peer.streaming.send_message(players.request(Part(text="count 3")))]
    assert events[0].HasField("task")
    words = [players.texts(event.status_update.status.message.parts) for event in events]
    assert [word for word in words if word] == ["1\n", "2\n", "3\n"], words
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED, events[-1]


async def adk_makes_artifacts_of_its_steps_where_its_extension_is_asked_for(peer: Peer) -> None:
    headers = {"A2A-Extensions": ADK_EXTENSION}
    context = ClientCallContext(service_parameters=headers)
    sent = peer.streaming.send_message(players.request(Part(text="count 3")), context=context)
    pieces = [part.text async for event in sent for part in event.artifact_update.artifact.parts if part.text]
    assert pieces == ["1\n", "2\n", "3\n"], pieces


async def ag2_asks_by_a_tool_that_the_client_has(peer: Peer) -> None:
    tool = {"name": "ask_person", "description": "Ask.", "parameters": {"type": "object", "properties": {}}}
    tools = _part({"data": {"tools": [tool]}, "mediaType": "application/vnd.ag2.tool-schemas+json"})
    asked = await players.send(peer, Part(text="ask"), tools)
    assert peers.state(asked) == "TASK_STATE_INPUT_REQUIRED", peers.state(asked)
    (artifact,) = asked.artifacts
    call = _data(artifact.parts[0])
    assert (call["name"], json.loads(call["arguments"])) == ("ask_person", {"question": "What?"}), call
    result = {"results": [{"id": call["id"], "name": call["name"], "content": "blue"}]}
    answer = _part({"data": result, "mediaType": "application/vnd.ag2.tool-result+json"})
    done = await players.send(peer, answer, tools, task_id=asked.id, context_id=asked.context_id)
    assert done.id == asked.id
    assert players.texts(done.status.message.parts) == "You said blue", done


def _part(tree: dict[str, Any]) -> Part:
    return ParseDict(tree, Part())


def _data(part: Part) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(part)["data"]
    return found


# What a client names that wants ADK's newer executor.
ADK_EXTENSION = "https://google.github.io/adk-docs/a2a/a2a-extension/"

FRAMEWORKS = (
    Framework(
        "google-adk",
        "ADK_PYTHON",
        "'google-adk[a2a]'",
        "adk_agent.py",
        {"adk": ("8341", "1.0"), "adk-older": ("8342", "0.3")},
        (
            *COMMON,
            players.a_failure_says_why,
            players.a_conversation_stays_one_session,
            adk_tells_of_its_steps_as_they_come,
            adk_makes_artifacts_of_its_steps_where_its_extension_is_asked_for,
            adk_asks_by_a_long_running_tool,
        ),
    ),
    Framework(
        "ag2",
        "AG2_PYTHON",
        "'ag2[a2a]' uvicorn starlette sse-starlette grpcio",
        "ag2_agent.py",
        {"ag2": ("8343", "jsonrpc"), "ag2-rest": ("8344", "rest"), "ag2-grpc": ("8345", "grpc", "8346")},
        (
            *COMMON,
            players.a_failure_is_a_failed_task,
            players.what_the_agent_makes_streams_as_it_comes,
        ),
        # The media type of data tells AG2 what it is, and 0.3 has none.
        (ag2_asks_by_a_tool_that_the_client_has,),
    ),
)


def main() -> int:
    found = {each: python for each in FRAMEWORKS if (python := each.find()) is not None}
    for each in FRAMEWORKS:
        if each not in found:
            print(how_to_get(each), file=sys.stderr)
    if not found:
        return 2
    try:
        results = _all(found)
    except processes.StartError as error:
        print(error, file=sys.stderr)
        return 2
    for result in results:
        peers.show(result)
    if len(found) == len(FRAMEWORKS):
        versions = {each.package: each.version(python) for each, python in found.items()}
        file = FOLDER / "frameworks.json"
        file.write_text(json.dumps(document(versions, results), indent=2, ensure_ascii=False) + "\n", "utf-8")
        print(f"written: {file.relative_to(HERE.parent)}")
    return 1 if any(result.failed for result in results) else 0


def how_to_get(framework: Framework) -> str:
    return (
        f"No {framework.package}: python -m venv DIR && DIR/bin/pip install {framework.requirements}, "
        f"then make conformance ARGS=--frameworks {framework.variable}=DIR/bin/python"
    )


def _all(found: dict[Framework, Path]) -> list[Result]:
    ports = {stated: str(processes.free_port()) for stated in STATED}
    with tempfile.TemporaryDirectory(prefix="conformance-frameworks-") as name, ExitStack() as stack:
        folder = Path(name)
        for framework, python in found.items():
            for agent, words in framework.agents.items():
                program = [str(python), str(HERE / "fixtures" / framework.program), *(ports.get(w, w) for w in words)]
                stack.enter_context(processes.agent_program(program, int(ports[words[0]]), folder / f"{agent}.log"))
        config = folder / CONFIG.name
        config.write_text(_with_ports(CONFIG.read_text("utf-8"), ports), "utf-8")
        base = stack.enter_context(processes.gateway(config, folder / "gateway"))
        return [
            peers.run(base, f"/agents/{agent}", framework.checks_in(spoken), version=spoken)
            for framework in found
            for agent in framework.agents
            for spoken in peers.VERSIONS
        ]


def _with_ports(text: str, ports: dict[str, str]) -> str:
    for stated, port in ports.items():
        text = text.replace(stated, port)
    return text


def document(versions: dict[str, str], results: list[Result]) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python -m conformance --frameworks",
        "versions": {"gateway": version("gateway"), "a2a-sdk": version("a2a-sdk"), **versions},
        "machine": machine(),
        "a2a_sdk_client": [asdict(each) for each in results],
    }
