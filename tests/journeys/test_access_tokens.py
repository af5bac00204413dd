"""Tokens of an identity provider at the door: who they make their holders, and what happens when the provider is slow,
dead, lying or changing its keys. The provider is real and on loopback; the clock is moved, never waited for."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.dialects.oauth2 import access_token as said
from tests.issuer import Clock, Issuer, SigningKey, issuing
from tests.journeys.test_ownership import kept
from tests.prover import Prover
from tests.remote import agents, command, ready, scripted
from tests.serving import A2A, BOUND, ROOT, Gateway, message, running

WELL_KNOWN = "/.well-known/oauth-protected-resource"
ECHO = f"{{run: 'agents.echo:Echo', card: {ROOT}/agent_cards/echo.json"


def config(issuer: Issuer, more: str = "") -> str:
    return f"""
auth: {{issuers: [{{issuer: '{issuer.url}'{more}}}]}}
agents:
  echo: {ECHO}, public: true}}
  other: {ECHO}, public: true}}
  hidden: {ECHO}}}
"""


@asynccontextmanager
async def house(tmp_path: Path, more: str = "", **about: Any) -> AsyncIterator[tuple[Gateway, Issuer, Clock]]:
    """A gateway that trusts one issuer, the issuer, and the gateway's clock."""
    clock = Clock()
    async with issuing(**about) as issuer, running(tmp_path, config(issuer, more), now=clock.now) as gateway:
        yield gateway, issuer, clock


async def status(gateway: Gateway, token: str, path: str = "/agents/echo/tasks") -> int:
    return (await listing(gateway, token, path)).status_code


async def listing(gateway: Gateway, token: str, path: str = "/agents/echo/tasks") -> httpx2.Response:
    return await gateway.client.get(path, headers={**A2A, **gateway.bearer(token)})


def refused(answer: httpx2.Response) -> str:
    """Why a token was refused."""
    assert answer.status_code == 401, answer.text
    return str(answer.headers["www-authenticate"].split('error_description="')[1].split('"')[0])


# Who it is.


@pytest.mark.requirement("oauth.principal.per-subject")
async def test_two_people_of_one_issuer_do_not_see_each_others_tasks(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, _):
        alice, bob = (issuer.token(gateway.url, sub=name) for name in ("alice", "bob"))
        task = await gateway.task("hi", who=alice)
        assert (await gateway.result("GetTask", {"id": task["id"]}, who=alice))["id"] == task["id"]
        error = await gateway.error("GetTask", {"id": task["id"]}, who=bob)
        assert error["data"][0]["reason"] == "TASK_NOT_FOUND"
        assert (await gateway.result("ListTasks", who=bob))["tasks"] == []
        again = issuer.token(gateway.url, sub="alice", client_id="another app", jti="another")
        assert (await gateway.result("ListTasks", who=again))["totalSize"] == 1


async def test_the_same_subject_at_another_issuer_or_under_a_key_is_somebody_else(tmp_path: Path) -> None:
    async with issuing() as one, issuing() as two:
        trusted = ", ".join(f"{{issuer: '{issuer.url}'}}" for issuer in (one, two))
        both = f"auth: {{issuers: [{trusted}]}}\nagents: {{echo: {ECHO}, public: true}}}}"
        async with running(tmp_path, both) as gateway:
            task = await gateway.task("hi", who=one.token(gateway.url))
            for who in (two.token(gateway.url), await gateway.key("alice"), await gateway.key(f"{one.url[7:16]}")):
                error = await gateway.error("GetTask", {"id": task["id"]}, who=who)
                assert error["data"][0]["reason"] == "TASK_NOT_FOUND"
            # Neither issuer's key checks the other's tokens.
            crossed = one.token(gateway.url, iss=two.url, key=one.keys[0])
            assert refused(await listing(gateway, crossed)) == said.BAD_SIGNATURE


async def test_a_token_is_not_the_operator(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, _):
        for sub in ("local", "local:local", "admin"):
            token = issuer.token(gateway.url, sub=sub, roles=["admin", "local"], tenant="x")
            assert await status(gateway, token, "/admin/keys") == 403
            assert await status(gateway, token, "/agents/hidden/tasks") == 404


