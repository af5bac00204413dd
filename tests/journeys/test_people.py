"""People at the gateway's own authorization server: login, consent, codes and refresh tokens, and every way to take
what was not given. Each attack of an advisory has a twin, which shows that it works where the defence is out."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest
import pytest_asyncio

from gateway.server.oauth.authorization_server import AuthorizationServer
from gateway.server.oauth.browser import Browser
from tests.issuer import Clock
from tests.journeys.people import BACK, DEVICE, App, admin, app, challenge, claims, error, opens, town
from tests.journeys.test_ownership import kept
from tests.journeys.test_sharing import Held
from tests.person import PASSWORD, Person, somebody
from tests.serving import Gateway, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]


@dataclass
class Town:
    """`ada` has logged in at her browser."""

    data: Path
    gateway: Gateway
    clock: Clock
    app: App
    web: App
    ada: Person


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    data = tmp_path_factory.mktemp("people")
    async with town(data) as (gateway, clock), somebody(gateway.url) as ada:
        program = await app(gateway)
        await program.code(ada)
        yield Town(data, gateway, clock, program, await app(gateway, "web", public=False), ada)


# From a program to a task.


@pytest.mark.requirement("oauth.server.code", "oauth.server.iss", "oauth.server.pkce")
async def test_a_program_gets_a_token_in_the_name_of_who_said_yes(here: Town) -> None:
    gateway, program = here.gateway, here.app
    about = (await gateway.client.get("/.well-known/oauth-authorization-server")).json()
    assert about["code_challenge_methods_supported"] == ["S256"]
    assert about["authorization_response_iss_parameter_supported"]
    assert about["scopes_supported"] == ["read", "write", "offline_access"]
    async with somebody(gateway.url) as ada:
        await ada.get(program.link(resource=f"{gateway.url}/agents/echo", scope="read other"))
        await ada.log_in()
        text = ada.page.text
        assert all(words in text for words in ("Allow app?", "ada", "agents/echo at", "read", "app.example"))
        assert "other" not in text
        await ada.submit("allow")
        assert ada.sent_to.startswith(BACK + "?")
        assert ada.answer == {"code": ada.answer["code"], "state": "a state", "iss": gateway.url}
        answer = await program.redeem(ada.answer["code"])
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert (made["token_type"], made["scope"], made["expires_in"]) == ("Bearer", "read", 600)
    said = claims(made["access_token"])
    assert {name: said[name] for name in ("iss", "aud", "sub", "client_id", "scope", "roles")} == {
        "iss": gateway.url, "aud": f"{gateway.url}/agents/echo", "sub": "user:ada", "client_id": "app",
        "scope": "read", "roles": ["clerk"],
    }  # fmt: skip
    assert await opens(gateway, made["access_token"])
    assert not await opens(gateway, made["access_token"], "other")


async def test_tasks_belong_to_the_person_whichever_program_asks(here: Town) -> None:
    gateway = here.gateway
    task = await gateway.task("hi", who=(await here.app.tokens(here.ada))["access_token"])
    of_web = (await here.web.tokens(here.ada))["access_token"]
    assert (await gateway.result("GetTask", {"id": task["id"]}, who=of_web))["id"] == task["id"]
    entries = await gateway.record()
    assert ("oauth:gateway#user:ada", "SendMessage") in {(entry.principal, entry.verb) for entry in entries}


async def test_who_says_no_is_told_to_the_program_and_nothing_else(here: Town) -> None:
    await here.ada.get(here.app.link())
    await here.ada.submit("deny")
    assert here.ada.answer == {"error": "access_denied", "state": "a state", "iss": here.gateway.url}


async def test_somebody_else_at_the_same_browser_logs_in_anew(here: Town) -> None:
    async with somebody(here.gateway.url) as person:
        await here.app.code(person)
        await person.get(here.app.link())
        assert "password" not in person.page.labels  # an hour long nobody asks again
        before = person.at
        await person.submit("other")
        assert "password" in person.page.labels
        person.at = before
        assert (await person.submit("allow")).status_code == 403  # the old page is nobody's any more


# Requests that are none.


@pytest.mark.requirement("oauth.server.redirect-exact")
@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "nobody"},
        {"client_id": None},
        {"client_id": "https://elsewhere.example/client.json"},
        {"redirect_uri": BACK + "/"},
        {"redirect_uri": BACK + "?x=1"},
        {"redirect_uri": "https://app.example.evil.example/back"},
        {"redirect_uri": "https://evil.example@app.example/back"},
        {"redirect_uri": "HTTPS://app.example/back"},
        {"redirect_uri": "https://app.example/%62ack"},
        {"redirect_uri": "http://127.0.0.1/back"},
        {"redirect_uri": "javascript:alert(1)"},
    ],
)
async def test_a_link_that_is_not_the_clients_leads_nowhere(here: Town, changed: dict[str, str | None]) -> None:
    answer = await here.gateway.client.get(here.app.link(**changed))
    assert (answer.status_code, answer.headers.get("location")) == (400, None), answer.text
    assert answer.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"resource": "https://evil.example"}, "invalid_target"),
        ({"state": "s" * 3000}, "invalid_request"),
    ],
)
async def test_a_request_of_the_client_that_is_wrong_is_told_to_it(
    here: Town, changed: dict[str, str | None], said: str
) -> None:
    for program in (here.app, here.web):  # a secret does not replace PKCE
        answer = await here.gateway.client.get(program.link(**changed))
        assert answer.status_code == 303, answer.text
        told = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
        assert answer.headers["location"].startswith(BACK + "?")
        assert (told["error"], told["iss"]) == (said, here.gateway.url)


async def test_a_parameter_given_twice_is_refused(here: Town) -> None:
    answer = await here.gateway.client.get(here.app.link() + "&redirect_uri=https://evil.example")
    assert (answer.status_code, answer.headers.get("location")) == (400, None)


# Codes.


@pytest.mark.requirement("oauth.server.pkce")
async def test_a_code_is_for_who_knows_the_verifier(here: Town) -> None:
    code = await here.app.code(here.ada)
    for wrong in ("x" * 43, challenge(here.app.verifier), here.app.verifier + "x", ""):
        answer = await here.app.redeem(code, code_verifier=wrong)
        assert answer.status_code == 400, wrong
        assert answer.json()["error"] in ("invalid_grant", "invalid_request")
    assert (await here.app.redeem(code)).status_code == 200


async def test_a_code_is_for_one_client_at_one_place_and_for_a_minute(here: Town) -> None:
    code = await here.app.code(here.ada)
    stolen = await here.web.redeem(code, code_verifier=here.app.verifier)
    assert error(stolen) == (400, "invalid_grant")
    assert error(await here.app.redeem(code, redirect_uri="https://app.example/other")) == (400, "invalid_grant")
    assert error(await here.app.redeem(code, resource=f"{here.gateway.url}/agents/echo")) == (400, "invalid_target")
    assert error(await here.app.redeem("x" + code)) == (400, "invalid_grant")
    here.clock.ahead += 61
    assert error(await here.app.redeem(code)) == (400, "invalid_grant")


async def test_a_client_of_oauth_2_1_sends_no_redirect_uri_with_its_code(here: Town) -> None:
    """§10.2: PKCE has taken its place. Nor does it have to be in the link where there is only one."""
    for asked in ({}, {"redirect_uri": None}):
        await here.ada.get(here.app.link(**asked))
        await here.ada.submit("allow")
        form = {"code": here.ada.answer["code"], "code_verifier": here.app.verifier}
        assert (await here.app.token("authorization_code", **form)).status_code == 200
        again = await here.app.token("authorization_code", **form)
        assert error(again) == (400, "invalid_grant")  # and it is good once all the same


@pytest.mark.requirement("oauth.server.code-once")
async def test_a_code_that_comes_again_ends_what_it_gave(here: Town) -> None:
    code = await here.app.code(here.ada)
    made = (await here.app.redeem(code)).json()
    assert await opens(here.gateway, made["access_token"])
    assert error(await here.app.redeem(code)) == (400, "invalid_grant")
    assert not await opens(here.gateway, made["access_token"])
    assert error(await here.app.refresh(made["refresh_token"])) == (400, "invalid_grant")


async def test_one_code_raced_by_ten_gives_one_token_or_none(here: Town) -> None:
    code = await here.app.code(here.ada)
    answers = await asyncio.gather(*(here.app.redeem(code) for _ in range(10)))
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(good) <= 1
    for made in good:  # and the replays have ended it
        assert not await opens(here.gateway, made["access_token"])


# Refresh tokens.


@pytest.mark.requirement("oauth.server.refresh", "oauth.server.refresh-family")
async def test_a_refresh_token_is_good_once_and_a_second_time_ends_all_of_its_family(here: Town) -> None:
    made = await here.app.tokens(here.ada, scope="read write")
    first = made["refresh_token"]
    second = (await here.app.refresh(first)).json()
    assert second["refresh_token"] != first
    assert second["scope"] == "read write"
    assert (await here.app.refresh(second["refresh_token"], scope="read")).json()["scope"] == "read"
    assert await opens(here.gateway, second["access_token"])
    assert error(await here.app.refresh(first)) == (400, "invalid_grant")
    for access in (made["access_token"], second["access_token"]):
        assert not await opens(here.gateway, access)
    assert error(await here.app.refresh(second["refresh_token"])) == (400, "invalid_grant")


async def test_a_refresh_token_gives_nothing_more_and_to_nobody_else(here: Town) -> None:
    made = await here.app.tokens(here.ada, resource=f"{here.gateway.url}/agents/echo")
    word = made["refresh_token"]
    for more in ({"scope": "read write"}, {"scope": "admin"}):
        assert error(await here.app.refresh(word, **more)) == (400, "invalid_scope")
    assert error(await here.app.refresh(word, resource=here.gateway.url)) == (400, "invalid_target")
    assert error(await here.web.refresh(word)) == (400, "invalid_grant")
    # Nor does another client's word end anything: it may have been read in a log.
    grant = word.split(".")[0]
    for forged in (f"{grant}.x", claims(made["access_token"])["sid"] + ".x", "x.y", "."):
        assert error(await here.web.refresh(forged)) == (400, "invalid_grant")
    again = (await here.app.refresh(word)).json()
    assert claims(again["access_token"])["aud"] == f"{here.gateway.url}/agents/echo"


async def test_two_at_once_with_one_refresh_token_are_a_theft(here: Town) -> None:
    word = (await here.app.tokens(here.ada))["refresh_token"]
    answers = await asyncio.gather(*(here.app.refresh(word) for _ in range(5)))
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(good) <= 1
    for made in good:
        assert error(await here.app.refresh(made["refresh_token"])) == (400, "invalid_grant")
        assert not await opens(here.gateway, made["access_token"])


async def test_a_revoked_refresh_token_takes_its_access_tokens_with_it(here: Town) -> None:
    made = await here.app.tokens(here.ada)
    assert (await here.web.form("/oauth/revoke", token=made["refresh_token"])).status_code == 200
    assert await opens(here.gateway, made["access_token"])  # not web's to revoke
    assert (await here.app.form("/oauth/revoke", token=made["refresh_token"])).status_code == 200
    assert not await opens(here.gateway, made["access_token"])


async def test_a_grant_ends_after_its_days(tmp_path: Path) -> None:
    async with town(tmp_path, ", grant_days: 1") as (gateway, clock):
        program = await app(gateway)
        word = (await program.tokens())["refresh_token"]
        clock.ahead += 86_000
        word = (await program.refresh(word)).json()["refresh_token"]
        clock.ahead += 500
        assert error(await program.refresh(word)) == (400, "invalid_grant")


# Users.


async def test_a_removed_user_and_one_with_a_new_password_lose_what_was_open(here: Town) -> None:
    gateway = here.gateway
    await admin(gateway, "users", name="bob", password=PASSWORD)
    async with somebody(gateway.url) as bob:
        await bob.get(here.app.link())
        await bob.log_in("Bob ")
        await bob.submit("allow")
        made = (await here.app.redeem(bob.answer["code"])).json()
        assert await opens(gateway, made["access_token"])
        await admin(gateway, "users/bob:password", password="another long password")
        assert not await opens(gateway, made["access_token"])
        await bob.get(here.app.link())
        await bob.log_in("bob", "another long password")
        await bob.submit("allow")
        made = (await here.app.redeem(bob.answer["code"])).json()
        answer = await gateway.client.delete("/admin/users/bob", headers=gateway.bearer(None))
        assert answer.status_code == 204
        assert not await opens(gateway, made["access_token"])
        assert error(await here.app.refresh(made["refresh_token"])) == (400, "invalid_grant")
        await bob.get(here.app.link())
        assert "password" in bob.page.labels
    again = {"name": "bob", "password": PASSWORD}
    answer = await gateway.client.post("/admin/users", json=again, headers=gateway.bearer(None))
    assert answer.status_code == 409


async def test_whoever_had_an_old_password_keeps_nothing_that_they_began_with_it(here: Town) -> None:
    """Neither the login at their browser, nor a page that is open, nor a code, nor a device that they said yes to."""
    gateway = here.gateway
    await admin(gateway, "users", name="kim", password=PASSWORD)
    async with somebody(gateway.url) as thief:
        await thief.get(here.app.link())
        await thief.log_in("kim")
        await thief.submit("allow")
        code = thief.answer["code"]
        asked = (await here.app.form("/oauth/device_authorization")).json()
        await thief.get(asked["verification_uri_complete"])
        await thief.submit()
        await thief.submit("allow")
        await thief.get(here.app.link())
        assert "Allow app?" in thief.page.text
        await admin(gateway, "users/kim:password", password="another long password")
        assert (await thief.submit("allow")).status_code == 403
        assert error(await here.app.redeem(code)) == (400, "invalid_grant")
        answer = await here.app.token(DEVICE, device_code=asked["device_code"])
        assert error(answer) == (400, "invalid_grant")
        await thief.get(here.app.link())
        assert "password" in thief.page.labels
        answer = await gateway.client.get("/admin/grants", params={"person": "user:kim"}, headers=gateway.bearer(None))
        assert answer.json()["grants"] == []
        await thief.log_in("kim", "another long password")
        await thief.submit("allow")
        assert (await here.app.redeem(thief.answer["code"])).status_code == 200


async def test_what_a_person_has_allowed_is_listed_and_can_be_ended_by_the_operator(here: Town) -> None:
    gateway = here.gateway
    await admin(gateway, "users", name="gus", password=PASSWORD)

    async def grants() -> list[dict[str, Any]]:
        query = {"person": "user:gus"}
        answer = await gateway.client.get("/admin/grants", params=query, headers=gateway.bearer(None))
        found: list[dict[str, Any]] = answer.json()["grants"]
        return found

    async with somebody(gateway.url) as gus:
        await gus.get(here.app.link())
        await gus.log_in("gus")
        await gus.submit("allow")
        made = (await here.app.redeem(gus.answer["code"])).json()
    (grant,) = await grants()
    assert (grant["person"], grant["name"]) == ("user:gus", "gus")
    assert grant["id"] not in made["refresh_token"], "who reads the list can refresh nothing"
    assert made["refresh_token"].partition(".")[0] not in str(grant)
    assert await opens(gateway, made["access_token"])
    for status in (204, 404):
        answer = await gateway.client.delete(f"/admin/grants/{grant['id']}", headers=gateway.bearer(None))
        assert answer.status_code == status
    assert not await opens(gateway, made["access_token"])
    assert error(await here.app.refresh(made["refresh_token"])) == (400, "invalid_grant")
    assert await grants() == []
    entries = [entry for entry in await gateway.record() if entry.verb == "RemoveGrant"]
    assert [entry.outcome for entry in entries] == ["ok", "NOT_FOUND"]
    assert entries[0].change is not None
    assert [each["principal"] for each in entries[0].change["before"]] == ["oauth:gateway#user:gus"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "eve", "password": "short"}, "password"),
        ({"name": "eve", "password": "x" * 300}, "password"),
        ({"name": "Eve", "password": PASSWORD}, "name"),
        ({"name": "user:eve", "password": PASSWORD}, "name"),
        ({"name": "eve", "password": PASSWORD, "roles": ["a b"]}, "roles"),
    ],
)
async def test_a_user_needs_a_name_and_a_long_password(here: Town, body: dict[str, str], field: str) -> None:
    answer = await here.gateway.client.post("/admin/users", json=body, headers=here.gateway.bearer(None))
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"]
    assert PASSWORD not in answer.text


async def test_a_token_of_a_person_is_not_the_operator(here: Town) -> None:
    token = (await here.app.tokens(here.ada))["access_token"]
    for path in ("clients", "users", "keys", "tasks"):
        answer = await here.gateway.client.get(f"/admin/{path}", headers=here.gateway.bearer(token))
        assert answer.status_code == 403


@pytest.mark.requirement("oauth.server.login-guesses")
async def test_a_name_that_nobody_has_looks_like_a_wrong_password_and_guessing_ends(here: Town) -> None:
    async with somebody(here.gateway.url) as guest:
        told, took = {}, dict[str, float]()
        for name in ("nobody", "ada", "nobody", "ada"):
            await guest.get(here.app.link())
            begun = time.process_time()
            answer = await guest.log_in(name, "wrong wrong wrong")
            # The gateway runs in this process; the shorter of two is the one without a garbage collection.
            took[name] = min(took.get(name, math.inf), time.process_time() - begun)
            assert answer.status_code == 403
            told[name] = [line for line in guest.page.text.splitlines() if line.strip()]
        assert told["ada"] == told["nobody"]
        assert 0.4 < took["ada"] / took["nobody"] < 2.5  # both are one Argon2id; without it one takes a hundredth
        for _ in range(3):
            await guest.get(here.app.link())
            answer = await guest.log_in("ada", "wrong wrong wrong")
        await guest.get(here.app.link())
        answer = await guest.log_in("ada", PASSWORD)  # even the right one, for now
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        here.clock.ahead += 31
        await guest.get(here.app.link())
        assert (await guest.log_in("ada", PASSWORD)).status_code == 200


async def test_whoever_waits_as_long_as_they_were_told_is_not_told_to_wait_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a part of a second, too: a wait of 29.4 s is 30."""
    monkeypatch.setattr("tests.journeys.people.Clock", Held)
    async with town(tmp_path) as (gateway, clock), somebody(gateway.url) as guest:
        program = await app(gateway)

        async def tries(password: str) -> httpx2.Response:
            await guest.get(program.link())
            return await guest.log_in("ada", password)

        while (await tries("wrong wrong wrong")).status_code == 403:
            pass
        clock.ahead += 0.6
        told = int((await tries(PASSWORD)).headers["retry-after"])
        clock.ahead += told
        assert (await tries(PASSWORD)).status_code == 200


