"""One gateway for all tests of a file, and a caller for each binding. Tests tell themselves apart by principal."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests import rpc
from tests.bindings import BINDINGS, Caller
from tests.serving import ROOT, Gateway, running

TOWN = f"""
server: {{default_agent: echo}}
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true, tenants: [acme]}}
  actor: {{run: "tests.actors:Actor", card: {ROOT}/agent_cards/echo.json, public: true}}
  mirror: {{run: "tests.actors:mirror", card: {ROOT}/agent_cards/echo.json, public: true}}
  hasty: {{run: "tests.actors:Actor", card: {ROOT}/agent_cards/echo.json, public: true, deadline: 0.2}}
  small: {{run: "tests.actors:Actor", card: {ROOT}/agent_cards/echo.json, public: true, concurrency: 1, queue: 0}}
  plain: {{run: "agents.echo:Echo", card: {ROOT}/conformance/cards/plain.json, public: true}}
  strict: {{run: "agents.echo:Echo", card: {ROOT}/conformance/cards/strict.json, public: true}}
  more:
    run: "agents.echo:Echo"
    card: {ROOT}/agent_cards/echo.json
    extended_card: {ROOT}/conformance/cards/strict.json
    public: true
  hidden: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, tenants: [acme]}}
egress: {{allow_loopback: true}}
"""

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("gateway"), TOWN, grpc_port=0) as gateway:
        yield gateway


@pytest.fixture(params=BINDINGS)
def http_caller(gateway: Gateway, request: pytest.FixtureRequest) -> Caller:
    """The same over the bindings with JSON alone: for what protobuf cannot even say, and for HTTP's own."""
    return Caller(gateway, request.param)


@pytest.fixture(params=(*BINDINGS, "grpc"))
def caller(gateway: Gateway, request: pytest.FixtureRequest) -> Caller:
    """The machine's own credential over each binding."""
    return rpc.caller(gateway, request.param)


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(caller: Caller) -> Caller:
    """A principal without any task yet, over each binding."""
    return await caller.other(f"p{next(_numbers)}")


@pytest_asyncio.fixture(loop_scope="module")
async def http_fresh(http_caller: Caller) -> Caller:
    return await http_caller.other(f"p{next(_numbers)}")
