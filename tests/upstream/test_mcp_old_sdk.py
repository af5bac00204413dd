"""The client face against servers on the SDK of before 2026-07-28: an oracle that knows nothing of the present.

Needs an interpreter with that SDK, since two versions of one package do not fit into one environment:

    python -m venv OLD && OLD/bin/pip install 'mcp<2' && MCP_LEGACY_PYTHON=OLD/bin/python make test ARGS="-k old_sdk"
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.model.tool import Era, Kind, PeerError
from gateway.upstream.mcp.server import McpServer, StdioServer
from gateway.upstream.process import Command
from tests.upstream.mcp_servers import FULL, INFO, PATIENCE, ROOT, Recorder, at, chance, child, texts

PYTHON = os.environ.get("MCP_LEGACY_PYTHON") and os.path.abspath(os.environ["MCP_LEGACY_PYTHON"])
PROGRAM = str(ROOT / "conformance" / "fixtures" / "legacy_tool_server.py")

pytestmark = pytest.mark.skipif(not PYTHON, reason="MCP_LEGACY_PYTHON names no interpreter with mcp<2")


@pytest.fixture(scope="module", params=["--http /mcp", "--sse /sse", "stdio"])
def place(request: pytest.FixtureRequest) -> Iterator[str | None]:
    if request.param == "stdio":
        yield None
        return
    option, path = request.param.split()
    with child(lambda port: [str(PYTHON), PROGRAM, option, str(port)]) as port:
        yield f"http://127.0.0.1:{port}{path}"


@pytest.fixture
async def server(place: str | None) -> AsyncIterator[McpServer]:
    if place is not None:
        async with at(place) as server:
            yield server
        return
    command = Command((str(PYTHON), PROGRAM))
    stdio = StdioServer("it", command, info=INFO, ours=dict(os.environ), chance=chance)
    yield stdio
    await stdio.aclose()


async def call(server: McpServer, tool: str, caller: Recorder | None = None, **arguments: Any) -> Any:
    params = {"name": tool, "arguments": arguments}
    return await asyncio.wait_for(server.request("tools/call", params, caller or Recorder()), PATIENCE)


@pytest.mark.requirement("mcp.client.era-probing")
async def test_an_old_server_is_found_to_be_one_and_shows_all_it_has(server: McpServer) -> None:
    face = await server.face()
    assert (face.era, face.version) == (Era.LEGACY, "2025-11-25")
    assert {kind: len((await server.list(kind)).trees) for kind in Kind} == {
        Kind.TOOL: 27,
        Kind.PROMPT: 5,
        Kind.RESOURCE: 3,
        Kind.TEMPLATE: 1,
    }


async def test_it_answers_reports_and_logs(server: McpServer) -> None:
    caller = Recorder(progress=True, log_level="info")
    assert texts(await call(server, "test_tool_with_progress", caller)) == ["reported progress three times"]
    assert texts(await call(server, "test_tool_with_logging", caller)) == ["logged three messages"]
    assert [params.get("progress", params.get("data")) for _, params in caller.all] == [
        0,
        50,
        100,
        "Tool execution started",
        "Tool processing data",
        "Tool execution completed",
    ]
    assert (await call(server, "test_error_handling"))["isError"] is True
    with pytest.raises(PeerError):
        await server.request("resources/read", {"uri": "test://nothing"}, Recorder())


async def test_what_it_asks_is_put_to_the_caller(server: McpServer) -> None:
    answers = {
        "elicitation/create": {"action": "accept", "content": {"response": "blue"}},
        "sampling/createMessage": {"role": "assistant", "model": "m", "content": {"type": "text", "text": "Paris"}},
    }
    caller = Recorder(capabilities=FULL, answers=answers)
    assert texts(await call(server, "test_sampling", caller, prompt="?")) == ["LLM response: Paris"]
    said = texts(await call(server, "test_elicitation", caller, message="?"))
    assert said == ['User response: action=accept, content={"response":"blue"}']


async def test_a_canceled_call_leaves_it_working(server: McpServer) -> None:
    caller = Recorder(progress=True)
    task = asyncio.ensure_future(call(server, "test_tool_with_progress", caller))
    await caller.next()
    task.cancel()
    await asyncio.wait({task})
    assert texts(await call(server, "test_simple_text", caller))