async def test_the_tenant_comes_from_the_claim_that_the_operator_named(tmp_path: Path) -> None:
    async with house(tmp_path, ", tenant_claim: [org, id]") as (gateway, issuer, _):
        acme, other = (issuer.token(gateway.url, org={"id": name}) for name in ("acme", "other"))
        task = await gateway.task("hi", who=acme)
        assert (await gateway.result("ListTasks", who=other))["totalSize"] == 0
        assert (await gateway.result("ListTasks", who=acme))["tasks"][0]["id"] == task["id"]
        for org in (..., None, {}, {"id": ""}, {"id": 1}, "acme", {"id": "a\nb"}):
            assert refused(await listing(gateway, issuer.token(gateway.url, org=org))) == said.BAD_CLAIMS


async def test_the_record_names_the_issuer_and_the_subject(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, _):
        await gateway.task("hi", who=issuer.token(gateway.url))
        assert f"oauth:{issuer.url}#alice" in {entry.principal for entry in await gateway.record()}


async def test_keys_and_the_local_credential_work_as_before_even_if_the_issuer_is_dead(tmp_path: Path) -> None:
    async with house(tmp_path, up=False) as (gateway, issuer, _):
        assert await status(gateway, gateway.token, "/admin/keys") == 200
        assert (await gateway.task("hi", who=await gateway.key("colleague")))["id"]
        wrong = await listing(gateway, "gw_" + "A" * 43)
        assert "error_description" not in wrong.headers["www-authenticate"]
        assert (wrong.status_code, issuer.asked) == (401, [])


# What it is for.


@pytest.mark.requirement("oauth.jwt.audience", "oauth.resource.per-agent")
async def test_a_token_for_one_agent_opens_that_agent_and_nothing_else(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, _):
        token = issuer.token(f"{gateway.url}/agents/echo")
        for _ in range(2):  # the second time from memory
            assert await status(gateway, token) == 200
            assert (await gateway.task("hi", who=token))["id"]
            for path in (
                "/agents/other/tasks",
                "/tasks",
                "/agents",
                "/admin/tasks",
                "/agents/other/.well-known/agent-card.json",
            ):
                answer = await listing(gateway, token, path)
                assert refused(answer) == said.BAD_AUDIENCE, path


async def test_the_audience_that_the_operator_names_takes_the_place_of_the_url(tmp_path: Path) -> None:
    async with house(tmp_path, ", audience: [api-one, api-two]") as (gateway, issuer, _):
        for audience in ("api-one", "api-two", ["x", "api-two"], f"{gateway.url}/agents/echo"):
            assert await status(gateway, issuer.token("", aud=audience)) == 200, audience
        for audience in (gateway.url, "api", ["x"]):
            assert refused(await listing(gateway, issuer.token("", aud=audience))) == said.BAD_AUDIENCE


@pytest.mark.requirement("oauth.bearer.insufficient-scope")
async def test_a_token_without_the_scopes_is_told_all_that_it_needs(tmp_path: Path) -> None:
    async with house(tmp_path, ", required_scopes: [gateway.use, agents.call]") as (gateway, issuer, _):
        for scope in ("", "gateway.use", "agents.call other", "gateway.used agents.call"):
            for path in ("/agents/echo/tasks", "/agents/echo/.well-known/agent-card.json"):
                answer = await listing(gateway, issuer.token(gateway.url, scope=scope), path)
                assert answer.status_code == 403
                assert answer.headers["www-authenticate"] == (
                    'Bearer realm="gateway", error="insufficient_scope", scope="agents.call gateway.use", '
                    f'resource_metadata="{gateway.url}{WELL_KNOWN}/agents/echo"'
                )
        for scope in ("gateway.use agents.call", "x agents.call gateway.use"):
            assert await status(gateway, issuer.token(gateway.url, scope=scope)) == 200
        assert await status(gateway, issuer.token(gateway.url, scp=["gateway.use", "agents.call"])) == 200


