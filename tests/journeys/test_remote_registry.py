"""Registering remote agents: from the file, by the command line, by the admin API; their health and their cards."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.core import registry
from tests.remote import Asked, Scripted, admin_agent, agents, ready, scripted, sdk, task, until
from tests.serving import ECHO, Gateway, running
from tests.upstream import loopback


async def add(gateway: Gateway, url: str, id: str | None = None, who: str | None = None) -> httpx2.Response:
    body = {"cardUrl": url} | ({} if id is None else {"id": id})
    return await gateway.client.post("/admin/agents", json=body, headers=gateway.bearer(who))


async def refused(gateway: Gateway, url: str, id: str | None = None) -> tuple[int, str]:
    """Status and sentence; after it nothing is registered."""
    answer = await add(gateway, url, id)
    listed = (await gateway.client.get("/admin/agents", headers=gateway.bearer(None))).json()["agents"]
    assert [agent["id"] for agent in listed] == ["echo"]
    return answer.status_code, answer.json()["error"]["message"]


def completes(agent: Scripted) -> None:
    @agent.on("SendMessage")
    async def _(asked: Asked) -> None:
        asked.answer({"task": task("COMPLETED")})


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_an_added_agent_gets_its_id_from_its_card_and_answers(tmp_path: Path, binding: str) -> None:
    async with sdk(binding) as remote, running(tmp_path) as gateway:
        answer = await add(gateway, remote.url)
        assert answer.status_code == 201
        added = answer.json()
        assert added["id"] == ("sdk-jsonrpc" if binding == "JSONRPC" else "sdk-http-json")
        assert added["health"] == "healthy"
        assert added["card"]["skills"][0]["id"] == "play"
        assert (await gateway.task("hello", agent=added["id"]))["artifacts"][0]["parts"] == [{"text": "hello"}]


@pytest.mark.requirement("a2a.card.addresses-are-the-gateways", "a2a.card.stale-signature-dropped")
async def test_the_published_card_of_a_remote_agent_leads_to_the_gateway_only(tmp_path: Path) -> None:
    secret = {"theirs": {"apiKeySecurityScheme": {"name": "k", "location": "header"}}}
    signed = [{"protected": "e30", "signature": "AA"}]
    about = {"securitySchemes": secret, "signatures": signed, "iconUrl": "https://x.example/i"}
    async with scripted(**about) as agent, running(tmp_path, agents(far=agent.url)) as gateway:
        await ready(gateway, "far")
        answer = await gateway.client.get("/agents/far/.well-known/agent-card.json")
        published = answer.json()
        assert agent.url not in answer.text
        assert "theirs" not in answer.text
        assert signed[0] not in published["signatures"]
        assert published["iconUrl"] == "https://x.example/i"
        assert {i["url"] for i in published["supportedInterfaces"]} == {f"{gateway.url}/agents/far"}


async def test_what_a_card_leaves_out_because_it_is_empty_is_empty(tmp_path: Path) -> None:
    """ProtoJSON's writers leave out every empty value, REQUIRED fields of a card included."""
    async with scripted() as agent, running(tmp_path) as gateway:
        del agent.card["description"], agent.card["defaultOutputModes"], agent.card["skills"][0]["tags"]
        added = await add(gateway, agent.url, "far")
        assert added.status_code == 201, added.text
        served = added.json()["card"]
        assert (served["description"], served["defaultOutputModes"], served["skills"][0]["tags"]) == ("", [], [])
        completes(agent)
        assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"
        del agent.card["name"]
        assert "name" in (await add(gateway, agent.url, "other")).json()["error"]["message"]


