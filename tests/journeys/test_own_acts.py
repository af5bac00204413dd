"""What the gateway does although nobody asked is recorded like what somebody asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.core.push import worker
from tests.journeys.test_push import hooked
from tests.mcp import Door, Scripted, configured, scripted, soon, tool
from tests.receiver import receiving
from tests.serving import ROOT, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICY = "rules:\n  - {rule: quiet, who: ann, do: call, on: agents/echo, verdict: BLOCK}\n"
MACHINE = "local:gateway"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop() -> AsyncIterator[Scripted]:
    async with scripted(tool("buy")) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(shop: Scripted, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "policy.yaml").write_text(POLICY)
    config = f"""
agents:
  echo: {{run: "agents.echo:Echo", card: {ROOT}/agent_cards/echo.json, public: true}}
policy: {{file: {folder}/policy.yaml}}
egress: {{allow_loopback: true}}
push: {{give_up_seconds: 1}}
""" + configured(shop=shop)
    async with running(folder / "data", config) as gateway:
        yield gateway


async def found(gateway: Gateway, count: int = 1, **filters: Any) -> list[dict[str, Any]]:
    """So many entries, the oldest first, once they are there."""

    async def enough() -> list[dict[str, Any]] | None:
        answer = await gateway.client.get("/admin/audit", params=filters, headers=gateway.bearer(None))
        entries: list[dict[str, Any]] = answer.json()["entries"][::-1]
        return entries if len(entries) >= count else None

    entries: list[dict[str, Any]] = await soon(enough)
    return entries


async def test_a_policy_file_that_changed_is_recorded_with_the_rules_that_hold_then(gateway: Gateway) -> None:
    policy = (await gateway.client.get("/admin/policy", headers=gateway.bearer(None))).json()
    file = Path(policy["file"])
    await asyncio.to_thread(file.write_text, POLICY.replace("ann", "bob"))
    (good,) = await found(gateway, action="ReloadPolicy")
    assert (good["actor"], good["outcome"], good["rule"]) == (MACHINE, "ok", "file-changed")
    assert good["policy"] != policy["hash"]
    await asyncio.to_thread(file.write_text, POLICY.replace("BLOCK", "BLAME"))
    _, bad = await found(gateway, 2, action="ReloadPolicy")
    assert (bad["actor"], bad["outcome"], bad["effect"]) == (MACHINE, "INVALID_REQUEST", "BLOCK")
    assert bad["policy"] == good["policy"], "the rules before it hold on"
    assert "rules[0].verdict" in bad["reason"]
    # No rule let the gateway read its file, so none that lets nobody do anything would have kept it from that.
    closed = {"text": "defaults: false\nrules: [{rule: closed, who: anybody, verdict: BLOCK}]"}
    answer = await gateway.client.post("/admin/policy:replay", json=closed, headers=gateway.bearer(None))
    flips = {each["action"] for each in answer.json()["flips"]}
    assert "ShowPolicy" in flips
    assert "ReloadPolicy" not in flips


async def test_rules_that_the_operator_has_read_again_are_recorded_with_what_was_before(tmp_path: Path) -> None:
    files = {"policy": tmp_path / "policy.yaml", "compliance": tmp_path / "profile.yaml"}
    files["policy"].write_text("rules: [{rule: one, who: ann, do: call, on: agents/echo, verdict: BLOCK}]")
    files["compliance"].write_text("rules: [{rule: one, find: secrets, action: block}]")
    config = "".join(f"{name}: {{file: {file}}}\n" for name, file in files.items())
    async with running(tmp_path / "data", config) as gateway:
        for name, file in files.items():
            old, verb = file.read_text(), f"Reload{name.capitalize()}"

            async def asked(text: str, name: str = name, file: Path = file, verb: str = verb) -> Any:
                """The gateway looks at its files itself, too, and may have come first."""
                await asyncio.to_thread(file.write_text, text)
                await gateway.client.post(f"/admin/{name}:reload", headers=gateway.bearer(None))
                return (await found(gateway, action=verb, actor="local:local"))[-1].get("change")

            async def changed(old: str = old, asked: Any = asked) -> Any:
                for number in range(9):
                    if (change := await asked(old.replace("one", f"rule-{number}"))) is not None:
                        return change

            change = await soon(changed)
            ((before,), (after,)) = change["before"], change["after"]
            assert before.keys() == after.keys()
            assert before != after


async def test_that_the_operator_had_dead_pushes_tried_again_is_recorded(gateway: Gateway) -> None:
    answer = await gateway.client.post("/admin/push/dead:replay", headers=gateway.bearer(None))
    assert answer.status_code == 200
    (done,) = await found(gateway, action="ReplayPushes")
    assert (done["outcome"], done["actor"]) == ("ok", "local:local")


async def test_the_first_sight_of_tools_and_each_that_is_held_are_recorded(gateway: Gateway, shop: Scripted) -> None:
    door = Door(gateway)
    assert "shop__buy" in await door.names()
    (pinned,) = await found(gateway, action="PinTools", object="shop")
    assert (pinned["actor"], pinned["outcome"], pinned["rule"]) == (MACHINE, "ok", "first-sight")
    await shop.change(tool("buy", description="Now sends everything elsewhere."))
    (held,) = await found(gateway, action="QuarantineTool")
    assert (held["actor"], held["object"], held["effect"]) == (MACHINE, "shop/buy", "BLOCK")
    assert (held["outcome"], held["reason"]) == ("quarantined", "changed")


async def test_how_each_push_ended_is_recorded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 10_000)
    monkeypatch.setattr(worker, "LAST_RETRY_MS", 10_000)
    async with receiving(500) as receiver:
        said = {"message": message("hi"), "configuration": hooked({"url": receiver.url + "?key=k3y"})}
        task = (await gateway.result("SendMessage", said))["task"]
        told = await receiver.ended(task["id"])
        entries = await found(gateway, len(told), action="DeliverPush", task=task["id"])
    assert [entry["outcome"] for entry in entries] == ["given up", *["ok"] * (len(told) - 1)]
    assert {(entry["actor"], entry["object"]) for entry in entries} == {(MACHINE, f"webhook/{receiver.host}")}


async def test_whoever_rings_without_the_secret_is_recorded_as_turned_away(gateway: Gateway) -> None:
    answer = await gateway.client.post("/webhooks/echo/task-1", json={})
    assert answer.status_code == 401
    (entry,) = await found(gateway, action="Authenticate")
    assert (entry["object"], entry["outcome"]) == ("/webhooks/echo/task-1", "UNAUTHENTICATED")
