"""What remote agents are shown so that they let us in: the operator's, where the card says, and never the caller's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.app import assemble
from gateway.config import ConfigError, Flags, parse, settle
from tests import acp
from tests.authority import Authority
from tests.issuer import issuing
from tests.journeys.people import admin
from tests.journeys.test_ownership import kept
from tests.remote import Asked, Scripted, ready, scripted
from tests.serving import ROOT, Gateway, running
from tests.upstream import loopback

pytestmark = pytest.mark.security

SECRET = "s3cret-of-the-operator"
ECHO = f"  echo: {{run: 'agents.echo:Echo', card: {ROOT}/agent_cards/echo.json, public: true}}\n"


def api_key(where: str, name: str) -> dict[str, Any]:
    return {"apiKeySecurityScheme": {"location": where, "name": name}}


def http(scheme: str) -> dict[str, Any]:
    return {"httpAuthSecurityScheme": {"scheme": scheme}}


async def hello(asked: Asked) -> None:
    task = {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_COMPLETED"}}
    asked.answer({"task": task})


@asynccontextmanager
async def house(
    tmp_path: Path, credentials: str, *, schemes: Any = None, requirements: Any = None, more: str = ""
) -> AsyncIterator[tuple[Gateway, Scripted]]:
    (tmp_path / "secret").write_text(SECRET + "\n")
    async with scripted() as agent:
        agent.plays["SendMessage"] = hello
        agent.card |= {"securitySchemes": schemes} if schemes else {}
        agent.card |= {"securityRequirements": requirements} if requirements else {}
        entry = f"  far: {{card_url: '{agent.url}', public: true, credentials: {{{credentials}}}}}\n"
        async with running(tmp_path, f"agents:\n{entry}{more}") as gateway:
            yield gateway, agent


def key(tmp_path: Path) -> str:
    return f"key: {{file: {tmp_path}/secret}}"


@pytest.mark.requirement("a2a.upstream.security-schemes")
@pytest.mark.parametrize(
    ("scheme", "more", "seen"),
    [
        (api_key("header", "X-Key"), "", ("x-key", SECRET)),
        (api_key("cookie", "session"), "", ("cookie", f"session={SECRET}")),
        (api_key("query", "key"), "", ("", f"key={SECRET}")),
        (http("bearer"), "", ("authorization", f"Bearer {SECRET}")),
        (http("Basic"), ", user: me", ("authorization", "Basic bWU6czNjcmV0LW9mLXRoZS1vcGVyYXRvcg==")),
        ({"oauth2SecurityScheme": {"flows": {}}}, "", ("authorization", f"Bearer {SECRET}")),
        (None, "", ("authorization", f"Bearer {SECRET}")),
    ],
    ids=["header", "cookie", "query", "bearer", "basic", "token of a file", "no scheme"],
)
async def test_the_card_says_where_the_operators_key_goes(
    tmp_path: Path, scheme: Any, more: str, seen: tuple[str, str]
) -> None:
    schemes = {"one": scheme} if scheme else None
    needs: Any = [{"schemes": {"one": {"list": []}}}] if scheme else None
    async with house(tmp_path, key(tmp_path) + more, schemes=schemes, requirements=needs) as (gateway, agent):
        await ready(gateway, "far")
        task = await gateway.task("hi", agent="far")
        assert task["status"]["state"] == "TASK_STATE_COMPLETED"
        (asked,) = agent.asked
        name, value = seen
        if name:
            assert asked.headers[name] == value
            assert value not in {each for other, each in asked.headers.items() if other != name}
        else:
            assert value in agent.lines[-1]
        assert SECRET not in str(agent.cards)  # the card is fetched by anybody
        # A secret that is changed is used from the next call on.
        (tmp_path / "secret").write_text("another")
        await gateway.task("hi", agent="far")
        assert SECRET not in str((agent.asked[-1].headers, agent.lines[-1]))


async def test_the_first_requirement_that_can_be_met_is_met_whole(tmp_path: Path) -> None:
    schemes: Any = {"cert": {"mtlsSecurityScheme": {}}, "one": api_key("header", "X-One"), "two": http("bearer")}
    needs: Any = [{"schemes": {"cert": {"list": []}}}, {"schemes": {"one": {"list": []}, "two": {"list": []}}}]
    async with house(tmp_path, key(tmp_path), schemes=schemes, requirements=needs) as (gateway, agent):
        await ready(gateway, "far")
        await gateway.task("hi", agent="far")
        headers = agent.asked[0].headers
        assert (headers["x-one"], headers["authorization"]) == (SECRET, f"Bearer {SECRET}")


async def test_of_a_card_that_says_only_which_schemes_there_are_one_that_can_be_met_is_met(tmp_path: Path) -> None:
    schemes: Any = {"cert": {"mtlsSecurityScheme": {}}, "one": api_key("header", "X-One")}
    async with house(tmp_path, key(tmp_path), schemes=schemes) as (gateway, agent):
        await ready(gateway, "far")
        await gateway.task("hi", agent="far")
        assert agent.asked[0].headers["x-one"] == SECRET


async def test_an_agent_that_asks_for_what_there_is_not_says_so(tmp_path: Path) -> None:
    schemes: Any = {"cert": {"mtlsSecurityScheme": {}}}
    needs: Any = [{"schemes": {"cert": {"list": []}}}]
    async with house(tmp_path, key(tmp_path), schemes=schemes, requirements=needs) as (gateway, agent):
        listed = (await gateway.client.get("/admin/agents", headers=gateway.bearer(None))).json()["agents"]
        assert "asks for a client certificate" in listed[0]["reason"]
        assert agent.asked == []


async def test_credentials_go_to_the_named_origin_and_nowhere_else(tmp_path: Path) -> None:
    """Where the card points is somebody else's word."""
    async with loopback.canary() as thief, scripted() as agent:
        (tmp_path / "secret").write_text(SECRET)
        agent.card["supportedInterfaces"][0]["url"] = f"{thief.url}/"
        entry = f"agents:\n  far: {{card_url: '{agent.url}', public: true, credentials: {{{key(tmp_path)}}}}}\n"
        async with running(tmp_path, entry + "egress: {allow_loopback: true}\n") as gateway:
            await ready(gateway, "far")
            error = await gateway.error("SendMessage", {"message": _message()}, agent="far")
            assert "credentials.origin" in error["message"]


