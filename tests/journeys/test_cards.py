"""Agent cards: where they are, what they say, how long they keep (A2A §8), and the extended one (§3.1.11)."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.bindings import BINDINGS, Caller
from tests.cardkeys import sdk_verifies
from tests.journeys.conftest import TOWN
from tests.rpc import Rpc
from tests.serving import ROOT, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

WELL_KNOWN = "/.well-known/agent-card.json"
REQUIRED = {
    "name", "description", "supportedInterfaces", "version", "capabilities", "defaultInputModes", "defaultOutputModes",
    "skills",
}  # fmt: skip
OLDER = {
    "url", "preferredTransport", "protocolVersion", "additionalInterfaces", "supportsAuthenticatedExtendedCard",
    "security",
}  # fmt: skip
OPTIONAL = {"provider", "documentationUrl", "iconUrl", "securitySchemes", "securityRequirements", "signatures"}


async def card(gateway: Gateway, agent: str = "echo", **headers: str) -> Any:
    answer = await gateway.client.get(f"/agents/{agent}{WELL_KNOWN}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.requirement("a2a.card.well-known", "a2a.card.required-fields", "a2a.card.version-is-major-minor")
@pytest.mark.parametrize("agent", ["echo", "plain", "strict", "more"])
async def test_a_public_agents_card_is_there_for_anybody(gateway: Gateway, agent: str) -> None:
    shown = await card(gateway, agent)
    assert shown.keys() >= REQUIRED
    assert shown.keys() <= REQUIRED | OPTIONAL | OLDER
    assert shown["supportedInterfaces"][0] == {
        "url": f"{gateway.url}/agents/{agent}", "protocolBinding": "JSONRPC", "protocolVersion": "1.0",
    }  # fmt: skip
    offered = [
        (interface["protocolVersion"], interface["protocolBinding"]) for interface in shown["supportedInterfaces"]
    ]
    assert list(dict.fromkeys(offered)) == [
        *(("1.0", "JSONRPC"), ("1.0", "HTTP+JSON"), ("1.0", "GRPC"), ("0.3", "JSONRPC"), ("0.3", "HTTP+JSON")),
        *([("0.3", "GRPC")] if agent == "echo" else []),  # which has no word for any other agent
    ]


@pytest.mark.requirement("a2a.card.well-known")
async def test_the_default_agents_card_is_at_the_root(gateway: Gateway) -> None:
    assert (await gateway.client.get(WELL_KNOWN)).json() == await card(gateway, "echo")


@pytest.mark.requirement("a2a.card.interfaces-are-true")
async def test_every_interface_of_a_card_really_answers(gateway: Gateway) -> None:
    interfaces = [each for each in (await card(gateway))["supportedInterfaces"] if each["protocolVersion"] == "1.0"]
    assert len(interfaces) == 6  # three bindings, each without and with the tenant
    headers = {"A2A-Version": "1.0", **gateway.bearer(None)}
    for interface in interfaces:
        sent: dict[str, Any] = {"message": message("hi")}
        tenant = interface.get("tenant")
        if interface["protocolBinding"] == "JSONRPC":
            sent |= {"tenant": tenant} if tenant else {}
            call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": sent}
            for url in (interface["url"], interface["url"] + "/"):
                answer = await gateway.client.post(url, json=call, headers=headers)
                assert "result" in answer.json(), answer.text
        elif interface["protocolBinding"] == "GRPC":
            async with grpc.aio.insecure_channel(interface["url"]) as channel:
                caller = Rpc(replace(gateway, channel=channel), "grpc", "")
                assert "task" in await caller.call("SendMessage", **sent, **({"tenant": tenant} if tenant else {}))
        else:
            url = interface["url"] + (f"/{tenant}" if tenant else "") + "/message:send"
            answer = await gateway.client.post(url, json=sent, headers=headers)
            assert "task" in answer.json(), answer.text


@pytest.mark.requirement("a2a.card.capabilities-are-true")
async def test_a_card_declares_what_the_gateway_does_for_the_agent(gateway: Gateway) -> None:
    assert (await card(gateway, "echo"))["capabilities"] == {
        "streaming": True, "pushNotifications": True, "extendedAgentCard": False,
    }  # fmt: skip
    assert (await card(gateway, "more"))["capabilities"]["extendedAgentCard"] is True
    assert (await card(gateway, "strict"))["capabilities"]["extensions"][0]["required"] is True
    assert not any((await card(gateway, "plain"))["capabilities"].values())


@pytest.mark.requirement("a2a.card.security-is-the-gateways", "a2a.card.stale-signature-dropped")
async def test_a_card_declares_how_the_gateway_lets_callers_in(tmp_path: Path) -> None:
    own = json.loads((ROOT / "agent_cards/echo.json").read_text())
    own["securitySchemes"] = {"theirs": {"mtlsSecurityScheme": {}}}
    own["securityRequirements"] = [{"schemes": {"theirs": {"list": []}}}]
    own["signatures"] = [{"protected": "e30", "signature": "e30"}]
    own["newerField"] = {"kept": True}
    path = tmp_path / "card.json"
    path.write_text(json.dumps(own))
    config = TOWN.replace(f"{ROOT}/agent_cards/echo.json", str(path))
    async with running(tmp_path / "closed", config) as gateway:
        shown = await card(gateway)
        assert shown["securitySchemes"]["gateway"]["httpAuthSecurityScheme"]["scheme"] == "Bearer"
        assert shown["securityRequirements"] == [{"schemes": {"gateway": {"list": []}}}]
        assert own["signatures"][0] not in shown["signatures"]
        assert shown["newerField"] == {"kept": True}
    async with running(tmp_path / "open", config, anonymous=True) as gateway:
        shown = await card(gateway)
        assert shown.keys().isdisjoint({"securitySchemes", "securityRequirements"})


@pytest.mark.requirement("a2a.card.addresses-are-the-gateways")
async def test_addresses_in_cards_come_from_the_configuration_never_from_the_request(tmp_path: Path) -> None:
    config = TOWN.replace("default_agent: echo", "public_url: https://gw.example/base, allowed_hosts: [other.example]")
    async with running(tmp_path, config) as gateway:
        for headers in (
            {"Host": "gw.example"},
            {"Host": "other.example"},
            {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "ftp", "Forwarded": "host=evil.example"},
        ):
            shown = await card(gateway, **headers)
            assert {interface["url"] for interface in shown["supportedInterfaces"]} == {
                "https://gw.example/base/agents/echo"
            }


# Keeping a copy.


@pytest.mark.requirement("a2a.card.cache-control", "a2a.card.etag", "a2a.card.last-modified", "a2a.card.not-modified")
@pytest.mark.parametrize("path", [WELL_KNOWN, f"/agents/echo{WELL_KNOWN}"])
async def test_a_reader_that_has_the_card_is_told_so(gateway: Gateway, path: str) -> None:
    first = await gateway.client.get(path)
    tag, changed = first.headers["etag"], first.headers["last-modified"]
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cache-control"] == "public, max-age=300"
    at = parsedate_to_datetime(changed)
    opaque = tag.removeprefix("W/")
    same = (tag, opaque, f'"other", {tag}', "*")
    for headers in (
        *({"If-None-Match": value} for value in same),
        {"If-Modified-Since": changed},
        {"If-Modified-Since": format_datetime(at + timedelta(days=1), usegmt=True)},
        {"If-None-Match": tag, "If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    ):
        answer = await gateway.client.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (304, b""), headers
        assert answer.headers["etag"] == tag
        assert answer.headers["cache-control"] == first.headers["cache-control"]
    for headers in (
        {"If-None-Match": '"other"'},
        {"If-None-Match": opaque.strip('"')},
        {"If-None-Match": '"other"', "If-Modified-Since": changed},
        {"If-Modified-Since": format_datetime(at - timedelta(seconds=1), usegmt=True)},
        {"If-Modified-Since": "yesterday"},
        {"If-Modified-Since": ""},
    ):
        answer = await gateway.client.get(path, headers=headers)
        assert (answer.status_code, answer.content) == (200, first.content), headers


async def test_head_shows_what_get_would(gateway: Gateway) -> None:
    for path in (WELL_KNOWN, f"/agents/echo{WELL_KNOWN}"):
        whole, head = await gateway.client.get(path), await gateway.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("etag", "last-modified", "cache-control", "content-type", "content-length"):
            assert head.headers[name] == whole.headers[name]
        assert (await gateway.client.head(path, headers={"If-None-Match": whole.headers["etag"]})).status_code == 304


@pytest.mark.requirement("a2a.card.etag", "a2a.card.last-modified")
async def test_etag_and_date_change_when_the_card_does(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    own = json.loads((ROOT / "agent_cards/echo.json").read_text())
    config = TOWN.replace("default_agent: echo", "public_url: https://gw.example")
    config = config.replace(f"{ROOT}/agent_cards/echo.json", str(path))
    seen = []
    for version in ("1.0.0", "1.0.0", "1.0.1"):
        path.write_text(json.dumps({**own, "version": version}))
        async with running(tmp_path / "data", config) as gateway:
            answer = await gateway.client.get(WELL_KNOWN)
            seen.append(answer.headers["etag"])
            assert parsedate_to_datetime(answer.headers["last-modified"]).timestamp() == int(path.stat().st_mtime)
    assert seen[0] == seen[1] != seen[2]


# Who sees which.


async def test_the_catalogue_shows_what_its_reader_may_see(gateway: Gateway) -> None:
    key = await gateway.key("reader")
    public = {"Echo", "Plain", "Strict"}
    for headers, hidden in (({}, False), (gateway.bearer(key), False), (gateway.bearer(None), True)):
        answer = await gateway.client.get("/agents", headers=headers)
        urls = {shown["supportedInterfaces"][0]["url"].rpartition("/")[2] for shown in answer.json()["agents"]}
        assert {shown["name"] for shown in answer.json()["agents"]} == public
        assert ("hidden" in urls) == hidden
        assert answer.headers["cache-control"].startswith("private")
        assert answer.headers["vary"] == "Authorization"
        same = {**headers, "If-None-Match": answer.headers["etag"]}
        assert (await gateway.client.get("/agents", headers=same)).status_code == 304
    assert (await gateway.client.get("/agents", headers=gateway.bearer("wrong"))).status_code == 401


async def test_the_card_of_a_hidden_agent_is_missing_byte_for_byte(gateway: Gateway) -> None:
    key = await gateway.key("reader")
    for headers in ({}, gateway.bearer(key)):
        hidden = await gateway.client.get(f"/agents/hidden{WELL_KNOWN}", headers=headers)
        missing = await gateway.client.get(f"/agents/missing{WELL_KNOWN}", headers=headers)
        assert (hidden.status_code, hidden.content) == (404, missing.content)
        assert hidden.json()["error"]["status"] == "NOT_FOUND"
    shown = await gateway.client.get(f"/agents/hidden{WELL_KNOWN}", headers=gateway.bearer(None))
    assert shown.status_code == 200
    assert shown.headers["cache-control"].startswith("private")


# The extended card.


@pytest.mark.requirement("a2a.jsonrpc.no-params", "a2a.extended.kept-privately")
async def test_the_extended_card_is_for_those_who_show_who_they_are(caller: Caller) -> None:
    more = caller.to("more")
    shown = await more.call("GetExtendedAgentCard")
    assert shown["name"] == "Strict"
    assert shown["supportedInterfaces"][0]["url"] == f"{caller.gateway.url}/agents/more"
    stranger = await more.other(f"reader-{caller.binding}")
    answer = await stranger.ask("GetExtendedAgentCard")
    assert stranger.result(answer) == shown
    if caller.binding == "http":
        assert answer.headers["cache-control"] == "no-store"
    elif caller.binding == "jsonrpc":
        bare = await caller.gateway.post(
            {"jsonrpc": "2.0", "id": "call-1", "method": "GetExtendedAgentCard"}, agent="more"
        )
        assert bare.json()["result"] == shown


@pytest.mark.requirement("a2a.extended.needs-authentication")
@pytest.mark.parametrize("binding", BINDINGS)
async def test_nobody_gets_the_extended_card_even_where_nobody_may_call(tmp_path: Path, binding: str) -> None:
    async with running(tmp_path, TOWN, anonymous=True) as gateway:
        nobody = Caller(gateway, binding, "more").having(Authorization=None)
        assert await nobody.task()
        error = await nobody.refused("UNAUTHENTICATED", "GetExtendedAgentCard")
        assert error.answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_extended_card_shows_the_skills_that_its_reader_may_use(tmp_path: Path) -> None:
    own = json.loads((ROOT / "agent_cards/echo.json").read_text())
    path, policy = tmp_path / "card.json", tmp_path / "policy.yaml"
    path.write_text(json.dumps(own))
    policy.write_text(
        "rules:\n"
        "  - {rule: card, who: ann, do: GetExtendedAgentCard, on: agents/desk, verdict: PASS}\n"
        "  - {rule: echo, who: ann, do: SendMessage, on: agents/desk/echo, verdict: PASS}\n"
    )
    desk = f'{{run: "agents.echo:Echo", card: {path}, extended_card: {path}}}'
    config = f"agents:\n  desk: {desk}\npolicy: {{file: {policy}}}\n"
    async with running(tmp_path / "data", config) as gateway:
        for binding in BINDINGS:
            every = await Caller(gateway, binding, "desk").call("GetExtendedAgentCard")
            assert [skill["id"] for skill in every["skills"]] == ["echo", "behave"]
            ann = await Caller(gateway, binding, "desk").other("ann")
            mine = await ann.call("GetExtendedAgentCard")
            assert [skill["id"] for skill in mine["skills"]] == ["echo"]
            sdk_verifies(mine, (await gateway.client.get("/.well-known/agent-card-keys.json")).json())


@pytest.mark.requirement("a2a.extended.undeclared")
async def test_an_agent_without_an_extended_card_says_so(caller: Caller) -> None:
    await caller.refused("UNSUPPORTED_OPERATION", "GetExtendedAgentCard")
