"""A caller's trace (W3C Trace Context) over two gateways: both records name it, whatever they speak to each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.test_remote_grpc import ALLOWED
from tests.remote import agents, ready, scripted
from tests.serving import BOUND, ECHO, ROOT, Gateway, message, running
from tests.upstream import loopback

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
CARD = f"card: {ROOT}/agent_cards/echo.json, public: true"


def answering() -> AbstractAsyncContextManager[loopback.Upstream]:
    """An agent of the older messages."""
    done = b'{"jsonrpc":"2.0","id":1,"result":{"status":"completed","result":"done"}}'
    return loopback.serve(loopback.always(loopback.answer(done, content_type="application/json")))


def older(url: str) -> str:
    return f"agents:\n  echo: {{tasks_url: '{url}', {CARD}}}\n"


@asynccontextmanager
async def configured(spoken: str, far: Gateway) -> AsyncIterator[str]:
    """The echo agent of one gateway as the echo agent of the next, which speaks this to it."""
    if spoken == "acp":
        yield agents(echo=f"{far.url}/acp/agents/echo")
    elif spoken == "older":
        yield older(f"{far.url}/agents/echo")
    else:
        binding, version = spoken.split()
        card = (await far.client.get("/agents/echo/.well-known/agent-card.json")).json()
        (offered, *_) = [
            each
            for each in card["supportedInterfaces"]
            if (each["protocolBinding"], each["protocolVersion"]) == (binding, version)
        ]
        async with scripted() as place:  # a card with nothing else on it
            place.card |= {"supportedInterfaces": [offered], "capabilities": card["capabilities"]}
            yield agents(echo=place.url) + ALLOWED


async def says(gateway: Gateway, traceparent: str | None = None) -> Any:
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi")}}
    sent = {} if traceparent is None else {"traceparent": traceparent}
    answer = await asyncio.wait_for(gateway.post(body, **sent), BOUND)
    assert "result" in answer.json(), answer.text
    return answer.json()["result"]


async def traces(gateway: Gateway) -> list[str | None]:
    """Of the intent and the outcome of the message that came last."""
    return [entry.trace for entry in await gateway.record() if entry.verb == "SendMessage"][-2:]


@pytest.mark.parametrize(
    "spoken", ["JSONRPC 1.0", "JSONRPC 0.3", "HTTP+JSON 1.0", "HTTP+JSON 0.3", "GRPC 1.0", "GRPC 0.3", "acp", "older"]
)
async def test_two_gateways_record_one_trace(tmp_path: Path, spoken: str) -> None:
    async with (
        running(tmp_path / "far", ECHO, anonymous=True, grpc_port=0) as far,
        configured(spoken, far) as config,
        running(tmp_path / "near", config) as near,
    ):
        await ready(near, "echo")
        for traceparent, trace in ((TRACEPARENT, TRACE), (None, None)):
            await says(near, traceparent)
            assert await traces(near) == await traces(far) == [trace, trace]


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (TRACEPARENT, TRACEPARENT),
        (f"00-{TRACE}-{PARENT}-00", f"00-{TRACE}-{PARENT}-00"),
        (f"cc-{TRACE}-{PARENT}-01", TRACEPARENT),  # §3.2.2.1: of a later revision, what this one knows
        (f"cc-{TRACE}-{PARENT}-01-what-it-adds", TRACEPARENT),
        (f"00-{TRACE}-{PARENT}-01-what-it-adds", None),
        (f"ff-{TRACE}-{PARENT}-01", None),
        (f"00-{'0' * 32}-{PARENT}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{PARENT}-01", None),
        (f"00-{TRACE}-{PARENT}", None),
        (f"cc-{TRACE}-{PARENT}-01what-it-adds", None),
        ("a-secret", None),
        (None, None),
    ],
)
async def test_only_what_is_a_trace_goes_on_and_is_recorded(
    tmp_path: Path, sent: str | None, heard: str | None
) -> None:
    async with answering() as server, running(tmp_path, older(server.url)) as gateway:
        await says(gateway, sent)
        assert server.requests[-1].headers.get("traceparent") == heard
        assert await traces(gateway) == ([None, None] if heard is None else [TRACE, TRACE])


async def test_the_agent_that_an_agent_here_asks_is_told_the_callers_trace(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("rules: [{rule: r, who: 'agent:*', do: use, on: agents/peer, verdict: PASS}]")
    async with answering() as server:
        config = f"""
policy: {{file: {tmp_path}/policy.yaml}}
agents:
  echo: {{run: "tests.actors:onward", {CARD}}}
  peer: {{tasks_url: '{server.url}', {CARD}}}
"""
        async with running(tmp_path / "data", config) as gateway:
            await says(gateway, TRACEPARENT)
            assert server.requests[-1].headers["traceparent"] == TRACEPARENT
