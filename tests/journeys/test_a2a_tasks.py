"""GetTask, ListTasks and CancelTask (A2A §3.1.3 to §3.1.5)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.actors import Cue
from tests.bindings import Caller, state
from tests.journeys.conftest import TOWN
from tests.late import Late
from tests.serving import BOUND, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

LATEST = "9999-12-31T23:59:59.999Z"


def ids(page: Any) -> list[str]:
    return [task["id"] for task in page["tasks"]]


async def walk(caller: Caller, **params: Any) -> list[str]:
    """All tasks by following nextPageToken; a hundred pages at most."""
    found: list[str] = []
    token = ""
    for _ in range(100):
        page = await caller.call("ListTasks", **params, **({"pageToken": token} if token else {}))
        found += ids(page)
        token = page["nextPageToken"]
        if not token:
            return found
    raise AssertionError("the listing has no end")


# Reading.


@pytest.mark.requirement("a2a.get.unknown-task", "a2a.error.task-not-found")
@pytest.mark.parametrize("id", ["tck-nonexistent", "t", "x" * 300, "a b"])
async def test_an_unknown_task_is_not_found(caller: Caller, id: str) -> None:
    error = await caller.refused("TASK_NOT_FOUND", "GetTask", id=id)
    assert error.metadata == {"taskId": id}


async def test_no_answer_falls_behind_one_that_was_given_before(tmp_path: Path) -> None:
    store, cue = Late(), Cue()
    async with running(tmp_path, TOWN, store=store) as gateway:
        actor = Caller(gateway, "jsonrpc", "actor")
        task = await actor.started(cue.text)
        store.hear.clear()
        store.committed.clear()
        cue.done()
        await asyncio.wait_for(store.committed.wait(), BOUND)
        assert [state(listed) for listed in (await actor.call("ListTasks"))["tasks"]] == ["COMPLETED"]
        await actor.ended(task["id"])
        store.hear.set()


@pytest.mark.requirement("a2a.get.current-state")
async def test_a_task_read_while_it_works_shows_how_far_it_is(caller: Caller) -> None:
    cue, actor = Cue(), caller.to("actor")
    task = await actor.started(cue.text)
    async with actor.stream("SubscribeToTask", id=task["id"]) as events:
        await anext(events)
        cue.steps.put_nowait(lambda context: context.artifact("half", id="a", last=False))
        cue.say("half way")
        while (await anext(events)).keys() != {"statusUpdate"}:
            pass
    now = await actor.get(task["id"])
    assert (state(now), now["status"]["message"]["parts"]) == ("WORKING", [{"text": "half way"}])
    assert now["artifacts"][0]["parts"] == [{"text": "half"}]
    cue.done()
    assert state(await actor.ended(task["id"])) == "COMPLETED"


async def test_an_agents_endpoint_knows_only_its_own_tasks(fresh: Caller) -> None:
    task, other = await fresh.task("ask"), fresh.to("more")
    for method, params in (
        ("GetTask", {"id": task["id"]}),
        ("CancelTask", {"id": task["id"]}),
        ("SubscribeToTask", {"id": task["id"]}),
        ("SendMessage", {"message": message("x", taskId=task["id"])}),
        ("CreateTaskPushNotificationConfig", {"taskId": task["id"], "url": "https://example.com/x"}),
        ("ListTaskPushNotificationConfigs", {"taskId": task["id"]}),
    ):
        await other.refused("TASK_NOT_FOUND", method, **params)
    assert (await other.call("ListTasks"))["tasks"] == []
    assert ids(await fresh.call("ListTasks")) == [task["id"]]


# Listing.


@pytest.mark.requirement("a2a.list.newest-first", "a2a.list.sizes-reported", "a2a.list.token-always-present")
async def test_tasks_are_listed_by_the_time_of_their_status_newest_first(fresh: Caller) -> None:
    assert await fresh.call("ListTasks") == {"tasks": [], "nextPageToken": "", "pageSize": 50, "totalSize": 0}
    asked, done = await fresh.task("ask"), await fresh.task()
    page = await fresh.call("ListTasks", historyLength=0)
    assert page.keys() == {"tasks", "nextPageToken", "pageSize", "totalSize"}
    assert ids(page) == [done["id"], asked["id"]]
    assert (page["nextPageToken"], page["pageSize"], page["totalSize"]) == ("", 50, 2)
    await fresh.task("the answer", taskId=asked["id"])
    page = await fresh.call("ListTasks")
    assert ids(page) == [asked["id"], done["id"]]
    times = [task["status"]["timestamp"] for task in page["tasks"]]
    assert times == sorted(times, reverse=True)


@pytest.mark.requirement("a2a.list.cursor", "a2a.list.token-always-present")
@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
async def test_following_the_pages_shows_every_task_once(fresh: Caller, size: int) -> None:
    # Seven at once: several of them share a millisecond, where only the id keeps them in order.
    made = await asyncio.gather(*(fresh.task(f"task {number}") for number in range(7)))
    found = await walk(fresh, pageSize=size)
    assert len(found) == 7
    assert set(found) == {task["id"] for task in made}


@pytest.mark.requirement("a2a.list.cursor")
async def test_new_tasks_between_two_pages_push_nothing_out(fresh: Caller) -> None:
    made = [await fresh.task() for _ in range(4)]
    page = await fresh.call("ListTasks", pageSize=2)
    await fresh.task("newer")
    assert page["totalSize"] == 4
    rest = await fresh.call("ListTasks", pageSize=2, pageToken=page["nextPageToken"])
    assert ids(page) + ids(rest) == [task["id"] for task in reversed(made)]
    assert rest["nextPageToken"] == ""


@pytest.mark.requirement("a2a.list.page-size", "a2a.error.fields-named")
async def test_a_page_has_one_to_a_hundred_tasks(http_fresh: Caller) -> None:
    for wrong in (0, -1, 101, 2**31, "many", 1.5):
        error = await http_fresh.refused("INVALID_PARAMS", "ListTasks", pageSize=wrong)
        assert error.fields.keys() == {"pageSize"}
    for size in (1, 100):
        assert (await http_fresh.call("ListTasks", pageSize=size))["pageSize"] == size


@pytest.mark.requirement("a2a.list.page-size")
async def test_a_page_of_no_stated_size_has_fifty_tasks(fresh: Caller) -> None:
    await asyncio.gather(*(fresh.task() for _ in range(51)))
    page = await fresh.call("ListTasks", historyLength=0)
    assert (len(page["tasks"]), page["pageSize"], page["totalSize"]) == (50, 50, 51)
    assert page["nextPageToken"]


@pytest.mark.requirement("a2a.list.bad-token-refused", "a2a.owner.list")
async def test_a_page_token_is_good_for_its_own_question_and_caller_only(fresh: Caller) -> None:
    stranger = await fresh.other(f"stranger-{fresh.binding}")
    for caller in (fresh, stranger):
        for _ in range(3):
            await caller.task(contextId="c")
    token = (await fresh.call("ListTasks", pageSize=1))["nextPageToken"]
    for caller, params in (
        (stranger, {"pageToken": token}),
        (fresh.to("more"), {"pageToken": token}),
        (fresh, {"pageToken": token, "contextId": "c"}),
        (fresh, {"pageToken": token, "status": "TASK_STATE_COMPLETED"}),
        (fresh, {"pageToken": token, "statusTimestampAfter": "2020-01-01T00:00:00Z"}),
        (fresh, {"pageToken": token[:-2]}),
        (fresh, {"pageToken": "made-up"}),
        (fresh, {"pageToken": "é"}),
        (fresh, {"pageToken": "2"}),
    ):
        error = await caller.refused("INVALID_PARAMS", "ListTasks", **params)
        assert error.fields.keys() == {"pageToken"}
    # How much is shown is not part of the question.
    assert len(ids(await fresh.call("ListTasks", pageSize=2, pageToken=token, includeArtifacts=True))) == 2


@pytest.mark.requirement("a2a.list.by-context")
async def test_a_context_shows_its_own_tasks_alone(fresh: Caller) -> None:
    one, _, two = await fresh.task(contextId="a"), await fresh.task(contextId="b"), await fresh.task(contextId="a")
    page = await fresh.call("ListTasks", contextId="a")
    assert (ids(page), page["totalSize"]) == ([two["id"], one["id"]], 2)
    assert await fresh.call("ListTasks", contextId="unknown", pageSize=2) == {
        "tasks": [], "nextPageToken": "", "pageSize": 2, "totalSize": 0,
    }  # fmt: skip


@pytest.mark.requirement("a2a.list.by-status", "a2a.http.query-names", "a2a.json.enums")
async def test_a_status_shows_the_tasks_in_that_state_alone(http_fresh: Caller) -> None:
    done, asked, failed = await http_fresh.task(), await http_fresh.task("ask"), await http_fresh.task("fail")
    for name, task in (("COMPLETED", done), ("INPUT_REQUIRED", asked), ("FAILED", failed)):
        assert ids(await http_fresh.call("ListTasks", status=f"TASK_STATE_{name}")) == [task["id"]]
    assert ids(await http_fresh.call("ListTasks", status="TASK_STATE_CANCELED")) == []
    assert len(ids(await http_fresh.call("ListTasks", status="TASK_STATE_UNSPECIFIED"))) == 3
    for wrong in ("COMPLETED", "completed", "TASK_STATE_DONE"):
        error = await http_fresh.refused("INVALID_PARAMS", "ListTasks", status=wrong)
        assert error.fields.keys() == {"status"}


@pytest.mark.requirement("a2a.list.by-time")
async def test_a_time_shows_the_tasks_whose_status_is_not_older(http_fresh: Caller) -> None:
    first, second = await http_fresh.task("ask"), await http_fresh.task("ask")
    at = second["status"]["timestamp"]
    found = ids(await http_fresh.call("ListTasks", statusTimestampAfter=at))
    assert second["id"] in found
    assert (first["id"] in found) == (first["status"]["timestamp"] == at)
    assert len(ids(await http_fresh.call("ListTasks", statusTimestampAfter="2020-02-29T12:00:00+02:00"))) == 2
    assert ids(await http_fresh.call("ListTasks", statusTimestampAfter=LATEST)) == []
    for wrong in ("yesterday", "2026-11-21", "2026-11-21T08:00:00", "1763712000"):
        error = await http_fresh.refused("INVALID_PARAMS", "ListTasks", statusTimestampAfter=wrong)
        assert error.fields.keys() == {"statusTimestampAfter"}


@pytest.mark.requirement("a2a.list.artifacts-left-out", "a2a.list.artifacts-included")
async def test_artifacts_are_listed_only_when_asked_for(fresh: Caller) -> None:
    task = await fresh.task("count 2")
    assert task["artifacts"]
    for params in ({}, {"includeArtifacts": False}):
        (listed,) = (await fresh.call("ListTasks", **params))["tasks"]
        assert "artifacts" not in listed
    (listed,) = (await fresh.call("ListTasks", includeArtifacts=True))["tasks"]
    assert listed == task


# Cancelling.


@pytest.mark.requirement("a2a.cancel.returns-task", "a2a.cancel.stops-the-work", "a2a.task.ended-stays-ended")
async def test_cancelling_stops_the_agent_and_shows_the_cancelled_task(caller: Caller) -> None:
    cue, actor = Cue(), caller.to("actor")
    task = await actor.started(cue.text)
    canceled = await actor.call("CancelTask", id=task["id"])
    assert (canceled["id"], state(canceled)) == (task["id"], "CANCELED")
    await asyncio.wait_for(cue.stopped.wait(), BOUND)
    cue.done()  # nobody is there to play it
    assert await actor.get(task["id"]) == canceled


async def test_whoever_waits_for_a_cancelled_task_gets_it(caller: Caller) -> None:
    cue, actor = Cue(), await caller.to("actor").other(f"waiting-{caller.binding}")
    waiting = asyncio.create_task(actor.task(cue.text))
    cue.say("at work")
    task = None
    async with asyncio.timeout(BOUND):
        while task is None:
            task = next(iter((await actor.call("ListTasks"))["tasks"]), None)
    canceled = await actor.call("CancelTask", id=task["id"])
    assert await asyncio.wait_for(waiting, BOUND) == canceled


@pytest.mark.requirement("a2a.cancel.interrupted")
@pytest.mark.parametrize("id", ["tck-input-required", "tck-auth-required"])
async def test_a_task_that_waits_for_its_client_can_be_cancelled(caller: Caller, id: str) -> None:
    task = await caller.task("hi", messageId=f"{id}-cancel-{caller.binding}")
    canceled = await caller.call("CancelTask", id=task["id"])
    assert state(canceled) == "CANCELED"
    assert await caller.get(task["id"]) == canceled


@pytest.mark.requirement("a2a.cancel.ended-task", "a2a.cancel.twice", "a2a.error.task-not-cancelable")
@pytest.mark.parametrize("text", ["hi", "fail", "reject", "cancel"])
async def test_an_ended_task_cannot_be_cancelled(caller: Caller, text: str) -> None:
    task = await caller.task("ask" if text == "cancel" else text)
    if text == "cancel":
        task = await caller.call("CancelTask", id=task["id"])
    error = await caller.refused("TASK_NOT_CANCELABLE", "CancelTask", id=task["id"])
    assert error.metadata["taskId"] == task["id"]
    assert await caller.get(task["id"]) == task


@pytest.mark.requirement("a2a.cancel.unknown-task")
async def test_an_unknown_task_cannot_be_cancelled(caller: Caller) -> None:
    await caller.refused("TASK_NOT_FOUND", "CancelTask", id="tck-nonexistent")


@pytest.mark.requirement("a2a.cancel.metadata", "a2a.http.empty-body")
async def test_a_cancellation_may_carry_metadata_or_have_no_body(caller: Caller) -> None:
    task = await caller.task("ask")
    assert state(await caller.call("CancelTask", id=task["id"], metadata={"why": "enough"})) == "CANCELED"
    task = await caller.task("ask")
    if caller.binding == "http":
        for headers in ({}, {"Content-Type": "application/json"}):
            answer = await caller.gateway.http("POST", f"/tasks/{task['id']}:cancel", headers=headers)
            assert answer.status_code == (400 if headers else 200), answer.text
