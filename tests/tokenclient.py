"""A configured tool server with the source of its tokens, as the gateway has it; time is given in."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gateway.model.errors import GatewayError
from gateway.model.tool import Tree
from gateway.upstream.address import EgressRules
from gateway.upstream.credentialed import CredentialedEgress
from gateway.upstream.egress import Egress
from gateway.upstream.mcp.limits import NOBODY
from gateway.upstream.mcp.server import HttpServer
from gateway.upstream.oauth.client import ClientSettings, Grant
from gateway.upstream.oauth.discovery import Discovery
from gateway.upstream.oauth.grants import Grants
from gateway.upstream.oauth.source import TokenSource
from gateway.upstream.oauth.vault import Vault
from tests.authority import browse
from tests.vaults import opened

REDIRECT = "http://127.0.0.1:7777/callback"
PERSON = ClientSettings(Grant.AUTHORIZATION_CODE)
OURS = {"SECRET": "a/b+c:d", "IDP": "idp/secret"}


@dataclass
class Client:
    """One configured server, with its token source. `now` is its clock, in milliseconds."""

    source: TokenSource
    server: HttpServer
    vault: Vault
    now: list[int] = field(default_factory=lambda: [1_000_000])

    async def call(self) -> Tree:
        return await self.server.request("tools/call", {"name": "hello", "arguments": {}}, NOBODY)

    async def login(self) -> None:
        await self.source.finish(await browse(await self.source.begin(REDIRECT)))

    def later(self, seconds: float) -> None:
        self.now[0] += int(seconds * 1000)


@asynccontextmanager
async def client(
    url: str,
    data: Path,
    settings: ClientSettings = PERSON,
    *,
    rules: EgressRules | None = None,
    seconds: float = 10.0,
) -> AsyncIterator[Client]:
    now = [1_000_000]
    vault = await opened(data / "oauth")
    async with Egress(rules or EgressRules(allow_loopback=True)) as egress:
        source = TokenSource(
            "docs",
            settings,
            Discovery(url, settings.issuer, egress, seconds=seconds),
            Grants("docs", vault),
            egress,
            ours=OURS,
            now=lambda: now[0],
            random=os.urandom,
            otherwise=": run `gateway tools login docs`",
        )
        server = HttpServer(
            "docs",
            url,
            CredentialedEgress(egress, source),
            info={"name": "gateway", "version": "1"},
            trusted=True,
            chance=lambda: 0.5,
        )
        try:
            yield Client(source, server, vault, now)
        finally:
            await server.aclose()


async def refusal(awaited: Any) -> GatewayError:
    with pytest.raises(GatewayError) as raised:
        await awaited
    return raised.value
