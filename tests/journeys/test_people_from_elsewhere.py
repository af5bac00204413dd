"""People who log in at an identity provider: who they are then, and what a provider cannot make us believe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.issuer import SigningKey
from tests.journeys.people import App, app, claims, town
from tests.journeys.test_ownership import kept
from tests.openid import CLIENT, SECRET, OpenId, openid
from tests.person import Person, somebody
from tests.serving import Gateway

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]


@dataclass
class Town:
    data: Path
    gateway: Gateway
    provider: OpenId
    app: App


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    data = tmp_path_factory.mktemp("elsewhere")
    (data / "secret").write_text(SECRET + "\n")
    async with openid() as provider:
        login = f"issuer: '{provider.url}', client_id: {CLIENT}, client_secret_file: {data}/secret, roles_claim: groups"
        async with town(data, f", login: {{{login}, name: The office}}") as (gateway, _):
            yield Town(data, gateway, provider, await app(gateway))


@pytest_asyncio.fixture(loop_scope="module")
async def ada(here: Town) -> AsyncIterator[Person]:
    async with somebody(here.gateway.url, here.provider.url) as person:
        yield person
    for name, usual in vars(OpenId()).items():  # the next one finds the provider as it was
        if name not in ("url", "key"):
            setattr(here.provider, name, usual)


async def by_provider(here: Town, ada: Person) -> None:
    await ada.get(here.app.link())
    (link,) = ada.page.links
    await ada.follow(link)


@pytest.mark.requirement("oauth.server.login-provider")
async def test_a_person_logs_in_at_the_provider_and_is_somebody_of_that_provider(here: Town, ada: Person) -> None:
    here.provider.claims = {"groups": ["clerk", "eu"]}
    await by_provider(here, ada)
    asked = here.provider.asked
    assert (asked["client_id"], asked["scope"], asked["code_challenge_method"]) == (CLIENT, "openid", "S256")
    assert asked["redirect_uri"] == f"{here.gateway.url}/oauth/callback"
    assert "ada@example.com" in ada.page.text
    await ada.submit("allow")
    made = (await here.app.redeem(ada.answer["code"])).json()
    said = claims(made["access_token"])
    assert (said["sub"], said["roles"]) == (f"{here.provider.url}#248289", ["clerk", "eu"])
    entries = await here.gateway.record()
    assert f"oauth:gateway#{here.provider.url}#248289" in {entry.principal for entry in entries}
    assert b"theirs" not in kept(here.data)  # nothing of what the provider gave is kept


@pytest.mark.requirement("oauth.server.login-id-token")
@pytest.mark.parametrize(
    "changed",
    [
        {"claims": {"nonce": "another"}},
        {"claims": {"nonce": ...}},
        {"claims": {"aud": "somebody"}},
        {"claims": {"aud": [CLIENT, "somebody"]}},
        {"claims": {"azp": "somebody"}},
        {"claims": {"iss": "https://evil.example"}},
        {"claims": {"exp": 1}},
        {"claims": {"exp": ...}},
        {"claims": {"iat": 1}},
        {"claims": {"sub": ""}},
        {"claims": {"sub": 7}},
        {"claims": {"sub": "x" * 300}},
        {"claims": {"groups": {"admin": True}}},
        {"header": {"alg": "none"}},
        {"header": {"alg": "HS256"}},
        {"header": {"kid": "two"}},
        {"header": {"jku": "https://evil.example/jwks"}},
        {"forged": SigningKey.make("one")},
        {"back": {"iss": "https://evil.example"}},
        {"back": {"iss": ""}},
        {"back": {"code": "other"}},
        {"back": {"code": "", "error": "access_denied"}},
        {"back": {"state": "x"}},
    ],
    ids=lambda changed: str(changed)[:40],
)
async def test_what_a_provider_says_wrongly_lets_nobody_in(here: Town, ada: Person, changed: dict[str, Any]) -> None:
    for name, value in changed.items():
        setattr(here.provider, name, value)
    await by_provider(here, ada)
    assert ada.at is not None
    assert ada.at.status_code == 403
    assert not ada.sent_to
    await ada.get(here.app.link())
    assert ada.page.links  # nobody is logged in


async def test_a_provider_that_wants_the_secret_in_the_form_gets_it_there(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    async with openid() as provider:
        provider.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
        login = f"issuer: '{provider.url}', client_id: {CLIENT}, client_secret_file: {tmp_path}/secret"
        async with (
            town(tmp_path / "data", f", login: {{{login}}}") as (gateway, _),
            somebody(gateway.url, provider.url) as ada,
        ):
            await ada.get((await app(gateway)).link())
            (link,) = ada.page.links
            await ada.follow(link)
            assert "Allow app?" in ada.page.text


async def test_a_provider_that_is_down_is_a_sentence_and_the_password_still_works(here: Town, ada: Person) -> None:
    here.provider.down = {"/token"}
    await by_provider(here, ada)
    assert "cannot be reached now" in ada.page.text
    await ada.log_in()
    assert "Allow app?" in ada.page.text


async def test_an_answer_of_the_provider_is_for_the_browser_that_asked(here: Town, ada: Person) -> None:
    """The attacker logs in at the provider and gives the victim the link back (login CSRF)."""
    async with somebody(here.gateway.url, here.provider.url) as attacker, somebody(here.gateway.url) as victim:
        attacker.visits = ()
        await by_provider(here, attacker)
        on_the_way = attacker.sent_to
        answer = await attacker.http.get(on_the_way)
        await victim.get(here.app.link())
        assert (await victim.get(answer.headers["location"])).status_code == 403
        attacker.visits = (here.provider.url,)
        assert (await attacker.get(answer.headers["location"])).status_code == 200