async def test_the_first_interface_of_the_newest_version_that_both_speak_is_chosen(tmp_path: Path) -> None:
    async with scripted() as agent:
        ours = agent.card["supportedInterfaces"][0]
        agent.card["supportedInterfaces"] = [
            {"url": "https://x.example", "protocolBinding": "urn:x:CORBA", "protocolVersion": "1.0"},
            {"url": f"{agent.url}/old", "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
            ours | {"protocolVersion": "1.0.7"},
            {"url": f"{agent.url}/rest", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
        ]
        completes(agent)
        async with running(tmp_path) as gateway:
            assert (await add(gateway, agent.url, "far")).status_code == 201
            await gateway.task("hi", agent="far")
            assert len(agent.asked) == 1


# Refusals.


async def test_a_taken_reserved_or_impossible_id_is_refused(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        status, said = await refused(gateway, agent.url, "echo")
        assert status == 409
        assert "'echo' is registered already; give another name with --id" in said
        for id, why in [("admin", "reserved"), ("Far Away", "lower-case"), ("a" * 64, "1 to 63"), ("-x", "lower-case")]:
            status, said = await refused(gateway, agent.url, id)
            assert status == 400
            assert why in said
            assert "--id NAME" in said
        agent.card["name"] = "Echo"
        assert (await refused(gateway, agent.url))[0] == 409
        agent.card["name"] = "天気"
        status, said = await refused(gateway, agent.url)
        assert status == 400
        assert "--id NAME" in said


async def test_an_unreachable_or_absent_card_is_refused(tmp_path: Path, port: int) -> None:
    async with running(tmp_path) as gateway:
        status, said = await refused(gateway, f"http://127.0.0.1:{port}")
        assert status == 502
        assert "refused the connection" in said
        async with loopback.serve(loopback.always(loopback.answer(b"", "404 Not Found"))) as nothing:
            status, said = await refused(gateway, nothing.url)
            assert status == 502
            assert "/.well-known/agent-card.json answered the card request with status 404" in said
        assert (await refused(gateway, "ftp://x.example/card"))[0] == 403


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "Not acceptable as JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "is not an A2A 1.0 or 0.3 card: name"),
        (json.dumps({"name": "x", "url": "http://x", "protocolVersion": "0.3.0"}).encode(), "0.3 card: version"),
    ],
)
async def test_what_is_no_card_is_refused(tmp_path: Path, body: bytes, why: str) -> None:
    async with loopback.serve(loopback.always(loopback.answer(body))) as server, running(tmp_path) as gateway:
        status, said = await refused(gateway, server.url)
        assert status == 500
        assert why in said


async def test_a_card_over_a_mebibyte_is_refused(tmp_path: Path) -> None:
    async with scripted(documentationUrl="x" * (1 << 20)) as agent, running(tmp_path) as gateway:
        status, said = await refused(gateway, agent.url)
        assert status == 502
        assert "more than 1024 KiB" in said


async def test_a_redirect_to_a_forbidden_address_is_refused(tmp_path: Path) -> None:
    async with loopback.canary() as inside, running(tmp_path) as gateway:
        moved = loopback.answer(b"", "302 Found", location=f"{inside.url}/card")
        async with loopback.serve(loopback.always(moved)) as server:
            status, said = await refused(gateway, f"{server.url}/card")
            assert status == 403
            assert "redirected the card request" in said
            assert "egress.allow" in said


async def test_a_card_whose_interface_is_at_a_forbidden_address_is_refused(tmp_path: Path) -> None:
    async with loopback.canary() as inside, scripted() as agent, running(tmp_path) as gateway:
        agent.card["supportedInterfaces"][0]["url"] = f"{inside.url}/rpc"
        status, said = await refused(gateway, agent.url)
        assert status == 403
        assert "egress.allow" in said


async def test_an_agent_without_an_interface_that_we_speak_says_which_it_offers(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        agent.card["supportedInterfaces"] = [
            {"url": "https://x.example", "protocolBinding": "urn:x:CORBA", "protocolVersion": "1.0"},
            {"url": "https://x.example", "protocolBinding": "JSONRPC", "protocolVersion": "0.2.6"},
        ]
        _, said = await refused(gateway, agent.url)
        assert said == (
            "The agent offers urn:x:CORBA 1.0, JSONRPC 0.2.6; "
            "this gateway speaks JSONRPC, HTTP+JSON and GRPC 1.0 or 0.3, and ACP"
        )
        agent.card["supportedInterfaces"] = []
        assert "offers no interface at all" in (await refused(gateway, agent.url))[1]


async def test_only_the_operator_adds_and_removes_agents(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        alice = await gateway.key("alice")
        assert (await add(gateway, agent.url, who=alice)).status_code == 403
        removal = await gateway.client.delete("/admin/agents/echo", headers=gateway.bearer(alice))
        assert removal.status_code == 403
        assert not agent.cards


# Health.


async def test_an_agent_that_is_down_at_the_start_is_unhealthy_and_later_healthy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "RETRY_SECONDS", (0,))
    async with scripted() as agent:
        agent.up = False
        completes(agent)
        async with running(tmp_path, agents(far=agent.url)) as gateway:

            async def noticed() -> bool:
                return bool((await admin_agent(gateway, "far"))["health"] == "unhealthy")

            await until(noticed)
            assert (await admin_agent(gateway, "far"))["reason"]
            error = await gateway.error("SendMessage", {"message": {"messageId": "1", "role": "ROLE_USER", "parts": [
                {"text": "hi"}]}}, agent="far")  # fmt: skip
            assert error["data"][0]["reason"] == "UNAVAILABLE"
            agent.up = True
            await ready(gateway, "far")
            assert (await admin_agent(gateway, "far"))["health"] == "healthy"
            assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_card_of_rubbish_never_stops_the_start(tmp_path: Path) -> None:
    async with scripted() as agent:
        agent.card = {"name": 7}
        config = agents(far=agent.url) + ECHO.split("\n", 2)[2]
        async with running(tmp_path, config) as gateway:
            assert (await gateway.task("hi"))["status"]["state"] == "TASK_STATE_COMPLETED"

            async def noticed() -> Any:
                return (await admin_agent(gateway, "far"))["reason"]

            assert "is not an A2A 1.0 or 0.3 card" in await until(noticed)


async def test_a_card_is_asked_for_again_with_its_etag_and_taken_over_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0)
    async with scripted() as agent:
        agent.etag = '"one"'
        async with running(tmp_path, agents(far=agent.url)) as gateway:
            await ready(gateway, "far")

            async def asked_again() -> bool:
                return len(agent.cards) > 1

            await until(asked_again)
            assert agent.cards[1].headers["if-none-match"] == '"one"'
            agent.etag, agent.card["description"] = '"two"', "Changed"

            async def changed() -> bool:
                return bool((await admin_agent(gateway, "far"))["card"]["description"] == "Changed")

            await until(changed)


async def test_a_card_that_turns_to_rubbish_keeps_the_agent_that_was_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0)
    async with scripted() as agent, running(tmp_path, agents(far=agent.url)) as gateway:
        completes(agent)
        await ready(gateway, "far")
        agent.card = {}

        async def noticed() -> bool:
            return bool((await admin_agent(gateway, "far"))["health"] == "unhealthy")

        await until(noticed)
        assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