@pytest.mark.parametrize("trusted", [True, False])
async def test_behind_a_proxy_guesses_are_of_whom_the_proxy_has_seen(tmp_path: Path, trusted: bool) -> None:
    proxies = "server: {trusted_proxies: [127.0.0.0/8]}\n" if trusted else ""
    async with town(tmp_path, more=proxies) as (gateway, _), somebody(gateway.url) as mallory:
        program = await app(gateway)
        mallory.http.headers["x-forwarded-for"] = "203.0.113.7"
        for _ in range(5):
            await mallory.get(program.link())
            assert (await mallory.log_in("ada", "wrong wrong wrong")).status_code == 403
        await mallory.get(program.link())
        assert (await mallory.log_in()).status_code == 429
        async with somebody(gateway.url) as ada:
            ada.http.headers["x-forwarded-for"] = "203.0.113.7, 198.51.100.8"  # the first says what it likes
            await ada.get(program.link())
            assert (await ada.log_in()).status_code == (200 if trusted else 429)


async def test_who_has_many_addresses_of_ipv6_guesses_no_more_often(tmp_path: Path) -> None:
    proxies = "server: {trusted_proxies: [127.0.0.0/8]}\n"
    async with town(tmp_path, more=proxies) as (gateway, clock), somebody(gateway.url) as mallory:
        program, begun = await app(gateway), clock.now()
        for number, status in ((1, 403), (2, 403), (3, 403), (4, 403), (5, 403), (6, 429)):
            mallory.http.headers["x-forwarded-for"] = f"2001:db8:7::{number}"
            await mallory.get(program.link())
            clock.ahead += 4 * number - (clock.now() - begun) / 1000  # four seconds each, however slow this machine is
            assert (await mallory.log_in("ada", "wrong wrong wrong")).status_code == status
        async with somebody(gateway.url) as ada:
            ada.http.headers["x-forwarded-for"] = "2001:db8:7:1::1"  # a neighbour
            await ada.get(program.link())
            assert (await ada.log_in()).status_code == 200


