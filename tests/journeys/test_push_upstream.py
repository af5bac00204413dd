"""The gateway's own webhooks: how remote agents without a stream say that there is news, and what that cannot do."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream import doze
from tests.bindings import state
from tests.receiver import receiving
from tests.remote import Asked, Gone, Scripted, agents, ended, ready, scripted, sdk, status, task, until
from tests.serving import Gateway, message, running

LOCAL = "egress: {allow_loopback: true}\n"
CREATE = "CreateTaskPushNotificationConfig"


@pytest.fixture
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """After two looks nobody looks again for an hour: then only a ring brings news."""
    monkeypatch.setattr(doze, "POLL_SECONDS", (0.01, 0.01, 3600.0))


@asynccontextmanager
async def behind(tmp_path: Path, *, updates: str = "stream", **about: Any) -> AsyncIterator[tuple[Gateway, Scripted]]:
    """A scripted agent whose task stays at work until it is asked to end."""
    about = {"capabilities": {"streaming": False, "pushNotifications": True}, **about}
    async with scripted(**about) as agent:
        config = f"agents:\n  far: {{card_url: '{agent.url}', public: true, updates: {updates}}}\n{LOCAL}"

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            asked.answer({"task": task("WORKING")})

        @agent.on("GetTask")
        async def _(asked: Asked) -> None:
            asked.answer(task("WORKING"))

        @agent.on(CREATE)
        async def _(asked: Asked) -> None:
            asked.answer(asked.params)

        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")
            yield gateway, agent


async def shown(agent: Scripted) -> dict[str, Any]:
    """The webhook that the agent was given."""

    async def given() -> Any:
        return agent.asked_for(CREATE)

    (asked,) = await until(given)
    params: dict[str, Any] = asked.params
    return params


def finish(agent: Scripted) -> None:
    @agent.on("GetTask")
    async def _(asked: Asked) -> None:
        asked.answer(task("COMPLETED"))


async def started(gateway: Gateway, **configuration: Any) -> Any:
    return await gateway.task("hi", agent="far", configuration={"returnImmediately": True, **configuration})


# With an agent that nobody here wrote.


@pytest.mark.requirement("relay.agent-push", "relay.client-push-whatever-the-agent")
@pytest.mark.usefixtures("no_polls")
@pytest.mark.parametrize("version", ["1.0", "0.3"])
@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
async def test_an_agent_on_a2a_sdk_rings_and_the_clients_webhook_is_told(
    tmp_path: Path, binding: str, version: str
) -> None:
    async with (
        receiving() as receiver,
        sdk(binding, version, streaming=False, pushes=True) as remote,
        running(tmp_path, agents(far=remote.url) + LOCAL) as gateway,
    ):
        await ready(gateway, "far")
        mine = await gateway.task(
            "slow",
            agent="far",
            configuration={"returnImmediately": True, "taskPushNotificationConfig": {"url": receiver.url}},
        )

        async def accepted() -> Any:
            row = await gateway.app.store.task("", mine["id"])
            return row and row.upstream and row.upstream.task_id

        theirs = await until(accepted)  # ours may be there first

        async def given() -> Any:
            return await remote.webhooks.get_info_for_dispatch(theirs)

        await until(given)  # both looks are over; from here on nobody looks by himself
        remote.player.go.set()
        told = await receiver.ended(mine["id"])
    assert state(told[-1].tree["statusUpdate"]) == "COMPLETED"
    assert any("artifactUpdate" in one.tree for one in told)


# What a ring is and is not.


@pytest.mark.requirement("relay.agent-push", "relay.agent-push-secret")
@pytest.mark.usefixtures("no_polls")
async def test_only_the_secret_of_this_very_task_rings(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        mine = await started(gateway)
        config = await shown(agent)
        secret = config["token"]
        assert config["url"] == f"{gateway.url}/webhooks/far/{mine['id']}"
        assert config["authentication"] == {"scheme": "Bearer", "credentials": secret}
        assert config["taskId"] == "theirs-1"
        assert len(secret) == 64
        finish(agent)
        looks = len(agent.asked_for("GetTask"))

        async def ring(path: str = f"/webhooks/far/{mine['id']}", body: bytes = b"{}", **headers: str) -> int:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await gateway.client.post(path, content=body, headers=sent)).status_code

        assert await ring() == 401
        assert await ring(authorization="Bearer wrong") == 401
        assert await ring(authorization=f"Basic {secret}") == 401
        assert await ring(authorization=gateway.bearer(None)["Authorization"]) == 401
        for path in ("/webhooks/far/another", f"/webhooks/near/{mine['id']}"):
            assert await ring(path, authorization=f"Bearer {secret}") == 401
        assert len(agent.asked_for("GetTask")) == looks
        assert await ring(body=b"\xff not even JSON", authorization=f"Bearer {secret}") == 204
        assert state(await ended(gateway, mine["id"], agent="far")) == "COMPLETED"
        assert await ring(x_a2a_notification_token=secret) == 204  # once more, though nobody waits any longer
        assert await ring(body=b"x" * 2_000_000, authorization=f"Bearer {secret}") == 413


@pytest.mark.usefixtures("no_polls")
async def test_what_a_ring_says_is_not_believed(tmp_path: Path) -> None:
    async with behind(tmp_path) as (gateway, agent):
        mine = await started(gateway)
        config = await shown(agent)
        lie = {"statusUpdate": {"taskId": mine["id"], "contextId": "c", "status": {"state": "TASK_STATE_FAILED"}}}
        looks = len(agent.asked_for("GetTask"))
        for _ in range(3):
            headers = {"authorization": f"Bearer {config['token']}"}
            answer = await gateway.client.post(f"/webhooks/far/{mine['id']}", json=lie, headers=headers)
            assert answer.status_code == 204

        async def looked() -> bool:
            return len(agent.asked_for("GetTask")) > looks

        await until(looked)
        assert state(await gateway.result("GetTask", {"id": mine["id"]}, agent="far")) == "WORKING"


@pytest.mark.usefixtures("no_polls")
async def test_an_agent_whose_stream_broke_rings_instead(tmp_path: Path) -> None:
    async with behind(tmp_path, capabilities={"streaming": True, "pushNotifications": True}) as (gateway, agent):

        @agent.on("SendStreamingMessage")
        async def _(asked: Asked) -> None:
            await asked.event({"task": task("WORKING")})
            await asked.event(status("WORKING", text="began"))
            raise Gone

        @agent.on("SubscribeToTask")
        async def _(asked: Asked) -> None:
            asked.refuse(-32004)

        async with gateway.stream("SendStreamingMessage", {"message": message("hi")}, agent="far") as events:
            config = await shown(agent)
            finish(agent)
            ours = config["url"].removeprefix(gateway.url)
            answer = await gateway.client.post(ours, headers={"x-a2a-notification-token": config["token"]})
            assert answer.status_code == 204
            seen = [event async for event in events]
        assert state(seen[-1]["statusUpdate"]) == "COMPLETED"
        assert "theirs" not in json.dumps(seen)


async def test_an_agent_that_takes_no_webhook_is_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doze, "POLL_SECONDS", (0.01,))
    async with behind(tmp_path) as (gateway, agent):

        @agent.on(CREATE)
        async def _(asked: Asked) -> None:
            asked.refuse(-32003, "PUSH_NOTIFICATION_NOT_SUPPORTED")
            finish(agent)

        assert state(await gateway.task("hi", agent="far")) == "COMPLETED"
        assert len(agent.asked_for(CREATE)) == 1


# As the operator says.


async def test_updates_push_makes_no_use_of_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doze, "POLL_SECONDS", (0.01,))
    both = {"streaming": True, "pushNotifications": True}
    async with behind(tmp_path, updates="push", capabilities=both) as (gateway, agent):
        sending = asyncio.create_task(gateway.events("SendStreamingMessage", {"message": message("hi")}, agent="far"))
        await shown(agent)
        finish(agent)
        assert state((await sending)[-1]["statusUpdate"]) == "COMPLETED"
        assert {asked.method for asked in agent.asked} == {"SendMessage", "GetTask", CREATE}


@pytest.mark.requirement("relay.client-push-whatever-the-agent")
@pytest.mark.parametrize(
    ("updates", "can"), [("poll", {"streaming": True, "pushNotifications": True}), ("stream", {"streaming": False})]
)
async def test_an_agent_that_is_only_asked_is_relayed_to_the_clients_webhook_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, updates: str, can: dict[str, bool]
) -> None:
    monkeypatch.setattr(doze, "POLL_SECONDS", (0.01,))
    async with receiving() as receiver, behind(tmp_path, updates=updates, capabilities=can) as (gateway, agent):
        mine = await started(gateway, taskPushNotificationConfig={"url": receiver.url})

        @agent.on("GetTask")
        async def _(asked: Asked) -> None:
            asked.answer(task("WORKING", artifacts=[{"artifactId": "a", "parts": [{"text": "half"}]}]))

        await receiver.until(3)
        finish(agent)
        told = await receiver.ended(mine["id"])
        assert {asked.method for asked in agent.asked} == {"SendMessage", "GetTask"}
    assert [next(iter(one.tree)) for one in told] == ["task", "statusUpdate", "artifactUpdate", "statusUpdate"]


@pytest.mark.requirement("webhooks.at-least-once")
async def test_the_webhook_of_a_message_that_a_restart_interrupted_hears_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.core.runner.PATIENCE_SECONDS", 3600.0)  # no task is made for it
    async with receiving() as receiver, scripted() as agent:
        reached, never = asyncio.Event(), asyncio.Event()

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            reached.set()
            await never.wait()

        # Nobody waits for the caller whose call is interrupted.
        config = agents(far=agent.url) + LOCAL + "server: {drain_seconds: 0}\n"
        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")
            params = {
                "message": message("hi"),
                "configuration": {"taskPushNotificationConfig": {"url": receiver.url, "token": "t"}},
            }
            sending = asyncio.create_task(gateway.rpc("SendMessage", params, agent="far"))
            await reached.wait()
        await asyncio.gather(sending, return_exceptions=True)
        assert receiver.told == []
        async with running(tmp_path, config) as gateway:
            (told,) = await receiver.until(1)
            assert state(told.tree["task"]) == "FAILED"
            assert told.headers["x-a2a-notification-token"] == "t"
            assert (await gateway.result("GetTask", {"id": told.tree["task"]["id"]}, agent="far"))["id"]
        never.set()


async def test_a_direct_answer_leaves_no_webhook_behind(tmp_path: Path) -> None:
    async with receiving() as receiver, behind(tmp_path) as (gateway, agent):

        @agent.on("SendMessage")
        async def _(asked: Asked) -> None:
            said = {"messageId": "r-1", "role": "ROLE_AGENT", "parts": [{"text": "at once"}]}
            asked.answer({"message": said})

        push = {"taskPushNotificationConfig": {"url": receiver.url, "id": "c"}}
        answer = await gateway.send("hi", agent="far", configuration=push)
        assert answer["message"]["parts"] == [{"text": "at once"}]
        db = gateway.app.settings.data / "gateway.db"
        with closing(sqlite3.connect(db)) as connection:
            assert connection.execute("SELECT count(*) FROM push_config").fetchone() == (0,)
    assert receiver.told == []


@pytest.mark.requirement("relay.client-push-whatever-the-agent")
async def test_after_a_restart_the_agent_is_asked_again_and_the_webhook_hears_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doze, "POLL_SECONDS", (0.01,))
    async with receiving() as receiver, sdk(streaming=False) as remote:
        config = agents(far=remote.url) + LOCAL
        async with running(tmp_path, config) as gateway:
            await ready(gateway, "far")
            push = {"taskPushNotificationConfig": {"url": receiver.url}, "returnImmediately": True}
            mine = await gateway.task("slow", agent="far", configuration=push)
        async with running(tmp_path, config) as gateway:
            remote.player.go.set()
            told = await receiver.ended(mine["id"])
    assert state(told[-1].tree["statusUpdate"]) == "COMPLETED"
