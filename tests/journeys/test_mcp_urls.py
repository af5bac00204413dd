"""Servers that send a person to a URL: in every combination of eras, and only to callers that can do that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import mcp_types as types
import pytest
import pytest_asyncio

from gateway.model.asking import ASKED_WITH, lacking
from tests.mcp import Door, Scripted, Tree, configured, says, scripted, tool
from tests.serving import BOUND, Gateway, running
from tests.upstream.mcp_raw import ACCEPTED, INITIALIZED, OK, Call, legacy, raw

pytestmark = pytest.mark.asyncio(loop_scope="module")

URL = "https://bank.example/pay?id=7"
URLS: Tree = {"elicitation": {"url": {}}}
VISIT = {"mode": "url", "message": "Please pay there", "url": URL}


class Bank:
    """A session server. `ask` asks in the middle of its work, `refuse` refuses until somebody has been at the URL, and
    the session's own stream says when."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.paid: set[str] = set()
        self.streams: dict[str, Call] = {}
        self.opened = asyncio.Event()

    async def call(self, call: Call) -> bytes | None:
        if call.params["name"] == "ask":
            call.open()
            call.event({"jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": self.visit("e-1")})
            said = await asyncio.wait_for(self.answers.get(), BOUND)
            call.done({"content": [{"type": "text", "text": said["action"]}]})
            return None
        session = call.headers["mcp-session-id"]
        if session in self.paid:
            return call.result({"content": OK["content"]})
        self.paid.add(session)
        return call.error(-32042, "Payment needed", {"elicitations": [self.visit("e-2")]})

    def visit(self, id: str) -> Tree:
        return {**VISIT, "elicitationId": id}

    def answered(self, call: Call) -> bytes:
        self.answers.put_nowait(call.tree["result"])
        return ACCEPTED

    async def stream(self, call: Call) -> None:
        self.streams[call.headers["mcp-session-id"]] = call
        call.open()
        await call.reader.read()


@pytest.fixture(scope="module")
def bank() -> Bank:
    return Bank()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def modern() -> AsyncIterator[Scripted]:
    async def pay(params: Tree) -> Tree:
        if "inputResponses" in params:
            return says(params["inputResponses"]["go"]["action"])
        question = {"method": "elicitation/create", "params": VISIT}
        return {"resultType": "input_required", "inputRequests": {"go": question}, "requestState": "s"}

    async with scripted(tool("pay"), answers={"pay": pay}) as script:
        yield script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, modern: Scripted, bank: Bank) -> AsyncIterator[Gateway]:
    numbers = iter(range(1000))
    handlers = legacy(
        initialize=lambda call: call.result(INITIALIZED, mcp_session_id=f"s-{next(numbers)}"),
        tools_list=lambda call: call.result({"tools": [tool("ask"), tool("refuse")]}),
        tools_call=bank.call,
        POST=bank.answered,
        GET=bank.stream,
    )
    async with raw(**handlers) as old:
        config = configured("grants: [{to: eve, tools: ['*']}]", modern=modern, bank=old.url)
        async with running(tmp_path_factory.mktemp("gateway"), config) as gateway:
            yield gateway


@pytest.mark.requirement("mcp.eras.url-elicitation")
@pytest.mark.parametrize("client", ["legacy", "2026-07-28"])
@pytest.mark.parametrize("name", ["modern__pay", "bank__ask"])
async def test_a_person_is_sent_to_the_url_in_every_combination_of_eras(
    gateway: Gateway, client: str, name: str
) -> None:
    asked: list[Any] = []

    async def visited(context: Any, params: Any) -> types.ElicitResult:
        asked.append(params)
        return types.ElicitResult(action="accept")

    async with Door(gateway).sdk(client, elicitation_callback=visited) as sdk:
        result = await sdk.call_tool(name, {})
    assert result.content[0].text == "accept"  # type: ignore[union-attr]
    (params,) = asked
    assert (params.mode, params.url, params.message) == ("url", URL, "Please pay there")
    # Only sessions name their visits (changelog of 2026-07-28); where the server gave no name, the gateway does.
    name_of_it = params.model_dump(by_alias=True).get("elicitationId")
    assert bool(name_of_it) is (client == "legacy")
    assert (name_of_it == "e-1") is (client == "legacy" and name == "bank__ask")


