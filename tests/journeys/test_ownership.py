"""Who may do what to whose task: other people's tasks do not exist (A2A §3.3.2, §13.1), and who is asking (§7.4)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from gateway.dialects.grpc import DETAILS
from gateway.model.ports import Store
from gateway.stores.memory import MemoryStore
from tests.bindings import BINDINGS, OPERATIONS, Caller
from tests.journeys.conftest import TOWN
from tests.serving import A2A, Gateway, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOOK = "https://example.com/hook"
MISSING = "f" * 32  # an id that could be one of ours

# How each operation names a task. The owner's own id goes in for %s.
AIMED: dict[str, dict[str, Any]] = {
    "GetTask": {"id": "%s"},
    "CancelTask": {"id": "%s"},
    "SubscribeToTask": {"id": "%s"},
    "SendMessage": {"message": {**message("x", messageId="theirs"), "taskId": "%s"}},
    "SendStreamingMessage": {"message": {**message("x", messageId="theirs"), "taskId": "%s"}},
    "CreateTaskPushNotificationConfig": {"taskId": "%s", "url": HOOK},
    "GetTaskPushNotificationConfig": {"taskId": "%s", "id": "c"},
    "ListTaskPushNotificationConfigs": {"taskId": "%s"},
    "DeleteTaskPushNotificationConfig": {"taskId": "%s", "id": "c"},
}


def aimed(params: Any, id: str) -> Any:
    if isinstance(params, dict):
        return {name: aimed(value, id) for name, value in params.items()}
    return id if params == "%s" else params


def told(answer: httpx2.Response, *ids: str) -> tuple[Any, ...]:
    """Everything an answer tells, with ids that the asker knows anyway made equal."""
    body = answer.text
    for id in ids:
        body = body.replace(id, "ID")
    headers = {name: value for name, value in answer.headers.items() if name not in ("date", DETAILS)}
    return answer.status_code, headers, body


@pytest.mark.requirement(
    "a2a.owner.get", "a2a.owner.send", "a2a.owner.cancel", "a2a.owner.subscribe", "a2a.owner.push",
    "a2a.error.missing-or-forbidden", "a2a.auth.every-operation",
)  # fmt: skip
@pytest.mark.parametrize("method", AIMED)
@pytest.mark.parametrize("text", ["ask", "hi"])
async def test_somebody_elses_task_is_missing_byte_for_byte(fresh: Caller, method: str, text: str) -> None:
    task = await fresh.task(text, contextId="theirs")
    await fresh.call("CreateTaskPushNotificationConfig", taskId=task["id"], url=HOOK, id="c")
    before = await fresh.get(task["id"])
    stranger = await fresh.other(f"{method}-{text}-{fresh.binding}")
    foreign = await stranger.ask(method, **aimed(AIMED[method], task["id"]))
    missing = await stranger.ask(method, **aimed(AIMED[method], MISSING))
    stranger.error(foreign, "TASK_NOT_FOUND")
    assert told(foreign, task["id"]) == told(missing, MISSING)
    assert await fresh.get(task["id"]) == before
    configs = (await fresh.call("ListTaskPushNotificationConfigs", taskId=task["id"]))["configs"]
    assert [config["id"] for config in configs] == ["c"]


@pytest.mark.requirement("a2a.owner.send")
@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
async def test_the_right_context_opens_somebody_elses_task_no_more_than_a_wrong_one(fresh: Caller, method: str) -> None:
    task = await fresh.task("ask")
    stranger = await fresh.other(f"context-{method}-{fresh.binding}")
    for context in (task["contextId"], "another"):
        await stranger.refused("TASK_NOT_FOUND", method, message=message("x", taskId=task["id"], contextId=context))


@pytest.mark.requirement("a2a.owner.list")
async def test_somebody_elses_tasks_are_in_no_list_and_their_context_is_only_a_word(fresh: Caller) -> None:
    theirs = await fresh.task("ask", contextId="shared words")
    stranger = await fresh.other(f"lister-{fresh.binding}")
    nothing = {"tasks": [], "nextPageToken": "", "pageSize": 50, "totalSize": 0}
    for params in (
        {},
        {"contextId": "shared words"},
        {"status": "TASK_STATE_INPUT_REQUIRED"},
        {"includeArtifacts": True},
    ):
        assert await stranger.call("ListTasks", **params) == nothing
    mine = await stranger.task("hi", contextId="shared words")
    assert [task["id"] for task in (await stranger.call("ListTasks", contextId="shared words"))["tasks"]] == [
        mine["id"]
    ]
    assert [task["id"] for task in (await fresh.call("ListTasks", contextId="shared words"))["tasks"]] == [theirs["id"]]


class Watched:
    """A store that remembers what it was asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name not in ("task", "tasks", "events", "reservation", "push_config", "push_configs"):
            return found

        def asking(*args: Any, **kwargs: Any) -> Any:
            self.asked.append((name, kwargs))
            return found(*args, **kwargs)

        return asking