@pytest.mark.requirement("oauth.resource.metadata", "oauth.resource.per-agent")
@pytest.mark.parametrize("path", ["", "/agents/echo", "/agents/hidden", "/agents/missing"])
async def test_each_resource_says_whose_tokens_it_takes_and_nothing_about_itself(tmp_path: Path, path: str) -> None:
    async with house(tmp_path, ", required_scopes: [gateway.use]") as (gateway, issuer, _):
        answer = await gateway.client.get(WELL_KNOWN + path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        told = answer.json()
        assert "ES256" in told.pop("dpop_signing_alg_values_supported")
        assert told == {
            "resource": gateway.url + path,
            "authorization_servers": [issuer.url],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["gateway.use"],
        }


async def test_what_is_no_resource_has_no_metadata(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, _, _):
        for path in (
            "/agents",
            "/agents/",
            "/agents/echo/tasks",
            "/agents/Echo",
            '/agents/a"b',
            "/admin",
            "/agents/e%0d%0aX:y",
        ):
            assert (await gateway.client.get(WELL_KNOWN + path)).status_code in (400, 404), path
    async with running(tmp_path / "plain") as gateway:
        assert (await gateway.client.get(WELL_KNOWN)).status_code == 404
        assert "resource_metadata" not in (await listing(gateway, "a.b.c")).headers["www-authenticate"]


@pytest.mark.requirement("oauth.resource.challenge")
async def test_who_comes_without_a_token_is_told_where_to_get_one(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, _, _):
        for path, resource in (("/agents/echo/tasks", "/agents/echo"), ("/tasks", ""), ("/admin/keys", "")):
            answer = await gateway.client.get(path, headers=A2A)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == (
                f'Bearer realm="gateway", resource_metadata="{gateway.url}{WELL_KNOWN}{resource}"'
            )


# The issuer's keys.


async def test_keys_are_fetched_once_for_many_who_come_at_the_same_time(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, _):
        tokens = [issuer.token(gateway.url, sub=f"user-{n}") for n in range(50)]
        assert set(await asyncio.gather(*(status(gateway, token) for token in tokens))) == {200}
        assert issuer.fetched("/jwks") == 1


@pytest.mark.requirement("oauth.jwks.budget")
async def test_a_flood_of_made_up_keys_asks_the_issuer_once_and_hurts_nobody(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):
        good = issuer.token(gateway.url)
        assert await status(gateway, good) == 200
        for round in range(1, 4):
            clock.ahead += 31
            for n in range(300):
                made_up = issuer.token(gateway.url, header={"kid": f"{round}-{n}"})
                assert refused(await listing(gateway, made_up)) == said.UNKNOWN_KEY
            assert issuer.fetched("/jwks") == 1 + round
            assert await status(gateway, issuer.token(gateway.url, sub=f"new-{round}")) == 200


@pytest.mark.requirement("oauth.jwks.rotation")
async def test_a_new_key_is_found_when_its_first_token_comes(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):
        old = issuer.token(gateway.url)
        assert await status(gateway, old) == 200
        issuer.keys.insert(0, SigningKey.make("second", "EdDSA"))
        clock.ahead += 31
        assert await status(gateway, issuer.token(gateway.url)) == 200
        assert await status(gateway, old) == 200


@pytest.mark.requirement("oauth.jwks.rotation")
@pytest.mark.parametrize("kid", [..., "first"], ids=["without-an-id", "with-an-id-from-before"])
async def test_a_new_key_that_looks_like_the_old_one_is_found_by_its_signatures(tmp_path: Path, kid: Any) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):

        def token(**claims: Any) -> str:
            return issuer.token(gateway.url, header={"kid": kid}, **claims)

        def publish(key: SigningKey) -> None:
            published = {name: value for name, value in key.jwk().items() if name != "kid" or kid is not ...}
            issuer.keys[:] = [key]
            issuer.replies["/jwks"] = (json.dumps({"keys": [published]}).encode(), "200 OK")

        publish(issuer.keys[0])
        old = token()
        assert await status(gateway, old) == 200
        publish(SigningKey.make("first"))
        assert refused(await listing(gateway, token())) == said.BAD_SIGNATURE, "it was asked a moment ago"
        clock.ahead += 31
        assert await status(gateway, token()) == 200
        assert refused(await listing(gateway, old)) == said.BAD_SIGNATURE, "the old one is gone, and what it had signed"
        assert issuer.fetched("/jwks") == 2, "of wrong signatures, too, only one in a while asks"


async def test_a_clock_that_is_set_back_keeps_no_new_key_away(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):
        clock.ahead = 10_000
        assert await status(gateway, issuer.token(gateway.url, exp=2**40)) == 200
        clock.ahead = 0
        issuer.keys.insert(0, SigningKey.make("second"))
        assert await status(gateway, issuer.token(gateway.url)) == 200