# Browsers.


async def test_pages_can_be_used_without_script_and_framed_by_nobody(here: Town) -> None:
    async with somebody(here.gateway.url) as person:
        steps: list[Callable[[], Awaitable[httpx2.Response]]] = [
            lambda: person.get(here.app.link()),
            lambda: person.log_in("ada", "wrong wrong wrong"),
            lambda: person.log_in(),
            lambda: person.get("/oauth/device"),
            lambda: person.get("/oauth/authorize"),
        ]
        for step in steps:
            answer = await step()
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cache-control"] == "no-store"
            # With no-referrer a browser would send `Origin: null` with these forms, and be refused at the door.
            assert answer.headers["referrer-policy"] == "same-origin"
            assert not {"script", "img", "iframe", "link"} & set(person.page.tags)
            assert "h1" in person.page.tags
            typed = {name for form in person.page.forms for name in form.fields} - {"visit"}
            assert len(person.page.labels) == len(typed)


async def test_cookies_are_for_this_host_alone_where_there_is_https(tmp_path: Path) -> None:
    text = "server: {public_url: 'https://gw.example'}\nauth: {authorization_server: {users: true}}\n"
    async with running(tmp_path, text) as gateway:
        await admin(gateway, "clients", id="app", public=True, grants=["authorization_code"], redirects=[BACK])
        link = App(gateway, "app").link().replace("https://gw.example", "")
        (cookie,) = (await gateway.client.get(link)).headers.get_list("set-cookie")
        assert cookie.startswith("__Host-gateway-browser=")
        assert all(word in cookie for word in ("HttpOnly", "Path=/", "SameSite=lax", "Secure"))


