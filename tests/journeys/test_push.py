"""Push configurations and what webhooks are told (A2A §3.1.7 to §3.1.10, §4.3, §13.2)."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gateway.core.push import worker
from gateway.upstream import webhook
from tests.actors import Cue
from tests.bindings import BINDINGS, Caller, state
from tests.journeys.conftest import TOWN
from tests.receiver import Receiver, receiving
from tests.serving import BOUND, message, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOOK = "https://example.com/hook"
CREATE, GET, LIST, DELETE = (
    "CreateTaskPushNotificationConfig",
    "GetTaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs",
    "DeleteTaskPushNotificationConfig",
)


def hooked(config: dict[str, Any]) -> dict[str, Any]:
    return {"taskPushNotificationConfig": config}


# Configurations.


@pytest.mark.requirement("a2a.push.create", "a2a.push.get")
@pytest.mark.parametrize("text", ["hi", "ask"])
async def test_a_configuration_is_answered_whole_whatever_the_task_is_doing(caller: Caller, text: str) -> None:
    task = await caller.task(text)
    config = {
        "taskId": task["id"],
        "url": HOOK,
        "token": "t",
        "authentication": {"scheme": "Bearer", "credentials": "c"},
    }
    made = await caller.call(CREATE, **config)
    assert made.pop("id")
    assert made == config
    named = await caller.call(CREATE, **config, id="mine/own") if caller.binding == "jsonrpc" else None
    assert named is None or named["id"] == "mine/own"
    made = await caller.call(CREATE, **config, id="mine")
    assert made == {**config, "id": "mine"}
    assert await caller.call(GET, taskId=task["id"], id="mine") == made


@pytest.mark.parametrize("id", ["a:b", "100%", "%41", "käse", "a b", "..."])
async def test_a_configuration_is_found_under_the_very_id_it_was_given(caller: Caller, id: str) -> None:
    task = await caller.task()
    await caller.call(CREATE, taskId=task["id"], url=HOOK, id=id)
    quoted = id.replace("%", "%25") if caller.binding == "http" else id
    assert (await caller.call(GET, taskId=task["id"], id=quoted))["id"] == id
    await caller.call(DELETE, taskId=task["id"], id=quoted)
    assert (await caller.call(LIST, taskId=task["id"]))["configs"] == []


async def test_the_same_id_on_two_tasks_is_two_configurations(caller: Caller) -> None:
    one, two = await caller.task(), await caller.task()
    await caller.call(CREATE, taskId=one["id"], url=HOOK + "/1", id="same")
    await caller.call(CREATE, taskId=two["id"], url=HOOK + "/2", id="same")
    assert (await caller.call(GET, taskId=one["id"], id="same"))["url"] == HOOK + "/1"
    await caller.call(CREATE, taskId=one["id"], url=HOOK + "/3", id="same")
    assert [config["url"] for config in (await caller.call(LIST, taskId=one["id"]))["configs"]] == [HOOK + "/3"]


@pytest.mark.requirement("a2a.push.several")
async def test_a_list_shows_all_configurations_page_by_page(caller: Caller) -> None:
    task, other = await caller.task(), await caller.task()
    assert await caller.call(LIST, taskId=task["id"]) == {"configs": [], "nextPageToken": ""}
    for id in "abcde":
        await caller.call(CREATE, taskId=task["id"], url=HOOK, id=id)
    assert [config["id"] for config in (await caller.call(LIST, taskId=task["id"]))["configs"]] == list("abcde")
    page = await caller.call(LIST, taskId=task["id"], pageSize=3)
    rest = await caller.call(LIST, taskId=task["id"], pageSize=3, pageToken=page["nextPageToken"])
    assert [config["id"] for config in page["configs"] + rest["configs"]] == list("abcde")
    assert rest["nextPageToken"] == ""
    error = await caller.refused("INVALID_PARAMS", LIST, taskId=other["id"], pageToken=page["nextPageToken"])
    assert error.fields.keys() == {"pageToken"}
    await caller.refused("INVALID_PARAMS", LIST, taskId=task["id"], pageSize=101)


async def test_a_task_has_so_many_configurations_and_no_more(caller: Caller) -> None:
    task = await caller.task()
    for number in range(16):
        await caller.call(CREATE, taskId=task["id"], url=HOOK, id=str(number))
    await caller.refused("INVALID_PARAMS", CREATE, taskId=task["id"], url=HOOK, id="one more")
    await caller.call(CREATE, taskId=task["id"], url=HOOK, id="0")


@pytest.mark.requirement("a2a.push.delete", "a2a.push.delete-twice")
async def test_deleting_twice_is_no_error(caller: Caller) -> None:
    task = await caller.task()
    await caller.call(CREATE, taskId=task["id"], url=HOOK, id="a")
    for _ in range(2):
        answer = await caller.call(DELETE, taskId=task["id"], id="a")
        assert answer == (None if caller.binding == "jsonrpc" else {})
    await caller.refused("TASK_NOT_FOUND", GET, taskId=task["id"], id="a")


@pytest.mark.requirement("a2a.push.unknown")
async def test_configurations_of_an_unknown_task_are_not_found(caller: Caller) -> None:
    for method, params in ((CREATE, {"url": HOOK}), (GET, {"id": "a"}), (LIST, {}), (DELETE, {"id": "a"})):
        await caller.refused("TASK_NOT_FOUND", method, taskId="tck-nonexistent", **params)
    task = await caller.task()
    await caller.refused("TASK_NOT_FOUND", GET, taskId=task["id"], id="tck-nonexistent")


@pytest.mark.requirement("a2a.push.url-required")
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({}, "url"),
        ({"url": ""}, "url"),
        ({"url": "not a url"}, "url"),
        ({"url": "ftp://example.com/x"}, "url"),
        ({"url": "https://user:secret@example.com/"}, "url"),
        ({"url": HOOK, "id": 5}, "id"),
        ({"url": HOOK, "token": "a\r\nX-Evil: 1"}, "token"),
        ({"url": HOOK, "token": "käse"}, "token"),
        ({"url": HOOK, "authentication": {"credentials": "c"}}, "authentication.scheme"),
        ({"url": HOOK, "authentication": {"scheme": "Bearer", "credentials": "a\nb"}}, "authentication.credentials"),
        ({"url": HOOK, "authentication": {"scheme": "Bea rer\r\n", "credentials": "a"}}, "authentication.scheme"),
    ],
)
async def test_a_configuration_that_could_never_be_used_is_refused(http_caller: Caller, wrong: Any, field: str) -> None:
    task = await http_caller.task()
    error = await http_caller.refused("INVALID_PARAMS", CREATE, taskId=task["id"], **wrong)
    assert error.fields.keys() == {field}
    error = await http_caller.refused(
        "INVALID_PARAMS", "SendMessage", message=message("hi"), configuration=hooked(wrong)
    )
    assert [name.removeprefix("configuration.taskPushNotificationConfig.") for name in error.fields] == [field]
    assert (await http_caller.call(LIST, taskId=task["id"]))["configs"] == []


@pytest.mark.requirement("a2a.webhook.private-addresses-refused")
@pytest.mark.parametrize(
    "host", ["10.0.0.1", "192.168.1.1", "169.254.169.254", "[fd00::1]", "0x0a.1", "[::ffff:10.0.0.1]"]
)
async def test_a_webhook_at_a_private_address_is_refused_by_its_text(caller: Caller, host: str) -> None:
    task = await caller.task()
    error = await caller.refused("INVALID_PARAMS", CREATE, taskId=task["id"], url=f"http://{host}/hook")
    assert error.fields.keys() == {"url"}


@pytest.mark.requirement("a2a.webhook.private-addresses-refused")
async def test_without_the_operators_word_loopback_is_refused_too(tmp_path: Path) -> None:
    async with running(tmp_path, TOWN.replace("allow_loopback: true", "allow_loopback: false")) as gateway:
        caller = Caller(gateway, "http")
        task = await caller.task()
        for host in ("127.0.0.1:9", "127.1", "[::1]", "0.0.0.0", "localhost:9"):
            await caller.refused("INVALID_PARAMS", CREATE, taskId=task["id"], url=f"http://{host}/hook")
        # A name is judged when it is called, so that its answer then is what counts.
        assert await caller.call(CREATE, taskId=task["id"], url="http://webhooks.test/hook")


@pytest.mark.requirement("a2a.push.undeclared", "a2a.error.push-not-supported", "a2a.card.capabilities-are-true")
async def test_an_agent_that_declares_no_pushes_has_none(caller: Caller) -> None:
    plain = caller.to("plain")
    task = await plain.task()
    for method, params in ((CREATE, {"url": HOOK}), (GET, {"id": "a"}), (LIST, {}), (DELETE, {"id": "a"})):
        await plain.refused("PUSH_NOTIFICATION_NOT_SUPPORTED", method, taskId=task["id"], **params)
    sent = {"message": message("hi"), "configuration": hooked({"url": HOOK})}
    await plain.refused("PUSH_NOTIFICATION_NOT_SUPPORTED", "SendMessage", **sent)


# Deliveries.


@pytest.mark.requirement(
    "a2a.webhook.at-least-once", "a2a.webhook.stream-response", "a2a.webhook.authorization", "a2a.webhook.token",
    "a2a.webhook.any-binding", "a2a.send.push-whatever-the-mode",
)  # fmt: skip
@pytest.mark.parametrize("now", [False, True])
async def test_a_webhook_is_told_each_event_in_order(caller: Caller, now: bool) -> None:
    async with receiving() as receiver:
        wanted = {"url": receiver.url, "token": "tok", "authentication": {"scheme": "Bearer", "credentials": "cred"}}
        task = await caller.task("count 3", configuration={**hooked(wanted), "returnImmediately": now})
        told = await receiver.ended(task["id"])
    assert [next(iter(one.tree)) for one in told] == ["task", "statusUpdate", *["artifactUpdate"] * 3, "statusUpdate"]
    for one in told:
        assert one.line == "POST /hook HTTP/1.1"
        assert one.headers["content-type"] == "application/a2a+json"
        assert one.headers["authorization"] == "Bearer cred"
        assert one.headers["x-a2a-notification-token"] == "tok"
        assert "transfer-encoding" not in one.headers
        (event,) = one.tree.values()
        assert task["id"] in (event.get("id"), event.get("taskId"))
    assert state(told[-1].tree["statusUpdate"]) == "COMPLETED"


async def test_a_webhook_added_later_is_told_what_follows(caller: Caller) -> None:
    async with receiving() as receiver, receiving() as other:
        task = await caller.task("ask")
        await caller.call(CREATE, taskId=task["id"], url=receiver.url)
        await caller.call(CREATE, taskId=task["id"], url=other.url)
        await caller.task("the answer", taskId=task["id"])
        for told in (await receiver.ended(task["id"]), await other.ended(task["id"])):
            assert [state(one.tree["statusUpdate"]) for one in told if "statusUpdate" in one.tree] == [
                "WORKING", "COMPLETED",
            ]  # fmt: skip
            assert all("authorization" not in one.headers for one in told)


async def test_a_webhook_added_while_the_agent_works_is_told_what_follows(caller: Caller) -> None:
    cue, actor = Cue(), caller.to("actor")
    async with receiving() as receiver:
        task = await actor.started(cue.text)
        await actor.call(CREATE, taskId=task["id"], url=receiver.url)
        cue.done()
        (told,) = await receiver.ended(task["id"])
    assert state(told.tree["statusUpdate"]) == "COMPLETED"


@pytest.mark.requirement("a2a.push.delete")
async def test_a_deleted_webhook_hears_nothing_more(caller: Caller) -> None:
    async with receiving() as receiver, receiving() as witness:
        task = await caller.task("ask")
        await caller.call(CREATE, taskId=task["id"], url=receiver.url, id="a")
        await caller.call(CREATE, taskId=task["id"], url=witness.url, id="b")
        await caller.call(DELETE, taskId=task["id"], id="a")
        await caller.task("the answer", taskId=task["id"])
        await witness.ended(task["id"])
    assert receiver.told == []


@pytest.mark.requirement("a2a.webhook.retry", "a2a.webhook.at-least-once")
async def test_a_failed_delivery_is_tried_again_with_growing_pauses(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 50)
    monkeypatch.setattr(caller.gateway.app.push, "_chance", lambda: 0.0)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.01)
    async with receiving(500, 503, 302, 400) as receiver, receiving() as fine:
        task = await caller.task("ask")
        await caller.call(CREATE, taskId=task["id"], url=receiver.url)
        await caller.call(CREATE, taskId=task["id"], url=fine.url)
        await caller.call("CancelTask", id=task["id"])
        told = await receiver.until(4)
        assert len(await fine.ended(task["id"])) == 1  # the one that fails holds up nobody
    assert len({one.body for one in told}) == 1
    pauses = [after.at - before.at for before, after in pairwise(told)]
    # At least that long: how much later a busy machine comes to it says nothing.
    assert all(pause > least for pause, least in zip(pauses, (0.045, 0.09, 0.18), strict=True)), pauses


@pytest.mark.requirement("a2a.webhook.retry", "a2a.push.secrets-kept", "a2a.log.no-secrets")
async def test_later_events_wait_for_one_that_fails_and_no_secret_is_logged(
    caller: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 1)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.01)
    async with receiving(*[500] * 4) as receiver:
        wanted = {"url": receiver.url + "?key=k3y", "token": "t0ken",
                   "authentication": {"scheme": "Bearer", "credentials": "cr3d"}}  # fmt: skip
        task = await caller.task("ask", configuration=hooked(wanted))
        await caller.call("CancelTask", id=task["id"])
        told = await receiver.ended(task["id"])
    assert [next(iter(one.tree)) for one in told] == ["task"] * 5 + ["statusUpdate"] * 2
    assert "answered with status 500" in caplog.text
    for secret in ("t0ken", "cr3d", "k3y", caller.gateway.token):
        assert secret not in caplog.text
    assert open_to_others(caller.gateway.app.settings.data) == []


def open_to_others(data: Path) -> list[str]:
    return [path.name for path in data.iterdir() if path.stat().st_mode & 0o077]


@pytest.mark.requirement("a2a.webhook.timeout", "a2a.webhook.retry")
async def test_a_webhook_that_does_not_answer_is_given_up_and_tried_again(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 10 <= webhook.TIMEOUT_SECONDS <= 30
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.1)
    monkeypatch.setattr(worker, "FIRST_RETRY_MS", 1)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0.01)
    async with receiving() as receiver:
        receiver.hold = asyncio.Event()
        await caller.task("ask", configuration=hooked({"url": receiver.url}))
        first, second = (await receiver.until(2))[:2]
        receiver.hold.set()
    assert first.body == second.body


@pytest.mark.requirement("a2a.webhook.slow-one-holds-nobody")
async def test_a_webhook_that_does_not_answer_delays_neither_the_task_nor_other_webhooks(caller: Caller) -> None:
    async with receiving() as slow, receiving() as fine:
        slow.hold = asyncio.Event()
        stuck = await caller.task("ask", configuration=hooked({"url": slow.url}))
        await slow.until(1)
        assert state(await asyncio.wait_for(caller.task("the answer", taskId=stuck["id"]), BOUND)) == "COMPLETED"
        task = await caller.task("hi", configuration=hooked({"url": fine.url}))
        await fine.ended(task["id"])
        slow.hold.set()
        await slow.ended(stuck["id"])


async def test_nothing_in_a_configuration_can_stop_the_deliveries(caller: Caller) -> None:
    async with receiving() as receiver:
        for url in (
            "http://127.0.0.1:1/",
            "http://nowhere.invalid/",
            f"http://127.0.0.1:{receiver.port}/" + "x" * 1500,
        ):
            await caller.task("hi", configuration=hooked({"url": url, "token": "~" * 5000}))
        task = await caller.task("hi", configuration=hooked({"url": receiver.url}))
        await receiver.ended(task["id"])


@pytest.mark.requirement("a2a.push.persists")
@pytest.mark.parametrize("binding", BINDINGS)
async def test_configurations_and_what_is_still_to_be_told_survive_a_restart(tmp_path: Path, binding: str) -> None:
    async with receiving() as receiver:
        async with running(tmp_path, TOWN) as gateway:
            caller = Caller(gateway, binding)
            task = await caller.task("ask")
            made = await caller.call(CREATE, taskId=task["id"], url=receiver.url, token="t")
        async with running(tmp_path, TOWN) as gateway:
            caller = Caller(gateway, binding)
            assert await caller.call(GET, taskId=task["id"], id=made["id"]) == made
            await caller.task("the answer", taskId=task["id"])
            assert await told_of(receiver, task["id"]) == ["WORKING", "COMPLETED"]


async def told_of(receiver: Receiver, id: str) -> list[str]:
    return [state(one.tree["statusUpdate"]) for one in await receiver.ended(id) if "statusUpdate" in one.tree]
