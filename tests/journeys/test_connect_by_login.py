"""People whose programs got their tokens by OAuth have never seen a credential: they connect, and see what is
connected, by logging in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.authority import Authority, authority, browse, guarded
from tests.journeys.people import App, admin, app
from tests.journeys.test_mcp_connect import again, asked, configuration, leads_to, link_in
from tests.journeys.test_mcp_oauth import login
from tests.mcp import Door
from tests.person import PASSWORD, Person, somebody
from tests.serving import Gateway, running

pytestmark = [pytest.mark.asyncio, pytest.mark.security]


@dataclass
class House:
    gateway: Gateway
    app: App
    by: Authority

    async def door(self, person: Person, name: str) -> Door:
        """What a program of theirs calls through, with the token that it got."""
        await person.get(self.app.link())
        await person.log_in(name)
        await person.submit("allow")
        made = (await self.app.redeem(person.answer["code"])).json()
        return Door(self.gateway, "docs", made["access_token"])


@asynccontextmanager
async def house(data: Path) -> AsyncIterator[House]:
    async with authority() as by, guarded(by) as server:
        granted = 'grants:\n  - {to: "user:ada", tools: [docs]}\n  - {to: "user:bob", tools: [docs]}'
        text = "auth: {authorization_server: {users: true}}\n" + configuration(server).replace("grants:", granted)
        async with running(data, text) as gateway:
            await login(gateway)
            for name in ("ada", "bob"):
                await admin(gateway, "users", name=name, password=PASSWORD)
            yield House(gateway, await app(gateway), by)


@pytest.mark.requirement("mcp.client.own-authorization")
async def test_a_person_connects_by_logging_in_and_sees_it_on_their_page(tmp_path: Path) -> None:
    async with house(tmp_path) as here, somebody(here.gateway.url) as elsewhere, somebody(here.gateway.url) as ada:
        door = await here.door(elsewhere, "ada")
        came = await asked(door)
        await ada.get(link_in(came))
        assert "credential" in ada.page.labels
        (log_in,) = ada.page.links
        await ada.follow(log_in)
        assert "A page of this gateway wants to know who you are" in ada.page.text
        assert (await ada.log_in(password="wrong wrong wrong")).status_code == 403
        await ada.log_in()
        assert "logged in here as ada" in ada.page.text
        leading = await ada.submit()
        assert leading.status_code == 200, leading.text
        assert "may use docs in your name" in (await ada.get(await browse(leads_to(leading)))).text
        assert (await again(door, came))["content"][0]["text"] == "hello"
        await ada.get("/oauth/connections")
        assert here.by.issuer in ada.page.text
        assert "logged in as ada" in ada.page.text
        await ada.submit()
        assert "The gateway has forgotten it" in ada.page.text
        assert (await asked(door))["resultType"] == "input_required"


async def test_a_link_of_somebody_else_is_no_use_to_whoever_has_logged_in(tmp_path: Path) -> None:
    async with house(tmp_path) as here, somebody(here.gateway.url) as ada, somebody(here.gateway.url) as bob:
        link = link_in(await asked(await here.door(ada, "ada")))
        await here.door(bob, "bob")
        before = len(here.by.asked)
        await bob.get(link)
        assert "logged in here as bob" in bob.page.text
        refused = await bob.submit()
        assert (refused.status_code, "for another caller" in refused.text) == (403, True)
        assert len(here.by.asked) == before
        # Nor does another page make their browser do it: neither by its forms, nor by a redirect.
        (form,) = (await ada.get(link), ada.page.forms)[1]
        ticket = {"ticket": form.fields["ticket"]}
        crossing = await ada.http.post(link.split("?")[0], data=ticket, headers={"Origin": "https://evil.example"})
        assert crossing.status_code == 403
        for wrong in ("?to=https://evil.example", "?to=//evil.example", "?to=device", ""):
            answer = await ada.http.get(f"{here.gateway.url}/oauth/visit{wrong}")
            assert (answer.status_code, answer.headers.get("location")) == (404, None)
        answer = await ada.http.get(f"{here.gateway.url}/oauth/visit", params={"to": "connect", "ticket": "//x\r\ny"})
        assert answer.headers["location"] == "connect?ticket=//x%0D%0Ay"
        # Whoever sits there now is asked, and who was there before is gone.
        await ada.get("/oauth/visit?to=connections&other=yes")
        assert "password" in ada.page.labels
        await ada.get("/oauth/connections")
        assert "credential" in ada.page.labels
        # A new password ends the login here as well.
        await admin(here.gateway, "users/bob:password", password="another long password")
        await bob.get("/oauth/connections")
        assert "credential" in bob.page.labels
