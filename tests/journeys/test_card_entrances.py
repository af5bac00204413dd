"""What the gateway's cards say of how to get in, and whether that is so: a2a-sdk reads it and goes there."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from a2a.client import A2ACardResolver, ClientCallContext, ClientConfig, ClientFactory
from a2a.client.auth import AuthInterceptor, InMemoryContextCredentialStore
from a2a.client.errors import A2AClientError
from a2a.compat.v0_3.types import AgentCard as OlderCard
from a2a.types import AgentCard, Message, Part, Role, SendMessageRequest

from tests.issuer import Issuer, issuing
from tests.journeys.people import admin
from tests.serving import BOUND, ECHO, Gateway, running

pytestmark = pytest.mark.requirement("a2a.card.security-schemes")

Tree = dict[str, Any]
OWN = f"{ECHO}\nauth: {{authorization_server: {{users: true, scopes: [read]}}}}\n"


async def card(gateway: Gateway, **headers: str) -> Tree:
    answer = await gateway.client.get("/agents/echo/.well-known/agent-card.json", headers=headers)
    found: Tree = answer.json()
    return found


def flows(card: Tree) -> dict[str, Tree]:
    """The flow of each OAuth scheme, by the scheme's name."""
    schemes = card["securitySchemes"]
    return {
        name: each["oauth2SecurityScheme"]["flows"] for name, each in schemes.items() if "oauth2SecurityScheme" in each
    }


def offers(issuer: Issuer, **more: Any) -> None:
    """Its metadata says this too."""
    path = "/.well-known/oauth-authorization-server"
    body, status = issuer.documents[path]
    issuer.replies[path] = (json.dumps({**json.loads(body), **more}).encode(), status)


def named(card: Tree) -> list[list[str]]:
    return [list(each["schemes"]) for each in card["securityRequirements"]]


