"""Scopes in the policy, through every door: who is let in, what a refusal asks for, what it does not tell, and a client
that nobody here wrote, which goes and gets them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest
import pytest_asyncio
from a2a.types import a2a_pb2
from google.rpc import error_details_pb2, status_pb2
from mcp import Client, MCPError
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from gateway.model.tool import TASKS
from tests import rpc
from tests.acp import Acp
from tests.issuer import issuing
from tests.journeys import people
from tests.journeys.test_authorization_server import ask, client, token
from tests.journeys.test_mcp_oauth import command
from tests.journeys.test_mcp_people import BACK, Kept, sdk
from tests.mcp import Door, Scripted, Tree, configured, message_of, modern, request, says, scripted, soon, tool
from tests.person import PASSWORD, somebody
from tests.serving import A2A, BOUND, ROOT, Gateway, message, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]

BINDINGS = ("jsonrpc", "http", "grpc")
WELL_KNOWN = "/.well-known/oauth-protected-resource"
ECHO = f"""run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json"""
AGENTS = f"""
agents:
  echo: {{{ECHO}, public: true}}
  desk: {{{ECHO}}}
  quiet: {{{ECHO}}}
  guide: {{{ECHO}}}
  letters: {{{ECHO}}}
  vault: {{{ECHO}}}
  helper: {{run: "tests.actors:tooled", card: {ROOT}/agent_cards/echo.json}}
  clerk: {{run: "tests.actors:asking", card: {ROOT}/agent_cards/echo.json}}
auth:
  authorization_server: {{users: true, registration: open, scopes: [docs:read, docs:send]}}
mounts:
  docs: {{tools: [docs], naming: identity}}
  found: {{tools: ["docs/search"], naming: prefix}}
egress: {{allow_loopback: true}}
"""
POLICY = """
rules:
  - {rule: search, who: "*", do: tools/call, on: docs/search, when: {scopes: [docs:read]}, verdict: PASS}
  - {rule: send, who: "*", do: tools/call, on: docs/send, when: {scopes: [docs:send, docs:read]}, verdict: PASS}
  - {rule: rest, who: "*", do: [resources/read, prompts/get], on: docs, when: {scopes: [docs:read]}, verdict: PASS}
  - {rule: purge, who: "role:keeper", do: tools/call, on: docs/purge, when: {scopes: [docs:purge]}, verdict: PASS}
  - {rule: desk, who: "*", do: use, on: agents/desk, when: {scopes: [desk.use]}, verdict: PASS}
  - {rule: quiet, who: "client:other", do: use, on: agents/quiet, when: {scopes: [quiet.use]}, verdict: PASS}
  - {rule: skill, who: "*", do: call, on: agents/echo/count, when: {scopes: [echo.count]}, verdict: PASS}
  - {rule: guided, who: "*", do: call, on: agents/guide/count, when: {scopes: [guide.count]}, verdict: PASS}
  - {rule: letters, who: ann, do: call, on: agents/letters, verdict: ESCALATE, approvers: 2}
  - {rule: read, who: ann, do: GetTask, on: agents/letters, verdict: PASS}
  - {rule: leads, who: "client:robot", do: approve, on: agents/letters, when: {scopes: approve}, verdict: PASS}
  - {rule: asked, who: "*", do: call, on: [agents/helper, agents/clerk], verdict: PASS}
  - {rule: keys, who: "client:robot", do: AddKey, on: gateway, when: {scopes: [keys.add]}, verdict: PASS}
  - {rule: tools, who: "client:robot", do: ListServers, on: gateway, when: {scopes: [tools.list]}, verdict: PASS}
