"""Questions that are open while the gateway is restarted: which can still be answered, and what the others say."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.mcp import Door, Tree, configured, says, scripted, tool
from tests.serving import BOUND, running
from tests.upstream.mcp_raw import ACCEPTED, OK, Call, legacy, raw

QUESTION = {"method": "elicitation/create", "params": {"message": "Name?", "requestedSchema": {"type": "object"}}}
CAN: Tree = {"elicitation": {}}
ANSWER = {"action": "accept", "content": {"name": "Ann"}}


def again(came: Tree, name: str) -> Tree:
    answers = dict.fromkeys(came["inputRequests"], ANSWER)
    return {"name": name, "arguments": {}, "inputResponses": answers, "requestState": came["requestState"]}


@pytest.mark.requirement("mcp.mrtr.across-a-restart")
async def test_a_round_with_a_server_that_keeps_nothing_goes_on_after_a_restart(tmp_path: Path) -> None:
    states: list[Any] = []

    async def ask(params: Tree) -> Tree:
        states.append(params.get("requestState"))
        if "inputResponses" in params:
            return says(params["inputResponses"]["q"]["content"]["name"])
        return {"resultType": "input_required", "inputRequests": {"q": QUESTION}, "requestState": "the server's own"}

    async with scripted(tool("ask"), answers={"ask": ask}) as docs:
        async with running(tmp_path, configured(docs=docs)) as gateway:
            came = await Door(gateway).call("docs__ask", CAN)
        async with running(tmp_path, configured(docs=docs)) as gateway:
            result = await Door(gateway).result("tools/call", again(came, "docs__ask"), capabilities=CAN)
    assert result["content"][0]["text"] == "Ann"
    assert states == [None, "the server's own"]


@pytest.mark.requirement("mcp.mrtr.across-a-restart")
async def test_a_request_that_was_parked_at_a_session_server_says_that_it_is_over(tmp_path: Path) -> None:
    canceled = asyncio.Event()
    answers: asyncio.Queue[Tree] = asyncio.Queue()

    async def ask(call: Call) -> None:
        call.open()
        call.event({"jsonrpc": "2.0", "id": "q", **QUESTION})
        leaving = asyncio.ensure_future(call.reader.read())
        answering = asyncio.ensure_future(answers.get())
        await asyncio.wait((leaving, answering), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            call.done({"content": OK["content"]})
        else:
            answering.cancel()
            canceled.set()
        leaving.cancel()

    def answered(call: Call) -> bytes:
        answers.put_nowait(call.tree)
        return ACCEPTED

    handlers = legacy(tools_list=lambda call: call.result({"tools": [tool("ask")]}), tools_call=ask, POST=answered)
    async with raw(**handlers) as old:
        async with running(tmp_path, configured(old=old.url)) as gateway:
            came = await Door(gateway).call("old__ask", CAN)
        await asyncio.wait_for(canceled.wait(), BOUND)  # nothing is left to wait at the server for nobody
        async with running(tmp_path, configured(old=old.url)) as gateway:
            door = Door(gateway)
            async with asyncio.timeout(BOUND):
                error = await door.error("tools/call", again(came, "old__ask"), capabilities=CAN)
            assert error["code"] == -32602
            assert "the gateway was restarted); make it anew, without requestState" in error["message"]
            fresh = await door.call("old__ask", CAN)
            assert (await door.result("tools/call", again(fresh, "old__ask"), capabilities=CAN))["content"]