@pytest.mark.requirement("a2a.owner.checked-before-query")
async def test_the_store_is_never_asked_for_a_task_without_its_owner(tmp_path: Path) -> None:
    watched = Watched(MemoryStore())
    async with running(tmp_path, TOWN, store=cast(Store, watched)) as gateway:
        owner = Caller(gateway, "http")
        task = await owner.task("ask")
        await owner.call("CreateTaskPushNotificationConfig", taskId=task["id"], url=HOOK, id="c")
        stranger = await owner.other("stranger")
        for method, params in AIMED.items():
            watched.asked.clear()
            await stranger.refused("TASK_NOT_FOUND", method, **aimed(params, task["id"]))
            # The owner is part of the question, and after a no there is no further one.
            assert [(name, asked["owner"]) for name, asked in watched.asked] == [("task", "key:stranger")], method


@pytest.mark.requirement("a2a.send.reference-tasks")
async def test_referring_to_somebody_elses_task_tells_nothing(fresh: Caller) -> None:
    theirs = await fresh.task("secret words")
    stranger = await fresh.other(f"referrer-{fresh.binding}")
    mine = await stranger.task()
    seen = []
    for id in (theirs["id"], MISSING):
        answer = await stranger.to("mirror").send("x", messageId=f"refers-{id}", referenceTaskIds=[mine["id"], id])
        reached = answer["message"]["parts"][0]["data"]["message"]
        assert "secret words" not in str(reached)
        seen.append(str(reached.get("referenceTaskIds")).replace(id, "ID"))
    assert seen[0] == seen[1]


async def test_two_callers_may_use_the_same_message_id(fresh: Caller) -> None:
    stranger = await fresh.other(f"same-{fresh.binding}")
    one, two = await fresh.task("one", messageId="same"), await stranger.task("two", messageId="same")
    assert one["id"] != two["id"]
    assert two["status"]["message"]["parts"] == [{"text": "two"}]


async def test_two_keys_of_one_name_are_one_principal(gateway: Gateway) -> None:
    old = await Caller(gateway, "http").other("rotating")
    new = await old.other("rotating")
    task = await old.task()
    assert await new.get(task["id"]) == task


@pytest.mark.requirement("a2a.error.missing-or-forbidden", "a2a.auth.every-operation")
@pytest.mark.parametrize("method", OPERATIONS)
async def test_an_agent_that_one_may_not_see_is_missing_byte_for_byte(fresh: Caller, method: str) -> None:
    params = aimed(AIMED.get(method, {}), MISSING)
    for more in ({}, {"tenant": "acme"}):
        hidden, missing = [await fresh.to(agent).ask(method, **params, **more) for agent in ("hidden", "missing")]
        fresh.error(hidden, "NOT_FOUND")
        assert told(hidden) == told(missing)


