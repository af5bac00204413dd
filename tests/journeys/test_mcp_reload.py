"""The operator's file read again: servers come, change and go while the gateway runs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from gateway.config import Flags, Settings, load, settle
from tests.mcp import Door, configured, scripted, soon, tool
from tests.remote import PROGRAM, environment
from tests.serving import BOUND, Gateway, running


def rereads(gateway: Gateway, file: Path) -> None:
    """As `gateway serve` does it."""

    def source() -> Settings:
        flags = Flags(data=gateway.app.settings.data, port=gateway.app.settings.port)
        return settle(load(file, cwd=file.parent), flags, {}, cwd=file.parent)

    gateway.app.tools.reload = partial(gateway.app.reload, source)


async def reload(gateway: Gateway, who: str | None = None) -> Any:
    return await gateway.client.post("/admin/tools:reload", headers=gateway.bearer(who))


async def listed(door: Door, *names: str) -> None:
    async def there() -> bool:
        return await door.names() == list(names)

    await soon(there)


async def test_servers_come_change_and_go_and_clients_are_told(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scripted(tool("a")))
        second = await stack.enter_async_context(scripted(tool("b")))
        async with running(tmp_path / "data", configured(first=first)) as gateway:
            rereads(gateway, file)
            door = Door(gateway)
            await listed(door, "first__a")
            filter = {"notifications": {"toolsListChanged": True}}
            async with door.stream("subscriptions/listen", filter) as told:
                await anext(told)
                file.write_text(configured(first=first, second=second))
                assert (await reload(gateway)).json() == {"changed": ["second"]}
                change = await asyncio.wait_for(anext(told), BOUND)
                assert change["method"] == "notifications/tools/list_changed"
            await listed(door, "first__a", "second__b")
            file.write_text(configured(second=first))
            assert (await reload(gateway)).json() == {"changed": ["first", "second"]}
            await listed(door)
            waiting = (await gateway.client.get("/admin/tools", headers=gateway.bearer(None))).json()["servers"]
            (second_one,) = [each for each in waiting if each["id"] == "second"]
            assert [each["address"] for each in second_one["waiting"]] == ["second/a"]


async def test_grants_and_mounts_follow_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    async with scripted(tool("a")) as docs, running(tmp_path / "data", configured(docs=docs)) as gateway:
        rereads(gateway, file)
        ann = Door(gateway, who=await gateway.key("ann"))
        assert await ann.names() == []
        file.write_text(configured("grants: [{to: ann, tools: [docs]}]", "mounts: {m: {tools: [docs]}}", docs=docs))
        assert (await reload(gateway)).status_code == 200
        assert await ann.names() == ["docs__a"]
        assert await Door(gateway, "m", ann.who).names() == ["docs__a"]
        file.write_text(configured(docs=docs))
        await reload(gateway)
        assert (await ann.error("tools/call", {"name": "docs__a"}))["code"] == -32602
        entries = [entry for entry in await gateway.record() if entry.verb == "ReloadTools"]
        granted = {"grant": "key:ann", "tools": ["docs"]}
        assert [(each.phase, each.change) for each in entries] == [
            ("intent", None),
            ("outcome", {"after": [granted], "before": []}),
            ("intent", None),
            ("outcome", {"after": [], "before": [granted]}),
        ]


async def test_a_grant_is_written_and_taken_back_by_command_and_holds_at_once(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    async with scripted(tool("a"), tool("b")) as docs, running(tmp_path / "data", configured(docs=docs)) as gateway:
        rereads(gateway, file)
        file.write_text(f"# mine\n{configured(docs=docs)}")
        ann = Door(gateway, who=await gateway.key("ann"))
        assert await ann.names() == []
        given = await command(gateway, "grant", "ann", "docs/a", "docs/b", "--config", str(file))
        assert "It holds now" in given
        assert await ann.names() == ["docs__a", "docs__b"]
        back = await command(gateway, "revoke", "ann", "docs/b", "--config", str(file))
        assert "ann keeps docs/a" in back
        assert "It holds now" in back
        assert await ann.names() == ["docs__a"]
        assert file.read_text().startswith("# mine\n")
        await command(gateway, "revoke", "ann", "--all", "--config", str(file))
        assert (await ann.error("tools/call", {"name": "docs__a"}))["code"] == -32602
        other = tmp_path / "other.yaml"
        other.write_text(configured(docs=docs))
        assert "reads another file" in await command(gateway, "grant", "ann", "docs/a", "--config", str(other))


async def command(gateway: Gateway, *words: str) -> str:
    """What `gateway tools …` says."""
    program = await asyncio.create_subprocess_exec(
        PROGRAM,
        *("tools", *words),
        env=environment(gateway.app.settings.data, GATEWAY_URL=gateway.url),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(program.communicate(), BOUND)
    assert program.returncode == 0, said
    return said.decode()


async def test_a_wrong_file_changes_nothing_and_says_why(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    async with scripted(tool("a")) as docs, running(tmp_path / "data", configured(docs=docs)) as gateway:
        rereads(gateway, file)
        await listed(Door(gateway), "docs__a")
        file.write_text(configured("grants: [{to: ann, tools: [dogs]}]", docs=docs))
        answer = await reload(gateway)
        assert answer.status_code == 400
        assert "did you mean 'docs'?" in answer.text
        assert await Door(gateway).names() == ["docs__a"]
        file.write_text(configured(docs=docs))
        assert (await reload(gateway, await gateway.key("ann"))).status_code == 403


async def test_a_gateway_without_a_file_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert "without a file" in (await reload(gateway)).text
