"""Lists of a tool server where each caller has an account of their own: what one sees there is nobody else's."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.core.tools import own_lists
from tests.authority import HELLO, Authority, authority, guarded
from tests.journeys.test_connections import listed, remove, shown
from tests.journeys.test_mcp_connect import Person, asked, configuration, link_in
from tests.journeys.test_mcp_oauth import admin, login
from tests.mcp import Door, soon
from tests.serving import BOUND, Gateway, running

Tree = dict[str, Any]

pytestmark = pytest.mark.requirement("mcp.client.own-lists")


def tool(name: str, **more: Any) -> Tree:
    return {**HELLO, "name": name, **more}


HERS = [HELLO, tool("anns", description="Of Ann's own.")]


async def caller(gateway: Gateway, name: str) -> Door:
    return Door(gateway, "docs", await gateway.key(name))


async def connects(by: Authority, name: str, door: Door, link: str | None = None) -> None:
    by.person = name
    done = await Person(door.gateway).connects(link or link_in(await asked(door)), door.who or "")
    assert done.status_code == 200, done.text


async def connected(by: Authority, gateway: Gateway, name: str) -> Door:
    door = await caller(gateway, name)
    await connects(by, name, door)
    return door


async def health(gateway: Gateway) -> Tree:
    answer = await gateway.client.get("/admin/tools", headers=gateway.bearer(None))
    (found,) = (each for each in answer.json()["servers"] if each["id"] == "docs")
    server: Tree = found
    return server


async def waiting(gateway: Gateway) -> list[tuple[str, str]]:
    return [(each["address"], each["why"]) for each in (await health(gateway))["waiting"]]


async def approve(gateway: Gateway, address: str, **more: str) -> httpx2.Response:
    return await admin(gateway, "approve", address=address, **more)


@pytest.mark.security
async def test_what_only_one_caller_sees_waits_and_is_then_offered_to_nobody_else(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, tools={"ann": HERS}) as server:
        async with running(tmp_path, configuration(server)) as gateway:
            await login(gateway)
            ann, bob = await connected(by, gateway, "ann"), await connected(by, gateway, "bob")
            assert (await ann.names(), await bob.names()) == (["hello"], ["hello"])
            assert await waiting(gateway) == [("docs/anns", "new")]
            told = (await ann.error("tools/call", {"name": "anns", "arguments": {}}))["message"]
            assert "gateway tools approve docs/anns" in told
            nothing = await bob.error("tools/call", {"name": "anns", "arguments": {}})
            assert nothing["message"] == "Unknown tool: anns", "he is not told that it is there for somebody"
            assert server.calls == []
            assert (await approve(gateway, "docs/anns")).status_code == 200
            assert (await ann.names(), await bob.names()) == (["hello", "anns"], ["hello"])
            assert (await ann.call("anns"))["content"][0]["text"] == "hello"
            assert (await bob.error("tools/call", {"name": "anns", "arguments": {}}))["code"] == -32602
            assert server.calls == ["anns"]
            entries = await gateway.record()
            held = [(each.target, each.reason) for each in entries if each.verb == "QuarantineTool"]
            assert held == [("docs/anns", "new")], "once, however often it is read"
        async with running(tmp_path, configuration(server)) as gateway:
            ann, bob = Door(gateway, "docs", ann.who), Door(gateway, "docs", bob.who)
            assert (await bob.names(), await ann.names()) == (["hello"], ["hello", "anns"]), "read when they ask"
            (hers,) = await listed(gateway, of="key:ann")
            await remove(gateway, hers["id"])
            assert await ann.names() == ["hello"]


@pytest.mark.security
async def test_a_definition_that_differs_for_one_caller_waits_for_that_one_alone(tmp_path: Path) -> None:
    changed = tool("hello", description="Says hello to everybody in your address book.")
    async with (
        authority() as by,
        guarded(by, tools={"ann": [changed], "eve": [tool("hello", title="Other")]}) as server,
    ):
        config = configuration(server).replace("grants:", "grants:\n  - {to: eve, tools: [docs]}")
        async with running(tmp_path, config) as gateway:
            await login(gateway)
            ann, bob = await connected(by, gateway, "ann"), await connected(by, gateway, "bob")
            assert (await ann.names(), await bob.names()) == ([], ["hello"])
            refused = await ann.error("tools/call", {"name": "hello", "arguments": {}})
            assert "docs/hello waits for approval (changed)" in refused["message"]
            assert (await bob.call("hello"))["content"][0]["text"] == "hello"
            eve = await connected(by, gateway, "eve")
            assert await eve.names() == []
            # In two forms: whoever approves says which one they have read.
            forms = {each["definition"].get("title"): each["hash"] for each in (await health(gateway))["waiting"]}
            assert forms.keys() == {None, "Other"}
            for address in ("docs", "docs/hello"):
                which = await approve(gateway, address)
                assert (which.status_code, "must say which form" in which.text) == (400, True)
            assert (await approve(gateway, "docs/hello", hash="0" * 64)).status_code == 404
            assert (await approve(gateway, "docs/hello", hash=forms[None][:12])).status_code == 200
            assert (await ann.names(), await bob.names(), await eve.names()) == (["hello"], [], [])


@pytest.mark.security
async def test_prompts_resources_and_templates_are_ones_own_too(tmp_path: Path) -> None:
    hers = {
        "prompts/list": {"prompts": [{"name": "hers"}]},
        "resources/list": {"resources": [{"uri": "file:///ann/diary", "name": "diary"}]},
        "resources/templates/list": {"resourceTemplates": [{"uriTemplate": "file:///ann/{day}", "name": "day"}]},
    }
    granted = 'grants:\n  - {to: "*", prompts: [docs], resources: [docs]}'
    async with authority() as by, guarded(by, files={"ann": hers}) as server:
        config = configuration(server).replace("grants:", granted)
        async with running(tmp_path, config) as gateway:
            await login(gateway)
            ann, bob = await connected(by, gateway, "ann"), await connected(by, gateway, "bob")

            async def everything(door: Door) -> str:
                return str([await door.result(method) for method in hers])

            seen = await everything(ann)
            assert ("file:///ann/diary" in seen, "file:///ann/{day}" in seen) == (True, True), (
                "content, which waits not"
            )
            assert "'prompts': []" in seen, "what a model acts on waits"
            assert await waiting(gateway) == [("docs/hers", "new")]
            assert (await approve(gateway, "docs/hers")).status_code == 200
            assert "'name': 'hers'" in await everything(ann)
            for other in (bob, Door(gateway, "docs", await gateway.key("eve")), Door(gateway, "docs")):
                seen = await everything(other)
                assert ("ann" in seen, "hers" in seen) == (False, False)


async def test_without_a_login_of_the_operators_callers_connect_and_the_operator_approves(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, tools={"ann": HERS}) as server:
        async with running(tmp_path, configuration(server)) as gateway:
            ann, bob = await caller(gateway, "ann"), await caller(gateway, "bob")
            assert await ann.names() == []
            assert (await health(gateway))["state"] == "callers"
            page = await shown(gateway, Person(gateway), ann.who or "")
            link = html.unescape(re.search(r'href="([^"]+)">Connect docs', page.text)[1])  # type: ignore[index]
            await connects(by, "ann", ann, link)
            assert await ann.names() == [], "nobody's first sight is trusted"
            assert await waiting(gateway) == [("docs/anns", "new"), ("docs/hello", "new")]
            assert (await approve(gateway, "docs/hello")).status_code == 200
            assert (await ann.names(), await bob.names()) == (["hello"], ["hello"])
            assert (await ann.call("hello"))["content"][0]["text"] == "hello"
            assert link_in(await asked(bob)), "what is approved is there for all, and asks for their own account"
            nobody = await gateway.key("stranger")
            assert "Connect docs" not in (await shown(gateway, Person(gateway), nobody)).text
        async with running(tmp_path, configuration(server)) as gateway:
            ann, bob = Door(gateway, "docs", ann.who), Door(gateway, "docs", bob.who)
            assert (await bob.names(), await ann.names()) == (["hello"], ["hello"])
            await login(gateway)
            assert (await health(gateway))["state"] == "up"
            by.person = "ann"
            await login(gateway)  # the operator is one who sees more
            assert await waiting(gateway) == [("docs/anns", "new")], "no first sight any more"


async def test_who_listens_hears_of_their_own_lists_and_of_nobody_elses(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, tools={"ann": [tool("anns")]}) as server:
        config = configuration(server).replace("{login: caller}}", "{login: caller}, quarantine: off}")
        async with running(tmp_path, config) as gateway:
            await login(gateway)
            ann, bob = await caller(gateway, "ann"), await caller(gateway, "bob")
            filter = {"notifications": {"toolsListChanged": True}}
            async with (
                ann.stream("subscriptions/listen", filter) as hers,
                bob.stream("subscriptions/listen", filter) as his,
            ):
                await asyncio.gather(anext(hers), anext(his))
                await connects(by, "ann", ann)
                change = await asyncio.wait_for(anext(hers), BOUND)
                assert change["method"] == "notifications/tools/list_changed"
                assert (await ann.names(), await bob.names()) == (["anns"], ["hello"])
                assert (await ann.call("anns"))["content"][0]["text"] == "hello"
                told = asyncio.ensure_future(anext(hers))
                server.tools["bob"] = [tool("bobs")]
                await connects(by, "bob", bob)
                change = await asyncio.wait_for(anext(his), BOUND)
                assert change["method"] == "notifications/tools/list_changed"
                assert not told.done(), "she hears nothing of his"
                (own,) = await listed(gateway, of="key:ann")
                await remove(gateway, own["id"])
                assert await ann.names() == ["hello"]
                assert (await asyncio.wait_for(told, BOUND))["method"] == "notifications/tools/list_changed"


async def test_lists_that_cannot_be_read_keep_nobody_waiting(tmp_path: Path) -> None:
    async with authority() as by, guarded(by, tools={"ann": HERS}) as server:
        config = configuration(server).replace("{login: caller}}", "{login: caller}, quarantine: off}")
        async with running(tmp_path, config) as gateway:
            await login(gateway)
            ann = await connected(by, gateway, "ann")
            assert await ann.names() == ["hello", "anns"]
        async with running(tmp_path, config) as gateway:
            ann = Door(gateway, "docs", ann.who)
            await gateway.app.tools.servers.settled()
            by.people = dict.fromkeys(by.people, "broken")
            server.tools["broken"] = [tool(f"t{number}") for number in range(5_001)]
            assert await ann.names() == ["hello"], "what all see, as long as hers are not there"
            by.people = dict.fromkeys(by.people, "ann")
            gateway.app.tools.own._resting.clear()  # as if a while had passed
            assert await ann.names() == ["hello", "anns"]


async def test_as_many_lists_are_kept_as_there_is_room_for_and_all_others_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_lists, "MAX_OWNERS", 1)
    async with authority() as by, guarded(by, tools={"ann": [tool("anns")], "bob": [tool("bobs")]}) as server:
        config = configuration(server).replace("{login: caller}}", "{login: caller}, quarantine: off}")
        async with running(tmp_path, config) as gateway:
            await login(gateway)
            ann, bob = await connected(by, gateway, "ann"), await connected(by, gateway, "bob")
            for _ in range(2):
                assert (await ann.names(), await bob.names()) == (["anns"], ["bobs"])
            served = gateway.app.tools.servers.get("docs")
            assert served is not None
            assert list(served.own) == ["/key:bob"]

            async def idle() -> bool:
                return not gateway.app.tools.own._reading

            await soon(idle)
