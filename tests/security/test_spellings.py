"""Advisories about documents that two readers read differently: the one who decides, and the one who acts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from gateway.dialects.lookalikes import Members
from gateway.dialects.mcp import headers
from tests.acp import Acp
from tests.journeys.test_agent_credentials import hello
from tests.mcp import MODERN, Door, configured, modern, request, soon, tool
from tests.mcp import Scripted as Server
from tests.mcp import scripted as served
from tests.remote import Scripted as Agent
from tests.remote import agents, ready, scripted
from tests.security.twins import Attacks, Attempt, each_of
from tests.serving import A2A, Gateway, message, running

pytestmark = [pytest.mark.security, pytest.mark.asyncio(loop_scope="module")]

Tree = dict[str, Any]


@dataclass(frozen=True)
class House:
    """A gateway with a remote agent and a tool server, of whose tools `bob` may use the one named `search`. Both
    readers compare names as Go's encoding/json does: without case, and the last of two counts."""

    gateway: Gateway
    agent: Agent
    server: Server
    bob: str = field(repr=False)

    async def calls(self, body: bytes, made: dict[str, str]) -> str:
        """The tool that the server takes a POST of bob's for; empty if nothing reached it."""
        self.server.requests.clear()
        await Door(self.gateway, who=self.bob).raw(body, made)
        asked = self.server.asked("tools/call")
        return str(folded(asked[0])["name"]) if asked else ""

    async def message(self, more: Tree, part: Tree | None = None, *, older: bool = False) -> Tree:
        """The message that the agent reads when bob's has these members, too."""
        self.agent.asked.clear()
        kinds: Tree = {"kind": "text"} if older else {}
        said: Tree = {**message("hi"), "parts": [{**kinds, "text": "hi", **(part or {})}], **more}
        method, who = ("message/send", "user") if older else ("SendMessage", "ROLE_USER")
        body = request(method, {"message": {**said, "role": who}})
        sent = {**A2A, "A2A-Version": "0.3"} if older else A2A
        await self.gateway.client.post("/agents/far", json=body, headers={**sent, **self.gateway.bearer(self.bob)})
        return self.read()

    def read(self) -> Tree:
        found: Tree = folded(self.agent.asked[0].params["message"]) if self.agent.asked else {}
        return found


def folded(tree: Any) -> Any:
    if isinstance(tree, list):
        return [folded(each) for each in tree]
    return {name.casefold(): folded(each) for name, each in tree.items()} if isinstance(tree, dict) else tree


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    data = tmp_path_factory.mktemp("spellings")
    async with scripted() as agent, served(tool("search"), tool("delete")) as server:
        agent.plays["SendMessage"] = hello
        config = agents(far=agent.url) + configured("grants: [{to: bob, tools: [docs/search]}]", docs=server)
        async with running(data, config) as gateway:
            await ready(gateway, "far")
            await soon(Door(gateway).names)
            yield House(gateway, agent, server, await gateway.key("bob"))


# The attacks: each says of all its forms whether they got what they must not get.

SPELLINGS = ("Name", "NAME", "nAmE")


async def another_tool(house: House) -> list[bool]:
    """The caller may use one tool; in another spelling stands the one that it may not."""
    got = []
    for other in SPELLINGS:
        params = modern({"name": "docs__search", "arguments": {}, other: "delete"})
        body = json.dumps(request("tools/call", params)).encode()
        got.append(await house.calls(body, headers.make("tools/call", params, MODERN)) == "delete")
    session = await Door(house.gateway, who=house.bob).session()
    body = json.dumps(request("tools/call", {"name": "docs__search", "arguments": {}, "Name": "delete"})).encode()
    return [*got, await house.calls(body, session.headers) == "delete"]


async def anothers_task(house: House) -> list[bool]:
    """To the agent all our callers are one: whoever could name its task there would be in somebody else's."""
    got = []
    for name in ("TaskId", "TASKID", "ta\u017fkId", "tas\u212aId", "ContextId", "TASK_ID"):
        for older in (False, True):
            read = await house.message({name: "theirs-1"}, older=older)
            got.append(read.get(name.casefold()) == "theirs-1")
    return got


async def other_words(house: House) -> list[bool]:
    """What is looked at here is `text`; what the agent reads is the other one."""
    read = [
        await house.message({}, {name: "evil"}, older=older) for name in ("Text", "TEXT") for older in (False, True)
    ]
    part = {"content_type": "text/plain", "content": "hi", "a2a": {"part": {"Text": "evil"}}}
    run = {"agent_name": "far", "input": [{"role": "user", "parts": [part]}], "mode": "sync"}
    await Acp(house.gateway, "far", who=house.bob).ask("POST", "/runs", body=run)
    got = [bool(each) and each["parts"][0]["text"] == "evil" for each in (*read, house.read())]
    file = {"kind": "file", "file": {"uri": "https://good.example/", "URI": "evil"}}
    older = await house.message({"parts": [file]}, older=True)
    return [*got, bool(older) and older["parts"][0]["file"]["uri"] == "evil"]


async def another_method(house: House) -> list[bool]:
    """Who looks for `method` sees none; who folds sees a call."""
    got = []
    for other in ("Method", "METHOD", "methOd"):
        for method, params, door in (("tools/list", modern(), "/mcp"), ("ListTasks", {}, "/agents/far")):
            body = {other if name == "method" else name: each for name, each in request(method, params).items()}
            sent = {**headers.make(method, params, MODERN), "Accept": "application/json"} if door == "/mcp" else A2A
            answer = await house.gateway.client.post(
                door, json=body, headers={**sent, **house.gateway.bearer(house.bob)}
            )
            got.append("result" in answer.json())
    return got


CALL = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{%s"name":"docs__search","arguments":{%s},"_meta":%s}}'
AMBIGUOUS = (
    (b'"name":"docs__delete",', b""),
    (rb'"\u006eame":"docs__delete",', b""),
    (b'"arguments":{"to":"me"},', b""),
    (b"", b'"to":"you","to":"me"'),
    (b"", rb'"to":"you","t\u006f":"me"'),
)


async def two_readings(house: House) -> list[bool]:
    """A key twice, of which one reader takes the first and another the last; an encoding that has to be guessed."""
    params = modern({"name": "docs__search", "arguments": {}})
    bodies = [CALL % (*form, json.dumps(params["_meta"]).encode()) for form in AMBIGUOUS]
    bodies += [json.dumps(request("tools/call", params)).encode(encoding) for encoding in ("utf-16", "utf-8-sig")]
    return [bool(await house.calls(body, headers.make("tools/call", params, MODERN))) for body in bodies]


# The twins: what stands in the place of one defence.


def passes_on_what_it_does_not_know(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Members, "check", lambda self, given, where: None)


def reads_without_case(patch: pytest.MonkeyPatch) -> None:
    def read(data: bytes) -> Tree:
        return {name.casefold(): each for name, each in json.loads(data).items()}

    for door in ("mcp.door", "a2a_jsonrpc"):
        patch.setattr(f"gateway.server.{door}.read", read)


def reads_what_python_reads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("gateway.server.mcp.door.read", json.loads)


ATTACKS: Attacks[House] = {
    "tool": (another_tool, passes_on_what_it_does_not_know),
    "task": (anothers_task, passes_on_what_it_does_not_know),
    "words": (other_words, passes_on_what_it_does_not_know),
    "method": (another_method, reads_without_case),
    "twice": (two_readings, reads_what_python_reads),
}


@each_of(ATTACKS)
async def test_a_document_has_one_reading_and_two_with_its_broken_twin(house: House, attempt: Attempt[House]) -> None:
    await attempt(house)