@pytest.mark.requirement("a2a.auth.forbidden")
async def test_what_is_the_operators_is_forbidden_to_others(gateway: Gateway) -> None:
    key = await gateway.key("somebody")
    for verb, path, body in (
        ("POST", "/admin/keys", {"name": "x"}),
        ("GET", "/admin/keys", None),
        ("POST", "/admin/agents", {"cardUrl": "https://example.com"}),
        ("DELETE", "/admin/keys/x", None),
    ):
        answer = await gateway.client.request(verb, path, headers=gateway.bearer(key), json=body)
        assert answer.status_code == 403, answer.text
        assert answer.json()["error"]["status"] == "PERMISSION_DENIED"


# Who is asking.

WRONG = {
    "none": None,
    "empty": "",
    "unknown": "Bearer gw_" + "A" * 43,
    "another scheme": "Basic Z3c6Z3c=",
    "no secret": "Bearer",
}


@pytest.mark.requirement("a2a.auth.every-request", "a2a.auth.missing-refused", "a2a.auth.challenge")
@pytest.mark.parametrize("method", OPERATIONS)
async def test_every_operation_wants_a_credential_that_is_known(caller: Caller, method: str) -> None:
    for name, value in WRONG.items():
        for agent in ("echo", "missing"):
            asked = caller.to(agent).having(Authorization=value)
            error = await asked.refused("UNAUTHENTICATED", method, **aimed(AIMED.get(method, {}), MISSING))
            challenge = error.answer.headers["www-authenticate"]
            assert challenge.startswith('Bearer realm="gateway"')
            assert ("invalid_token" in challenge) == (value is not None), name


@pytest.mark.requirement("a2a.auth.missing-refused")
async def test_a_wrong_credential_is_refused_before_anything_is_read(caller: Caller) -> None:
    headers = {**A2A, "Authorization": "Bearer wrong", "Content-Type": "text/plain"}
    path = "/agents/echo" + ("" if caller.binding == "jsonrpc" else "/message:send")
    answer = await caller.gateway.client.post(path, content=b"\xff", headers=headers)
    assert answer.status_code == 401


@pytest.mark.parametrize("binding", BINDINGS)
async def test_where_nobody_may_call_a_wrong_credential_is_still_wrong(tmp_path: Path, binding: str) -> None:
    async with running(tmp_path, TOWN, anonymous=True) as gateway:
        nobody = Caller(gateway, binding).having(Authorization=None)
        task = await nobody.task("ask")
        assert await nobody.get(task["id"]) == task
        for method in OPERATIONS:
            wrong = nobody.having(Authorization="Bearer wrong")
            error = await wrong.refused("UNAUTHENTICATED", method, **aimed(AIMED.get(method, {}), task["id"]))
            assert "invalid_token" in error.answer.headers["www-authenticate"]
        somebody = await Caller(gateway, binding).other("somebody")
        await somebody.refused("TASK_NOT_FOUND", "GetTask", id=task["id"])
        await nobody.to("hidden").refused("NOT_FOUND", "GetTask", id=task["id"])
        for path in ("/admin/keys", "/admin/agents", "/admin/tasks"):
            assert (await gateway.client.get(path)).status_code in (200, 401, 403), path
        assert (await gateway.client.get("/admin/keys")).status_code == 401


async def test_a_revoked_key_is_refused_at_once(caller: Caller) -> None:
    gateway = caller.gateway
    made = (await gateway.client.post("/admin/keys", json={"name": "leaver"}, headers=gateway.bearer(None))).json()
    leaver = replace(caller, who=made["key"])
    assert await leaver.task()
    gone = await gateway.client.delete(f"/admin/keys/{made['id']}", headers=gateway.bearer(None))
    assert gone.status_code == 204
    for method in OPERATIONS:
        await leaver.refused("UNAUTHENTICATED", method, **aimed(AIMED.get(method, {}), MISSING))


async def test_a_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    async with running(tmp_path, TOWN) as gateway:
        key = await gateway.key("once")
        listed = (await gateway.client.get("/admin/keys", headers=gateway.bearer(None))).text
        assert "once" in listed
        assert key not in listed
        assert key.encode() not in kept(tmp_path)


def kept(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in data.iterdir() if path.is_file())
