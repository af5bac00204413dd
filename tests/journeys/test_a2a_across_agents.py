"""The admin door shows its caller's tasks across agents, where an agent's own endpoint shows one agent's (SURFACES)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from gateway.dialects.sse import Reader
from tests.actors import Cue
from tests.bindings import Caller, state
from tests.serving import BOUND, Gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def admin(gateway: Gateway, verb: str, path: str, **more: Any) -> httpx2.Response:
    return await gateway.client.request(verb, f"/admin/tasks{path}", headers=gateway.bearer(None), **more)


async def test_tasks_of_all_agents_are_in_one_list(gateway: Gateway) -> None:
    echo = Caller(gateway, "http")
    one, two, three = await echo.task("ask"), await echo.to("more").task("ask"), await echo.task("count 2")
    listed = (await admin(gateway, "GET", "")).json()
    assert [(row["agent"], row["task"]["id"]) for row in listed["tasks"]] == [
        ("echo", three["id"]), ("more", two["id"]), ("echo", one["id"]),
    ]  # fmt: skip
    assert (listed["totalSize"], listed["nextPageToken"]) == (3, "")
    assert "artifacts" not in listed["tasks"][0]["task"]
    found = (await admin(gateway, "GET", "?agent=echo&status=TASK_STATE_INPUT_REQUIRED")).json()["tasks"]
    assert [row["task"]["id"] for row in found] == [one["id"]]
    first = (await admin(gateway, "GET", "?pageSize=2")).json()
    rest = (await admin(gateway, "GET", f"?pageSize=2&pageToken={first['nextPageToken']}")).json()
    assert [row["task"]["id"] for row in rest["tasks"]] == [one["id"]]
    assert (await admin(gateway, "GET", "?pageSize=0")).status_code == 400


async def test_a_task_is_shown_and_cancelled_whichever_agent_has_it(gateway: Gateway) -> None:
    task = await Caller(gateway, "http", "more").task("ask")
    assert (await admin(gateway, "GET", f"/{task['id']}")).json() == {"agent": "more", "task": task}
    canceled = (await admin(gateway, "POST", f"/{task['id']}:cancel")).json()
    assert (canceled["agent"], state(canceled["task"])) == ("more", "CANCELED")
    assert (await admin(gateway, "POST", f"/{task['id']}:cancel")).status_code == 400


async def test_watching_ends_with_the_task_and_shows_an_ended_one(gateway: Gateway) -> None:
    cue, actor = Cue(), Caller(gateway, "http", "actor")
    task = await actor.started(cue.text)
    watching = asyncio.create_task(admin(gateway, "GET", f"/{task['id']}:watch"))
    cue.say("one")
    cue.done()
    seen = events(await asyncio.wait_for(watching, BOUND))
    assert "task" in seen[0]
    assert state(seen[-1].get("statusUpdate") or seen[-1]["task"]) == "COMPLETED"
    ended = await actor.get(task["id"])
    assert events(await admin(gateway, "GET", f"/{task['id']}:watch")) == [{"task": ended}]


def events(answer: httpx2.Response) -> list[Any]:
    assert answer.headers["content-type"] == "text/event-stream"
    return [httpx2.Response(200, content=event.data).json() for event in Reader().feed(answer.content)]


@pytest.mark.security
async def test_the_operator_sees_his_own_tasks_and_others_are_not_let_in(gateway: Gateway) -> None:
    somebody = await Caller(gateway, "http").other("somebody")
    task = await somebody.task("ask")
    for verb, path in (("GET", ""), ("GET", ":watch"), ("POST", ":cancel")):
        assert (await admin(gateway, verb, f"/{task['id']}{path}")).status_code == 404
    listed = (await admin(gateway, "GET", "?pageSize=100")).json()["tasks"]
    assert task["id"] not in [row["task"]["id"] for row in listed]
    for headers, status in ((gateway.bearer(somebody.who), 403), ({}, 401), (gateway.bearer("wrong"), 401)):
        for verb, path in (
            ("GET", ""),
            ("GET", f"/{task['id']}"),
            ("GET", f"/{task['id']}:watch"),
            ("POST", "/x:cancel"),
        ):
            answer = await gateway.client.request(verb, f"/admin/tasks{path}", headers=headers)
            assert answer.status_code == status, (verb, path, answer.text)
    assert await somebody.get(task["id"]) == task
