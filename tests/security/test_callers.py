"""Advisories about who a caller is taken for: what is shown at the door (tokens, headers), and whose a thing is."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwk

from gateway.core.policy import RULES
from gateway.core.policy.rules import simple
from gateway.dialects.oauth2 import access_token
from gateway.dialects.oauth2.access_token import Unverified, Verified, check_claims
from gateway.dialects.oauth2.signature import VerifyKey
from gateway.model.principal import Principal
from gateway.model.whom import EVERYBODY
from gateway.server import head
from gateway.server.auth import Authenticator
from gateway.server.oauth.issuers import KeyedIssuer
from gateway.server.proxies import Proxies
from tests.issuer import Issuer, SigningKey, issuing
from tests.mcp import Door, configured, request, scripted, tool
from tests.security.twins import Attacks, Attempt, asks_for_no_principal, each_of
from tests.serving import A2A, ROOT, Gateway, running

pytestmark = pytest.mark.security

WRONG = "gw_" + "A" * 43
TASKS = "/agents/echo/tasks"
CARD = f"card: {ROOT}/agent_cards/echo.json, public: true"


@dataclass(frozen=True)
class House:
    """A gateway that trusts one issuer and a proxy that is somewhere else, and has clients, two agents and a tool."""

    gateway: Gateway
    issuer: Issuer

    async def admits(self, *shown: tuple[str, str], path: str = TASKS) -> bool:
        """Whether somebody who shows these headers is let in."""
        answer = await self.gateway.client.get(path, headers=[*A2A.items(), *shown])
        return answer.status_code == 200

    async def takes(self, token: str, path: str = TASKS) -> bool:
        return await self.admits(("Authorization", f"Bearer {token}"), path=path)


@asynccontextmanager
async def house(data: Path) -> AsyncIterator[House]:
    async with issuing() as issuer, scripted(tool("search")) as docs:
        config = f"""
server: {{trusted_proxies: [10.0.0.0/8]}}
auth:
  issuers: [{{issuer: '{issuer.url}'}}]
  client_certificates: {{trust_domains: [example.org]}}
  authorization_server: {{}}
agents:
  echo: {{run: "agents.echo:Echo", {CARD}}}
  other: {{run: "agents.echo:Echo", {CARD}}}
{configured(docs=docs)}"""
        async with running(data, config) as gateway:
            yield House(gateway, issuer)


class Forged(SigningKey):
    """Signs with what everybody has: nothing, or the issuer's public key as if it were a secret."""

    def sign(self, message: bytes, alg: str = "") -> bytes:
        return b"" if self.alg == "none" else hmac.digest(self.private, message, "sha256")


# The attacks: each says of all its forms whether they got what they must not get.


async def a_forwarded_certificate(house: House) -> list[bool]:
    said = ("X-Forwarded-Client-Cert", "URI=spiffe://example.org/ns/prod/sa/planner")
    return [await house.admits(said), await house.admits(said, ("X-Forwarded-For", "10.0.0.1"))]


async def two_credentials(house: House) -> list[bool]:
    """Who looks at the first of them sees another caller than who looks at the last."""
    good = ("Authorization", f"Bearer {house.gateway.token}")
    others = (WRONG, await house.gateway.key("ann"), house.issuer.token(house.gateway.url))
    return [await house.admits(("Authorization", f"Bearer {other}"), good) for other in others]


async def another_blank(house: House) -> list[bool]:
    """What a filter in front does not take for a bearer token must not be one here."""
    token = house.issuer.token(house.gateway.url)
    return [
        await house.admits(("Authorization", f"Bearer{blank}{each}"))
        for blank in ("\t", "\t\t", " \t", "\t ")
        for each in (token, house.gateway.token)
    ]


async def another_algorithm(house: House) -> list[bool]:
    public = house.issuer.keys[0].private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    keys = (Forged("first", "none", None), Forged("first", "HS256", public))
    return [await house.takes(house.issuer.token(house.gateway.url, key=key)) for key in keys]


async def a_key_in_the_header(house: House) -> list[bool]:
    mine = SigningKey.make("first"), SigningKey.make("mine")
    return [
        await house.takes(house.issuer.token(house.gateway.url, key=key, header={"jwk": key.jwk()})) for key in mine
    ]


async def a_critical_parameter(house: House) -> list[bool]:
    """The issuer says that whoever does not know the parameter must refuse the token (RFC 7515 §4.1.11)."""
    rules: Any = ({"crit": ["bork"], "bork": True}, {"crit": ["exp"]}, {"crit": ["cnf"], "cnf": "x"}, {"crit": []})
    return [await house.takes(house.issuer.token(house.gateway.url, header=header)) for header in rules]


async def a_token_for_another_agent(house: House) -> list[bool]:
    token = house.issuer.token(f"{house.gateway.url}/agents/echo")
    assert await house.takes(token)
    return [await house.takes(token, path) for path in ("/agents/other/tasks", "/agents")]