@pytest.mark.requirement("oauth.jwks.rotation")
async def test_a_withdrawn_key_takes_its_tokens_with_it_even_those_that_were_remembered(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):
        old = issuer.token(gateway.url)
        assert await status(gateway, old) == 200
        issuer.keys[:] = [SigningKey.make("second")]
        clock.ahead += 31  # within the minute that a token is remembered
        assert await status(gateway, issuer.token(gateway.url)) == 200
        assert refused(await listing(gateway, old)) == said.UNKNOWN_KEY


async def test_old_keys_are_replaced_behind_the_back_of_those_who_come(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):
        assert await status(gateway, issuer.token(gateway.url)) == 200
        clock.ahead += 601
        issuer.hangs.add("/jwks")
        # Nobody waits for the fetch that has begun.
        assert await asyncio.wait_for(status(gateway, issuer.token(gateway.url, exp=2**40)), BOUND) == 200
        await asyncio.wait_for(issuer.hanging.wait(), BOUND)
        assert issuer.fetched("/jwks") == 2


@pytest.mark.requirement("oauth.jwks.stale")
async def test_a_dead_issuer_is_believed_for_an_hour_and_then_nobody_is(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):
        assert await status(gateway, issuer.token(gateway.url)) == 200
        issuer.up = False
        clock.ahead += 3500
        late: dict[str, Any] = {"iat": 0, "exp": 2**40}
        assert await status(gateway, issuer.token(gateway.url, **late)) == 200
        assert refused(await listing(gateway, issuer.token(gateway.url, header={"kid": "x"}))) == said.UNKNOWN_KEY
        clock.ahead += 200
        answer = await listing(gateway, issuer.token(gateway.url, **late))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "www-authenticate" not in answer.headers
        issuer.up = True
        clock.ahead += 6
        assert await status(gateway, issuer.token(gateway.url, **late)) == 200


LIES: dict[str, Callable[[Issuer], None]] = {
    "keys that are HTML": lambda i: i.replies.update({"/jwks": (b"<html>", "200 OK")}),
    "keys that are a list": lambda i: i.replies.update({"/jwks": (b"[]", "200 OK")}),
    "no keys": lambda i: i.replies.update({"/jwks": (b'{"keys":[]}', "200 OK")}),
    "keys twice": lambda i: i.replies.update({"/jwks": (b'{"keys":[],"keys":[]}', "200 OK")}),
    "65 keys": lambda i: i.published.extend(i.keys[0].jwk(kid=str(n)) for n in range(65)),
    "only a symmetric key": lambda i: i.replies.update({"/jwks": (b'{"keys":[{"kty":"oct","k":"AAAA"}]}', "200 OK")}),
    "300 kB": lambda i: i.replies.update({"/jwks": (b'{"keys":[]}'.ljust(300_000), "200 OK")}),
    "an error": lambda i: i.replies.update({"/jwks": (b"{}", "500 Internal Server Error")}),
    "a redirect": lambda i: i.replies.update({"/jwks": (b"", f"302 Found\r\nlocation: {i.url}/elsewhere")}),
    "metadata of another issuer": lambda i: metadata(i, issuer="https://evil.example"),
    "metadata with a slash more": lambda i: metadata(i, issuer=i.url + "/"),
    "metadata without an issuer": lambda i: metadata(i, issuer=None),
    "keys somewhere else, in the clear": lambda i: metadata(i, jwks_uri="http://192.0.2.1/jwks"),
    "keys at a private address": lambda i: metadata(i, jwks_uri="https://169.254.169.254/jwks"),
    "keys in a file": lambda i: metadata(i, jwks_uri="file:///etc/passwd"),
    "keys nowhere": lambda i: metadata(i, jwks_uri=None),
}  # fmt: skip


def metadata(of: Issuer, **changes: Any) -> None:
    document = {"issuer": of.url, "jwks_uri": f"{of.url}/jwks", **changes}
    body = (json.dumps(document).encode(), "200 OK")
    of.replies |= {"/.well-known/oauth-authorization-server": body, "/.well-known/openid-configuration": body}


