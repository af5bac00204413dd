"""What the gateway says as an MCP client, and how it reads answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.mcp import client as wire
from gateway.dialects.mcp.message import Response
from gateway.model.errors import GatewayError, Reason
from gateway.model.tool import Era, Tree


@dataclass
class Someone:
    meta: Tree
    principal: str = "p"
    capabilities: Tree = field(default_factory=dict)
    client: Tree | None = None
    log_level: str | None = None
    progress: bool = True
    hops: int = 0

    async def notify(self, method: str, params: Tree) -> None: ...

    async def ask(self, method: str, params: Tree) -> Tree:
        return {}


LEAF = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.floats(allow_nan=False)
TREES = st.recursive(
    LEAF,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["jsonrpc", "id", "method", "params", "result", "error", "code", "message", "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


def test_what_a_hop_says_for_itself_cannot_be_said_for_it() -> None:
    sly = Someone({"traceparent": "t", "progressToken": "x", "io.modelcontextprotocol/clientInfo": "x"})
    meta = wire.modern_params({}, sly, "2026-07-28", 7, {"name": "gateway"})["_meta"]
    assert meta["progressToken"] == 7
    assert meta["io.modelcontextprotocol/clientInfo"] == {"name": "gateway"}
    assert meta["traceparent"] == "t"
    assert wire.session_params({"a": 1}, sly, 7)["_meta"]["progressToken"] == 7


def test_extensions_are_not_declared_to_a_session() -> None:
    said = wire.initialize_params({"roots": {}, "extensions": {"x/y": {}}}, {"name": "g"})
    assert said["capabilities"] == {"roots": {}}


@pytest.mark.parametrize(
    "result",
    [{}, {"supportedVersions": "2026-07-28", "capabilities": {}}, {"supportedVersions": ["2026-07-28"]}, {"x": 1}],
)
def test_what_is_no_discovery_is_none(result: Tree) -> None:
    assert wire.discovered(result) is None


def test_a_discovery_is_a_face() -> None:
    face = wire.discovered(
        {
            "supportedVersions": ["2030-01-01", "2026-07-28", "2025-11-25"],
            "capabilities": {"tools": {}},
            "instructions": "be kind",
            "_meta": {"io.modelcontextprotocol/serverInfo": "not an object"},
        }
    )
    assert face is not None
    assert (face.era, face.version, face.info, face.instructions) == (Era.MODERN, "2026-07-28", {}, "be kind")


@pytest.mark.parametrize("version", wire.SESSIONS)
def test_every_revision_with_sessions_is_spoken(version: str) -> None:
    face = wire.initialized({"protocolVersion": version, "capabilities": {}})
    assert (face.era, face.version) == (Era.LEGACY, version)


@given(TREES)
def test_whatever_a_server_sends_is_messages_or_a_failure_of_the_server(tree: Any) -> None:
    failure = None
    try:
        wire.messages(tree)
    except GatewayError as error:
        failure = error
    assert failure is None or failure.reason is Reason.UPSTREAM_FAILED


@given(TREES, st.integers(0, 3))
def test_the_short_way_takes_nothing_that_the_long_way_would_refuse(tree: Any, id: int) -> None:
    """`true` is 1 and 1.0 is 1 to Python; neither is the id 1."""
    result = wire.result(tree, id)
    if result is not None:
        (message,) = wire.messages(tree)
        assert isinstance(message, Response)
        assert wire.answer(message, id) is result


def test_a_session_result_is_complete_whatever_it_says() -> None:
    assert wire.completed({"resultType": "task", "a": 1, "b": 2}) == {"resultType": "complete", "a": 1, "b": 2}
    assert list(wire.completed({"b": 1, "a": 2})) == ["resultType", "b", "a"]
