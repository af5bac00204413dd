"""What the operator says about a registered agent while the gateway runs: its servers, and who signs its card; and what
the audit log has of cards that change by themselves."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.core import registry
from tests.cardkeys import CardKey, jwks
from tests.journeys.test_endpoints import all_healthy, completes, three
from tests.remote import Scripted, admin_agent, command, scripted, until
from tests.serving import ECHO, Gateway, running

ADMIN = "rules: [{rule: admins, who: [root], do: administer, on: '*', verdict: PASS}]"


async def patch(gateway: Gateway, who: str | None = None, **body: Any) -> httpx2.Response:
    return await gateway.client.patch("/admin/agents/far", json=body, headers=gateway.bearer(who))


async def add(gateway: Gateway, agent: Scripted, **more: Any) -> httpx2.Response:
    body = {"cardUrl": agent.url, "id": "far", **more}
    return await gateway.client.post("/admin/agents", json=body, headers=gateway.bearer(None))


async def run(gateway: Gateway, tmp_path: Path, *words: str) -> Any:
    return await asyncio.to_thread(command, tmp_path, *words, url=gateway.url)


async def entries(gateway: Gateway, **filters: str) -> list[Any]:
    await gateway.app.store.commit()
    answer = await gateway.client.get("/admin/audit", params=filters, headers=gateway.bearer(None))
    found: list[Any] = answer.json()["entries"]
    return found


def sha256(card: Any) -> str:
    return hashlib.sha256(json.dumps(card).encode()).hexdigest()


# Servers.


async def test_an_agent_is_added_with_its_servers_and_has_them_after_a_restart(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        agents = await three(stack)
        first, *others = (agent.url for agent in agents)
        async with running(tmp_path) as gateway:
            endpoints = [word for url in others for word in ("--endpoint", url)]
            told = await run(gateway, tmp_path, "agents", "add", first, "--id", "far", *endpoints)
            assert told.returncode == 0, told.stderr
            assert "servers  3, round_robin" in told.stdout
            for url in (first, *others):
                assert f"server   {url}" in told.stdout
            for _ in range(3):
                await gateway.task("hi", agent="far")
            assert [len(agent.asked) for agent in agents] == [1, 1, 1]
        async with running(tmp_path) as gateway:
            await all_healthy(gateway)
            for _ in range(3):
                await gateway.task("hi", agent="far")
            assert [len(agent.asked) for agent in agents] == [2, 2, 2]


async def test_its_servers_are_changed_while_it_works(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        agents = await three(stack)
        async with running(tmp_path) as gateway:
            assert (await add(gateway, agents[0])).status_code == 201
            words = ("agents", "endpoints", "far", agents[1].url, "--balance", "least_loaded", "--json")
            told = await run(gateway, tmp_path, *words)
            assert told.returncode == 0, told.stderr
            shown = json.loads(told.stdout)
            assert [each["cardUrl"] for each in shown["endpoints"]] == [agent.url for agent in agents[:2]]
            assert shown["balance"] == "least_loaded"
            for _ in range(4):
                await gateway.task("hi", agent="far")
            assert [len(agent.asked) for agent in agents] == [2, 2, 0]
            assert (await run(gateway, tmp_path, "agents", "endpoints", "far")).returncode == 0
            for _ in range(4):
                await gateway.task("hi", agent="far")
            assert [len(agent.asked) for agent in agents] == [6, 2, 0]
            (change, *_) = await entries(gateway, action="ChangeAgent", outcome="ok")
            assert change["change"]["before"][0]["replicas"] == [agents[1].url]
            assert change["change"]["after"][0]["replicas"] == []


async def test_a_server_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        completes(agent)
        assert (await add(gateway, agent)).status_code == 201
        answer = await patch(gateway, replicas=["http://127.0.0.1:9/card"])
        assert answer.status_code == 502, answer.text
        assert "nothing has been changed" in answer.json()["error"]["message"]
        assert [each["cardUrl"] for each in (await admin_agent(gateway, "far"))["endpoints"]] == [agent.url]
        assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"replicas": "http://x"}, "replicas"),
        ({"replicas": ["ftp://x"]}, "replicas"),
        ({"replicas": [f"http://x/{n}" for n in range(33)]}, "replicas"),
        ({"balance": "random"}, "balance"),
        ({"keys": []}, "keys"),
        ({"keys": {"keys": []}, "keysUrl": "https://x"}, "keysUrl"),
        ({"keysUrl": 7}, "keysUrl"),
        ({"requireSignature": "yes"}, "requireSignature"),
        ({"balance": "random", "require_signature": True}, "require_signature"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_change_that_cannot_be_read_names_the_field(tmp_path: Path, body: Any, field: str) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        assert (await add(gateway, agent)).status_code == 201
        answer = await patch(gateway, **body)
        assert answer.status_code == 400
        assert field in answer.text


async def test_a_field_that_is_misspelled_adds_nothing(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        answer = await add(gateway, agent, require_signature=True)
        assert answer.status_code == 400
        assert "require_signature: is no field here; there are cardUrl, id, replicas" in answer.text
        listed = await gateway.client.get("/admin/agents", headers=gateway.bearer(None))
        assert "far" not in [each["id"] for each in listed.json()["agents"]]


async def test_an_agent_of_the_file_is_changed_there(tmp_path: Path) -> None:
    async with scripted() as agent:
        async with running(tmp_path, f"agents: {{far: {{card_url: '{agent.url}'}}}}\n") as gateway:
            answer = await patch(gateway, replicas=[])
            assert (answer.status_code, "configuration file" in answer.text) == (400, True), answer.text
        async with running(tmp_path / "none") as gateway:
            assert (await patch(gateway, replicas=[])).status_code == 404


@pytest.mark.security
async def test_addresses_of_this_machine_are_named_on_this_machine_only(tmp_path: Path) -> None:
    """An agent that the operator added here may be on loopback; nobody elsewhere may lead it to more of that."""
    (tmp_path / "policy.yaml").write_text(ADMIN)
    async with scripted() as agent, running(tmp_path, ECHO + f"policy: {{file: {tmp_path}/policy.yaml}}\n") as gateway:
        assert (await add(gateway, agent)).status_code == 201
        root = await gateway.key("root")
        refused = await patch(gateway, who=root, replicas=[agent.url + "/other"])
        assert (refused.status_code, "on the gateway's own machine" in refused.text) == (403, True), refused.text
        assert (await patch(gateway, who=root, balance="least_loaded")).status_code == 200
        assert len((await admin_agent(gateway, "far"))["endpoints"]) == 1


# Pins.


@pytest.mark.security
async def test_keys_are_pinned_only_where_the_card_fits_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(registry, "RETRY_SECONDS", (0,))
    key, other = CardKey(), CardKey("k2")
    (tmp_path / "keys.json").write_text(json.dumps(jwks(key)))
    pin = ("agents", "pin", "far", "--keys", str(tmp_path / "keys.json"))
    async with scripted() as agent:
        plain = agent.card
        completes(agent)
        async with running(tmp_path / "data") as gateway:
            assert (await add(gateway, agent)).status_code == 201
            told = await run(gateway, tmp_path / "data", *pin)
            assert (told.returncode, "nothing has been changed" in told.stderr) == (1, True), told.stderr
            assert not (await admin_agent(gateway, "far"))["requireSignature"]
            agent.card = key.sdk(plain, f"{agent.url}/keys")
            told = await run(gateway, tmp_path / "data", *pin)
            assert told.returncode == 0, told.stderr
            assert "pinned   its card has to be signed, by the keys" in told.stdout
            assert (await admin_agent(gateway, "far"))["endpoints"][0]["signature"] == "verified"
        agent.card = other.sdk(plain, f"{agent.url}/keys")
        agent.documents["/keys"] = json.dumps(jwks(other)).encode()
        async with running(tmp_path / "data") as gateway:  # the pin outlives a restart

            async def refused() -> Any:
                return (await admin_agent(gateway, "far"))["reason"]

            assert "has to be signed" in await until(refused)
            assert (await gateway.task("hi", agent="far"))["status"]["state"] == "TASK_STATE_COMPLETED"
            told = await run(gateway, tmp_path / "data", "agents", "pin", "far", "--none")
            assert told.returncode == 0, told.stderr
            assert (await admin_agent(gateway, "far"))["cardKeys"] is None


@pytest.mark.security
async def test_an_agent_is_added_with_its_pin_or_not_at_all(tmp_path: Path) -> None:
    async with scripted() as agent, running(tmp_path) as gateway:
        told = await run(gateway, tmp_path, "agents", "add", agent.url, "--id", "far", "--require-signature")
        assert (told.returncode, "require_signature" in told.stderr) == (1, True), told.stderr
        key = CardKey()
        agent.card = key.sdk(agent.card, "https://elsewhere.example/keys")
        assert "require_signature" in (await add(gateway, agent, requireSignature=True)).text
        assert "that does not fit it" in (await add(gateway, agent, keys=jwks(CardKey()))).text
        assert (await add(gateway, agent, keys=jwks(key))).status_code == 201


# What the audit log has of it.


@pytest.mark.requirement("a2a.card.changes-recorded")
async def test_a_card_that_changes_is_in_the_audit_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0)
    async with scripted() as agent, running(tmp_path) as gateway:
        first = dict(agent.card)
        assert (await add(gateway, agent)).status_code == 201
        assert await entries(gateway, action="RefreshCard") == [], "adding it has an entry of its own"
        agent.card["description"] = "Now something else."

        async def recorded() -> list[Any]:
            return await entries(gateway, action="RefreshCard")

        (entry,) = await until(recorded)
        assert (entry["actor"], entry["object"], entry["outcome"]) == ("agent:far", "far", "changed")
        where = {"cardUrl": agent.url, "verdict": "unsigned"}
        assert entry["change"] == {
            "before": {"card": sha256(first), **where}, "after": {"card": sha256(agent.card), **where}
        }  # fmt: skip
        seen = len(agent.cards)

        async def read_again() -> bool:
            return len(agent.cards) > seen + 2

        await until(read_again)
        assert len(await recorded()) == 1, "once, however often it is read"


@pytest.mark.security
@pytest.mark.requirement("a2a.card.changes-recorded")
async def test_a_card_that_is_refused_and_then_accepted_is_in_the_audit_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0)
    monkeypatch.setattr(registry, "RETRY_SECONDS", (0,))
    async with scripted() as agent, running(tmp_path) as gateway:
        key, plain = CardKey(), agent.card
        agent.documents["/keys"] = json.dumps(jwks(key)).encode()
        agent.card = signed = key.sdk(plain, f"{agent.url}/keys")
        assert (await add(gateway, agent)).status_code == 201
        agent.card = {**plain, "description": "Now unsigned."}

        async def recorded() -> list[Any]:
            return await entries(gateway, action="RefreshCard")

        (entry,) = await until(recorded)
        assert (entry["effect"], entry["outcome"]) == ("BLOCK", "refused")
        assert "it was signed before" in entry["reason"]
        verified = {"card": sha256(signed), "cardUrl": agent.url, "verdict": "verified"}
        unsigned = {"card": sha256(agent.card), "cardUrl": agent.url, "verdict": "unsigned"}
        assert entry["change"] == {"before": verified, "after": unsigned}
        seen = len(agent.cards)

        async def read_again() -> bool:
            return len(agent.cards) > seen + 2

        await until(read_again)
        await gateway.client.post("/admin/cards/far:accept", headers=gateway.bearer(None))
        (accepted,) = await entries(gateway, action="AcceptCard", outcome="ok")
        assert accepted["actor"] == "local:local"
        assert accepted["change"] == {"before": [verified], "after": [unsigned]}
        assert len(await recorded()) == 1, "each refused card once, and what was accepted is no change of its own"