async def test_what_a_client_says_about_itself_is_text(tmp_path: Path) -> None:
    async with town(tmp_path, ", registration: open") as (gateway, _), somebody(gateway.url) as ada:
        name = "<script>alert(1)</script>\u202e\x1b[2J\"'>"
        body = {"client_name": name, "redirect_uris": [BACK], "token_endpoint_auth_method": "none"}
        made = (await gateway.client.post("/oauth/register", json=body)).json()
        await ada.get(App(gateway, made["client_id"]).link())
        await ada.log_in()
        assert "script" not in ada.page.tags
        assert "Allow <script>alert(1)</script>[2J\"'>?" in ada.page.text
        assert "Nobody has checked" in ada.page.text
        assert ada.at is not None
        assert not {"\u202e", "\x1b"} & set(ada.at.text)


@pytest.mark.requirement("oauth.server.consent-bound")
@pytest.mark.parametrize("defended", [True, False])
async def test_cve_2026_27124_consent_given_in_one_browser_is_not_for_another(
    here: Town, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GHSA-rww4-4w9c-7733: the attacker begins, has the page with the question, and lets the victim, who is logged
    in, send its form. Without the binding to the browser the victim's yes would be the attacker's."""
    if not defended:
        mark: Any = vars(Browser)["mark"].fget
        monkeypatch.setattr(Browser, "mark", property(lambda browser: mark(browser) and "everybody"))
    async with somebody(here.gateway.url) as attacker, somebody(here.gateway.url) as victim:
        await here.app.code(victim)
        await attacker.get(here.app.link(state="the attacker's"))
        await attacker.log_in()
        victim.at, victim.sent_to = attacker.at, ""
        answer = await victim.submit("allow")
        assert (answer.status_code == 403, "code=" in victim.sent_to) == (defended, not defended)


async def test_a_login_form_of_one_browser_opens_nothing_in_another(here: Town) -> None:
    """Login CSRF: the victim would work as the attacker."""
    async with somebody(here.gateway.url) as attacker, somebody(here.gateway.url) as victim:
        await attacker.get(here.app.link())
        await victim.get(here.app.link())
        victim.at = attacker.at
        assert (await victim.log_in()).status_code == 403


async def test_a_planted_cookie_is_worth_nothing_after_the_login(here: Town) -> None:
    """Session fixation: the attacker knows the victim's browser cookie from before."""
    async with somebody(here.gateway.url) as attacker, somebody(here.gateway.url) as victim:
        await attacker.get(here.app.link())
        victim.http.cookies = httpx2.Cookies(attacker.http.cookies)
        victim.at = attacker.at
        await victim.log_in()
        assert "Allow" in victim.page.text
        await attacker.get(here.app.link())
        assert "password" in attacker.page.labels


async def test_forms_from_elsewhere_and_of_another_hour_are_refused(here: Town) -> None:
    async with somebody(here.gateway.url) as person:
        await person.get(here.app.link())
        (form,) = person.page.forms
        data = {**form.fields, "name": "ada", "password": PASSWORD}
        for origin in ("https://evil.example", "null"):
            answer = await person.http.post(f"{here.gateway.url}/oauth/login", data=data, headers={"origin": origin})
            assert answer.status_code == 403
        here.clock.ahead += 601
        assert (await person.log_in()).status_code == 403


@pytest.mark.parametrize("defended", [True, False])
async def test_cve_2025_69196_a_token_is_for_the_resource_that_was_asked_for(
    here: Town, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token was minted for the base URL, whatever `resource` said."""
    if not defended:
        monkeypatch.setattr(AuthorizationServer, "audience", lambda server, resource: server.url)
    made = await here.app.tokens(here.ada, resource=f"{here.gateway.url}/agents/echo")
    assert await opens(here.gateway, made["access_token"], "other") is not defended


@pytest.mark.parametrize("defended", [True, False])
async def test_ghsa_c2jp_c369_7pvx_nobody_is_passed_on_without_being_asked(
    here: Town, defended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The confused deputy: a person who is logged in follows a link of a client that they never heard of."""
    if not defended:
        monkeypatch.setattr("gateway.server.oauth.consent.Consent._ask_consent", _at_once)
    await here.ada.get(here.app.link())
    assert ("code" in here.ada.answer and here.ada.at is not None and here.ada.at.is_redirect) is not defended


def _at_once(consent, browser, visit, client, person):  # type: ignore[no-untyped-def]
    return consent._told(visit, person, True)


# What is kept, and the program.


async def test_passwords_and_tokens_are_kept_as_what_nobody_can_read(
    here: Town, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with somebody(here.gateway.url) as ada:
        code = await here.app.code(ada)
        made = (await here.app.redeem(code)).json()
        made |= {"next": (await here.app.refresh(made["refresh_token"])).json()["refresh_token"]}
        secret = [PASSWORD, code, here.web.secret, here.app.verifier, *ada.http.cookies.values()]
    secret += [made["refresh_token"].split(".")[1], made["next"].split(".")[1], made["access_token"].split(".")[2]]
    on_disk = kept(here.data)
    said = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))  # not ours
    for word in secret:
        assert word not in said
        assert word.encode() not in on_disk
    assert b"$argon2id$v=19$m=65536,t=3" in on_disk