# Across restarts.


async def test_added_agents_survive_a_restart_even_while_they_are_down(tmp_path: Path) -> None:
    async with scripted() as agent:
        completes(agent)
        async with running(tmp_path) as gateway:
            assert (await add(gateway, agent.url)).json()["id"] == "scripted"
        agent.up = False
        async with running(tmp_path) as gateway:
            assert (await admin_agent(gateway, "scripted"))["card"]["name"] == "Scripted"
            agent.up = True
            assert (await gateway.task("hi", agent="scripted"))["status"]["state"] == "TASK_STATE_COMPLETED"
            gone = await gateway.client.delete("/admin/agents/scripted", headers=gateway.bearer(None))
            assert gone.status_code == 204
        async with running(tmp_path) as gateway:
            listed = (await gateway.client.get("/admin/agents", headers=gateway.bearer(None))).json()["agents"]
            assert [entry["id"] for entry in listed] == ["echo"]


async def test_where_the_file_and_the_store_have_one_id_the_file_wins(tmp_path: Path) -> None:
    async with scripted() as agent, scripted(name="In the file") as other:
        async with running(tmp_path) as gateway:
            await add(gateway, agent.url, "far")
        async with running(tmp_path, agents(far=other.url)) as gateway:
            await ready(gateway, "far")
            shown = await admin_agent(gateway, "far")
            assert shown["shadowed"] is True
            assert shown["card"]["name"] == "In the file"
            taken = await gateway.client.delete("/admin/agents/far", headers=gateway.bearer(None))
            assert taken.status_code == 204
            assert (await admin_agent(gateway, "far"))["shadowed"] is False
            refused = await gateway.client.delete("/admin/agents/far", headers=gateway.bearer(None))
            assert refused.status_code == 400
            assert "stands in the configuration file" in refused.json()["error"]["message"]


async def test_of_two_adds_of_one_id_at_once_one_is_refused(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        answers = await asyncio.gather(*(add(gateway, agent.url, "far") for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
