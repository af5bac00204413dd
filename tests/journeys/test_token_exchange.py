"""Token exchange (RFC 8693): an agent that asks on behalf of the person whose token it was shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.issuer import Clock, Issuer, issuing
from tests.journeys.people import ACCESS, AGENTS, EXCHANGE, App, app, claims, error, opens, town
from tests.person import Person, somebody
from tests.serving import Gateway, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]


@dataclass
class Town:
    gateway: Gateway
    clock: Clock
    issuer: Issuer
    app: App
    agent: App
    ada: Person

    async def exchange(self, token: str, who: App | None = None, **more: str | None) -> Any:
        form = {"subject_token": token, "subject_token_type": ACCESS, **more}
        sent = {name: value for name, value in form.items() if value is not None}
        return await (who or self.agent).token(EXCHANGE, **sent)

    async def token(self, **asked: str) -> str:
        made: str = (await self.app.tokens(self.ada, **asked))["access_token"]
        return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    data = tmp_path_factory.mktemp("exchange")
    async with (
        issuing() as issuer,
        town(data, issuers=[issuer]) as (gateway, clock),
        somebody(gateway.url) as ada,
    ):
        yield Town(gateway, clock, issuer, await app(gateway), await agent(gateway, "agent"), ada)


async def agent(gateway: Gateway, id: str) -> App:
    """A client that may act for others."""
    return await app(gateway, id, public=False, redirects=[], grants=["client_credentials", "token_exchange"])


@pytest.mark.requirement("oauth.server.exchange", "oauth.server.exchange-actor")
async def test_an_agent_asks_in_the_name_of_a_person_and_both_are_seen(here: Town) -> None:
    token = await here.token(scope="read write")
    answer = await here.exchange(token, resource=f"{here.gateway.url}/agents/echo", scope="read")
    made = answer.json()
    assert (made["issued_token_type"], made["token_type"], made["scope"]) == (ACCESS, "Bearer", "read")
    said = claims(made["access_token"])
    assert {name: said[name] for name in ("sub", "act", "client_id", "aud", "roles")} == {
        "sub": "user:ada", "act": {"sub": "agent"}, "client_id": "agent", "aud": f"{here.gateway.url}/agents/echo",
        "roles": ["clerk"],
    }  # fmt: skip
    assert said["exp"] <= claims(token)["exp"]
    # The task is the person's; the record says who asked and for whom.
    task = await here.gateway.task("hi", who=made["access_token"])
    assert (await here.gateway.result("GetTask", {"id": task["id"]}, who=token))["id"] == task["id"]
    entries = await here.gateway.record()
    pairs = {(each.principal, each.chain) for each in entries}
    assert ("oauth:gateway#agent", ("oauth:gateway#user:ada",)) in pairs


async def test_a_chain_of_agents_is_kept_whole_and_ends_somewhere(here: Town) -> None:
    token = await here.token()
    chain: list[str] = []
    for number in range(4):
        who = await agent(here.gateway, f"hop-{number}")
        token = (await here.exchange(token, who)).json()["access_token"]
        chain.insert(0, who.id)
    found, seen = claims(token)["act"], []
    while found:
        seen.append(found["sub"])
        found = found.get("act")
    assert seen == chain
    assert await opens(here.gateway, token)
    assert error(await here.exchange(token, here.agent)) == (400, "invalid_grant")


@pytest.mark.requirement("oauth.server.exchange-narrow")
async def test_nothing_grows_by_an_exchange(here: Town) -> None:
    token = await here.token(scope="read")
    assert error(await here.exchange(token, scope="read write")) == (400, "invalid_scope")
    assert error(await here.exchange(token, resource="https://evil.example")) == (400, "invalid_target")
    assert error(await here.exchange(token, audience="somebody")) == (400, "invalid_target")
    here.clock.ahead += 500
    made = (await here.exchange(token)).json()
    assert made["expires_in"] <= 100
    here.clock.ahead += 200
    assert error(await here.exchange(token)) == (400, "invalid_request")


async def test_what_ends_the_grant_ends_the_tokens_of_those_who_act_for_it(here: Town) -> None:
    tokens = await here.app.tokens(here.ada)
    made = (await here.exchange(tokens["access_token"])).json()["access_token"]
    assert await opens(here.gateway, made)
    await here.app.form("/oauth/revoke", token=tokens["refresh_token"])
    assert not await opens(here.gateway, made)
    assert error(await here.exchange(tokens["access_token"])) == (400, "invalid_request")


async def test_a_token_of_a_trusted_issuer_is_exchanged_too_and_names_nobody_of_ours(here: Town) -> None:
    now = here.clock.now() // 1000
    times: Any = {"iat": now, "exp": now + 300}
    theirs = here.issuer.token(here.gateway.url, scope="read", act={"sub": "their-agent"}, **times)
    said = claims((await here.exchange(theirs)).json()["access_token"])
    assert said["sub"] == f"{here.issuer.url}#alice"
    assert said["act"] == {"sub": "agent", "act": {"sub": f"{here.issuer.url}#their-agent"}}
    for wrong in (
        here.issuer.token("https://elsewhere.example", **times),
        here.issuer.token(here.gateway.url + ".evil.example", **times),
        here.issuer.token(here.gateway.url, iat=now - 900, exp=now - 100),
        here.issuer.token(here.gateway.url, iat=now - 900, exp=now - 1),
        here.issuer.token(here.gateway.url, iss="https://evil.example", **times),
        here.issuer.token(here.gateway.url, may_act={"sub": "somebody else"}, **times),
        here.issuer.token(here.gateway.url, act="me", **times),
        theirs[:-4] + "AAAA",
        "x",
    ):
        assert (await here.exchange(wrong)).status_code == 400
    for may_act in ({}, "agent", None, {"sub": 7}, {"sub": "agent", "iss": here.issuer.url}):
        assert (await here.exchange(here.issuer.token(here.gateway.url, may_act=may_act, **times))).status_code == 400
    for may_act in ({"sub": "agent"}, {"sub": "agent", "iss": here.gateway.url}):
        assert (await here.exchange(here.issuer.token(here.gateway.url, may_act=may_act, **times))).status_code == 200


async def test_an_opaque_token_says_who_may_act_as_its_issuer_tells(tmp_path: Path) -> None:
    """RFC 8693 §4.4: `may_act` stands in the answer about a token as it stands in a token."""
    (tmp_path / "secret").write_text("s3cret")
    asked = f"{{client_id: gw, client_secret_file: {tmp_path}/secret}}"
    async with issuing() as issuer:
        entry = f"{{issuer: '{issuer.url}', introspection: {asked}}}"
        text = f"auth: {{issuers: [{entry}], authorization_server: {{}}}}\n{AGENTS}"
        async with running(tmp_path / "data", text) as gateway:
            planner = await agent(gateway, "planner")
            for number, (who, status) in enumerate((("planner", 200), ("somebody-else", 400))):
                said = {"active": True, "sub": "alice", "aud": gateway.url, "may_act": {"sub": who}}
                issuer.active[f"opaque-{number}"] = said
                token = {"subject_token": f"opaque-{number}", "subject_token_type": ACCESS}
                assert (await planner.token(EXCHANGE, **token)).status_code == status, who


async def test_a_client_that_is_revoked_acts_for_nobody_and_nobody_acts_for_it(here: Town) -> None:
    """Its tokens in the hands of others end as its own do: the one that it asked for first, and the one about it."""
    asker, between = await agent(here.gateway, "asker"), await agent(here.gateway, "between")
    own = (await asker.token("client_credentials")).json()["access_token"]
    about = (await here.exchange(own)).json()["access_token"]
    through = (await here.exchange((await here.exchange(await here.token(), between)).json()["access_token"])).json()
    assert await opens(here.gateway, about)
    assert await opens(here.gateway, through["access_token"])
    for gone, token in ((asker, about), (between, through["access_token"])):
        path = f"/admin/clients/{gone.id}"
        assert (await here.gateway.client.delete(path, headers=here.gateway.bearer(None))).status_code == 204
        assert not await opens(here.gateway, token)
        assert error(await here.exchange(token)) == (400, "invalid_request")


async def test_a_new_secret_ends_what_others_made_of_what_was_got_with_the_old_one(here: Town) -> None:
    """Whoever had the secret may have had another agent act for it, or have acted for others itself."""
    asker, between = await agent(here.gateway, "leaky"), await agent(here.gateway, "leaky-between")
    own = (await asker.token("client_credentials")).json()["access_token"]
    about = (await here.exchange(own)).json()["access_token"]
    first = (await here.exchange(await here.token(), between)).json()["access_token"]
    through = (await here.exchange(first)).json()["access_token"]
    here.clock.ahead += 2
    for renewed, token in ((asker, about), (between, through)):
        assert await opens(here.gateway, token)
        path = f"/admin/clients/{renewed.id}:rotate"
        secret = (await here.gateway.client.post(path, headers=here.gateway.bearer(None))).json()["secret"]
        assert not await opens(here.gateway, token)
    again = App(here.gateway, between.id, secret)
    assert await opens(here.gateway, (await here.exchange(await here.token(), again)).json()["access_token"])


async def test_a_client_does_not_make_more_of_what_a_person_gave_it(here: Town) -> None:
    """The person was asked about one agent; another client, made for it, may go on from there."""
    both = await app(here.gateway, "both", public=False, grants=["authorization_code", "token_exchange"])
    echo, other = (f"{here.gateway.url}/agents/{id}" for id in ("echo", "other"))
    narrow = (await both.tokens(here.ada, resource=echo))["access_token"]
    assert error(await here.exchange(narrow, both)) == (400, "invalid_target")
    assert error(await here.exchange(narrow, both, resource=other)) == (400, "invalid_target")
    again = (await here.exchange(narrow, both, resource=echo)).json()["access_token"]
    assert error(await here.exchange(again, both, resource=other)) == (400, "invalid_target")
    assert (await here.exchange(narrow, resource=other)).status_code == 200


async def test_a_tenant_and_its_issuers_scopes_are_not_left_by_an_exchange(tmp_path: Path) -> None:
    async with issuing() as issuer:
        entry = f"{{issuer: '{issuer.url}', tenant_claim: org, required_scopes: [door]}}"
        text = f"auth: {{issuers: [{entry}], authorization_server: {{}}}}\n{AGENTS}"
        async with running(tmp_path, text) as gateway:
            planner = await agent(gateway, "planner")

            def token(org: str, scope: str) -> str:
                return issuer.token(gateway.url, org=org, scope=scope)

            def exchange(token: str) -> Any:
                return planner.token(EXCHANGE, subject_token=token, subject_token_type=ACCESS)

            answer = await exchange(token("acme", "read"))
            assert error(answer) == (400, "invalid_request")
            assert "door" in answer.json()["error_description"]
            made = (await exchange(token("acme", "door"))).json()["access_token"]
            task = await gateway.task("hi", who=made)
            for again in (made, (await exchange(made)).json()["access_token"]):
                assert (await gateway.result("GetTask", {"id": task["id"]}, who=again))["id"] == task["id"]
            assert claims(made)["tenant"] == "acme"
            entries = [entry for _, entry in await gateway.app.store.audit(0, 1_000)]
            assert {each.tenant for each in entries if each.verb == "SendMessage"} == {"acme"}
            stranger = (await exchange(token("", "door"))).json()
            assert stranger["error"] == "invalid_request"  # no tenant is not the tenant without a name


@pytest.mark.parametrize(
    "changed",
    [
        {"subject_token_type": None},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"},
        {"subject_token": None},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"actor_token": "x", "actor_token_type": ACCESS},
    ],
)
async def test_exchanges_that_are_none(here: Town, changed: Any) -> None:
    assert error(await here.exchange(await here.token(), **changed)) == (400, "invalid_request")


async def test_only_clients_that_were_made_for_it_act_for_others(here: Town) -> None:
    token = await here.token()
    web = await app(here.gateway, "no-agent", public=False)
    assert error(await here.exchange(token, web)) == (400, "unauthorized_client")
    assert (await here.exchange(token, here.app)).status_code in (400, 401)
    wrong = App(here.gateway, "agent", "wrong")
    assert error(await here.exchange(token, wrong)) == (401, "invalid_client")
    public = {"id": "open-agent", "public": True, "grants": ["token_exchange"]}
    answer = await here.gateway.client.post("/admin/clients", json=public, headers=here.gateway.bearer(None))
    assert answer.status_code == 400
