"""What one caller or one upstream may cost everybody else, and what it may not learn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.core.registry import Registry
from gateway.dialects.a2a_v1 import upstream as wire
from gateway.dialects.a2a_v1.cards import published
from gateway.dialects.a2a_v1.upstream import MAX_PARTS
from gateway.model.card import AgentCard
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Fetched
from gateway.model.provenance import CardKeys
from gateway.model.rows import Balance, RemoteSettings
from gateway.stores.memory import MemoryStore
from tests.serving import A2A, BOUND, message, running

pytestmark = pytest.mark.security

CARD = {
    "name": "a",
    "description": "b",
    "version": "1",
    "supportedInterfaces": [],
    "capabilities": {},
    "defaultInputModes": [],
    "defaultOutputModes": [],
    "skills": [],
}


async def test_a_message_has_a_bounded_number_of_parts(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        most = message("x", parts=[{"text": ""}] * MAX_PARTS)
        assert "task" in await gateway.result("SendMessage", {"message": most})
        error = await gateway.error("SendMessage", {"message": message("x", parts=[{"text": ""}] * (MAX_PARTS + 1))})
        assert error["code"] == -32602
        assert error["data"][1]["fieldViolations"][0]["field"] == "message.parts"
        modes = {"message": message("x"), "configuration": {"acceptedOutputModes": ["a/b"] * 65}}
        assert (await gateway.error("SendMessage", modes))["code"] == -32602


async def test_a_page_of_heavy_tasks_is_short_and_the_walk_still_complete(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        sent = {(await gateway.task("x" * 400_000))["id"] for _ in range(9)}  # echoed: 800 kB each
        seen: list[str] = []
        token, pages = "", 0
        while pages == 0 or token:
            page = await gateway.result("ListTasks", {"pageSize": 100, "pageToken": token})
            assert len(page["tasks"]) <= 3
            seen += [task["id"] for task in page["tasks"]]
            token, pages = page["nextPageToken"], pages + 1
        assert sorted(seen) == sorted(sent)
        assert page["totalSize"] == 9


async def test_a_date_beyond_all_calendars_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        headers = {"If-Modified-Since": "1 Jan 99999999999999999999 00:00:00 GMT"}
        answer = await gateway.client.get("/agents/echo/.well-known/agent-card.json", headers=headers)
        assert answer.status_code == 200


async def test_anonymous_callers_do_not_see_each_others_webhook_secrets(tmp_path: Path) -> None:
    async with running(tmp_path, anonymous=True) as gateway:
        secret = {
            "url": "https://example.com/h",
            "token": "hush",
            "authentication": {"scheme": "B", "credentials": "hush"},
        }
        params = {"message": message("ask"), "configuration": {"taskPushNotificationConfig": secret}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
        task = (await gateway.client.post("/agents/echo", json=body, headers=A2A)).json()["result"]["task"]
        path = f"/agents/echo/tasks/{task['id']}/pushNotificationConfigs"
        listed = await gateway.client.get(path, headers=A2A)
        assert listed.json()["configs"][0]["url"] == "https://example.com/h"
        one = await gateway.client.get(f"{path}/{listed.json()['configs'][0]['id']}", headers=A2A)
        assert "hush" not in listed.text + one.text


@pytest.mark.parametrize("session", [{"a": None}, ["x"], 7, True])
async def test_an_older_message_names_its_session_with_a_text(tmp_path: Path, session: Any) -> None:
    async with running(tmp_path) as gateway:
        task = {"id": "t", "description": "hi", "context": {"session_id": session}}
        error = await gateway.error("agents/tasks/create", {"agent_id": "echo", "task": task})
        assert error["data"][1]["fieldViolations"][0]["field"] == "task.context.session_id"


def test_an_upstream_event_has_a_bounded_number_of_parts() -> None:
    parts = [{"text": ""}] * (MAX_PARTS + 1)
    artifact = {"artifactId": "a", "parts": parts}
    said = {"messageId": "m", "role": "ROLE_AGENT", "parts": parts}
    status = {"state": "TASK_STATE_WORKING", "message": said}
    for tree in (
        {"message": said},
        {"artifactUpdate": {"taskId": "t", "contextId": "c", "artifact": artifact}},
        {"statusUpdate": {"taskId": "t", "contextId": "c", "status": status}},
        {"task": {"id": "t", "contextId": "c", "status": status}},
        {"task": {"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}, "artifacts": [artifact]}},
    ):
        with pytest.raises(GatewayError) as refused:
            wire.event(tree, task_id="ours", context_id="ours")
        assert refused.value.reason is Reason.INVALID_AGENT_RESPONSE


@pytest.mark.parametrize("link", ["javascript:alert(1)", "JAVASCRIPT:x", "data:text/html,x", "file:///etc/passwd"])
def test_links_of_a_strangers_card_are_web_addresses_or_left_out(link: str) -> None:
    fields = {"documentationUrl": link, "iconUrl": link, "provider": {"url": link, "organization": "o"}}
    card = AgentCard.model_validate({**CARD, **fields})
    shown = published(card, "http://gw/agents/a", streaming=True, pushes=True, extended=False, anonymous=False)
    assert link.encode() not in shown.wire()


async def test_an_agent_that_is_removed_while_its_card_is_fetched_stays_removed() -> None:
    class Slow:
        """The second fetch waits until it is let go."""

        def __init__(self) -> None:
            self.fetching, self.go_on, self.fetches = asyncio.Event(), asyncio.Event(), 0

        async def fetch(
            self, url: str, *, etag: str | None, trusted: bool, keys: CardKeys | None = None, agent: str | None = None
        ) -> Fetched:
            self.fetches += 1
            if self.fetches > 1:
                self.fetching.set()
                await self.go_on.wait()
            return Fetched(AgentCard.model_validate(CARD), b"{}", None)

        def connect(self, id: str, card: AgentCard, *, card_url: str, trusted: bool) -> Any:
            return _Closed()

        def balance(self, agents: Sequence[Any], how: Balance) -> Any:
            return agents[0]

    class _Closed:
        resumable = False

        async def aclose(self) -> None:
            pass

    store, slow = MemoryStore(), Slow()
    registry = Registry(store, slow, lambda: 1, lambda: "id")
    entry = await registry.add("http://far/", "far", RemoteSettings(), trusted=True, write=store.commit)
    refreshing = asyncio.create_task(registry.refresh(entry))
    await asyncio.wait_for(slow.fetching.wait(), BOUND)
    await registry.remove("far", store.commit)
    slow.go_on.set()
    await asyncio.wait_for(refreshing, BOUND)
    assert await store.agents() == []