@pytest.mark.requirement("oauth.metadata.issuer-equal")
@pytest.mark.parametrize("lie", LIES)
async def test_an_issuer_that_tells_nonsense_opens_nothing_and_closes_nothing_else(tmp_path: Path, lie: str) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):
        LIES[lie](issuer)
        answer = await listing(gateway, issuer.token(gateway.url))
        assert answer.status_code == 503, answer.text
        assert issuer.url not in answer.text
        assert await status(gateway, gateway.token) == 200
        issuer.replies.clear()
        issuer.published.clear()
        clock.ahead += 6
        assert await status(gateway, issuer.token(gateway.url)) == 200


async def test_an_issuer_that_hangs_holds_up_only_those_whose_tokens_it_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.documents.TIMEOUT_SECONDS", 2 * BOUND)
    async with house(tmp_path, hangs={"/jwks"}) as (gateway, issuer, _):
        waiting = asyncio.create_task(status(gateway, issuer.token(gateway.url)))
        await asyncio.wait_for(issuer.hanging.wait(), BOUND)
        assert await status(gateway, gateway.token) == 200
        assert refused(await listing(gateway, "a.b.c")) == said.MALFORMED
        assert not waiting.done()
        issuer.go.set()
        assert await asyncio.wait_for(waiting, BOUND) == 200


async def test_an_issuer_that_goes_on_hanging_is_waited_for_no_longer_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.upstream.documents.TIMEOUT_SECONDS", 0.1)
    async with house(tmp_path, hangs={"/jwks"}) as (gateway, issuer, _):
        assert await asyncio.wait_for(status(gateway, issuer.token(gateway.url)), BOUND) == 503


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server/realm",
        "/.well-known/openid-configuration/realm",
        "/realm/.well-known/openid-configuration",
    ],
)
async def test_metadata_is_found_where_either_standard_puts_it(tmp_path: Path, path: str) -> None:
    async with issuing() as issuer:
        name = issuer.url + "/realm"
        document = json.dumps({"issuer": name, "jwks_uri": f"{issuer.url}/jwks"}).encode()
        issuer.replies = {"/.well-known/oauth-authorization-server": (b"", "404 Not Found"), path: (document, "200 OK")}
        text = f"auth: {{issuers: [{{issuer: '{name}'}}]}}\nagents: {{echo: {ECHO}, public: true}}}}"
        async with running(tmp_path, text) as gateway:
            assert await status(gateway, issuer.token(gateway.url, iss=name)) == 200


async def test_an_issuer_that_does_not_follow_rfc_9068_can_be_trusted_by_name(tmp_path: Path) -> None:
    legacy = ", token_types: [JWT], jwks_uri: '%s/jwks', roles_claim: [realm_access, roles]"
    async with issuing() as issuer, running(tmp_path, config(issuer, legacy % issuer.url)) as gateway:
        for header in ({"typ": "JWT"}, {"typ": ...}):
            token = issuer.token(gateway.url, header=header, client_id=..., jti=..., realm_access={"roles": ["x"]})
            assert await status(gateway, token) == 200
        # Its ID tokens and logout tokens are JWTs as well, and open nothing.
        others: list[dict[str, Any]] = [{"nonce": "n"}, {"at_hash": "h"}, {"events": {}}]
        for other in others:
            assert (
                refused(await listing(gateway, issuer.token(gateway.url, header={"typ": "JWT"}, **other)))
                == said.BAD_TYPE
            )
        assert refused(await listing(gateway, issuer.token(gateway.url))) == said.BAD_TYPE
        assert issuer.fetched("/.well-known/oauth-authorization-server") == 0


# What is remembered.


async def test_a_remembered_token_ends_when_it_says(tmp_path: Path) -> None:
    async with house(tmp_path) as (gateway, issuer, clock):
        token = issuer.token(gateway.url)
        assert await status(gateway, token) == 200
        clock.ahead += 290  # remembered anew
        assert await status(gateway, token) == 200
        clock.ahead += 45
        assert refused(await listing(gateway, token)) == said.EXPIRED


async def test_memory_of_tokens_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.oauth.tokens.MAX_TOKENS", 5)
    async with house(tmp_path) as (gateway, issuer, _):
        for n in range(20):
            assert await status(gateway, issuer.token(gateway.url, sub=str(n))) == 200
        assert gateway.app.trust is not None
        assert len(gateway.app.trust.tokens._kept) == 5


# Introspection.

OPAQUE = ", introspection: {client_id: 'gw:1', client_secret_file: secret}"