@pytest.mark.requirement("mcp.eras.url-elicitation")
async def test_a_refusal_that_names_urls_is_a_question_for_those_who_come_back(gateway: Gateway) -> None:
    door = Door(gateway)
    came = await door.call("bank__refuse", URLS)
    assert came["inputRequests"] == {"visit-1": {"method": "elicitation/create", "params": VISIT}}
    params = {
        "name": "bank__refuse",
        "arguments": {},
        "inputResponses": {"visit-1": {"action": "accept"}},
        "requestState": came["requestState"],
    }
    assert (await door.result("tools/call", params, capabilities=URLS))["content"] == OK["content"]


@pytest.mark.requirement("mcp.eras.url-elicitation")
async def test_a_refusal_that_names_urls_stays_one_in_sessions_and_its_caller_hears_when_it_is_over(
    gateway: Gateway, bank: Bank
) -> None:
    session = await Door(gateway).session({"elicitation": {"url": {}}, "roots": {}})
    stranger = await Door(gateway, who=await gateway.key("eve")).session({"elicitation": {"url": {}}, "roots": {}})
    await stranger.ask("tools/call", {"name": "bank__refuse", "arguments": {}})  # whose visit has the same name
    async with session.stream(None) as told:
        before = set(bank.streams)
        error = (await session.ask("tools/call", {"name": "bank__refuse", "arguments": {}}))["error"]
        assert error["code"] == -32042
        assert error["data"] == {"elicitations": [{**VISIT, "elicitationId": "e-2"}]}
        (own,) = set(bank.streams) - before
        bank.streams[own].notice("notifications/elicitation/complete", elicitationId="never heard of")
        bank.streams[own].notice("notifications/elicitation/complete", elicitationId="e-2", more="x")
        over = await asyncio.wait_for(anext(told), BOUND)
        assert (over["method"], over["params"]) == ("notifications/elicitation/complete", {"elicitationId": "e-2"})
    assert "result" in await session.ask("tools/call", {"name": "bank__refuse", "arguments": {}})


@pytest.mark.requirement("mcp.eras.url-elicitation")
@pytest.mark.parametrize("capabilities", [{}, {"elicitation": {}}, {"elicitation": {"form": {}}}])
async def test_a_caller_that_shows_no_urls_is_told_what_it_would_have_to_declare(
    gateway: Gateway, capabilities: Tree
) -> None:
    door = Door(gateway, who=await gateway.key("eve"))
    for name in ("modern__pay", "bank__refuse"):
        error = await door.error("tools/call", {"name": name, "arguments": {}}, capabilities=capabilities)
        assert error["code"] == -32021
        assert error["data"] == {"requiredCapabilities": {"elicitation": {"url": {}}}}
    session = await door.session(capabilities)
    result = await session.result("tools/call", {"name": "modern__pay", "arguments": {}})
    assert (result["isError"], result["content"][0]["text"]) == (True, "The caller takes no elicitation/create")


@pytest.mark.parametrize(
    ("params", "declared", "lacks"),
    [
        ({}, {"elicitation": {}}, {}),
        ({}, {"elicitation": {"form": {}}}, {}),
        ({}, {"elicitation": {"url": {}}}, {"elicitation": {"form": {}}}),
        ({}, {}, {"elicitation": {}}),
        ({"mode": "url"}, {"elicitation": {"form": {}, "url": {}}}, {}),
        ({"mode": "url"}, {"elicitation": {}}, {"elicitation": {"url": {}}}),
        ({"mode": "url"}, {"elicitation": None}, {"elicitation": {"url": {}}}),
    ],
)
async def test_what_a_question_needs(params: Tree, declared: Tree, lacks: Tree) -> None:
    assert lacking("elicitation/create", params, declared) == lacks


async def test_a_model_that_is_to_use_tools_is_asked_only_of_who_lets_it() -> None:
    method = "sampling/createMessage"
    assert lacking(method, {"tools": []}, {"sampling": {}}) == {"sampling": {"tools": {}}}
    assert lacking(method, {"tools": []}, {"sampling": {"tools": {}}}) == {}
    assert lacking(method, {}, {"sampling": {}}) == {}
    assert lacking("roots/list", {}, {}) == {"roots": {}}
    assert len(ASKED_WITH) == 3
