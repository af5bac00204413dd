"""Tokens that are bound to a key (RFC 9449): who has read one cannot use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from gateway.server.oauth import proofs
from gateway.server.oauth.proofs import Proofs
from tests import rpc
from tests.issuer import Clock, Issuer, SigningKey, issuing
from tests.journeys.people import AGENTS, App, app, claims, error, town
from tests.person import somebody
from tests.prover import Prover
from tests.serving import A2A, Gateway, running

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.security]
PATH = "/agents/echo/tasks"


@dataclass
class Town:
    gateway: Gateway
    clock: Clock
    issuer: Issuer
    app: App
    prover: Prover

    @property
    def url(self) -> str:
        return self.gateway.url + PATH

    def token(self, **changed: Any) -> str:
        return self.issuer.token(self.gateway.url, **{"cnf": {"jkt": self.prover.thumbprint}, **changed})

    async def get(self, headers: dict[str, str]) -> httpx2.Response:
        return await self.gateway.client.get(PATH, headers={**A2A, **headers})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    async with issuing() as issuer, town(tmp_path_factory.mktemp("dpop"), issuers=[issuer]) as (gateway, clock):
        yield Town(gateway, clock, issuer, await app(gateway), Prover())


@pytest.mark.requirement("oauth.dpop.bound")
@pytest.mark.parametrize("alg", ["ES256", "ES384", "EdDSA", "RS256", "PS256"])
async def test_a_bound_token_opens_with_a_proof_of_its_key_and_with_nothing_else(here: Town, alg: str) -> None:
    prover = Prover(SigningKey.make("x", alg))
    token = here.token(cnf={"jkt": prover.thumbprint})
    assert (await here.get(prover.headers("GET", here.url, token))).status_code == 200
    assert (await here.get(prover.headers("GET", here.url, token))).status_code == 200  # the token from memory
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"DPoP {token}"},
        Prover().headers("GET", here.url, token),
        {**prover.headers("GET", here.url, token), "Authorization": f"Bearer {token}"},
    ):
        answer = await here.get(headers)
        assert answer.status_code == 401, headers
        assert answer.headers["www-authenticate"].startswith("DPoP ")
        assert "ES256" in answer.headers["www-authenticate"].split('algs="')[1].split('"')[0].split()
    plain = here.issuer.token(here.gateway.url)
    assert (await here.get(prover.headers("GET", here.url, plain))).status_code == 401
    assert (await here.get({"Authorization": f"Bearer {plain}"})).status_code == 200


@pytest.mark.requirement("oauth.dpop.proof")
@pytest.mark.parametrize(
    "changed",
    [
        {"htm": "POST"},
        {"htm": "get"},
        {"htm": ...},
        {"htu": "https://evil.example/agents/echo/tasks"},
        {"htu": ...},
        {"htu": 7},
        {"iat": 1_000_000_000},
        {"iat": 3_000_000_000},
        {"iat": "now"},
        {"iat": True},
        {"iat": ...},
        {"jti": ""},
        {"jti": "x" * 300},
        {"jti": ...},
        {"ath": "x"},
        {"ath": ...},
        {"header": {"typ": "JWT"}},
        {"header": {"typ": ...}},
        {"header": {"alg": "none"}},
        {"header": {"alg": "HS256"}},
        {"header": {"jwk": ...}},
        {"header": {"jwk": {"kty": "oct", "k": "AAAA"}}},
        {"header": {"jwk": {**Prover().jwk}}},
        {"header": {"jwk": {**Prover().jwk, "d": "AAAA"}}},
        {"header": {"crit": ["exp"]}},
    ],
    ids=lambda changed: str(changed)[:40],
)
async def test_a_proof_that_is_none_opens_nothing(here: Town, changed: dict[str, Any]) -> None:
    token = here.token()
    answer = await here.get(here.prover.headers("GET", here.url, token, **changed))
    assert answer.status_code == 401
    assert 'error="invalid_dpop_proof"' in answer.headers["www-authenticate"]


async def test_a_proof_may_write_the_url_in_any_way_that_means_the_same(here: Town) -> None:
    token = here.token()
    for url in (here.url + "?x=1#y", here.url.replace("http://", "HTTP://")):
        assert (await here.get(here.prover.headers("GET", url, token))).status_code == 200
    assert (await here.get(here.prover.headers("GET", here.url + "/", token))).status_code == 401


@pytest.mark.parametrize("id", ["a%20b", "a%3Fb", "a:b", "a%3Ab", "a%25b", "%C3%A4"])
async def test_a_proof_may_be_for_a_path_with_any_character(here: Town, id: str) -> None:
    token, path = here.token(), f"{PATH}/{id}"
    headers = here.prover.headers("GET", here.gateway.url + path, token)
    assert (await here.gateway.client.get(path, headers={**A2A, **headers})).status_code == 404  # no such task


@pytest.mark.requirement("oauth.dpop.proof")
async def test_over_grpc_a_proof_is_for_the_call_as_http_2_has_it(tmp_path: Path) -> None:
    """A POST to the method's own path at the address that cards name."""
    async with issuing() as issuer:
        text = f"auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}\n{AGENTS}"
        async with running(tmp_path, text, grpc_port=0) as gateway:
            prover, there = Prover(), f"http://{gateway.app.grpc_url}/lf.a2a.v1.A2AService/ListTasks"
            token = issuer.token(gateway.url, cnf={"jkt": prover.thumbprint})
            for method, url, status in (
                ("POST", there, "OK"),
                ("GET", there, "UNAUTHENTICATED"),
                ("POST", there.replace("ListTasks", "SendMessage"), "UNAUTHENTICATED"),
                ("POST", f"{gateway.url}/agents/echo", "UNAUTHENTICATED"),
            ):
                headers: dict[str, str | None] = {**prover.headers(method, url, token)}
                answer: Any = await replace(rpc.caller(gateway, "grpc"), headers=headers).ask("ListTasks")
                assert answer.status_code == status, url


