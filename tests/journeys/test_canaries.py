"""What a caller shows at the door stays there: marked words in every header, over every wire in and every wire out.

A call that must succeed carries a word in its body, too, and that one has to arrive: whoever looks in the wrong place
finds neither."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from a2a.types import a2a_pb2 as pb

from gateway.dialects.mcp import headers as mcp_headers
from tests import acp, rpc
from tests.issuer import Issuer, issuing
from tests.journeys.test_remote_grpc import Far, calling
from tests.mcp import MODERN, message_of, modern, request, soon
from tests.remote import Scripted, agents, card, ready, scripted
from tests.serving import ROOT, Gateway, message, running
from tests.upstream import loopback
from tests.upstream.mcp_raw import OK, Raw, legacy, raw

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]

CANARY = "canary-4d1f"
WORD = "the-word-that-arrives"
WORKLOAD = "spiffe://example.org/ns/prod/sa/planner"

# Nobody's business but the door's. None of them lets anybody in here, and none is a reason to refuse a call.
# One header of a caller goes on, `traceparent`: 55 characters that the gateway writes anew, or none (test_traces.py).
SENT = {
    "Cookie": f"session={CANARY}; other={CANARY}",
    "X-Api-Key": CANARY,
    "Api-Key": CANARY,
    "X-Auth-Token": CANARY,
    "X-Upstream-Authorization": f"Bearer {CANARY}",
    "X-Forwarded-Authorization": f"Bearer {CANARY}",
    "X-Forwarded-Access-Token": CANARY,
    "X-Forwarded-User": CANARY,
    "X-Amz-Security-Token": CANARY,
    "Proxy-Authorization": f"Basic {CANARY}",
    "DPoP": CANARY,
    "Forwarded": f"for={CANARY}",
    "Tracestate": f"vendor={CANARY}",
    "Baggage": f"token={CANARY}",
    "Referer": f"https://e.example/?token={CANARY}",
    "User-Agent": f"client ({CANARY})",
    "Idempotency-Key": CANARY,
    "A2A-Extensions": f"https://e.example/x?token={CANARY}",
    "X-A2A-Extensions": f"https://e.example/y?token={CANARY}",
    "Mcp-Param-Token": CANARY,
}

Sight = Callable[[], bytes]


@dataclass
class Town:
    """One gateway and all that it calls. `sights` gives every byte that an upstream was sent, by its name."""

    gateway: Gateway
    issuer: Issuer
    data: Path
    sights: dict[str, Sight] = field(default_factory=dict)
    stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def credentials(self, name: str) -> dict[str, tuple[dict[str, str], list[str]]]:
        """Three ways of letting somebody in, each with the words in it that are secret."""
        key = await self.gateway.key(name)
        token = self.issuer.token(self.gateway.url, sub=name, jti=f"{CANARY}-jti")
        seen = {"X-Forwarded-Client-Cert": f'Hash={CANARY};Subject="CN={CANARY}";URI={WORKLOAD}'}
        return {
            "key": (self.gateway.bearer(key), secrets(key)),
            "token": (self.gateway.bearer(token), [*secrets(token), *token.split(".")]),
            "certificate": (seen, []),
        }

    async def kept(self) -> bytes:
        """The database with its write-ahead log, and everything else in the data folder."""
        await self.gateway.app.store.commit()
        return b"".join(path.read_bytes() for path in sorted(self.data.rglob("*")) if path.is_file())

    async def shown(self) -> bytes:
        """What operators see: the audit log, the agents and tool servers, what waits."""
        bearer = self.gateway.bearer(None)
        paths = ("/admin/audit?limit=1000", "/admin/tools", "/admin/agents", "/admin/approvals")
        answers = [await self.gateway.client.get(path, headers=bearer) for path in paths]
        assert [answer.status_code for answer in answers] == [200] * len(paths)
        return b"".join(answer.content for answer in answers)


def secrets(word: str) -> list[str]:
    return [word, base64.b64encode(word.encode()).decode().rstrip("=")]


# What the gateway calls.


def said_by(far: Scripted) -> Sight:
    @far.on("SendMessage")
    async def hello(asked: Any) -> None:
        asked.answer({"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "hello"}]}})

    return lambda: b"".join(json.dumps(asked.headers).encode() + asked.raw for asked in far.asked)


@contextlib.asynccontextmanager
async def over_http() -> AsyncIterator[loopback.Upstream]:
    """An agent over HTTP+JSON."""

    async def play(asked: loopback.Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tree: Any = {"message": {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "hello"}]}}
        if asked.line.startswith("GET "):
            tree = card(server.url, streaming=False)
            tree["supportedInterfaces"][0]["protocolBinding"] = "HTTP+JSON"
        writer.write(loopback.answer(json.dumps(tree).encode(), content_type="application/json"))

    async with loopback.serve(play) as server:
        yield server


def said_over_http(server: loopback.Upstream) -> Sight:
    return lambda: b"".join(
        asked.line.encode() + json.dumps(asked.headers).encode() + asked.body for asked in server.requests
    )


def said_over_grpc(far: Far) -> Sight:
    @far.on("SendMessage")
    async def hello(request: Any, context: Any) -> Any:
        return pb.SendMessageResponse(message={"message_id": "m", "role": "ROLE_AGENT", "parts": [{"text": "hello"}]})

    return lambda: str([(name, metadata, str(request)) for name, request, metadata in far.asked]).encode()


def said_over_acp(server: acp.Server) -> Sight:
    @server.on("create")
    async def create(asked: acp.Asked) -> None:
        await asked.begin()
        await asked.event("message.created", message=acp.told("hello"))
        await asked.event("message.completed", message=acp.told("hello"))
        await asked.event("run.completed", run=acp.run("completed", acp.told("hello")))

    return lambda: str([(asked.path, asked.headers, asked.body) for _, asked in server.asked]).encode()


HELD = "approvals: {pause: agents/held}\n"
TOOL = {"name": "t", "inputSchema": {"type": "object"}}
LIST = {"resultType": "complete", "tools": [TOOL], "ttlMs": 60_000, "cacheScope": "public"}


def said_to(server: Raw) -> Sight:
    return lambda: b"".join(
        call.http.line.encode() + json.dumps(call.headers).encode() + call.http.body for call in server.calls
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    folder = tmp_path_factory.mktemp("canaries")
    listed: Any = {"tools_list": lambda call: call.result(LIST), "tools_call": lambda call: call.result(OK)}
    async with (
        issuing() as issuer,
        scripted(streaming=False) as rpc_agent,
        over_http() as http_agent,
        calling(streaming=False) as grpc_agent,
        acp.scripted() as acp_agent,
        raw(**listed) as modern_server,
        raw(**legacy(**listed)) as legacy_server,
    ):
        # The program's input and its environment, as it got them.
        pipe = (
            f"env >> {folder}/stdio; tee -a {folder}/stdio | exec {sys.executable} -m conformance.fixtures.tool_server"
        )
        urls = {
            "jsonrpc-agent": rpc_agent.url,
            "http-agent": http_agent.url,
            "grpc-agent": grpc_agent.card.url,
            "acp-agent": acp_agent.manifest,
        }
        (folder / "policy.yaml").write_text(HELD)
        config = f"""
