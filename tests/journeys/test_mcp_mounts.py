"""Mounts: what is called alike there is told to the operator, and pages of tools (`ui://`) keep their server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.mcp import Door, Scripted, Tree, configured, says, scripted, soon, tool
from tests.serving import Gateway, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGE = "ui://charts/line"
SHOWN = f"ui://docs/{PAGE.removeprefix('ui://')}"
PAGES: Tree = {"uri": PAGE, "name": "line", "mimeType": "text/html;profile=mcp-app"}
MOUNTS = """
mounts:
  own: {tools: [docs], naming: identity}
  picked: {naming: alias, aliases: {Find: docs/draw, find: files/read, open: files/read}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def docs() -> AsyncIterator[Scripted]:
    async with scripted(tool("draw", _meta={"ui": {"resourceUri": PAGE, "visibility": ["model"]}})) as script:
        script.resources = [PAGES]

        async def drawn(params: Tree) -> Tree:
            return {**says("drawn"), "content": [{"type": "resource_link", "uri": PAGE, "name": "line"}]}

        async def page(params: Tree) -> Tree:
            caching = {"resultType": "complete", "ttlMs": 0, "cacheScope": "public"}
            return {**caching, "contents": [{"uri": params["uri"], "text": "<html>"}]}

        script.answers = {"draw": drawn, "resources/read": page}
        yield script


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory, docs: Scripted) -> AsyncIterator[Gateway]:
    async with scripted(tool("read")) as files:
        folder: Path = tmp_path_factory.mktemp("gateway")
        async with running(folder, configured(MOUNTS, docs=docs, files=files)) as gateway:
            yield gateway


async def mounts(gateway: Gateway) -> dict[str, Any]:
    answer = await gateway.client.get("/admin/tools", headers=gateway.bearer(None))
    return {each["path"]: each["collisions"] for each in answer.json()["mounts"]}


async def test_names_that_collide_are_there_for_nobody_and_told_mount_by_mount(gateway: Gateway) -> None:
    assert await Door(gateway, "picked").names() == ["open"]
    assert (await Door(gateway, "picked").error("tools/call", {"name": "find"}))["code"] == -32602
    clash = {"kind": "tools", "name": "Find", "addresses": ["docs/draw", "files/read"]}
    assert await mounts(gateway) == {"/mcp": [], "/mcp/own": [], "/mcp/picked": [clash]}


async def test_a_collision_comes_and_goes_with_the_tools(gateway: Gateway, docs: Scripted) -> None:
    draw = docs.tools[0]
    await docs.change()

    async def told(wanted: int) -> bool:
        return len((await mounts(gateway))["/mcp/picked"]) == wanted

    await soon(lambda: told(0))
    assert await Door(gateway, "picked").names() == ["find", "open"]
    await docs.change(draw)
    await soon(lambda: told(1))
    assert await Door(gateway, "picked").names() == ["open"]


@pytest.mark.requirement("mcp.ui.resources-keep-their-server")
async def test_the_page_of_a_tool_is_found_under_the_name_that_the_tool_gives_it(
    gateway: Gateway, docs: Scripted
) -> None:
    door = Door(gateway)
    (listed,) = [each for each in (await door.result("tools/list"))["tools"] if each["name"] == "docs__draw"]
    assert listed["_meta"]["ui"] == {"resourceUri": SHOWN, "visibility": ["model"]}
    assert [each["uri"] for each in (await door.result("resources/list"))["resources"]] == [SHOWN]
    assert (await door.call("docs__draw"))["content"][0]["uri"] == SHOWN
    read = await door.result("resources/read", {"uri": SHOWN})
    assert read["contents"] == [{"uri": SHOWN, "text": "<html>"}]
    assert docs.asked("resources/read")[-1]["uri"] == PAGE


@pytest.mark.requirement("mcp.ui.resources-keep-their-server")
async def test_on_a_mount_of_one_server_pages_keep_their_own_names(gateway: Gateway) -> None:
    door = Door(gateway, "own")
    (listed,) = (await door.result("tools/list"))["tools"]
    assert listed["_meta"]["ui"]["resourceUri"] == PAGE
    assert (await door.result("resources/read", {"uri": PAGE}))["contents"][0]["uri"] == PAGE