@pytest.mark.requirement("oauth.dpop.replay")
@pytest.mark.parametrize("defended", [True, False])
async def test_a_proof_is_good_once(here: Town, defended: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin shows that without the memory a proof that somebody has read would open the door again."""
    if not defended:
        monkeypatch.setattr(Proofs, "_sweep", lambda proofs, now: proofs._seen.clear())
    token = here.token()
    headers = here.prover.headers("GET", here.url, token)
    assert (await here.get(headers)).status_code == 200
    assert (await here.get(headers)).status_code == (401 if defended else 200)


@pytest.mark.requirement("oauth.dpop.replay")
async def test_a_proof_from_before_a_restart_is_not_good_again(tmp_path: Path, port: int) -> None:
    clock, prover = Clock(), Prover()
    async with issuing() as issuer:
        text = f"auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}\n{AGENTS}"
        headers: dict[str, str] = {}
        for restarted in (False, True):
            async with running(tmp_path, text, port=port, now=clock.now) as gateway:
                token = issuer.token(gateway.url, cnf={"jkt": prover.thumbprint})
                if restarted:
                    told = (await gateway.client.get(PATH, headers={**A2A, **headers})).headers["www-authenticate"]
                    assert "The proof was made before the gateway was started" in told
                headers = prover.headers("GET", gateway.url + PATH, token, iat=clock.now() // 1000)
                assert (await gateway.client.get(PATH, headers={**A2A, **headers})).status_code == 200
                clock.ahead -= 30  # a clock that is set back
                again = prover.headers("GET", gateway.url + PATH, token, iat=clock.now() // 1000)
                assert (await gateway.client.get(PATH, headers={**A2A, **again})).status_code == 200
                clock.ahead += 32


@pytest.mark.requirement("oauth.dpop.replay")
async def test_strangers_proofs_take_no_place_from_those_of_others(here: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proof costs nothing to make. Who has nothing else to show fills no memory that others need."""
    monkeypatch.setattr(proofs, "MAX_PROOFS", 100)  # more than all tests of this file use
    endpoint = f"{here.gateway.url}/oauth/token"
    for form in (
        {"grant_type": "client_credentials", "client_id": "nobody", "client_secret": "x"},
        {"grant_type": "authorization_code", "client_id": here.app.id, "code": "x", "code_verifier": "x" * 43},
        {"grant_type": "refresh_token", "client_id": here.app.id, "refresh_token": "x.y"},
    ):
        for _ in range(34):
            headers = {"DPoP": here.prover.proof("POST", endpoint)}
            assert (await here.gateway.client.post("/oauth/token", data=form, headers=headers)).status_code < 500
    assert (await here.get(here.prover.headers("GET", here.url, here.token()))).status_code == 200


async def test_two_at_once_with_one_proof_are_one_token(here: Town) -> None:
    robot = await app(here.gateway, "twice", public=False, redirects=[], grants=["client_credentials"])
    headers = {"DPoP": here.prover.proof("POST", f"{here.gateway.url}/oauth/token")}
    form = {"grant_type": "client_credentials", "client_id": "twice", "client_secret": robot.secret}
    asked = [here.gateway.client.post("/oauth/token", data=form, headers=headers) for _ in range(5)]
    answers = await asyncio.gather(*asked)
    assert sorted(each.status_code for each in answers) == [200, 400, 400, 400, 400]
    assert {error(each) for each in answers if each.status_code == 400} == {(400, "invalid_dpop_proof")}


async def test_two_proofs_or_a_token_bound_otherwise_are_refused(here: Town) -> None:
    token = here.token()
    both = [("authorization", f"DPoP {token}"), *(("dpop", here.prover.proof("GET", here.url, token)) for _ in "ab")]
    answer = await here.gateway.client.get(PATH, headers=[*A2A.items(), *both])
    assert answer.status_code == 400
    for cnf in ({"x5t#S256": "x"}, {"jkt": 7}, {"jkt": here.prover.thumbprint, "x5t#S256": "x"}, {}, "x", None):
        token = here.token(cnf=cnf)
        for headers in ({"Authorization": f"Bearer {token}"}, here.prover.headers("GET", here.url, token)):
            assert (await here.get(headers)).status_code == 401, cnf


async def test_a_key_of_ours_is_no_dpop_token(here: Town) -> None:
    key = await here.gateway.key("someone")
    assert (await here.get(here.prover.headers("GET", here.url, key))).status_code == 401


# Our own server.


@pytest.mark.requirement("oauth.server.dpop")
async def test_a_client_binds_its_tokens_to_its_key(here: Town) -> None:
    about = (await here.gateway.client.get("/.well-known/oauth-authorization-server")).json()
    assert "ES256" in about["dpop_signing_alg_values_supported"]
    endpoint, prover = f"{here.gateway.url}/oauth/token", here.prover

    async def ask(proof: str | None, **form: str) -> httpx2.Response:
        headers = {} if proof is None else {"DPoP": proof}
        data = {"client_id": here.app.id, **form}
        return await here.gateway.client.post("/oauth/token", data=data, headers=headers)

    async with somebody(here.gateway.url) as ada:
        code = await here.app.code(ada, dpop_jkt=prover.thumbprint)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": "https://app.example/back",
            "code_verifier": here.app.verifier,
        }
        for proof in (None, Prover().proof("POST", endpoint)):
            assert error(await ask(proof, **form)) == (400, "invalid_grant")
        assert error(await ask(prover.proof("GET", endpoint), **form)) == (400, "invalid_dpop_proof")
        made = (await ask(prover.proof("POST", endpoint), **form)).json()
    assert made["token_type"] == "DPoP"
    assert claims(made["access_token"])["cnf"] == {"jkt": prover.thumbprint}
    assert (await here.get(prover.headers("GET", here.url, made["access_token"]))).status_code == 200
    assert (await here.get({"Authorization": f"Bearer {made['access_token']}"})).status_code == 401
    again = {"grant_type": "refresh_token", "refresh_token": made["refresh_token"]}
    for proof in (None, Prover().proof("POST", endpoint)):  # a public client's refresh token is bound too
        assert error(await ask(proof, **again)) == (400, "invalid_grant")
    proof = prover.proof("POST", endpoint)
    assert (await ask(proof, **again)).json()["token_type"] == "DPoP"
    assert error(await ask(proof, **again)) == (400, "invalid_dpop_proof")