async def a_session_of_somebody_else(house: House) -> list[bool]:
    ann, bob = await house.gateway.key("ann"), await house.gateway.key("bob")
    session = await Door(house.gateway, who=ann).session()
    door = Door(house.gateway, who=bob)
    uses = (("POST", request("ping", {})), ("POST", request("tools/list", {})), ("DELETE", None))
    return [(await door.raw(body, session.headers, method=method)).status_code < 300 for method, body in uses]


async def clients_of_the_operator(house: House) -> list[bool]:
    """With a token that is good for a little, manage the clients of the authorization server."""
    http, operator = house.gateway.client, house.gateway.bearer(None)
    made = await http.post("/admin/clients", json={"id": "robot", "scopes": ["agents.call"]}, headers=operator)
    form, basic = {"grant_type": "client_credentials", "scope": "agents.call"}, ("robot", made.json()["secret"])
    given = await http.post("/oauth/token", data=form, auth=basic)
    got: list[bool] = []
    for token in (house.issuer.token(house.gateway.url, scope="agents.call"), given.json()["access_token"]):
        assert await house.takes(token)
        who = house.gateway.bearer(token)
        got += [
            (await http.get("/admin/clients", headers=who)).status_code == 200,
            (await http.post("/admin/clients", json={"id": f"mine{len(got)}"}, headers=who)).status_code == 201,
            (await http.post("/admin/clients:invite", json={}, headers=who)).status_code == 201,
        ]
    return [*got, (await http.delete("/admin/clients/robot", headers=who)).status_code == 204]


# The twins: what stands in the place of one defence.


def believes_anybody_about_certificates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Proxies, "_trusts", lambda self, address: True)


def takes_the_last_of_two(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(head, "_judge_repeated", lambda headers: None)


def takes_any_blank(patch: pytest.MonkeyPatch) -> None:
    sound = Authenticator.principal

    async def principal(self: Authenticator, headers: dict[bytes, bytes], *asked: Any) -> Principal:
        said = b" ".join(headers.get(b"authorization", b"").split())
        return await sound(self, {**headers, b"authorization": said}, *asked)

    patch.setattr(Authenticator, "principal", principal)


def lets_the_token_say_how(patch: pytest.MonkeyPatch) -> None:
    sound = KeyedIssuer.verify

    async def verify(self: KeyedIssuer, token: bytes, parsed: Unverified | None) -> Verified:
        assert parsed is not None
        if parsed.alg not in ("none", "HS256"):
            return await sound(self, token, parsed)
        key = await self._keys.find(parsed.kid, "ES256")
        assert key is not None
        made = b"" if parsed.alg == "none" else hmac.digest(key.jose.as_pem(private=False), parsed.signed, "sha256")
        assert made == parsed.signature
        return check_claims(parsed.claims, self.rules, self._now() / 1000)

    patch.setattr(KeyedIssuer, "verify", verify)


def takes_the_key_of_the_token(patch: pytest.MonkeyPatch) -> None:
    sound = KeyedIssuer.verify

    async def verify(self: KeyedIssuer, token: bytes, parsed: Unverified | None) -> Verified:
        brought: Any = parsed and parsed.header.get("jwk")
        if parsed is None or not brought:
            return await sound(self, token, parsed)
        key = VerifyKey(None, frozenset({parsed.alg}), jwk.import_key(brought))
        assert key.verifies(parsed.alg, parsed.signed, parsed.signature)
        return check_claims(parsed.claims, self.rules, self._now() / 1000)

    patch.setattr(access_token, "REFUSED_PARAMETERS", access_token.REFUSED_PARAMETERS - {"jwk"})
    patch.setattr(KeyedIssuer, "verify", verify)


def passes_over_what_is_critical(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(access_token, "REFUSED_PARAMETERS", access_token.REFUSED_PARAMETERS - {"crit"})


def looks_at_no_audience(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Verified, "meant_for_all", property(lambda self: True))


def lets_everybody_manage_clients(patch: pytest.MonkeyPatch) -> None:
    verbs = ("AddClient", "ListClients", "InviteClient", "RevokeClient")
    patch.setattr("gateway.policing.RULES", (*RULES, simple("clients", "anybody known may", EVERYBODY, verbs)))


ATTACKS: Attacks[House] = {
    "forwarded": (a_forwarded_certificate, believes_anybody_about_certificates),
    "repeated": (two_credentials, takes_the_last_of_two),
    "blank": (another_blank, takes_any_blank),
    "algorithm": (another_algorithm, lets_the_token_say_how),
    "key": (a_key_in_the_header, takes_the_key_of_the_token),
    "critical": (a_critical_parameter, passes_over_what_is_critical),
    "audience": (a_token_for_another_agent, looks_at_no_audience),
    "session": (a_session_of_somebody_else, asks_for_no_principal),
    "clients": (clients_of_the_operator, lets_everybody_manage_clients),
}


@each_of(ATTACKS)
async def test_an_attack_fails_in_all_its_forms_and_succeeds_against_its_broken_twin(
    tmp_path: Path, attempt: Attempt[House]
) -> None:
    async with house(tmp_path) as here:
        await attempt(here)