@asynccontextmanager
async def asking(tmp_path: Path) -> AsyncIterator[tuple[Gateway, Issuer, Clock]]:
    (tmp_path / "secret").write_text("s3cret+/\n")
    clock = Clock()
    async with issuing() as issuer:
        text = config(issuer, OPAQUE.replace("secret}", f"{tmp_path}/secret}}"))
        async with running(tmp_path, text, now=clock.now) as gateway:
            yield gateway, issuer, clock


def good(issuer: Issuer, gateway: Gateway, **changes: Any) -> dict[str, Any]:
    said = {"active": True, "sub": "alice", "aud": gateway.url, "iss": issuer.url, **changes}
    return {name: value for name, value in said.items() if value is not ...}


@pytest.mark.requirement("oauth.introspection.active", "oauth.introspection.authenticated")
async def test_an_opaque_token_is_what_its_issuer_says(tmp_path: Path) -> None:
    async with asking(tmp_path) as (gateway, issuer, clock):
        issuer.active["opaque-1"] = good(issuer, gateway)
        for _ in range(3):
            assert await status(gateway, "opaque-1") == 200
        assert issuer.fetched("/introspect") == 1
        request = issuer.asked[-1]
        assert request.body == b"token=opaque-1&token_type_hint=access_token"
        assert request.headers["authorization"] == "Basic " + base64.b64encode(b"gw%3A1:s3cret%2B%2F").decode()
        issuer.active.clear()
        clock.ahead += 31
        assert refused(await listing(gateway, "opaque-1")) == said.NOT_ACTIVE


async def test_an_issuer_that_wants_the_secret_in_the_form_gets_it_there(tmp_path: Path) -> None:
    async with asking(tmp_path) as (gateway, issuer, _):
        about = {
            "issuer": issuer.url,
            "introspection_endpoint": f"{issuer.url}/introspect",
            "introspection_endpoint_auth_methods_supported": ["client_secret_post"],
        }
        issuer.replies["/.well-known/oauth-authorization-server"] = (json.dumps(about).encode(), "200 OK")
        issuer.active["t"] = good(issuer, gateway)
        assert await status(gateway, "t") == 200
        request = issuer.asked[-1]
        assert request.body.endswith(b"&client_id=gw%3A1&client_secret=s3cret%2B%2F")
        assert "authorization" not in request.headers


async def test_a_no_is_remembered_for_five_seconds(tmp_path: Path) -> None:
    async with asking(tmp_path) as (gateway, issuer, clock):
        for _ in range(3):
            assert refused(await listing(gateway, "opaque-2")) == said.NOT_ACTIVE
        assert issuer.fetched("/introspect") == 1
        issuer.active["opaque-2"] = good(issuer, gateway)
        clock.ahead += 6
        assert await status(gateway, "opaque-2") == 200


ANSWERS: dict[str, tuple[dict[str, Any], str]] = {
    "active as a text": ({"active": "true"}, ""),
    "active as a number": ({"active": 1}, ""),
    "nothing about active": ({"active": ...}, ""),
    "not active, with everything else": ({"active": False}, said.NOT_ACTIVE),
    "another issuer": ({"iss": "https://evil.example"}, said.NOT_ACTIVE),
    "no audience": ({"aud": ...}, said.BAD_AUDIENCE),
    "another audience": ({"aud": "https://evil.example"}, said.BAD_AUDIENCE),
    "nobody": ({"sub": ...}, said.BAD_CLAIMS),
    "ended": ({"exp": 5}, said.EXPIRED),
    "an end that is no time": ({"exp": "never"}, said.BAD_CLAIMS),
    "a refresh token": ({"token_type": "refresh"}, said.NOT_ACTIVE),
    "bound to a key": ({"cnf": {"x5t#S256": "x"}}, said.BOUND),
    "bound to a key, without its proof": ({"cnf": {"jkt": "x"}}, said.NEEDS_PROOF),
    "bound to a key, and not said to which": ({"token_type": "DPoP"}, said.BOUND),
}


