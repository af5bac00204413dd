"""The official MCP SDK's client at our authorization server: from a 401 over discovery, registration and a person's
consent to a tool, and again with the refresh token. Nobody here wrote that client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from tests.issuer import Clock
from tests.mcp import Scripted, configured, scripted, tool
from tests.person import PASSWORD, somebody
from tests.serving import Gateway, running
from tests.upstream import loopback
from tests.upstream.tls import contexts

BACK = "http://localhost:43117/callback"

pytestmark = pytest.mark.security


@dataclass
class Kept(TokenStorage):
    tokens: OAuthToken | None = None
    client: OAuthClientInformationFull | None = None
    seen: list[str] = field(default_factory=list)

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens
        self.seen.append(tokens.access_token)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


@asynccontextmanager
async def serving(tmp_path: Path, settings: str) -> AsyncIterator[tuple[Gateway, Scripted, Clock]]:
    """A gateway with a tool that ada may use, and ada."""
    clock = Clock()
    text = f"""
auth: {{authorization_server: {{users: true, {settings}}}}}
egress: {{allow_loopback: true}}
grants:
  - {{to: "user:ada", tools: ["docs/search"]}}
"""
    async with (
        scripted(tool("search"), tool("send")) as docs,
        running(tmp_path, configured(text, docs=docs), now=clock.now) as gateway,
    ):
        body = {"name": "ada", "password": PASSWORD}
        made = await gateway.client.post("/admin/users", json=body, headers=gateway.bearer(None))
        assert made.status_code == 201, made.text
        yield gateway, docs, clock


@asynccontextmanager
async def sdk(
    gateway: Gateway, kept: Kept, *, invitation: str = "", document: str = "", mode: str = "auto"
) -> AsyncIterator[Client]:
    """The SDK's client as its documentation builds one, with ada before the browser that it opens."""
    said: asyncio.Queue[AuthorizationCodeResult] = asyncio.Queue()

    async def open_browser(url: str) -> None:
        async with somebody(gateway.url) as ada:
            await ada.get(url)
            await ada.log_in()
            await ada.submit("allow")
            assert ada.sent_to.startswith(BACK)
            said.put_nowait(AuthorizationCodeResult(**ada.answer))

    async def invited(request: httpx2.Request) -> None:
        if invitation and request.url.path == "/oauth/register":
            request.headers["authorization"] = f"Bearer {invitation}"

    provider = OAuthClientProvider(
        f"{gateway.url}/mcp",
        OAuthClientMetadata(
            client_name="The SDK",
            redirect_uris=[BACK],  # type: ignore[list-item]
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
        ),
        kept,
        open_browser,
        said.get,
        client_metadata_url=document or None,
    )
    async with (
        httpx2.AsyncClient(auth=provider, event_hooks={"request": [invited]}, trust_env=False) as http,
        Client(streamable_http_client(f"{gateway.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


@pytest.mark.requirement("oauth.server.registration", "oauth.server.code", "oauth.server.refresh")
async def test_the_sdk_registers_logs_a_person_in_calls_a_tool_and_refreshes(tmp_path: Path) -> None:
    async with serving(tmp_path, "") as (gateway, docs, clock):
        made = await gateway.client.post("/admin/clients:invite", json={}, headers=gateway.bearer(None))
        kept = Kept()
        async with sdk(gateway, kept, invitation=made.json()["token"]) as client:
            assert [each.name for each in (await client.list_tools()).tools] == ["docs__search"]
            await client.call_tool("docs__search", {})
        assert docs.asked("tools/call")
        entries = await gateway.record()
        assert {("oauth:gateway#user:ada", "tools/call"), ("oauth:gateway#user:ada", "Consent")} <= {
            (entry.principal, entry.verb) for entry in entries
        }
        assert kept.client is not None
        assert kept.client.client_id.startswith("registered-")
        # The access token has ended; the SDK takes the refresh token, and nobody is asked.
        clock.ahead += 700
        first, refresh = kept.seen[-1], kept.tokens.refresh_token if kept.tokens else None
        async with sdk(gateway, kept) as client:
            await client.call_tool("docs__search", {})
        assert kept.tokens is not None
        assert kept.seen[-1] != first
        assert kept.tokens.refresh_token != refresh
        assert not any(word in str((docs.raw, docs.requests)) for word in kept.seen)


@pytest.mark.requirement("oauth.server.client-documents")
async def test_the_sdk_is_known_by_the_document_at_its_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls, _ = contexts(tmp_path, "127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "trust.pem"))
    reply = bytearray()

    async def script(_: loopback.Request, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(reply))

    async with loopback.serve(script, tls=tls) as site, serving(tmp_path, "client_documents: ['*']") as made:
        gateway, docs, _ = made
        document = f"https://127.0.0.1:{site.port}/client.json"
        about = {
            "client_id": document,
            "client_name": "The SDK",
            "redirect_uris": [BACK],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
        }
        reply += loopback.answer(json.dumps(about).encode())
        kept = Kept()
        async with sdk(gateway, kept, document=document) as client:
            await client.call_tool("docs__search", {})
        assert docs.asked("tools/call")
        assert len(site.requests) == 1  # fetched once for the authorization, the consent and the token
        assert kept.client is not None
        assert kept.client.client_id == document
