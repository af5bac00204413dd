"""A gateway whose own URL has a path that the proxy in front of it takes off, as docs/how-to/run-behind-a-proxy.md has
it: programs and people find everything under that URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.journeys.people import AGENTS as ECHO
from tests.journeys.people import App, admin, app, claims
from tests.person import PASSWORD, Person
from tests.serving import A2A, Gateway, running

pytestmark = [pytest.mark.asyncio, pytest.mark.security]

HOME = "https://gw.example/base"
KEPT = "/.well-known/oauth-"


class Proxy(httpx2.AsyncBaseTransport):
    """Ends TLS, takes the path off, and leaves the well-known paths of OAuth as they are."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._inner = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        path = request.url.raw_path.decode()
        assert request.url.host == "gw.example", request.url
        if not path.startswith(KEPT):
            assert path.startswith("/base/"), f"{path} does not lead to this gateway"
            path = path.removeprefix("/base")
        body = await request.aread()
        url = f"http://127.0.0.1:{self._port}{path}"
        return await self._inner.handle_async_request(
            httpx2.Request(request.method, url, headers=request.headers, content=body)
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


@asynccontextmanager
async def behind(data: Path) -> AsyncIterator[tuple[Gateway, App, httpx2.AsyncClient]]:
    text = f"server: {{public_url: '{HOME}'}}\nauth: {{authorization_server: {{users: true}}}}\n{ECHO}"
    async with running(data, text) as gateway:
        await admin(gateway, "users", name="ada", password=PASSWORD)
        gateway.url = HOME
        async with httpx2.AsyncClient(transport=Proxy(gateway.client.base_url.port or 0)) as http:
            yield gateway, await app(gateway), http


@pytest.mark.requirement("oauth.server.metadata", "oauth.resource.metadata")
async def test_metadata_is_where_the_path_of_its_subject_says(tmp_path: Path) -> None:
    async with behind(tmp_path) as (_, _, http):
        told = (await http.get(f"{HOME}/agents/echo/tasks", headers=A2A)).headers["www-authenticate"]
        of_challenge = told.split('resource_metadata="')[1].rstrip('"')
        inserted = f"https://gw.example{KEPT}protected-resource/base"
        for where, resource in (
            (of_challenge, f"{HOME}/agents/echo"),
            (f"{inserted}/agents/echo", f"{HOME}/agents/echo"),
            (f"{inserted}/mcp", f"{HOME}/mcp"),
            (inserted, HOME),
        ):
            about = (await http.get(where)).json()
            assert (about["resource"], about["authorization_servers"]) == (resource, [HOME])
        assert (await http.get(f"{inserted}ment/agents/echo")).status_code == 404
        about = (await http.get(f"https://gw.example{KEPT}authorization-server/base")).json()
        assert about["issuer"] == HOME
        assert (await http.get(about["jwks_uri"])).status_code == 200


async def test_a_person_gets_through_every_page_and_the_token_opens_the_gateway(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, program, http):
        ada = Person(HOME, http)
        await ada.get(program.link(resource=f"{HOME}/agents/echo"))
        assert (await ada.log_in(password="wrong wrong wrong")).status_code == 403
        await ada.log_in()
        await ada.submit("allow")
        made = (await program.redeem(ada.answer["code"])).json()
        assert claims(made["access_token"])["iss"] == HOME
        answer = await http.get(f"{HOME}/agents/echo/tasks", headers={**A2A, **gateway.bearer(made["access_token"])})
        assert answer.status_code == 200
        asked = (await program.form("/oauth/device_authorization")).json()
        await ada.get(asked["verification_uri_complete"])
        await ada.submit()
        await ada.submit("allow")
        assert "Go back to your device" in ada.page.text
        for path in ("/oauth/connections", "/oauth/approval?id=x"):
            assert (await ada.get(HOME + path)).status_code in (200, 404)
            assert all(not form.action.startswith("/") for form in ada.page.forms)