@pytest.mark.requirement("oauth.introspection.active")
@pytest.mark.parametrize("name", ANSWERS)
async def test_every_other_answer_about_an_opaque_token_is_no(tmp_path: Path, name: str) -> None:
    async with asking(tmp_path) as (gateway, issuer, _):
        changes, sentence = ANSWERS[name]
        issuer.active["t"] = good(issuer, gateway, **changes)
        answer = await listing(gateway, "t")
        if sentence:
            assert refused(answer) == sentence
        else:
            assert answer.status_code == 503


@pytest.mark.requirement("oauth.introspection.active", "oauth.dpop.bound")
@pytest.mark.parametrize("more", [{"token_type": "DPoP"}, {"token_type": "Bearer"}, {}])
async def test_an_opaque_token_that_is_bound_to_a_key_opens_with_a_proof(tmp_path: Path, more: dict[str, str]) -> None:
    """RFC 9449 §6.2: an issuer that says the type of such a token says DPoP."""
    async with asking(tmp_path) as (gateway, issuer, _):
        prover = Prover()
        issuer.active["t"] = good(issuer, gateway, cnf={"jkt": prover.thumbprint}, **more)
        path = "/agents/echo/tasks"
        headers = prover.headers("GET", gateway.url + path, "t")
        assert (await gateway.client.get(path, headers={**A2A, **headers})).status_code == 200
        assert refused(await listing(gateway, "t")) == said.NEEDS_PROOF


@pytest.mark.requirement("oauth.introspection.fails-closed")
@pytest.mark.parametrize("trouble", ["down", "error", "html"])
async def test_no_answer_about_an_opaque_token_is_no_admission(tmp_path: Path, trouble: str) -> None:
    async with asking(tmp_path) as (gateway, issuer, clock):
        issuer.active["t"] = good(issuer, gateway)
        assert await status(gateway, "t") == 200
        if trouble == "down":
            issuer.up = False
        else:
            issuer.replies["/introspect"] = (b"<html>", "200 OK" if trouble == "html" else "500 Oops")
        clock.ahead += 31
        answer = await listing(gateway, "t")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert await status(gateway, gateway.token) == 200


async def test_our_own_keys_are_never_sent_to_an_issuer(tmp_path: Path) -> None:
    async with asking(tmp_path) as (gateway, issuer, _):
        assert await status(gateway, "gw_" + "B" * 43) == 401
        assert issuer.asked == []


# No passthrough.


@pytest.mark.requirement("oauth.token.not-passed-on")
async def test_the_callers_token_goes_no_further_than_the_door(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with issuing() as issuer, scripted() as far:
        text = f"auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}\n{agents(far=far.url)}"
        async with running(tmp_path, text) as gateway:
            await ready(gateway, "far")

            @far.on("SendMessage")
            async def hello(asked: Any) -> None:
                reply = {"messageId": "m", "role": "ROLE_AGENT", "parts": [{"text": "hello"}]}
                asked.answer({"message": reply})

            token = issuer.token(gateway.url, jti="canary-jti")
            headers = {**A2A, **gateway.bearer(token), "Cookie": "canary=cookie-1", "X-Api-Key": "canary-key",
                       "Proxy-Authorization": "Basic canary-proxy", "DPoP": "canary-dpop"}  # fmt: skip
            body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message("hi")}}
            answer = await gateway.client.post("/agents/far", json=body, headers=headers)
            assert answer.json()["result"]["message"]["parts"] == [{"text": "hello"}]
            bad = await gateway.client.post(
                "/agents/far", json=body, headers={**headers, **gateway.bearer(token + "A")}
            )
            assert bad.status_code == 401
            (asked,) = far.asked
            told = str(asked.headers).encode() + asked.raw + caplog.text.encode() + bad.content + answer.content
            told += "".join(map(str, bad.headers.items())).encode()
        told += kept(tmp_path)
        payload = token.split(".")[1]
        for secret in (*token.split("."), "canary", base64.b64encode(token.encode()).decode(), payload):
            assert secret.encode() not in told, secret


# The file.


def test_what_is_wrong_with_an_issuer_is_said_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "gw.yaml").write_text(
        "auth:\n  issuers:\n    - issuer: https://idp.example\n      introspection:\n        client_id: gw\n"
        "        client_secret_file: missing.txt\nagents: {}\n"
    )
    done = command(tmp_path, "serve", "--config", "gw.yaml", "--port", "0")
    assert done.returncode == 2
    assert "gw.yaml:6: auth.issuers[0].introspection.client_secret_file: cannot read" in done.stderr