def _message() -> dict[str, Any]:
    return {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}


@pytest.mark.requirement("oauth.upstream.challenge")
async def test_the_agents_401_is_not_our_challenge(tmp_path: Path) -> None:
    async with house(tmp_path, key(tmp_path)) as (gateway, agent):

        async def refuse(asked: Asked) -> None:
            asked.whole(b"{}", "401 Unauthorized", www_authenticate='Bearer realm="theirs", scope="x"')

        agent.plays["SendMessage"] = refuse
        await ready(gateway, "far")
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": _message()}}
        answer = await gateway.post(body, agent="far")
        assert answer.status_code == 200  # JSON-RPC: the error is in the body
        assert "www-authenticate" not in answer.headers
        assert "theirs" not in answer.text
        sent = await gateway.http(
            "POST", "/message:send", agent="far", json={"message": {**_message(), "messageId": "m2"}}
        )
        assert sent.status_code not in (401, 403)
        assert "www-authenticate" not in sent.headers


# Canaries.

INBOUND = {
    "Cookie": "session=canary-cookie",
    "X-Api-Key": "canary-key",
    "Proxy-Authorization": "Basic canary-proxy",
    "DPoP": "canary-proof",
    "X-Forwarded-Access-Token": "canary-forwarded",
    "X-Auth-Token": "canary-auth",
    "X-Goog-Iap-Jwt-Assertion": "canary-iap",
    "X-Amzn-Oidc-Data": "canary-amzn",
    "Cf-Access-Jwt-Assertion": "canary-cf",
    "X-Forwarded-Client-Cert": "URI=spiffe://canary",
    "Forwarded": "for=canary-forwarded-for",
}


@pytest.mark.requirement("oauth.token.not-passed-on")
async def test_nothing_of_what_a_caller_shows_reaches_an_agent_a_log_an_error_or_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with (
        issuing() as issuer,
        house(tmp_path, key(tmp_path), more=f"auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}\n") as (gateway, agent),
    ):
        await ready(gateway, "far")
        bearer = issuer.token(gateway.url)
        told = []
        for who in (bearer, await gateway.key("canary"), gateway.token):
            for method, number in (("SendMessage", 1), ("NoSuchMethod", 2), ("GetTask", 3)):
                params = {"message": {**_message(), "messageId": f"{who[-8:]}{number}"}} if number == 1 else {"id": "x"}
                body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
                answer = await gateway.post(
                    body, agent="far", who=who, **{k.replace("-", "_"): v for k, v in INBOUND.items()}
                )
                told.append(answer.text + str(answer.headers))
            secret = who.split(".")[-1]
            places = {
                "the agent": str([(asked.headers, asked.raw) for asked in agent.asked]) + str(agent.lines),
                "a log": "".join(r.getMessage() for r in caplog.records if not r.name.startswith(("http", "asyncio"))),
                "an answer": "".join(told),
            }
            for place, text in places.items():
                assert secret not in text, place
                assert "canary" not in text.replace("key:canary", ""), place
            on_disk = kept(tmp_path)
            if who != gateway.token:  # which lies there for the machine's owner
                assert secret.encode() not in on_disk
            # Whole ones: behind the name of the key `canary` stands a random byte, which may be a hyphen.
            shown = [value.rpartition("=")[2].rpartition(" ")[2] for value in INBOUND.values()]
            assert [each for each in shown if each.encode() in on_disk] == []
        assert len(agent.asked) == 3
        assert SECRET.encode() not in kept(tmp_path).replace((tmp_path / "secret").read_bytes(), b"")
        assert SECRET not in places["a log"]