async def test_a_gateway_with_keys_alone_asks_for_a_bearer_credential(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert named(await card(gateway)) == [["gateway"]]
        assert flows(await card(gateway)) == {}


async def test_the_flows_of_the_built_in_server_are_the_ones_it_has(tmp_path: Path) -> None:
    async with running(tmp_path, f"{ECHO}\nauth: {{authorization_server: {{}}}}\n") as gateway:
        shown = await card(gateway)
        assert named(shown) == [["oauth-client"], ["gateway"]]
        token = f"{gateway.url}/oauth/token"
        assert flows(shown) == {"oauth-client": {"clientCredentials": {"tokenUrl": token, "scopes": {}}}}
        metadata = shown["securitySchemes"]["oauth-client"]["oauth2SecurityScheme"]["oauth2MetadataUrl"]
        assert (await gateway.client.get(metadata)).json()["token_endpoint"] == token


async def test_with_people_there_are_their_flows_too_in_both_generations(tmp_path: Path) -> None:
    async with running(tmp_path, OWN) as gateway:
        shown = await card(gateway)
        assert named(shown) == [["oauth-client"], ["oauth-person"], ["oauth-device"], ["gateway"]]
        person = flows(shown)["oauth-person"]["authorizationCode"]
        assert person["pkceRequired"] is True
        assert person["authorizationUrl"] == f"{gateway.url}/oauth/authorize"
        assert set(person["scopes"]) == {"read", "offline_access"}
        assert flows(shown)["oauth-device"]["deviceCode"]["deviceAuthorizationUrl"].endswith(
            "/oauth/device_authorization"
        )
        # 0.3: the same object, with its own fields beside; read by a parser of that time.
        older: Any = OlderCard.model_validate(shown)
        assert older.security == [{name: []} for names in named(shown) for name in names]
        client, person = (older.security_schemes[name].root for name in ("oauth-client", "oauth-person"))
        assert client.type == "oauth2"
        assert client.flows.client_credentials.token_url == f"{gateway.url}/oauth/token"
        assert person.flows.authorization_code.token_url == f"{gateway.url}/oauth/token"
        newer = await card(gateway, **{"A2A-Version": "1.0"})
        assert newer["securitySchemes"]["oauth-client"].keys() == {"oauth2SecurityScheme"}


async def test_an_identity_providers_flows_are_those_of_its_own_metadata(tmp_path: Path) -> None:
    async with issuing() as issuer:
        offers(
            issuer,
            authorization_endpoint=f"{issuer.url}/authorize",
            token_endpoint=f"{issuer.url}/token",
            grant_types_supported=["authorization_code", "client_credentials"],
            code_challenge_methods_supported=["S256"],
            id_token_signing_alg_values_supported=["RS256"],
        )
        config = f"{ECHO}\nauth: {{issuers: [{{issuer: '{issuer.url}', required_scopes: [a2a]}}]}}\n"
        async with running(tmp_path, config) as gateway:
            shown = await card(gateway)
            assert named(shown) == [["issuer-client"], ["issuer-person"], ["issuer-openid"], ["gateway"]]
            assert shown["securityRequirements"][0]["schemes"]["issuer-client"] == {"list": ["a2a"]}
            openid = shown["securitySchemes"]["issuer-openid"]["openIdConnectSecurityScheme"]["openIdConnectUrl"]
            assert openid == f"{issuer.url}/.well-known/openid-configuration"
            assert flows(shown)["issuer-person"]["authorizationCode"]["authorizationUrl"] == f"{issuer.url}/authorize"
            before = issuer.fetched("/.well-known/oauth-authorization-server")
            for _ in range(5):
                await card(gateway)
            assert issuer.fetched("/.well-known/oauth-authorization-server") == before, "it is read once in an hour"


async def test_a_provider_that_does_not_answer_is_not_spoken_for(tmp_path: Path) -> None:
    async with issuing() as issuer:
        issuer.up = False
        now = [1_000_000_000_000]
        config = f"{ECHO}\nauth: {{issuers: [{{issuer: '{issuer.url}'}}]}}\n"
        async with running(tmp_path, config, now=lambda: now[0]) as gateway:
            first = await gateway.client.get("/agents/echo/.well-known/agent-card.json")
            assert named(first.json()) == [["gateway"]]
            issuer.up = True
            offers(issuer, token_endpoint=f"{issuer.url}/token", grant_types_supported=["client_credentials"])
            now[0] += 61_000
            second = await gateway.client.get("/agents/echo/.well-known/agent-card.json")
            assert named(second.json()) == [["issuer-client"], ["gateway"]]
            assert second.headers["etag"] != first.headers["etag"]


async def test_client_certificates_are_declared_where_they_are_taken(tmp_path: Path) -> None:
    auth = "auth: {client_certificates: {trust_domains: [town.example]}}\nserver: {trusted_proxies: [127.0.0.1]}\n"
    async with running(tmp_path, f"{ECHO}\n{auth}") as gateway:
        shown = await card(gateway)
        assert named(shown) == [["certificate"], ["gateway"]]
        assert "town.example" in shown["securitySchemes"]["certificate"]["mtlsSecurityScheme"]["description"]
        older = OlderCard.model_validate(shown)
        assert older.security_schemes is not None
        assert older.security_schemes["certificate"].root.type == "mutualTLS"


# a2a-sdk, from the card to the answer.

Login = Callable[[Gateway, AgentCard], Awaitable[str]]


async def as_a_client(gateway: Gateway, card: AgentCard) -> str:
    made = await admin(gateway, "clients", id="sdk", grants=["client_credentials"])
    flow = card.security_schemes["oauth-client"].oauth2_security_scheme.flows.client_credentials
    form = {"grant_type": "client_credentials"}
    async with httpx2.AsyncClient(trust_env=False, timeout=BOUND) as http:
        answer = await http.post(flow.token_url, data=form, auth=("sdk", made["secret"]))
    token: str = answer.json()["access_token"]
    return token


async def with_a_key(gateway: Gateway, card: AgentCard) -> str:
    assert card.security_schemes["gateway"].http_auth_security_scheme.scheme == "Bearer"
    return await gateway.key("sdk")


@pytest.mark.parametrize(("scheme", "log_in"), [("oauth-client", as_a_client), ("gateway", with_a_key)])
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_the_sdk_goes_from_the_declared_scheme_to_an_answer(
    tmp_path: Path, scheme: str, log_in: Login, binding: str
) -> None:
    async with running(tmp_path, OWN) as gateway, httpx.AsyncClient(trust_env=False, timeout=BOUND) as http:
        found = await A2ACardResolver(http, f"{gateway.url}/agents/echo").get_agent_card()
        store = InMemoryContextCredentialStore()
        config = ClientConfig(httpx_client=http, streaming=False, supported_protocol_bindings=[binding])
        client = ClientFactory(config).create(found, interceptors=[AuthInterceptor(store)])
        context = ClientCallContext(state={"sessionId": "s"})
        text = Message(message_id="m1", role=Role.ROLE_USER, parts=[Part(text="hello")])

        async def answer() -> str:
            return str([each async for each in client.send_message(SendMessageRequest(message=text), context=context)])

        with pytest.raises(A2AClientError):
            await answer()
        await store.set_credentials("s", scheme, await log_in(gateway, found))
        assert "hello" in await answer()


async def test_the_device_flow_of_the_card_leads_to_a_token(tmp_path: Path) -> None:
    async with running(tmp_path, OWN) as gateway:
        made = await admin(gateway, "clients", id="tv", grants=["device_code"])
        url = flows(await card(gateway))["oauth-device"]["deviceCode"]["deviceAuthorizationUrl"]
        async with httpx2.AsyncClient(trust_env=False, timeout=BOUND) as http:
            answer = await http.post(url, data={"scope": "read"}, auth=("tv", made["secret"]))
        assert "user_code" in json.dumps(answer.json()), answer.text


async def test_schemes_of_the_agent_itself_are_not_shown(tmp_path: Path) -> None:
    own = json.loads((Path(__file__).parents[2] / "agent_cards" / "echo.json").read_text())
    own["securitySchemes"] = {"theirs": {"mtlsSecurityScheme": {}}}
    own["skills"][0]["securityRequirements"] = [{"schemes": {"theirs": {"list": []}}}]
    (tmp_path / "card.json").write_text(json.dumps(own))
    config = f"agents:\n  echo: {{run: 'agents.echo:Echo', card: {tmp_path}/card.json, public: true}}\n"
    async with running(tmp_path, config) as gateway:
        assert "theirs" not in json.dumps(await card(gateway))
