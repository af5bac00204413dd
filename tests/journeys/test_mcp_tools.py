"""Tools of several servers through one door: listed and called by whoever may, in both eras, with nothing lost."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.mcp import Door, Scripted, configured, message_of, modern, request, says, scripted, tool
from tests.serving import Gateway, running

GRANTS = """
mounts:
  docs: {tools: [docs], naming: identity}
  picked: {naming: alias, aliases: {find: docs/search, wipe: files/delete}}
  some: {tools: ["docs/se*"]}
grants:
  - {to: reader, tools: ["docs/*"]}
  - {to: bounded, tools: [docs/search], arguments: {folder: [public, 1]}}
  - {to: cleaner, tools: [files]}
  - {to: chief, tools: [files], permissions: [files:delete]}
"""
LOST = {"zebra": [1, 2.5, 2**62, None], "alpha": {"é": "\u200d"}, "resultType": "complete"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docs() -> AsyncIterator[Scripted]:
    async with scripted(tool("search", description="Finds", later={"x": 2**60}), tool("send")) as script:
        script.answers["search"] = lambda params: _result({**LOST, **says("found"), "structuredContent": [2**53 + 1]})
        yield script


async def _result(tree: dict[str, object]) -> dict[str, object]:
    return tree


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, docs: Scripted) -> AsyncIterator[Gateway]:
    async with scripted(tool("delete"), tool("read")) as files:
        config = configured(GRANTS, docs=docs, files=files).replace(
            f"files: {{url: '{files.url}'", f"files: {{requires: {{delete: ['files:delete']}}, url: '{files.url}'"
        )
        async with running(tmp_path_factory.mktemp("gateway"), config) as gateway:
            yield gateway


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_tool_has_its_servers_name_in_front_and_its_origin_beside_it(gateway: Gateway) -> None:
    tools = (await Door(gateway).result("tools/list"))["tools"]
    assert [each["name"] for each in tools] == ["docs__search", "docs__send", "files__delete", "files__read"]
    assert tools[0] == {
        "name": "docs__search",
        "inputSchema": {"type": "object"},
        "description": "Finds",
        "later": {"x": 2**60},
        "_meta": {"gateway/origin": "docs/search"},
    }


@pytest.mark.requirement("mcp.results.unknown-fields-survive")
async def test_a_result_reaches_the_caller_as_its_server_wrote_it(gateway: Gateway, docs: Scripted) -> None:
    result = await Door(gateway).call("docs__search", words=["a", 2**62, 1.0])
    assert list(result) == ["zebra", "alpha", "resultType", "content", "structuredContent"]
    assert result["zebra"] == [1, 2.5, 2**62, None]
    assert result["structuredContent"] == [2**53 + 1]
    sent = docs.asked("tools/call")[-1]
    assert sent["name"] == "search"
    assert sent["arguments"] == {"words": ["a", 2**62, 1.0]}
    assert isinstance(sent["arguments"]["words"][2], float)


@pytest.mark.requirement("mcp.headers.set-anew")
async def test_the_server_gets_headers_for_its_own_names_and_nothing_of_the_callers(
    gateway: Gateway, docs: Scripted
) -> None:
    await Door(gateway).call("docs__send")
    sent = docs.raw[-1]
    assert (sent["mcp-method"], sent["mcp-name"]) == ("tools/call", "send")
    assert "authorization" not in sent
    assert gateway.token not in str(sent)


async def test_mounts_have_names_of_their_own(gateway: Gateway) -> None:
    assert await Door(gateway, "docs").names() == ["search", "send"]
    assert await Door(gateway, "picked").names() == ["find", "wipe"]
    assert await Door(gateway, "some").names() == ["docs__search", "docs__send"]
    assert (await Door(gateway, "picked").call("find"))["content"][0]["text"] == "found"
    assert (await Door(gateway, "docs").error("tools/call", {"name": "docs__search"}))["code"] == -32602


async def test_a_mount_that_is_not_there_is_404(gateway: Gateway) -> None:
    answer = await Door(gateway, "nowhere").raw(request("tools/list", modern()))
    assert answer.status_code == 404


@pytest.mark.security
@pytest.mark.requirement("mcp.authorization.every-request")
async def test_without_a_credential_nothing_is_said(gateway: Gateway) -> None:
    answer = await gateway.client.post("/mcp", json=request("tools/list", modern()))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert (await Door(gateway, who="wrong").raw(request("ping", {}))).status_code == 401


@pytest.mark.security
async def test_without_a_grant_nothing_is_there_whatever_one_is_called(gateway: Gateway, docs: Scripted) -> None:
    for name in ("admin-x", "local", "chief-2", "readers", "agent.reader"):
        door = Door(gateway, who=await gateway.key(name))
        assert await door.names() == []
        before = len(docs.asked("tools/call"))
        error = await door.error("tools/call", {"name": "docs__search", "arguments": {}})
        unknown = await door.error("tools/call", {"name": "docs__nothing", "arguments": {}})
        assert (error["code"], error["message"]) == (unknown["code"], "Unknown tool: docs__search")
        assert len(docs.asked("tools/call")) == before


async def test_lists_and_calls_follow_the_same_grants(gateway: Gateway) -> None:
    door = Door(gateway, who=await gateway.key("reader"))
    assert await door.names() == ["docs__search", "docs__send"]
    assert (await door.call("docs__send"))["content"]
    assert (await door.error("tools/call", {"name": "files__read"}))["message"] == "Unknown tool: files__read"
    assert await Door(gateway, "picked", door.who).names() == ["find"]


async def test_a_grant_can_hold_arguments_to_some_values(gateway: Gateway) -> None:
    door = Door(gateway, who=await gateway.key("bounded"))
    assert await door.names() == ["docs__search"]
    for folder in ("public", 1):
        assert await door.call("docs__search", folder=folder)
    for arguments in ({}, {"folder": "secret"}, {"folder": True}, {"folder": 1.0}, {"folder": None}):
        error = await door.error("tools/call", {"name": "docs__search", "arguments": arguments})
        assert error["data"]["reason"] == "PERMISSION_DENIED"
        assert "folder one of ['public', 1]" in error["message"]


async def test_required_permissions_are_checked(gateway: Gateway) -> None:
    assert await Door(gateway, who=await gateway.key("cleaner")).names() == ["files__read"]
    chief = Door(gateway, who=await gateway.key("chief"))
    assert await chief.names() == ["files__delete", "files__read"]
    assert await chief.call("files__delete")


@pytest.mark.parametrize("mode", ["auto", "legacy", "2026-07-28"])
async def test_the_sdk_lists_and_calls_in_every_mode(gateway: Gateway, mode: str) -> None:
    async with Door(gateway).sdk(mode) as client:
        tools = (await client.list_tools()).tools
        assert [each.name for each in tools][:2] == ["docs__search", "docs__send"]
        result = await client.call_tool("docs__send", {})
        assert result.content[0].text == "docs__send"[6:]  # type: ignore[union-attr]


async def test_the_record_has_an_intent_before_and_an_outcome_after_each_call(gateway: Gateway) -> None:
    await Door(gateway).call("docs__send", secret="not in the record")
    entries = [entry for entry in await gateway.record() if entry.target == "docs/send"][-2:]
    assert [(each.phase, each.outcome, each.verb) for each in entries] == [
        ("intent", "begun", "tools/call"),
        ("outcome", "ok", "tools/call"),
    ]
    assert entries[0].request_id == entries[1].request_id
    assert "not in the record" not in str(entries)


async def test_what_is_malformed_is_refused_and_does_not_reach_a_server(gateway: Gateway, docs: Scripted) -> None:
    before = len(docs.requests)
    door = Door(gateway)
    for body, status, code in (
        (b"{", 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}', 400, -32700),
        ([], 400, -32600),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, 400, -32600),
    ):
        answer = await door.raw(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), body
    assert (await door.raw(b"{}", {"Content-Type": "text/plain"})).status_code == 415
    for params in ({}, {"name": 7}, {"name": "docs__search", "arguments": []}):
        answer = await door.post("tools/call", modern(params))
        assert (answer.status_code, message_of(answer)["error"]["code"]) == (400, -32602), params
    assert len(docs.requests) == before