# Tokens.


@asynccontextmanager
async def guarded(tmp_path: Path, oauth: str, more: str = "") -> AsyncIterator[tuple[Gateway, Authority, list[Asked]]]:
    """An agent that takes only tokens of an authorization server, and says so with 401 and on its card."""
    authority, asked = Authority(), list[Asked]()
    (tmp_path / "secret").write_text("s3cret/+&")
    async with loopback.serve(authority.script) as server, scripted() as agent:
        authority.port = server.port

        async def play(one: Asked) -> None:
            asked.append(one)
            token = one.headers.get("authorization", "").removeprefix("Bearer ")
            if token not in authority.tokens:
                one.whole(b"{}", "401 Unauthorized", www_authenticate="Bearer")
            else:
                await hello(one)

        agent.plays["SendMessage"] = play
        agent.card["securitySchemes"] = {
            "o": {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"tokenUrl": f"{authority.issuer}/token"}}}}
        }
        agent.card["securityRequirements"] = [{"schemes": {"o": {"list": []}}}]
        entry = f"  far: {{card_url: '{agent.url}', public: true, credentials: {{oauth: {{{oauth}}}}}}}\n"
        text = f"agents:\n{entry}{more}egress: {{allow_loopback: true}}\n"
        async with running(tmp_path, text) as gateway:
            await ready(gateway, "far")
            yield gateway, authority, asked


@pytest.mark.requirement("a2a.upstream.oauth")
async def test_client_credentials_are_got_once_for_all_callers(tmp_path: Path) -> None:
    oauth = f"client_id: us, client_secret: {{file: {tmp_path}/secret}}"
    async with guarded(tmp_path, oauth) as (gateway, authority, asked):
        for who in (None, await gateway.key("a"), await gateway.key("b")):
            assert (await gateway.task("hi", agent="far", who=who))["status"]["state"] == "TASK_STATE_COMPLETED"
        assert [form["grant_type"] for form in authority.forms] == ["client_credentials"]
        assert len(asked) == 4  # the first one found out that a token is wanted
        for word in authority.secrets:
            assert word.encode() not in kept(tmp_path)


@pytest.mark.requirement("oauth.upstream.exchange")
async def test_one_gateway_calls_another_on_behalf_of_each_caller(tmp_path: Path, port: int) -> None:
    """Two gateways: the first signs who its caller is, the second gives it a token for that, and its agent's tasks are
    that person's. Neither ever sees the other's credentials of a person."""
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    signing = f"http://127.0.0.1:{port}"
    trusted = f"auth: {{issuers: [{{issuer: '{signing}'}}], authorization_server: {{}}}}\n"
    async with running(far, f"{trusted}agents:\n{ECHO}") as second:
        made = await admin(second, "clients", id="near", grants=["token_exchange"])
        (near / "secret").write_text(made["secret"])
        oauth = (
            f"grant: token_exchange, issuer: '{second.url}', client_id: near, client_secret: {{file: {near}/secret}}"
        )
        card = f"{second.url}/agents/echo/.well-known/agent-card.json"
        entry = f"  far: {{card_url: '{card}', public: true, credentials: {{oauth: {{{oauth}}}}}}}\n"
        text = f"auth: {{authorization_server: {{}}}}\nagents:\n{entry}"
        async with running(near, text, port=port) as caller:
            await ready(caller, "far")
            for name in ("ann", "bob", "ann"):
                task = await caller.task(f"from {name}", agent="far", who=await caller.key(name))
                assert task["status"]["state"] == "TASK_STATE_COMPLETED", task
            entries = await second.record()
        calls = [(each.principal, each.chain) for each in entries if each.verb == "SendMessage"]
        assert set(calls) == {
            ("oauth:gateway#near", (f"oauth:gateway#{signing}#key:{name}",)) for name in ("ann", "bob")
        }
        assert sum(each.verb == "IssueToken" for each in entries) == 2  # one token for each caller


