"""The device flow (RFC 8628): a program without a browser, and a person with one elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from gateway.server.oauth.codes import plain
from tests.issuer import Clock
from tests.journeys.people import DEVICE, App, app, claims, error, opens, town
from tests.person import Person, somebody
from tests.serving import Gateway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]


@dataclass
class Town:
    gateway: Gateway
    clock: Clock
    box: App
    ada: Person

    async def begin(self, **form: str) -> dict[str, Any]:
        answer = await self.box.form("/oauth/device_authorization", **form)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def ask(self, made: dict[str, Any], **more: str) -> Any:
        self.clock.ahead += 5
        return await self.box.token(DEVICE, device_code=made["device_code"], **more)

    async def answer(self, made: dict[str, Any], button: str) -> None:
        await self.ada.get(made["verification_uri"])
        await self.ada.submit(user_code=made["user_code"].lower().replace("-", " "))
        if "password" in self.ada.page.labels:
            await self.ada.log_in()
        await self.ada.submit(button)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with town(tmp_path_factory.mktemp("devices")) as (gateway, clock), somebody(gateway.url) as ada:
        box = await app(gateway, "box", grants=["device_code", "refresh_token"], redirects=[], name="The box")
        yield Town(gateway, clock, box, ada)


@pytest.mark.requirement("oauth.server.device")
async def test_a_device_waits_until_a_person_has_said_yes(here: Town) -> None:
    made = await here.begin(scope="read", resource=f"{here.gateway.url}/agents/echo")
    assert made.keys() == {
        "device_code", "user_code", "verification_uri", "verification_uri_complete", "expires_in", "interval",
    }  # fmt: skip
    assert error(await here.ask(made)) == (400, "authorization_pending")
    # The link with the code only fills it in: who follows it says yes to it themselves.
    await here.ada.get(made["verification_uri_complete"])
    assert here.ada.page.forms[0].fields["user_code"] == made["user_code"]
    await here.ada.submit()
    await here.ada.log_in()
    assert all(words in here.ada.page.text for words in ("Allow The box?", made["user_code"], "agents/echo"))
    await here.ada.submit("allow")
    assert "Go back to your device" in here.ada.page.text
    tokens = (await here.ask(made)).json()
    said = claims(tokens["access_token"])
    assert (said["sub"], said["aud"], said["scope"]) == ("user:ada", f"{here.gateway.url}/agents/echo", "read")
    assert await opens(here.gateway, tokens["access_token"])
    assert (await here.box.refresh(tokens["refresh_token"])).status_code == 200
    assert error(await here.ask(made)) == (400, "invalid_grant")  # a code is for once


async def test_a_device_that_was_refused_gets_nothing(here: Town) -> None:
    made = await here.begin()
    await here.answer(made, "deny")
    assert error(await here.ask(made)) == (400, "access_denied")
    await here.ada.get(made["verification_uri"])
    answer = await here.ada.submit(user_code=made["user_code"])
    assert answer.status_code == 403  # nobody can change the answer


async def test_a_device_that_is_impatient_must_wait_longer_and_one_that_is_late_begins_again(here: Town) -> None:
    made = await here.begin()
    assert error(await here.ask(made)) == (400, "authorization_pending")
    hasty = await here.box.token(DEVICE, device_code=made["device_code"])
    assert error(hasty) == (400, "slow_down")
    assert error(await here.ask(made)) == (400, "slow_down")  # five seconds are not enough any more
    here.clock.ahead += 600
    assert error(await here.ask(made)) == (400, "expired_token")
    await here.ada.get(made["verification_uri"])
    assert (await here.ada.submit(user_code=made["user_code"])).status_code == 403


async def test_another_client_gets_nothing_for_a_device_code(here: Town) -> None:
    made = await here.begin()
    await here.answer(made, "allow")
    other = await app(here.gateway, "other-box", grants=["device_code"], redirects=[])
    answer = await other.token(DEVICE, device_code=made["device_code"])
    assert answer.status_code == 400
    assert (await here.ask(made)).status_code == 200


async def test_codes_cannot_be_guessed(here: Town) -> None:
    here.clock.ahead += 300  # whatever was typed wrong above is forgiven
    made = await here.begin()
    async with somebody(here.gateway.url) as guest:
        for _ in range(5):
            await guest.get(made["verification_uri"])
            assert (await guest.submit(user_code="BBBB-BBBB")).status_code == 403
        await guest.get(made["verification_uri"])
        answer = await guest.submit(user_code=made["user_code"])
        assert answer.status_code == 429
        assert "retry-after" in answer.headers
    here.clock.ahead += 31


async def test_a_client_that_may_not_is_refused(here: Town) -> None:
    web = await app(here.gateway, "no-box", grants=["authorization_code"])
    assert error(await web.form("/oauth/device_authorization")) == (400, "unauthorized_client")
    nobody = App(here.gateway, "nobody")
    assert error(await nobody.form("/oauth/device_authorization")) == (401, "invalid_client")
    answer = await here.box.form("/oauth/device_authorization", resource="https://evil.example")
    assert error(answer) == (400, "invalid_target")


async def test_case_and_punctuation_of_a_typed_code_do_not_count() -> None:
    assert plain(" bcdf ghjk ") == plain("BCDF-GHJK") == "BCDFGHJK"
