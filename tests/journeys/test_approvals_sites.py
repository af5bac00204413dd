"""A call that waits is approved for the place where its target is: whoever gives that another place, or another card,
sends nobody's approved call there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.core import registry
from gateway.core.approvals import approvals
from tests.journeys.test_approvals import approval_of, ended, listed, said, waiting
from tests.journeys.test_approvals_and_rules import shown
from tests.journeys.test_mcp_reload import reload, rereads
from tests.mcp import Door, configured, soon, tool
from tests.mcp import scripted as tool_server
from tests.remote import Asked, Scripted, agents, command, scripted, task, until
from tests.serving import ROOT, Gateway, running

POLICY = """
rules:
  - {rule: letters, who: [ann, "agent:*"], do: call, on: [agents/far, docs/wipe, agents/kit], verdict: ESCALATE}
  - {rule: rest, who: [ann, "agent:*"], do: use, on: [agents/*, docs], verdict: PASS}
  - {rule: leads, who: lea, do: approve, on: [agents/*, docs], verdict: PASS}
"""
ELSEWHERE = "it would go somewhere else than when it was asked"
OTHER_WORDS = "the card or the definition that it relies on is another one since it was asked"
ASKING = f"""
  asking: {{run: "tests.actors:asking", card: {ROOT}/agent_cards/echo.json, public: true}}
  tooled: {{run: "tests.actors:tooled", card: {ROOT}/agent_cards/echo.json, public: true}}
"""
KIT = f"{ASKING}  kit: {{tools: [docs/wipe], public: true}}\n"


@contextlib.asynccontextmanager
async def ruled(folder: Path, config: str, **more: Any) -> AsyncIterator[Gateway]:
    (folder / "policy.yaml").write_text(POLICY)
    file = folder / "gateway.yaml"
    file.write_text(told(folder, config))
    async with running(folder / "data", file.read_text(), **more) as gateway:
        rereads(gateway, file)
        yield gateway


def told(folder: Path, config: str) -> str:
    return f"{config}policy: {{file: {folder}/policy.yaml}}\n"


@contextlib.asynccontextmanager
async def remote(**about: Any) -> AsyncIterator[Scripted]:
    async with scripted(**about) as agent:

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": task("COMPLETED")})

        yield agent


async def registered(gateway: Gateway, agent: Scripted) -> None:
    body = {"cardUrl": agent.url, "id": "far"}
    answer = await gateway.client.post("/admin/agents", json=body, headers=gateway.bearer(None))
    assert answer.status_code == 201, answer.text


async def void(gateway: Gateway, id: str, why: str) -> None:
    async def over() -> bool:
        return bool((await shown(gateway, id))["state"] == "void")

    await soon(over)
    assert (await shown(gateway, id))["why"] == why
    late = await said(gateway, "lea", id, "approve")
    assert "void already" in late.json()["error"]["message"]


# What is shown, and to whom.


async def test_whoever_may_approve_a_call_sees_where_it_goes_and_its_caller_does_not(tmp_path: Path) -> None:
    async with remote() as far, ruled(tmp_path, "") as gateway:
        far.url, far.card["supportedInterfaces"][0]["url"] = f"{far.url}/card?key=s3cret", f"{far.url}/rpc"
        await registered(gateway, far)
        waits = await waiting(gateway, agent="far")
        (seen,) = await listed(gateway, "lea")
        (place,) = seen["goesTo"]
        card_url, _, _ = far.url.partition("?")
        assert place["at"].startswith(f"{card_url}?[sha256 ")
        assert "s3cret" not in str(seen)
        assert place["leads"] == [far.card["supportedInterfaces"][0]["url"]]
        assert len(place["hash"]) == 64
        (own,) = await listed(gateway, "ann")
        assert own["goesTo"] == []
        assert far.url.partition("/card")[0] not in str(waits)
        done = await asyncio.to_thread(
            command, tmp_path / "data", "approvals", "show", approval_of(waits), url=gateway.url
        )
        assert f"goes to    {place['at']} -> {place['leads'][0]} [{place['hash']}]" in done.stdout, done.stderr
        filed = [each for each in await gateway.record() if each.change and "sites" in str(each.change)]
        assert filed[-1].change is not None
        assert filed[-1].change["after"]["sites"] == [place]


# Agents.


async def test_an_agent_of_the_same_name_at_another_url_gets_nothing_that_was_approved_for_the_first(
    tmp_path: Path,
) -> None:
    async with remote() as first, remote() as second, ruled(tmp_path, "") as gateway:
        await registered(gateway, first)
        waits = await waiting(gateway, agent="far")
        answer = await gateway.client.delete("/admin/agents/far", headers=gateway.bearer(None))
        assert answer.status_code in (200, 204), answer.text
        await registered(gateway, second)
        await void(gateway, approval_of(waits), ELSEWHERE)
        gone = await ended(gateway, waits, agent="far")
        assert gone["status"]["state"] == "TASK_STATE_FAILED"
        assert ELSEWHERE in gone["status"]["message"]["parts"][0]["text"]
        assert first.url not in str(gone), "its caller is told that, and not where"
        assert second.url not in str(gone)
        assert first.asked == second.asked == []


async def test_a_further_server_of_an_agent_is_another_place(tmp_path: Path) -> None:
    async with remote() as first, remote() as second, ruled(tmp_path, "") as gateway:
        await registered(gateway, first)
        waits = await waiting(gateway, agent="far")
        unread = {"replicas": ["http://127.0.0.1:9/none"]}
        headers = gateway.bearer(None)
        assert (await gateway.client.patch("/admin/agents/far", json=unread, headers=headers)).status_code == 502
        assert (await shown(gateway, approval_of(waits)))["state"] == "waiting", "nothing has been changed"
        more = {"replicas": [second.url]}
        assert (await gateway.client.patch("/admin/agents/far", json=more, headers=headers)).status_code == 200
        await void(gateway, approval_of(waits), ELSEWHERE)
        assert first.asked == second.asked == []


@pytest.mark.parametrize("asker", ["ann", "an agent"])
async def test_a_card_that_comes_to_lead_elsewhere_ends_what_waits_for_its_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asker: str
) -> None:
    monkeypatch.setattr(registry, "REFRESH_SECONDS", 0)
    config = f"egress: {{allow_loopback: true}}\nagents:{ASKING}"
    async with remote() as far, remote() as other, ruled(tmp_path, config) as gateway:
        await registered(gateway, far)
        agent = "far" if asker == "ann" else "asking"
        waits = await waiting(gateway, "far", agent=agent)
        before = approval_of(waits)
        far.card = {**far.card, "supportedInterfaces": other.card["supportedInterfaces"]}
        await void(gateway, before, OTHER_WORDS)
        if agent == "far":
            assert (await ended(gateway, waits, agent="far"))["status"]["state"] == "TASK_STATE_FAILED"
            assert far.asked == other.asked == []
            return

        async def asked_anew() -> list[Any]:
            return [each for each in await listed(gateway, "lea") if each["id"] != before]

        (anew,) = await soon(asked_anew)
        assert anew["goesTo"][0]["leads"] == [f"{other.url}/rpc"]
        assert (await said(gateway, "lea", anew["id"], "approve")).status_code == 200
        await ended(gateway, waits, agent="asking")
        assert (len(far.asked), len(other.asked)) == (0, 1)


@pytest.mark.parametrize("other", [False, True])
async def test_after_a_restart_a_call_goes_where_it_was_approved_for_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    """The card is not there yet when the gateway starts, and its signature is a new one when it comes."""
    monkeypatch.setattr(approvals, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(approvals, "LATEST_SECONDS", 0.05)
    monkeypatch.setattr(registry, "RETRY_SECONDS", (0,))
    async with remote() as first, remote() as second:
        async with ruled(tmp_path, agents(far=first.url)) as gateway:
            await until(lambda: _has_card(gateway))
            waits = await waiting(gateway, agent="far")
            key = await gateway.key("ann")
        there = second if other else first
        there.up, there.card["signatures"] = False, [{"protected": "e30", "signature": "AA"}]
        async with ruled(tmp_path, agents(far=there.url)) as gateway:
            if not other:
                allowed = f"/admin/approvals/{approval_of(waits)}:approve"
                answer = await gateway.client.post(allowed, headers=gateway.bearer(None), json={})
                assert answer.json()["state"] == "approved", "not used while nobody knows whether it is where it was"
            there.up = True

            async def over() -> Any:
                found = await gateway.result("GetTask", {"id": waits["id"]}, agent="far", who=key)
                return found if found["status"]["state"] in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED") else None

            found = await soon(over)
            assert found["status"]["state"] == ("TASK_STATE_FAILED" if other else "TASK_STATE_COMPLETED")
        assert (len(first.asked), len(second.asked)) == (0 if other else 1, 0)


async def _has_card(gateway: Gateway) -> bool:
    entry = gateway.app.registry.get("far")
    return entry is not None and entry.card is not None


async def test_nobody_is_asked_about_an_agent_of_which_nobody_knows_where_it_is(tmp_path: Path, port: int) -> None:
    async with ruled(tmp_path, agents(far=f"http://127.0.0.1:{port}")) as gateway:
        refused = await gateway.error(
            "SendMessage", {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}},
            agent="far", who=await gateway.key("ann"),
        )  # fmt: skip
        assert refused["data"][0]["reason"] == "UNAVAILABLE"
        assert await listed(gateway, "lea") == []


# Tools.


async def test_a_server_of_the_same_name_at_another_url_gets_no_call_that_was_approved_for_the_first(
    tmp_path: Path,
) -> None:
    async with tool_server(tool("wipe")) as first, tool_server(tool("wipe")) as second:
        async with ruled(tmp_path, configured(docs=first)) as gateway:
            ann = Door(gateway, who=await gateway.key("ann"))
            id = (await ann.call("docs__wipe"))["_meta"]["gateway/approval"]["approval"]
            approved = await said(gateway, "lea", id, "approve")
            assert approved.json()["goesTo"][0]["at"] == first.url
            (tmp_path / "gateway.yaml").write_text(told(tmp_path, configured(docs=second)))
            assert (await reload(gateway)).json() == {"changed": ["docs"]}

            async def asked_again() -> Any:
                return (await ann.call("docs__wipe")).get("_meta")

            again = (await soon(asked_again))["gateway/approval"]["approval"]
            assert again != id
            await void(gateway, id, ELSEWHERE)
            assert first.asked("tools/call") == second.asked("tools/call") == []
            assert (await said(gateway, "lea", again, "approve")).json()["goesTo"][0]["at"] == second.url
            assert (await ann.call("docs__wipe"))["content"][0]["text"] == "wipe"
        assert (len(first.asked("tools/call")), len(second.asked("tools/call"))) == (0, 1)


async def test_an_agent_that_waits_with_a_call_makes_it_where_it_was_approved_for(tmp_path: Path) -> None:
    granted = 'grants: [{to: "agent:tooled", tools: [docs]}]'
    async with tool_server(tool("wipe")) as first, tool_server(tool("wipe")) as second:
        async with ruled(tmp_path, f"agents:{ASKING}" + configured(granted, docs=first)) as gateway:
            waits = await waiting(gateway, "docs/wipe", agent="tooled")
            before = approval_of(waits)
            file = f"agents:{ASKING}" + configured(granted, docs=second)
            (tmp_path / "gateway.yaml").write_text(told(tmp_path, file))
            assert (await reload(gateway)).json() == {"changed": ["docs"]}

            async def asked_anew() -> list[Any]:
                return [each for each in await listed(gateway, "lea") if each["id"] != before]

            (anew,) = await soon(asked_anew)
            await void(gateway, before, ELSEWHERE)
            assert (await said(gateway, "lea", anew["id"], "approve")).json()["goesTo"][0]["at"] == second.url
            done = await ended(gateway, waits, agent="tooled")
            assert done["status"]["state"] == "TASK_STATE_COMPLETED", done
        assert (len(first.asked("tools/call")), len(second.asked("tools/call"))) == (0, 1)


async def test_a_message_to_a_set_of_tools_is_for_the_servers_behind_it(tmp_path: Path) -> None:
    async with tool_server(tool("wipe")) as first, tool_server(tool("wipe")) as second:
        config = f"agents:{KIT}" + configured(docs=first)
        async with ruled(tmp_path, config) as gateway:
            waits = await waiting(gateway, agent="kit")
            assert [each["at"] for each in (await listed(gateway, "lea"))[0]["goesTo"]] == ["docs/wipe", first.url]
            (tmp_path / "gateway.yaml").write_text(told(tmp_path, f"agents:{KIT}" + configured(docs=second)))
            await reload(gateway)
            await void(gateway, approval_of(waits), ELSEWHERE)


async def test_a_tool_that_is_described_otherwise_is_another_one(tmp_path: Path) -> None:
    async with tool_server(tool("wipe")) as docs:
        config = configured(docs=docs).replace("}\n", ", quarantine: off}\n")
        async with ruled(tmp_path, config) as gateway:
            ann = Door(gateway, who=await gateway.key("ann"))
            id = (await ann.call("docs__wipe"))["_meta"]["gateway/approval"]["approval"]
            assert (await said(gateway, "lea", id, "approve")).json()["state"] == "approved"
            await docs.change(tool("wipe", description="Wipes everything."))
            await void(gateway, id, OTHER_WORDS)
            assert (await ann.call("docs__wipe"))["_meta"]["gateway/approval"]["approval"] != id
            assert docs.asked("tools/call") == []
