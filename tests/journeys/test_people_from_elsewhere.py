"""People who log in at an identity provider: who they are then, and what a provider cannot make us believe."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.issuer import SigningKey
from tests.journeys.people import AGENTS, App, app, claims, error, town
from tests.journeys.test_ownership import kept
from tests.openid import CLIENT, SECRET, OpenId, openid
from tests.person import Person, somebody
from tests.serving import Gateway, running

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


# Tenants.


@asynccontextmanager
async def tenants(data: Path, provider: OpenId, *, claim: bool = True) -> AsyncIterator[Town]:
    (data / "secret").write_text(SECRET + "\n")
    login = f"issuer: '{provider.url}', client_id: {CLIENT}, client_secret_file: {data}/secret"
    said = ", tenant_claim: [org, id]" if claim else ""
    async with running(data, f"auth: {{authorization_server: {{login: {{{login}{said}}}}}}}\n{AGENTS}") as gateway:
        yield Town(data, gateway, provider, App(gateway, "app"))


async def tokens_of(there: Town, sub: str, **claims: Any) -> dict[str, Any]:
    there.provider.claims = {"sub": sub, **claims}
    async with somebody(there.gateway.url, there.provider.url) as person:
        await by_provider(there, person)
        await person.submit("allow")
        made: dict[str, Any] = (await there.app.redeem(person.answer["code"])).json()
        return made


async def test_people_of_a_provider_are_their_tenants(tmp_path: Path) -> None:
    """One and the same subject in two tenants is two, and what a refresh token or an exchange gives stays in one."""
    async with openid() as provider, tenants(tmp_path, provider) as there:
        await app(there.gateway)
        one = await tokens_of(there, "ann", org={"id": "one"})
        two = await tokens_of(there, "ann", org={"id": "two"})
        assert [claims(each["access_token"])["tenant"] for each in (one, two)] == ["one", "two"]
        gateway = there.gateway
        task = await gateway.task("hi", who=one["access_token"])
        assert (await gateway.error("GetTask", {"id": task["id"]}, who=two["access_token"]))["code"] == -32001
        fresh = (await there.app.refresh(one["refresh_token"])).json()
        assert claims(fresh["access_token"])["tenant"] == "one"
        assert (await gateway.result("GetTask", {"id": task["id"]}, who=fresh["access_token"]))["id"] == task["id"]
        entries = await gateway.record()
        assert {entry.tenant for entry in entries if entry.verb == "LogIn"} == {"one", "two"}
        assert {entry.tenant for entry in entries if entry.task_id == task["id"]} == {"one"}


@pytest.mark.parametrize("org", [..., {}, {"id": ""}, {"id": 7}, {"id": ["one"]}, {"id": "a\nb"}])
async def test_nobody_without_a_tenant_logs_in_where_each_has_one(tmp_path: Path, org: Any) -> None:
    async with openid() as provider, tenants(tmp_path, provider) as there:
        await app(there.gateway)
        provider.claims = {"org": org}
        async with somebody(there.gateway.url, provider.url) as person:
            await by_provider(there, person)
            assert "cannot be used" in person.page.text
            assert person.answer == {}


async def test_what_was_allowed_before_people_had_tenants_is_asked_again(tmp_path: Path) -> None:
    async with openid() as provider:
        async with tenants(tmp_path, provider, claim=False) as there:
            await app(there.gateway)
            before = await tokens_of(there, "ann")
            assert "tenant" not in claims(before["access_token"])
        async with tenants(tmp_path, provider) as there:
            assert error(await there.app.refresh(before["refresh_token"])) == (400, "invalid_grant")
            after = await tokens_of(there, "ann", org={"id": "one"})
            assert (await there.app.refresh(after["refresh_token"])).status_code == 200