"""
OLDER = {"agent_id": "desk", "task": {"id": "t1", "description": "hi"}, "input_data": {}}
ROBOT = (
    *("docs:read", "docs:send", "desk.use", "quiet.use", "echo.count", "guide.count"),
    *("keys.add", "tools.list", "approve", "idle"),
)
SECRETS: dict[str, str] = {}  # of the client robot, by gateway
TAKES: Tree = {"extensions": {TASKS: {}}}
AT = "2026-08-01T10:00:00Z"
HANDLE: Tree = {"taskId": "job", "createdAt": AT, "lastUpdatedAt": AT, "ttlMs": 60_000, "pollIntervalMs": 100}
PAGE: Tree = {"uri": "file:///page", "name": "page"}
NOTE = {"name": "note", "arguments": [{"name": "to"}]}


async def _page(params: Tree) -> Tree:
    return {"resultType": "complete", "contents": [{"uri": params["uri"], "text": "a page"}]}


async def _note(params: Tree) -> Tree:
    return {"resultType": "complete", "messages": []}


async def _search(params: Tree) -> Tree:
    """A task, for whoever takes one."""
    takes = TASKS in params["_meta"]["io.modelcontextprotocol/clientCapabilities"].get("extensions", {})
    return {"resultType": "task", **HANDLE, "status": "working"} if takes else says("search")


async def _working(params: Tree) -> Tree:
    return {"resultType": "complete", **HANDLE, "status": "working"}


def docs_server() -> Any:
    return scripted(
        tool("search"),
        tool("send"),
        tool("purge"),
        resources=[PAGE],
        prompts=[NOTE],
        answers={"resources/read": _page, "prompts/get": _note, "search": _search, "tasks/get": _working},
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("scopes")
    (folder / "policy.yaml").write_text(POLICY)
    async with docs_server() as docs:
        config = configured(AGENTS, f"policy: {{file: {folder}/policy.yaml}}", docs=docs)
        async with running(folder / "data", config, grpc_port=0) as gateway:
            SECRETS[gateway.url] = await client(gateway, "robot", *ROBOT)
            yield gateway


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def having(gateway: Gateway, *scopes: str) -> str:
    """A token of the client robot with these scopes and no others."""
    return await token(gateway, SECRETS[gateway.url], "robot", scope=" ".join(scopes or ("idle",)))


def challenge(answer: httpx2.Response, resource: str, gateway: Gateway) -> list[str]:
    """The scopes that a refusal asks for."""
    assert answer.status_code == 403, answer.text
    return asked_for(answer.headers["www-authenticate"], resource, gateway)


def asked_for(header: str, resource: str, gateway: Gateway) -> list[str]:
    where = f"{gateway.url}{WELL_KNOWN}{resource}"
    found = re.fullmatch(
        f'Bearer realm="gateway", error="insufficient_scope", scope="([^"]+)", resource_metadata="{re.escape(where)}"',
        header,
    )
    assert found is not None, header
    return found[1].split()


# Every door.


@pytest.mark.requirement("oauth.bearer.insufficient-scope", "oauth.bearer.scope-of-the-operation")
@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_message_to_an_agent_is_refused_with_the_scopes_that_it_needs(gateway: Gateway, binding: str) -> None:
    few = replace(rpc.caller(gateway, binding, "desk"), who=await having(gateway))
    error = await few.refused("PERMISSION_DENIED", "SendMessage", message=message("hi"))
    assert error.message == "SendMessage needs an access token with the scopes: desk.use"
    assert error.metadata == {"scope": "desk.use"}
    if binding == "grpc":
        header = error.answer.headers["www-authenticate"]
        assert asked_for(header, "/agents/desk", gateway) == ["desk.use"]
    else:
        assert challenge(error.answer, "/agents/desk", gateway) == ["desk.use"]
    able = replace(few, who=await having(gateway, "desk.use"))
    assert "task" in await able.send("count 1")


@pytest.mark.parametrize("method", ["SendStreamingMessage", "SubscribeToTask"])
@pytest.mark.parametrize("binding", BINDINGS)
async def test_a_stream_is_refused_before_it_begins(gateway: Gateway, binding: str, method: str) -> None:
    few = replace(rpc.caller(gateway, binding, "desk"), who=await having(gateway))
    params: Tree = {"message": message("hi")} if method == "SendStreamingMessage" else {"id": "t"}
    answer: Any = await few.ask(method, **params)
    if binding == "grpc":
        assert answer.status_code == "PERMISSION_DENIED"
        assert asked_for(answer.headers["www-authenticate"], "/agents/desk", gateway) == ["desk.use"]
    else:
        assert challenge(answer, "/agents/desk", gateway) == ["desk.use"]


async def test_the_grpc_status_has_the_scopes_in_its_details(gateway: Gateway) -> None:
    call: Any = gateway.channel.unary_unary("/lf.a2a.v1.A2AService/GetTask")
    metadata = tuple((name.lower(), value) for name, value in {**A2A, **gateway.bearer(await having(gateway))}.items())
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call(a2a_pb2.GetTaskRequest(tenant="desk", id="t").SerializeToString(), metadata=metadata)
    trailers = dict(refusal.value.trailing_metadata() or ())
    status, info = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]), error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("PERMISSION_DENIED", {"scope": "desk.use"})


async def test_a_skill_can_need_a_scope_of_its_own(gateway: Gateway) -> None:
    few, able = await having(gateway), await having(gateway, "guide.count")
    counts = {"message": {**message("count 1"), "metadata": {"skillId": "count"}}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": counts}
    assert challenge(await gateway.post(body, agent="guide", who=few), "/agents/guide", gateway) == ["guide.count"]
    assert "task" in await gateway.result("SendMessage", counts, agent="guide", who=able)
    other = await gateway.rpc("SendMessage", {"message": message("hi")}, agent="guide", who=able)
    assert other["error"]["message"] == "There is no such agent here"


async def test_an_older_message_is_refused_alike(gateway: Gateway) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "agents/tasks/create", "params": OLDER}
    answer = await gateway.post(body, agent="desk", who=await having(gateway))
    assert challenge(answer, "/agents/desk", gateway) == ["desk.use"]


async def test_acp_asks_for_scopes_in_its_own_words(gateway: Gateway) -> None:
    few = Acp(gateway, "desk", await having(gateway))
    answer = await few.ask("POST", "/runs", body=few.body("hi", "sync"))
    assert challenge(answer, "", gateway) == ["desk.use"]
    assert answer.json() == {
        "code": "server_error",
        "message": "SendMessage needs an access token with the scopes: desk.use",
        "data": {"reason": "PERMISSION_DENIED", "scope": "desk.use"},
    }
    able = Acp(gateway, "desk", await having(gateway, "desk.use"))
    assert (await able.run("hi"))["status"] == "completed"


async def test_the_admin_api_asks_for_scopes(gateway: Gateway) -> None:
    few, able = await having(gateway), await having(gateway, "keys.add", "tools.list")
    answer = await gateway.client.post("/admin/keys", json={"name": "x"}, headers=gateway.bearer(few))
    assert challenge(answer, "", gateway) == ["keys.add"]
    assert answer.json()["error"]["details"][0]["metadata"] == {"scope": "keys.add"}
    answer = await gateway.client.get("/admin/tools", headers=gateway.bearer(few))
    assert challenge(answer, "", gateway) == ["tools.list"]
    made = await gateway.client.post("/admin/keys", json={"name": "x"}, headers=gateway.bearer(able))
    assert made.status_code == 201
    assert (await gateway.client.get("/admin/tools", headers=gateway.bearer(able))).status_code == 200
    # What no rule gives it is refused without a word about scopes.
    other = await gateway.client.get("/admin/keys", headers=gateway.bearer(able))
    assert (other.status_code, "www-authenticate" in other.headers) == (403, False)


REQUESTS: list[tuple[str, Tree, list[str], str]] = [
    ("tools/call", {"name": "search", "arguments": {}}, ["docs:read"], "docs/search"),
    ("tools/call", {"name": "send", "arguments": {}}, ["docs:read", "docs:send"], "docs/send"),
    ("resources/read", {"uri": "file:///page"}, ["docs:read"], "docs/file:///page"),
    ("prompts/get", {"name": "note"}, ["docs:read"], "docs/note"),
    (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "note"}, "argument": {"name": "to", "value": ""}},
        ["docs:read"],
        "docs/note",
    ),
]


@pytest.mark.requirement("mcp.authorization.scope-challenge")
@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"])
@pytest.mark.parametrize(("method", "params", "scopes", "what"), REQUESTS, ids=lambda each: str(each)[:20])
async def test_mcp_asks_for_scopes_in_both_eras(
    gateway: Gateway, version: str, method: str, params: Tree, scopes: list[str], what: str
) -> None:
    door = Door(gateway, "docs", await having(gateway))
    if version == "2026-07-28":
        answer = await door.post(method, modern(params))
    else:
        answer = await (await door.session(version=version)).raw(request(method, params))
    assert challenge(answer, "/mcp/docs", gateway) == scopes
    error = message_of(answer)["error"]
    assert error["code"] == -31003
    assert error["data"] == {"reason": "PERMISSION_DENIED", "scope": " ".join(scopes)}
    assert error["message"] == f"{what} needs an access token with the scopes: {' '.join(scopes)}"


@pytest.mark.requirement("mcp.authorization.scope-challenge")
@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18"])
async def test_a_session_goes_on_with_the_token_of_each_request(gateway: Gateway, version: str) -> None:
    few, able = await having(gateway), await having(gateway, "docs:read")
    session = await Door(gateway, "docs", few).session(version=version)
    call = {"name": "search", "arguments": {}}
    assert (await session.raw(request("tools/call", call))).status_code == 403
    read = {"uri": "file:///page"}
    assert challenge(await session.raw(request("resources/subscribe", read)), "/mcp/docs", gateway) == ["docs:read"]
    session.door.who = able
    assert (await session.result("tools/call", call))["content"][0]["text"] == "search"
    assert await session.result("resources/subscribe", read) == {}
    session.door.who = few  # what one request may do, another with a lesser token may not
    assert (await session.raw(request("tools/call", call))).status_code == 403
    session.door.who = await token(gateway, await client(gateway, f"thief-{version}"), f"thief-{version}")
    assert (await session.raw(request("tools/call", call))).status_code == 404


async def test_a_subscription_asks_for_scopes(gateway: Gateway) -> None:
    door = Door(gateway, "docs", await having(gateway))
    wanted = {"notifications": {"resourceSubscriptions": ["file:///page"]}}
    answer = await door.post("subscriptions/listen", modern(wanted))
    assert challenge(answer, "/mcp/docs", gateway) == ["docs:read"]


async def test_who_asks_after_a_task_needs_what_its_call_needed(gateway: Gateway) -> None:
    able = Door(gateway, "docs", await having(gateway, "docs:read"))
    handle = await able.call("search", TAKES)
    assert handle["resultType"] == "task"
    params = modern({"taskId": handle["taskId"]}, TAKES)
    assert message_of(await able.post("tasks/get", params))["result"]["status"] == "working"
    few = Door(gateway, "docs", await having(gateway))
    for method in ("tasks/get", "tasks/cancel"):
        assert challenge(await few.post(method, params), "/mcp/docs", gateway) == ["docs:read"]
    wanted = {"notifications": {"taskIds": [handle["taskId"]]}}
    async with few.stream("subscriptions/listen", wanted, capabilities=TAKES) as told:
        assert "taskIds" not in (await anext(told))["params"]["notifications"]  # it hears nothing of it either
    other = Door(gateway, "docs", await token(gateway, await client(gateway, "nosy", "docs:read"), "nosy"))
    assert message_of(await other.post("tasks/get", params))["error"]["message"] == "There is no such task"


async def test_an_agent_as_a_tool_needs_what_the_agent_needs(gateway: Gateway) -> None:
    door = Door(gateway, who=await having(gateway))
    answer = await door.post("tools/call", modern({"name": "agents__desk", "arguments": {"message": "hi"}}))
    assert challenge(answer, "/mcp", gateway) == ["desk.use"]
    able = Door(gateway, who=await having(gateway, "desk.use"))
    assert (await able.call("agents__desk", message="count 1"))["content"]


async def test_in_a_batch_each_call_has_its_own_refusal(gateway: Gateway) -> None:
    params = {"message": message("hi")}
    calls = [{"jsonrpc": "2.0", "id": id, "method": "SendMessage", "params": params} for id in (1, 2)]
    answer = await gateway.post(calls, agent="desk", who=await having(gateway))
    assert answer.status_code == 200
    assert [each["error"]["data"][0]["metadata"] for each in answer.json()] == [{"scope": "desk.use"}] * 2


async def test_who_approves_needs_the_scopes_for_it_and_has_them_until_the_call_is_made(gateway: Gateway) -> None:
    task = await gateway.task("count 1", agent="letters", who=await gateway.key("ann"))
    path = f"/admin/approvals/{task['status']['message']['metadata']['approval']}"
    few, able = await having(gateway), await having(gateway, "approve")
    for way in (gateway.client.get(path, headers=gateway.bearer(few)), answered(gateway, path, few)):
        assert challenge(await way, "", gateway) == ["approve"]
    first = await answered(gateway, path, able)
    assert (first.status_code, first.json()["state"]) == (200, "waiting")
    second = await answered(gateway, path, None)
    assert second.json()["state"] in ("approved", "used")
    done = {"id": task["id"]}
    ann = await gateway.key("ann")

    async def ended() -> bool:
        seen = await gateway.result("GetTask", done, agent="letters", who=ann)
        return bool(seen["status"]["state"] == "TASK_STATE_COMPLETED")

    await soon(ended)


async def answered(gateway: Gateway, path: str, who: str | None) -> httpx2.Response:
    return await gateway.client.post(f"{path}:approve", json={}, headers=gateway.bearer(who))


# What a challenge does not tell.


@pytest.mark.requirement("oauth.bearer.scope-tells-nothing")
async def test_what_no_rule_offers_this_caller_is_missing_and_not_challenged(gateway: Gateway) -> None:
    who = await having(gateway, "docs:read", "desk.use", "quiet.use")
    hidden = [await gateway.http("GET", "/tasks/t", who=who, agent=agent) for agent in ("vault", "quiet", "nosuch")]
    assert len({(each.status_code, each.content) for each in hidden}) == 1
    assert hidden[0].status_code == 404
    assert not any("www-authenticate" in each.headers for each in hidden)
    door = Door(gateway, "docs", who)
    missing = [await door.post("tools/call", modern({"name": name, "arguments": {}})) for name in ("purge", "nosuch")]
    assert [each.status_code for each in missing] == [400, 400]
    assert [message_of(each)["error"]["message"] for each in missing] == ["Unknown tool: purge", "Unknown tool: nosuch"]
    assert not any("www-authenticate" in each.headers for each in missing)


@pytest.mark.requirement("oauth.bearer.scope-tells-nothing")
async def test_who_has_no_token_is_asked_for_no_scopes_and_told_of_nothing(gateway: Gateway) -> None:
    key = await gateway.key("ann")
    answers = [await gateway.http("GET", "/tasks/t", who=key, agent=agent) for agent in ("desk", "nosuch")]
    assert answers[0].content == answers[1].content
    assert [each.status_code for each in answers] == [404, 404]
    answer = await Door(gateway, "docs", key).post("tools/call", modern({"name": "search", "arguments": {}}))
    assert answer.status_code == 400
    assert message_of(answer)["error"]["message"] == "Unknown tool: search"
    assert await Door(gateway, "docs", key).names() == []


async def test_who_is_nobody_is_asked_for_a_token_and_not_for_scopes(tmp_path: Path) -> None:
    write(tmp_path / "policy.yaml", 'rules: [{rule: r, who: "*", do: AddKey, when: {scopes: [a]}, verdict: PASS}]')
    config = f"auth: {{authorization_server: {{}}}}\npolicy: {{file: {tmp_path}/policy.yaml}}\n"
    async with running(tmp_path / "data", config, anonymous=True) as gateway:
        answer = await gateway.client.post("/admin/keys", json={"name": "x"})
        assert answer.status_code == 401
        where = f"{gateway.url}{WELL_KNOWN}"
        assert answer.headers["www-authenticate"] == f'Bearer realm="gateway", resource_metadata="{where}"'


async def test_lists_show_what_more_scopes_would_open_and_nothing_else(gateway: Gateway) -> None:
    who = await having(gateway)
    assert await Door(gateway, "docs", who).names() == ["search", "send"]
    cards = (await gateway.client.get("/agents", headers=gateway.bearer(who))).json()["agents"]
    shown = {card["supportedInterfaces"][0]["url"].rpartition("/")[2] for card in cards}
    assert shown == {"echo", "helper", "clerk"}  # `use` covers the card of desk, which so needs the scope, too
    card = await gateway.client.get("/agents/desk/.well-known/agent-card.json", headers=gateway.bearer(who))
    assert challenge(card, "/agents/desk", gateway) == ["desk.use"]
    able = await having(gateway, "desk.use")
    cards = (await gateway.client.get("/agents", headers=gateway.bearer(able))).json()["agents"]
    assert "desk" in {card["supportedInterfaces"][0]["url"].rpartition("/")[2] for card in cards}


# Chains.


CALLS = [("helper", {"parts": [{"text": "docs/search"}, {"data": {}}]}, "docs:read"), ("clerk", {}, "desk.use")]


@pytest.mark.parametrize(("agent", "said", "scope"), CALLS)
async def test_an_agent_may_do_for_its_caller_what_the_callers_token_may(
    gateway: Gateway, agent: str, said: Tree, scope: str
) -> None:
    """It calls a tool, or asks another agent, and the refusal is its caller's, who comes back with the same message."""
    sent = {"message": {**message("desk"), **said}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": sent}
    few = await gateway.post(body, agent=agent, who=await having(gateway))
    assert challenge(few, f"/agents/{agent}", gateway) == [scope]
    able = await gateway.post(body, agent=agent, who=await having(gateway, scope))
    assert "error" not in able.json(), able.text
    key = await gateway.post(body, agent=agent, who=await gateway.key(f"key-{agent}"))
    assert "error" in key.json()
    assert "www-authenticate" not in key.headers


# The record, explanations.


async def test_the_record_says_which_scopes_were_missing(gateway: Gateway) -> None:
    await Door(gateway, "docs", await having(gateway)).post("tools/call", modern({"name": "send", "arguments": {}}))
    entries = await gateway.record()
    (entry, *_) = [each for each in reversed(entries) if (each.verb, each.target) == ("tools/call", "docs/send")]
    assert (entry.principal, entry.verdict, entry.outcome, entry.rule) == (
        "oauth:gateway#robot",
        "BLOCK",
        "PERMISSION_DENIED",
        "default-deny",
    )
    assert entry.reason == "no rule allows this; the rule send would with the scopes docs:read docs:send"


async def explain(gateway: Gateway, **body: Any) -> Any:
    asked = {"principal": "client:robot", "action": "tools/call", "target": "docs/send", **body}
    return (await gateway.client.post("/admin/policy:explain", json=asked, headers=gateway.bearer(None))).json()


async def test_an_explanation_names_the_missing_scope(gateway: Gateway) -> None:
    found = await explain(gateway, scopes=["docs:read"])
    assert (found["verdict"], found["scopes"]) == ("BLOCK", ["docs:read", "docs:send"])
    assert found["change"].startswith("ask with an access token that has the scope docs:send, too (rule send, ")
    assert found["inputs"]["scopes"] == ["docs:read"]
    assert (await explain(gateway, scopes=["docs:read", "docs:send"]))["verdict"] == "PASS"
    agent = {"principal": "agent:helper", "for": "client:robot"}
    assert (await explain(gateway, **agent, scopes=["docs:read", "docs:send"]))["verdict"] == "PASS"
    assert (await explain(gateway, **agent, scopes=["docs:read"]))["scopes"] == ["docs:read", "docs:send"]
    refused = await explain(gateway, principal="ann", scopes=["docs:read"])
    assert "only client:NAME and oauth:ISSUER#SUBJECT have" in refused["error"]["message"]


async def test_the_command_takes_scopes_and_says_what_is_missing(gateway: Gateway) -> None:
    asked = ("--as", "client:robot", "--do", "tools/call", "--on", "docs/send", "--scope", "docs:read")
    run = await command(gateway, "policy", "explain", *asked)
    out, err = await asyncio.wait_for(run.communicate(), BOUND)
    assert run.returncode == 0, err
    assert b"BLOCK  default-deny: no rule allows this; the rule send would with the scopes docs:read docs:send" in out
    assert b"To allow it: ask with an access token that has the scope docs:send, too (rule send, " in out


async def test_a_replay_cannot_tell_what_scopes_a_token_had(gateway: Gateway) -> None:
    await Door(gateway, "docs", await having(gateway, "docs:read")).call("search")
    await gateway.send("hi", who=await gateway.key("cid"))
    text = """
rules:
  - {rule: other, who: "*", do: tools/call, on: docs/search, when: {scopes: [else]}, verdict: PASS}
  - {rule: closed, who: cid, do: call, on: agents/echo, verdict: BLOCK}
"""
    answer = await gateway.client.post("/admin/policy:replay", json={"text": text}, headers=gateway.bearer(None))
    found = answer.json()
    assert found["unsure"] >= 1
    assert [flip["byRule"] for flip in found["flips"] if flip["principal"] == "key:cid"] == ["closed"]
    assert not any(flip["target"] == "docs/search" and flip["verdict"] == "PASS" for flip in found["flips"])


async def test_a_shadow_with_scopes_tells_whom_they_would_stop(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(
        "rules:\n"
        '  - {rule: read, who: "*", do: use, on: agents/echo, when: {scopes: [read]}, verdict: PASS}\n'
        '  - {rule: others, who: "client:*", on: agents/echo, verdict: BLOCK}\n'
    )
    config = f"agents: {{echo: {{{ECHO}, public: true}}}}\nauth: {{authorization_server: {{}}}}\n"
    async with running(tmp_path / "data", config + f"policy: {{shadow: {tmp_path}/new.yaml}}") as gateway:
        secret = await client(gateway, "robot", "read", "idle")
        for scope in ("read", "idle"):
            await gateway.send("hi", who=await token(gateway, secret, "robot", scope=scope))
        answer = await gateway.client.get("/admin/policy/shadow", headers=gateway.bearer(None))
    assert [(each["wouldBe"], each["byRule"], each["count"]) for each in answer.json()["flips"]] == [
        ("BLOCK", "others", 1)
    ]


# What metadata says.


async def supported(gateway: Gateway, resource: str = "") -> list[str]:
    about = (await gateway.client.get(WELL_KNOWN + resource)).json()
    found: list[str] = about.get("scopes_supported", [])
    return found


@pytest.mark.requirement("oauth.resource.scopes")
async def test_each_resource_lists_the_scopes_that_rules_ask_for_there(gateway: Gateway) -> None:
    await Door(gateway, who=None).names()  # by now the tools are known
    agents = ["desk.use", "echo.count", "guide.count", "quiet.use"]
    assert await supported(gateway) == sorted(
        [*agents, "approve", "docs:purge", "docs:read", "docs:send", "keys.add", "tools.list"]
    )
    assert await supported(gateway, "/mcp") == sorted([*agents, "docs:purge", "docs:read", "docs:send"])
    assert await supported(gateway, "/mcp/docs") == ["docs:purge", "docs:read", "docs:send"]
    assert await supported(gateway, "/mcp/found") == ["docs:read"]
    assert await supported(gateway, "/agents/echo") == ["echo.count"]


@pytest.mark.requirement("oauth.resource.scopes")
async def test_metadata_does_not_tell_which_agents_there_are(gateway: Gateway) -> None:
    told = [await supported(gateway, f"/agents/{agent}") for agent in ("desk", "quiet", "vault", "nosuch")]
    assert told == [["desk.use", "echo.count", "guide.count", "quiet.use"]] * 4


@pytest.mark.requirement("oauth.resource.scopes")
async def test_metadata_and_challenges_follow_the_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('rules: [{rule: r, who: "*", do: call, on: docs, when: {scopes: [one]}, verdict: PASS}]')
    async with docs_server() as docs:
        config = configured(f"auth: {{authorization_server: {{}}}}\npolicy: {{file: {file}}}", docs=docs)
        async with running(tmp_path / "data", config) as gateway:
            who = await token(gateway, await client(gateway, "robot", "one"), "robot")
            door = Door(gateway, who=who)
            assert await supported(gateway, "/mcp") == ["one"]
            assert (await door.call("docs__search"))["content"]
            write(file, 'rules: [{rule: r, who: "*", do: call, on: docs, when: {scopes: [two]}, verdict: PASS}]')
            await gateway.client.post("/admin/policy:reload", headers=gateway.bearer(None))
            assert await supported(gateway, "/mcp") == ["two"]
            answer = await door.post("tools/call", modern({"name": "docs__search", "arguments": {}}))
            assert challenge(answer, "/mcp", gateway) == ["two"]
            write(file, "rules: []")
            await gateway.client.post("/admin/policy:reload", headers=gateway.bearer(None))
            assert await supported(gateway, "/mcp") == []


# A client that nobody here wrote.


def granted(kept: Kept) -> list[set[str]]:
    """The scopes of the tokens that it got, one after the other."""
    return [set(people.claims(each)["scope"].split()) - {"offline_access"} for each in kept.seen]


STEP = """
rules:
  - {rule: search, who: "*", do: tools/call, on: docs/search, when: {scopes: [docs:read]}, verdict: PASS}
  - {rule: send, who: "*", do: tools/call, on: docs/send, when: {scopes: [docs:read, docs:send]}, verdict: PASS}
"""


@asynccontextmanager
async def stepping(folder: Path, scopes: str = "docs:read, docs:send") -> AsyncIterator[tuple[Gateway, Scripted, Path]]:
    """A gateway where ada may ask for scopes by any client that registers; at first one tool can be called at all."""
    file = folder / "policy.yaml"
    file.write_text(STEP.rpartition("  - {rule: send")[0])
    auth = f"auth: {{authorization_server: {{users: true, registration: open, scopes: [{scopes}]}}}}"
    async with docs_server() as docs:
        config = configured(auth, f"policy: {{file: {file}}}", "egress: {allow_loopback: true}", docs=docs)
        async with running(folder / "data", config) as gateway:
            await people.admin(gateway, "users", name="ada", password=PASSWORD)
            yield gateway, docs, file


async def reload(gateway: Gateway, file: Path) -> None:
    """The whole of STEP holds from now on."""
    write(file, STEP)
    answer = await gateway.client.post("/admin/policy:reload", headers=gateway.bearer(None))
    assert answer.status_code == 200, answer.text


@pytest.mark.requirement("mcp.authorization.scope-challenge", "oauth.resource.scopes")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdk_discovers_calls_is_refused_steps_up_by_itself_and_calls_again(tmp_path: Path, mode: str) -> None:
    kept = Kept()
    async with stepping(tmp_path) as (gateway, docs, file), sdk(gateway, kept, mode=mode) as ada:
        assert {each.name for each in (await ada.list_tools()).tools} == {"docs__search"}
        await ada.call_tool("docs__search", {})
        assert granted(kept) == [{"docs:read"}]  # all that rules asked for when it looked
        await reload(gateway, file)
        assert await Door(gateway, who=kept.seen[-1]).names() == ["docs__search", "docs__send"]
        answer = await ada.call_tool("docs__send", {})
        assert not answer.is_error
        assert [each["name"] for each in docs.asked("tools/call")] == ["search", "send"]
        assert granted(kept) == [{"docs:read"}, {"docs:read", "docs:send"}]
        await ada.call_tool("docs__send", {})
        assert len(kept.seen) == 2  # once is enough
        entries = await gateway.record()
    sent = [(each.phase, each.outcome) for each in entries if each.target == "docs/send"]
    assert sent == [("outcome", "PERMISSION_DENIED"), *[("intent", "begun"), ("outcome", "ok")] * 2]
    assert [each.verb for each in entries].count("Consent") == 2  # ada was asked each time


@pytest.mark.requirement("mcp.authorization.scope-challenge")
async def test_the_sdk_steps_up_with_a_token_from_an_earlier_life(tmp_path: Path) -> None:
    """It has no metadata then and finds its way by the challenge alone."""
    async with stepping(tmp_path) as (gateway, docs, file):
        await reload(gateway, file)
        app = await people.app(gateway, redirects=[BACK], scopes=["docs:read", "docs:send"])
        async with somebody(gateway.url) as person:
            code = await app.code(person, scope="docs:read", redirect_uri=BACK)
        few = (await app.redeem(code, redirect_uri=BACK)).json()
        about: Tree = {"client_id": "app", "redirect_uris": [BACK], "token_endpoint_auth_method": "none"}
        kept = Kept(OAuthToken(**few), OAuthClientInformationFull(**about, issuer=gateway.url))
        async with sdk(gateway, kept) as ada:
            await ada.call_tool("docs__search", {})
            assert kept.seen == []
            await ada.call_tool("docs__send", {})
        assert granted(kept) == [{"docs:read", "docs:send"}]
        assert [each["name"] for each in docs.asked("tools/call")] == ["search", "send"]


@asynccontextmanager
async def machine(gateway: Gateway, kept: Kept, secret: str) -> AsyncIterator[Client]:
    """The SDK's client for programs: client credentials, and nobody before a browser."""
    provider = ClientCredentialsOAuthProvider(f"{gateway.url}/mcp", kept, "robot", secret, issuer=gateway.url)
    async with (
        httpx2.AsyncClient(auth=provider, trust_env=False) as http,
        Client(streamable_http_client(f"{gateway.url}/mcp", http_client=http)) as robot,
    ):
        yield robot


@pytest.mark.requirement("mcp.authorization.scope-challenge")
@pytest.mark.parametrize("own", [["docs:read", "docs:send"], ["docs:read", "docs:send", "more"]])
async def test_the_sdk_of_a_program_asks_for_what_metadata_lists_and_steps_up(tmp_path: Path, own: list[str]) -> None:
    kept = Kept()
    async with stepping(tmp_path) as (gateway, docs, file):
        secret = await client(gateway, "robot", *own)
        async with machine(gateway, kept, secret) as robot:
            await robot.call_tool("docs__search", {})
            await reload(gateway, file)
            await robot.call_tool("docs__send", {})
        assert granted(kept) == [{"docs:read"}, {"docs:read", "docs:send"}]
        assert [each["name"] for each in docs.asked("tools/call")] == ["search", "send"]


@pytest.mark.requirement("oauth.server.scopes")
async def test_a_program_that_asks_for_all_that_metadata_lists_gets_what_it_may_have(tmp_path: Path) -> None:
    kept = Kept()
    async with stepping(tmp_path) as (gateway, _, file):
        await reload(gateway, file)
        secret = await client(gateway, "robot", "docs:read", "own")
        async with machine(gateway, kept, secret) as robot:
            await robot.call_tool("docs__search", {})
        assert granted(kept) == [{"docs:read"}]
        assert kept.tokens is not None
        assert kept.tokens.scope == "docs:read"  # and is told so
        none = await client(gateway, "none")
        answer = await ask(gateway, none, "none", scope="docs:read docs:send")
        assert (answer.status_code, answer.json()["scope"]) == (200, "")
        for scope in ("docs:read other", "other"):  # what nobody speaks of is a mistake
            answer = await ask(gateway, secret, "robot", scope=scope)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_scope")


@pytest.mark.requirement("oauth.server.scopes")
async def test_scopes_that_only_the_servers_own_metadata_lists_are_no_mistake_either(tmp_path: Path) -> None:
    """Where no rule asks for scopes, the SDK asks for all of the authorization server's."""
    async with people.town(tmp_path) as (gateway, _):
        secret = await client(gateway, "robot", "read")
        metadata = (await gateway.client.get("/.well-known/oauth-authorization-server")).json()
        assert metadata["scopes_supported"] == ["read", "write", "offline_access"]
        answer = await ask(gateway, secret, "robot", scope=" ".join(metadata["scopes_supported"]))
        assert (answer.status_code, answer.json().get("scope")) == (200, "read")


async def test_the_sdk_does_not_go_round_in_circles_for_a_scope_that_it_cannot_have(tmp_path: Path) -> None:
    kept = Kept()
    async with stepping(tmp_path, "docs:read") as (gateway, docs, file), sdk(gateway, kept) as ada:
        await ada.call_tool("docs__search", {})
        await reload(gateway, file)
        with pytest.raises(MCPError) as refusal:
            await ada.call_tool("docs__send", {})
        assert "docs:read docs:send" in str(refusal.value)
        assert granted(kept) == [{"docs:read"}, {"docs:read"}]
        assert [each["name"] for each in docs.asked("tools/call")] == ["search"]


async def test_a_challenge_names_what_every_token_of_the_issuer_needs_too(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(STEP)
    async with issuing() as issuer, docs_server() as docs:
        auth = f"auth: {{issuers: [{{issuer: '{issuer.url}', required_scopes: [gateway.use]}}]}}"
        config = configured(auth, f"policy: {{file: {tmp_path}/policy.yaml}}", docs=docs)
        async with running(tmp_path / "data", config) as gateway:
            assert await supported(gateway) == ["docs:read", "docs:send", "gateway.use"]
            few = issuer.token(gateway.url, scope="gateway.use")
            answer = await Door(gateway, who=few).post("tools/call", modern({"name": "docs__send", "arguments": {}}))
            assert challenge(answer, "/mcp", gateway) == ["docs:read", "docs:send", "gateway.use"]
            able = issuer.token(gateway.url, scope="gateway.use docs:read docs:send")
            assert (await Door(gateway, who=able).call("docs__send"))["content"]
            without = issuer.token(gateway.url, scope="docs:read docs:send")
            answer = await Door(gateway, who=without).post("tools/list", modern())
            assert challenge(answer, "/mcp", gateway) == ["gateway.use"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdk_with_a_fixed_token_hears_the_refusal_and_goes_on(gateway: Gateway, mode: str) -> None:
    """It cannot step up; the refusal of one call is no end of its session."""
    async with Door(gateway, "docs", await having(gateway, "docs:read")).sdk(mode) as fixed:
        with pytest.raises(MCPError) as refusal:
            await fixed.call_tool("send", {})
        assert "docs/send needs an access token with the scopes: docs:read docs:send" in str(refusal.value)
        assert not (await fixed.call_tool("search", {})).is_error