# Agents that speak ACP. Its servers have no place where they would say what they ask for.


@asynccontextmanager
async def acp_house(
    tmp_path: Path, credentials: str, admits: Callable[[dict[str, str]], bool], more: str = ""
) -> AsyncIterator[tuple[Gateway, acp.Server]]:
    """An ACP server where nothing can be had without a credential, manifests included."""
    (tmp_path / "secret").write_text(SECRET + "\n")
    async with acp.scripted() as server:
        server.admits = admits

        @server.on("create")
        async def _(asked: acp.Asked) -> None:
            await asked.begin()
            await asked.event("run.completed", run=acp.run("completed", acp.told("hello")))

        entry = f"  far: {{card_url: '{server.manifest}', public: true, credentials: {{{credentials}}}}}\n"
        async with running(tmp_path, f"agents:\n{entry}{more}") as gateway:
            yield gateway, server


@pytest.mark.requirement("acp.upstream.credentials")
@pytest.mark.parametrize(
    ("credentials", "name", "value"),
    [
        ("key: {{file: {secret}}}", "authorization", f"Bearer {SECRET}"),
        ("key: {{file: {secret}}}, user: me", "authorization", "Basic bWU6czNjcmV0LW9mLXRoZS1vcGVyYXRvcg=="),
        ("headers: {{X-Key: {{file: {secret}}}}}", "x-key", SECRET),
    ],
    ids=["key", "password", "header"],
)
async def test_an_acp_server_gets_the_operators_key_once_it_has_asked_for_one(
    tmp_path: Path, credentials: str, name: str, value: str
) -> None:
    given = credentials.format(secret=tmp_path / "secret")
    async with acp_house(tmp_path, given, lambda headers: headers.get(name) == value) as (gateway, server):
        await ready(gateway, "far")
        assert [SECRET in str(headers) or name in headers for headers in server.refused] == [False]  # the manifest's
        task = await gateway.task("hi", agent="far")
        assert (task["status"]["state"], len(server.refused)) == ("TASK_STATE_COMPLETED", 1)
        assert [what for what, _ in server.asked] == ["create"]


@pytest.mark.requirement("acp.upstream.credentials")
async def test_an_acp_server_is_called_with_tokens_by_client_credentials(tmp_path: Path) -> None:
    authority = Authority()
    async with loopback.serve(authority.script) as tokens:
        authority.port = tokens.port
        oauth = f"issuer: '{authority.issuer}', client_id: us, client_secret: {{file: {tmp_path}/secret}}"

        def admits(headers: dict[str, str]) -> bool:
            return headers.get("authorization", "").removeprefix("Bearer ") in authority.tokens

        loopback_too = "egress: {allow_loopback: true}\n"
        async with acp_house(tmp_path, f"oauth: {{{oauth}}}", admits, loopback_too) as (gateway, server):
            await ready(gateway, "far")
            for who in (None, await gateway.key("a")):
                assert (await gateway.task("hi", agent="far", who=who))["status"]["state"] == "TASK_STATE_COMPLETED"
            assert [form["grant_type"] for form in authority.forms] == ["client_credentials"]
            assert all(SECRET not in str(asked.headers) for _, asked in server.asked)
            for word in authority.secrets:
                assert word.encode() not in kept(tmp_path)


async def test_a_card_that_is_not_for_everybody_is_read_with_the_agents_own_credentials_only(tmp_path: Path) -> None:
    async with acp_house(tmp_path, key(tmp_path), lambda headers: False) as (gateway, server):
        (agent,) = (await gateway.client.get("/admin/agents", headers=gateway.bearer(None))).json()["agents"]
        assert "status 401" in agent["reason"]
        assert {headers.get("authorization") for headers in server.refused} == {None, f"Bearer {SECRET}"}
        seen = len(server.refused)
        body = {"cardUrl": server.manifest, "id": "other"}
        answer = await gateway.client.post("/admin/agents", json=body, headers=gateway.bearer(None))
        assert answer.status_code == 502, answer.text
        assert [headers.get("authorization") for headers in server.refused[seen:]] == [None]


async def test_exchange_needs_our_own_signature(tmp_path: Path) -> None:
    text = "agents:\n  far: {card_url: 'https://far.example', credentials: {oauth: {grant: token_exchange}}}\n"
    settings = settle(parse(text, base=tmp_path), Flags(data=tmp_path, port=8080), {}, cwd=tmp_path)
    with pytest.raises(ConfigError) as refused:
        await assemble(settings)
    assert "set auth.authorization_server" in str(refused.value)
