"""npm's oidc-provider as the operator's identity provider: a real server, and nobody here wrote it.

npm install --prefix DIR oidc-provider
OPENID_PROVIDER=DIR make security ARGS="-k openid_provider"
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.journeys.people import App, app, claims
from tests.person import somebody
from tests.ports import reserved
from tests.prover import Prover
from tests.remote import until
from tests.serving import A2A, ROOT, Gateway, running

PLACE = os.environ.get("OPENID_PROVIDER", "")
pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.security,
    pytest.mark.skipif(not PLACE, reason="OPENID_PROVIDER names no folder with oidc-provider"),
]
TASKS = "/agents/echo/tasks"


@dataclass
class Town:
    gateway: Gateway
    url: str
    http: httpx2.AsyncClient
    process: subprocess.Popen[bytes]
    app: App

    async def token(self, resource: str, **headers: str) -> dict[str, Any]:
        form = {"grant_type": "client_credentials", "resource": resource, "scope": "use"}
        basic = httpx2.BasicAuth("robot", "secret-of-the-robot")
        answer = await self.http.post(f"{self.url}/token", data=form, auth=basic, headers=headers)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def get(self, **headers: str) -> int:
        return (await self.gateway.client.get(TASKS, headers={**A2A, **headers})).status_code


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    data = tmp_path_factory.mktemp("openid")
    with reserved() as theirs, reserved() as ours:
        async with town(data, theirs, ours) as here:
            yield here


@asynccontextmanager
async def town(data: Path, theirs: int, ours: int) -> AsyncIterator[Town]:
    url, gateway_url = f"http://127.0.0.1:{theirs}", f"http://127.0.0.1:{ours}"
    # Node looks for packages beside the script.
    program = Path(PLACE) / f"gateway-test-provider-{os.getpid()}.mjs"  # one for each who tests at the same time
    shutil.copyfile(ROOT / "tests" / "openid_provider.mjs", program)
    (data / "secret").write_text("secret-of-the-gateway")
    config = f"""
auth:
  issuers: [{{issuer: '{url}'}}]
  authorization_server:
    login: {{issuer: '{url}', client_id: the-gateway, client_secret_file: {data}/secret}}
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
"""
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(["node", program, str(theirs), gateway_url], stdout=nothing, stderr=nothing)  # noqa: ASYNC220
    try:
        async with running(data, config, port=ours) as gateway, httpx2.AsyncClient(trust_env=False) as http:

            async def up() -> bool:
                try:
                    return (await http.get(f"{url}/jwks")).status_code == 200
                except httpx2.TransportError:
                    return False

            await until(up)
            yield Town(gateway, url, http, process, await app(gateway))
    finally:
        process.kill()
        process.wait()
        program.unlink()


async def test_its_access_tokens_open_the_gateway_that_they_are_for(here: Town) -> None:
    made = await here.token(here.gateway.url)
    assert made["token_type"] == "Bearer"
    assert await here.get(Authorization=f"Bearer {made['access_token']}") == 200
    other = await here.token("https://elsewhere.example")
    assert await here.get(Authorization=f"Bearer {other['access_token']}") == 401


async def test_its_bound_tokens_want_their_proof(here: Town) -> None:
    prover = Prover()
    made = await here.token(here.gateway.url, DPoP=prover.proof("POST", f"{here.url}/token"))
    token = made["access_token"]
    assert (made["token_type"], claims(token)["cnf"]) == ("DPoP", {"jkt": prover.thumbprint})
    assert await here.get(**prover.headers("GET", here.gateway.url + TASKS, token)) == 200
    assert await here.get(Authorization=f"Bearer {token}") == 401
    assert await here.get(**Prover().headers("GET", here.gateway.url + TASKS, token)) == 401


async def test_people_log_in_there_and_say_yes_here(here: Town) -> None:
    async with somebody(here.gateway.url, here.url) as ada:
        await ada.get(here.app.link())
        (link,) = ada.page.links
        await ada.follow(link)
        await ada.submit(login="ada", password="whatever")
        await ada.submit()  # its own question
        assert "Allow app?" in ada.page.text
        await ada.submit("allow")
        made = (await here.app.redeem(ada.answer["code"])).json()
    assert claims(made["access_token"])["sub"] == f"{here.url}#ada"
    assert await here.get(Authorization=f"Bearer {made['access_token']}") == 200


async def test_when_it_dies_its_tokens_are_good_and_nobody_logs_in(here: Town) -> None:
    made = await here.token(here.gateway.url)
    here.process.kill()
    here.process.wait()
    assert await here.get(Authorization=f"Bearer {made['access_token']}") == 200  # by the keys that are here
    assert await here.get(Authorization=f"Bearer {made['access_token'][:-6]}AAAAAA") == 401