@pytest.mark.requirement("oauth.dpop.required")
async def test_where_it_is_required_no_other_token_is_given_or_taken(tmp_path: Path) -> None:
    async with town(tmp_path, ", dpop: required") as (gateway, _):
        about = (await gateway.client.get("/.well-known/oauth-protected-resource")).json()
        assert about["dpop_bound_access_tokens_required"]
        told = (await gateway.client.get(PATH, headers=A2A)).headers["www-authenticate"]
        assert told.startswith("DPoP ")  # RFC 9449 §7.1
        assert set(about["dpop_signing_alg_values_supported"]) == set(told.split('algs="')[1].split('"')[0].split())
        assert f'resource_metadata="{gateway.url}/.well-known/oauth-protected-resource/agents/echo"' in told
        robot = await app(gateway, "robot", public=False, redirects=[], grants=["client_credentials"])
        assert error(await robot.token("client_credentials")) == (400, "invalid_dpop_proof")
        prover = Prover()
        proof = {"DPoP": prover.proof("POST", f"{gateway.url}/oauth/token")}
        form = {"grant_type": "client_credentials", "client_id": "robot", "client_secret": robot.secret}
        made = (await gateway.client.post("/oauth/token", data=form, headers=proof)).json()
        headers = prover.headers("GET", gateway.url + PATH, made["access_token"])
        assert (await gateway.client.get(PATH, headers={**A2A, **headers})).status_code == 200
