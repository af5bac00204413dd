"""Access tokens at the MCP door: whom they let in, to which mount, and what they may use there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.journeys.test_authorization_server import client, refused, token
from tests.mcp import Door, Scripted, configured, modern, scripted, tool
from tests.serving import Gateway, running

SETTINGS = """
auth: {authorization_server: {}}
mounts:
  picked: {tools: [docs], naming: identity}
grants:
  - {to: "client:robot", tools: ["docs/search"]}
"""

pytestmark = pytest.mark.security


@asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Scripted]]:
    async with (
        scripted(tool("search"), tool("send")) as docs,
        running(tmp_path, configured(SETTINGS, docs=docs)) as gateway,
    ):
        yield gateway, docs


async def test_a_client_of_the_gateway_uses_the_tools_that_it_was_granted(tmp_path: Path) -> None:
    async with serving(tmp_path) as (gateway, docs):
        made = await token(gateway, await client(gateway, "robot"), "robot")
        async with (
            httpx2.AsyncClient(headers=gateway.bearer(made)) as http,
            Client(streamable_http_client(f"{gateway.url}/mcp", http_client=http)) as sdk,
        ):
            assert [each.name for each in (await sdk.list_tools()).tools] == ["docs__search"]
            await sdk.call_tool("docs__search", {})
        other = await token(gateway, await client(gateway, "robot2"), "robot2")
        assert await Door(gateway, who=other).names() == []
        seen = str((docs.raw, docs.requests))
        assert docs.asked("tools/call")
        assert made not in seen
        assert other not in seen


@pytest.mark.parametrize("mount", ["", "picked"])
async def test_the_401_of_a_mount_leads_to_a_token_that_is_good_there_and_nowhere_else(
    tmp_path: Path, mount: str
) -> None:
    async with serving(tmp_path) as (gateway, _):
        secret = await client(gateway, "robot")
        path = f"/mcp/{mount}".rstrip("/")
        challenge = (await gateway.client.post(path, json={})).headers["www-authenticate"]
        about = (await gateway.client.get(challenge.split('resource_metadata="')[1].rstrip('"'))).json()
        assert about["resource"] == gateway.url + path
        made = await token(gateway, secret, "robot", resource=about["resource"])
        assert await Door(gateway, mount, made).names() == [{"": "docs__search", "picked": "search"}[mount]]
        elsewhere = Door(gateway, {"": "picked", "picked": ""}[mount], made)
        assert "audience" in refused(await elsewhere.post("tools/list", modern()))