policy: {{file: {folder}/policy.yaml}}
server: {{trusted_proxies: [127.0.0.0/8]}}
auth:
  issuers: [{{issuer: '{issuer.url}'}}]
  client_certificates: {{trust_domains: [example.org]}}
egress: {{allow_loopback: true}}
tools:
  modern: {{url: '{modern_server.url}'}}
  legacy: {{url: '{legacy_server.url}'}}
  stdio: {{command: [/bin/sh, -c, "{pipe}"], folder: "{ROOT}"}}
grants:
  - {{to: "*", tools: ["*"]}}
{agents(**urls, held=rpc_agent.url)}"""
        async with running(folder / "data", config, grpc_port=0) as gateway:
            await ready(gateway, *urls, "held")

            async def up() -> bool:
                answer = await gateway.client.get("/admin/tools", headers=gateway.bearer(None))
                return all(each["state"] == "up" for each in answer.json()["servers"])

            await soon(up)
            yield Town(
                gateway,
                issuer,
                folder / "data",
                {
                    "jsonrpc-agent": said_by(rpc_agent),
                    "http-agent": said_over_http(http_agent),
                    "grpc-agent": said_over_grpc(grpc_agent),
                    "acp-agent": said_over_acp(acp_agent),
                    "modern": said_to(modern_server),
                    "legacy": said_to(legacy_server),
                    "stdio": lambda: (folder / "stdio").read_bytes(),
                },
            )


# Who calls the gateway. Each gives all that it was told, and whether that was what it wanted.

Told = tuple[bool, bytes]


def told(answer: Any) -> bytes:
    """Status, headers and body."""
    return f"{answer.status_code} {dict(answer.headers)} {answer.text}".encode()


async def by_a2a(town: Town, binding: str, agent: str, sent: dict[str, str]) -> Told:
    caller = rpc.caller(town.gateway, binding, agent)
    nobody: dict[str, str | None] = {"Authorization": None, **sent}
    made = type(caller)(town.gateway, binding, agent, headers=nobody)
    answer = await made.ask("SendMessage", message=message(WORD))
    return "hello" in answer.text, told(answer)


async def by_a2a_03(town: Town, agent: str, sent: dict[str, str]) -> Told:
    body = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "message/send",
        "params": {"message": {"messageId": "m", "role": "user", "parts": [{"kind": "text", "text": WORD}]}},
    }
    answer = await town.gateway.client.post(f"/agents/{agent}", json=body, headers=sent)
    return "hello" in answer.text, told(answer)


async def by_acp(town: Town, agent: str, sent: dict[str, str]) -> Told:
    body = {"agent_name": agent, "input": [acp.said(WORD)], "mode": "sync"}
    answer = await town.gateway.client.post("/acp/runs", json=body, headers=sent)
    return "hello" in answer.text, told(answer)


async def by_modern_mcp(town: Town, server: str, sent: dict[str, str]) -> Told:
    params = modern({"name": tool(server), "arguments": {"word": WORD}})
    every = {**mcp_headers.make("tools/call", params, MODERN), "Accept": "application/json, text/event-stream", **sent}
    answer = await town.gateway.client.post("/mcp", json=request("tools/call", params), headers=every)
    return done(answer), told(answer)


async def by_legacy_mcp(town: Town, server: str, sent: dict[str, str]) -> Told:
    every = {"Accept": "application/json, text/event-stream", **sent}
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    begun = await town.gateway.client.post("/mcp", json=request("initialize", client), headers=every)
    if "mcp-session-id" not in begun.headers:
        return False, told(begun)
    every |= {"Mcp-Session-Id": begun.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
    params = {"name": tool(server), "arguments": {"word": WORD}}
    answer = await town.gateway.client.post("/mcp", json=request("tools/call", params), headers=every)
    return done(answer), told(begun) + told(answer)


def tool(server: str) -> str:
    return f"{server}__{'test_simple_text' if server == 'stdio' else 't'}"


def done(answer: Any) -> bool:
    return answer.status_code == 200 and not message_of(answer).get("result", {"isError": True}).get("isError")


async def call(town: Town, door: str, upstream: str, sent: dict[str, str]) -> Told:
    match door:
        case "mcp":
            return await by_modern_mcp(town, upstream, sent)
        case "mcp sessions":
            return await by_legacy_mcp(town, upstream, sent)
        case "acp":
            return await by_acp(town, upstream, sent)
        case "a2a 0.3":
            return await by_a2a_03(town, upstream, sent)
    return await by_a2a(town, door, upstream, sent)


AGENTS = ("jsonrpc-agent", "http-agent", "grpc-agent", "acp-agent")
SERVERS = ("modern", "legacy", "stdio")
WIRES = [(door, agent) for door in ("jsonrpc", "http", "grpc", "a2a 0.3", "acp") for agent in AGENTS]
WIRES += [(door, server) for door in ("mcp", "mcp sessions") for server in SERVERS]


def leaks(places: dict[str, bytes], words: list[str]) -> list[tuple[str, bytes]]:
    """Where one of the words was found, and what stood before it."""
    found = [(place, said, said.find(word.encode())) for place, said in places.items() for word in words]
    return [(place, said[max(0, at - 80) : at + len(CANARY)]) for place, said, at in found if at >= 0]


@pytest.mark.requirement("oauth.token.not-passed-on")
@pytest.mark.parametrize(("door", "upstream"), WIRES)
async def test_nothing_that_a_caller_shows_at_the_door_goes_any_further(
    town: Town, caplog: pytest.LogCaptureFixture, door: str, upstream: str
) -> None:
    caplog.set_level("DEBUG")
    name = f"{door}-{upstream}".replace(" ", "-")
    words, answers, before = [CANARY, CANARY.upper()], b"", len(town.sights[upstream]())
    words += [secret for each in (CANARY,) for secret in secrets(each)]
    for way, (credential, hidden) in (await town.credentials(name)).items():
        if (way, door) == ("certificate", "grpc"):  # there is no proxy that ends TLS in front of that port
            continue
        words += hidden
        good, answer = await call(town, door, upstream, {**SENT, **credential})
        assert good, (way, answer)
        answers += answer
        # The same, refused: what is not there, and a credential that is none.
        good, answer = await call(town, door, "nothing", {**SENT, **credential})
        assert not good
        answers += answer
        for wrong in (f"Bearer {CANARY}", f"Basic {CANARY}", f"Bearer gw_{CANARY}", f"DPoP {CANARY}", CANARY):
            good, answer = await call(town, door, upstream, {**SENT, **credential, "Authorization": wrong})
            assert not good, wrong
            answers += answer
    sent = town.sights[upstream]()[before:]
    assert WORD.encode() in sent
    places = {
        **{where: sight() for where, sight in town.sights.items()},
        "the answers": answers,
        "the log": caplog.text.encode(),
        "the data folder": await town.kept(),
        "what operators see": await town.shown(),
    }
    assert not leaks(places, words)


# Headers that the gateway itself goes by: what is wrong with one is said without repeating it.

READ = (
    *("Accept", "Accept-Encoding", "Content-Type", "Content-Encoding", "Expect", "Range", "If-None-Match"),
    *("If-Modified-Since", "Host", "Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers"),
    *(
        "A2A-Version",
        "Gateway-Hops",
        "Last-Event-ID",
        "Mcp-Session-Id",
        "MCP-Protocol-Version",
        "Mcp-Method",
        "Mcp-Name",
    ),
    *("Traceparent", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Client-Cert"),
    *("Upgrade", "X-HTTP-Method-Override", "Authorization", "Retry-After", "Via", "Prefer"),
)


@pytest.mark.parametrize("header", READ)
async def test_what_the_gateway_reads_itself_is_not_repeated_either(
    town: Town, caplog: pytest.LogCaptureFixture, header: str
) -> None:
    caplog.set_level("DEBUG")
    gateway, answers = town.gateway, b""
    key = gateway.bearer(await gateway.key(f"reads-{header.lower()}"))
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi")}}
    for door in ("jsonrpc", "http", "a2a 0.3", "acp", "mcp", "mcp sessions"):
        upstream = "modern" if door.startswith("mcp") else "jsonrpc-agent"
        _, answer = await call(town, door, upstream, {**key, header: CANARY})
        answers += answer
    for verb, path in (
        ("GET", "/nowhere"),
        ("GET", "/agents/http-agent/.well-known/agent-card.json"),
        ("OPTIONS", "/agents/http-agent"),
        ("POST", "/agents/nothing"),
        ("GET", "/admin/agents"),
        ("GET", "/readyz"),
        ("PATCH", "/mcp"),
    ):
        answered = await gateway.client.request(verb, path, headers={**key, header: CANARY}, json=body)
        answers += told(answered)
    places = {
        "the answers": answers,
        **{where: sight() for where, sight in town.sights.items()},
        "the log": caplog.text.encode(),
        "the data folder": await town.kept(),
        "what operators see": await town.shown(),
    }
    assert not leaks(places, [CANARY])


@pytest.mark.parametrize("door", ["jsonrpc", "http", "grpc", "a2a 0.3", "acp"])
async def test_nor_is_it_in_a_call_that_waits_for_an_approval_or_in_what_is_sent_then(
    town: Town, caplog: pytest.LogCaptureFixture, door: str
) -> None:
    caplog.set_level("DEBUG")
    gateway = town.gateway
    key = await gateway.key(f"held-{door}".replace(" ", "-"))
    _, answer = await call(town, door, "held", {**SENT, **gateway.bearer(key)})
    bearer = gateway.bearer(None)
    (waits,) = (await gateway.client.get("/admin/approvals", headers=bearer)).json()["approvals"]
    shown = await gateway.client.get(f"/admin/approvals/{waits['id']}", headers={**SENT, **bearer})
    assert WORD in shown.text
    before = len(town.sights["jsonrpc-agent"]())
    places = {"the data folder, while it waits": await town.kept()}
    approved = await gateway.client.post(f"/admin/approvals/{waits['id']}:approve", headers={**SENT, **bearer}, json={})
    assert approved.status_code == 200, approved.text

    async def arrived() -> bool:
        return WORD.encode() in town.sights["jsonrpc-agent"]()[before:]

    await soon(arrived)
    places |= {
        "the answers": answer + told(shown) + told(approved),
        "the upstream": town.sights["jsonrpc-agent"](),
        "the log": caplog.text.encode(),
        "the data folder": await town.kept(),
        "what operators see": await town.shown(),
    }
    words = [*secrets(CANARY), *secrets(key)]
    assert not leaks(places, words)
