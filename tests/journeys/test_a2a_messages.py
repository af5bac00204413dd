"""SendMessage: what is answered, when, and in which context (A2A §3.1.1, §3.2, §3.4)."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.actors import Cue
from tests.bindings import BINDINGS, Caller, state
from tests.serving import BOUND, Gateway, message

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOW = {"returnImmediately": True}


def texts(task: Any) -> list[str]:
    return [part["text"] for said in task.get("history", []) for part in said["parts"]]


# What comes back.


@pytest.mark.requirement("a2a.send.task-or-message", "a2a.get.current-state", "a2a.jsonrpc.methods", "a2a.http.routes")
async def test_a_message_is_answered_with_a_task_or_with_a_message(caller: Caller) -> None:
    answer = await caller.send("hi")
    assert answer.keys() == {"task"}
    assert state(answer["task"]) == "COMPLETED"
    assert await caller.get(answer["task"]["id"]) == answer["task"]
    answer = await caller.send("hi", messageId=f"tck-message-response-{caller.binding}")
    assert answer.keys() == {"message"}
    assert answer["message"]["parts"] == [{"text": "Direct message response"}]


@pytest.mark.requirement("a2a.bindings.same-results")
async def test_both_bindings_show_the_same_task(gateway: Gateway) -> None:
    shown = [await Caller(gateway, binding).task("hi", messageId=f"same-{binding}") for binding in BINDINGS]
    for task in shown:
        assert task.keys() == {"id", "contextId", "status", "history"}
    task = shown[0]
    assert [await Caller(gateway, binding).get(task["id"]) for binding in BINDINGS] == [task, task]


@pytest.mark.requirement("a2a.send.duplicate-message-id")
async def test_the_same_message_again_gets_the_first_answer(fresh: Caller) -> None:
    sent = message("hi")
    first = await fresh.call("SendMessage", message=sent)
    assert await fresh.call("SendMessage", message=sent) == first
    assert (await fresh.call("ListTasks"))["totalSize"] == 1
    error = await fresh.refused("INVALID_PARAMS", "SendMessage", message={**sent, "parts": [{"text": "other"}]})
    assert error.fields.keys() == {"message.messageId"}


# When it comes back.


@pytest.mark.requirement("a2a.send.waits-until-settled", "a2a.send.settled-answer-is-complete")
async def test_the_answer_waits_for_the_end_and_shows_all_of_it(caller: Caller) -> None:
    cue = Cue()
    sending = asyncio.create_task(caller.to("actor").task(cue.text))
    cue.say("one")
    cue.steps.put_nowait(lambda context: context.artifact("a result", id="a"))
    assert not sending.done()
    cue.done()
    task = await asyncio.wait_for(sending, BOUND)
    assert state(task) == "COMPLETED"
    assert task["artifacts"] == [{"artifactId": "a", "parts": [{"text": "a result"}]}]


@pytest.mark.requirement("a2a.send.waits-until-settled", "a2a.task.auth-required-explained")
@pytest.mark.parametrize(
    ("id", "ends"), [("tck-input-required", "INPUT_REQUIRED"), ("tck-auth-required", "AUTH_REQUIRED")]
)
async def test_the_answer_waits_no_longer_than_until_the_client_is_needed(caller: Caller, id: str, ends: str) -> None:
    task = await caller.task("hi", messageId=f"{id}-{caller.binding}")
    assert state(task) == ends
    assert task["status"]["message"]["parts"][0]["text"]


@pytest.mark.requirement("a2a.send.return-immediately", "a2a.get.current-state")
async def test_return_immediately_answers_while_the_work_goes_on(caller: Caller) -> None:
    cue = Cue()
    task = await asyncio.wait_for(caller.to("actor").task(cue.text, configuration=NOW), BOUND)
    assert state(task) in {"SUBMITTED", "WORKING"}
    cue.done()
    assert state(await caller.to("actor").ended(task["id"])) == "COMPLETED"


@pytest.mark.requirement("a2a.send.return-immediately-and-message")
async def test_return_immediately_changes_nothing_for_a_message(caller: Caller) -> None:
    answer = await caller.send("hi", messageId=f"tck-message-response-now-{caller.binding}", configuration=NOW)
    assert answer["message"]["parts"] == [{"text": "Direct message response"}]


async def test_a_task_past_its_deadline_fails_and_says_so(caller: Caller) -> None:
    cue = Cue()
    task = await asyncio.wait_for(caller.to("hasty").task(cue.text), BOUND)
    assert state(task) == "FAILED"
    assert task["status"]["message"]["metadata"]["reason"] == "deadline"
    assert cue.stopped.is_set()


@pytest.mark.requirement("a2a.limits.rate")
async def test_a_full_agent_says_when_to_come_back_and_keeps_nothing(fresh: Caller) -> None:
    small, cue, refused = fresh.to("small"), Cue(), message("never played")
    running = await small.started(cue.text)
    error = await small.refused("OVERLOADED", "SendMessage", message=refused)
    assert int(error.answer.headers["retry-after"]) >= 1
    assert [task["id"] for task in (await small.call("ListTasks"))["tasks"]] == [running["id"]]
    cue.done()
    await small.ended(running["id"])
    again = Cue(text="never played")
    again.done()
    assert state((await small.call("SendMessage", message=refused))["task"]) == "COMPLETED"


# Contexts and follow-ups.


@pytest.mark.requirement("a2a.context.generated", "a2a.task.id-is-the-servers")
async def test_ids_are_made_by_the_server(caller: Caller) -> None:
    tasks = [await caller.task() for _ in range(3)]
    assert len({task["id"] for task in tasks} | {task["contextId"] for task in tasks}) == 6
    assert all(task["history"][0]["taskId"] == task["id"] for task in tasks)
    assert all(task["history"][0]["contextId"] == task["contextId"] for task in tasks)


@pytest.mark.requirement("a2a.context.client-value-kept", "a2a.context.second-task", "a2a.context.never-replaced")
async def test_a_context_that_the_client_chose_is_kept_for_all_its_tasks(fresh: Caller) -> None:
    first, second = await fresh.task(contextId="my own words"), await fresh.task(contextId="my own words")
    assert first["contextId"] == second["contextId"] == "my own words"
    assert first["id"] != second["id"]


@pytest.mark.requirement("a2a.context.never-replaced")
async def test_a_context_id_that_is_too_long_is_refused_not_replaced(fresh: Caller) -> None:
    await fresh.refused("INVALID_PARAMS", "SendMessage", message=message("hi", contextId="c" * 5000))
    assert (await fresh.call("ListTasks"))["totalSize"] == 0


@pytest.mark.requirement("a2a.context.inferred-from-task", "a2a.task.input-required-continues")
async def test_a_follow_up_that_names_only_the_task_goes_on_in_its_context(caller: Caller) -> None:
    asked = await caller.task("ask")
    done = await caller.task("the answer", taskId=asked["id"])
    assert (done["id"], done["contextId"], state(done)) == (asked["id"], asked["contextId"], "COMPLETED")
    assert done["status"]["message"]["parts"] == [{"text": "the answer"}]
    assert done["history"][-1]["contextId"] == asked["contextId"]


@pytest.mark.requirement("a2a.context.mismatch-refused", "a2a.context.never-replaced")
async def test_a_follow_up_in_another_context_is_refused(caller: Caller) -> None:
    asked = await caller.task("ask")
    sent = message("the answer", taskId=asked["id"], contextId="another")
    error = await caller.refused("INVALID_PARAMS", "SendMessage", message=sent)
    assert error.fields.keys() == {"message.contextId"}
    assert await caller.get(asked["id"]) == asked


@pytest.mark.requirement("a2a.send.unknown-task")
async def test_a_task_id_that_nobody_made_is_not_found_and_makes_nothing(fresh: Caller) -> None:
    await fresh.refused("TASK_NOT_FOUND", "SendMessage", message=message("hi", taskId="tck-nonexistent"))
    assert (await fresh.call("ListTasks"))["totalSize"] == 0


@pytest.mark.requirement("a2a.send.ended-task-refused", "a2a.task.ended-stays-ended", "a2a.error.unsupported-operation")
@pytest.mark.parametrize("text", ["hi", "fail", "reject", "cancel"])
async def test_an_ended_task_takes_no_message(caller: Caller, text: str) -> None:
    task = await caller.task("ask" if text == "cancel" else text)
    if text == "cancel":
        task = await caller.call("CancelTask", id=task["id"])
    await caller.refused("UNSUPPORTED_OPERATION", "SendMessage", message=message("more", taskId=task["id"]))
    assert await caller.get(task["id"]) == task


async def test_a_task_at_work_takes_no_message(caller: Caller) -> None:
    cue, actor = Cue(), caller.to("actor")
    task = await actor.started(cue.text)
    await actor.refused("UNSUPPORTED_OPERATION", "SendMessage", message=message("more", taskId=task["id"]))
    cue.done()
    assert state(await actor.ended(task["id"])) == "COMPLETED"


@pytest.mark.requirement("a2a.task.auth-required-accepts-messages")
async def test_a_task_that_waits_for_authorisation_takes_a_message(caller: Caller) -> None:
    task = await caller.task("hi", messageId=f"tck-auth-required-go-{caller.binding}")
    done = await caller.task("authorised", taskId=task["id"])
    assert (done["id"], state(done)) == (task["id"], "COMPLETED")


# History.


@pytest.mark.requirement(
    "a2a.history.at-most", "a2a.history.most-recent", "a2a.history.zero", "a2a.history.all-turns",
    "a2a.task.agent-message-has-context",
)  # fmt: skip
async def test_history_keeps_all_turns_and_shows_the_newest(fresh: Caller) -> None:
    asked = await fresh.task("ask")
    assert "history" not in await fresh.get(asked["id"], historyLength=0)
    done = await fresh.task("the answer", taskId=asked["id"], configuration={"historyLength": 1})
    assert len(done["history"]) == 1
    whole = await fresh.get(asked["id"])
    assert texts(whole) == ["ask", "What shall I echo?", "the answer"]
    assert [said["role"] for said in whole["history"]] == ["ROLE_USER", "ROLE_AGENT", "ROLE_USER"]
    assert all(said["contextId"] == asked["contextId"] for said in whole["history"])
    assert texts(await fresh.get(asked["id"], historyLength=2)) == ["What shall I echo?", "the answer"]
    assert await fresh.get(asked["id"], historyLength=100) == whole
    listed = (await fresh.call("ListTasks", historyLength=2))["tasks"]
    assert [texts(task) for task in listed] == [["What shall I echo?", "the answer"]]
    listed = (await fresh.call("ListTasks", historyLength=0))["tasks"]
    assert ["history" in task for task in listed] == [False]
    again = await fresh.task("hi", configuration={"historyLength": 0})
    assert "history" not in again


@pytest.mark.requirement("a2a.history.negative-refused")
async def test_a_negative_history_length_is_refused(fresh: Caller) -> None:
    task = await fresh.task()
    for method, params in (
        ("GetTask", {"id": task["id"], "historyLength": -1}),
        ("ListTasks", {"historyLength": -1}),
        ("SendMessage", {"message": message("hi"), "configuration": {"historyLength": -1}}),
    ):
        error = await fresh.refused("INVALID_PARAMS", method, **params)
        assert [name.rpartition(".")[2] for name in error.fields] == ["historyLength"]
    assert (await fresh.call("ListTasks"))["totalSize"] == 1


# What is refused before anything happens.


@pytest.mark.requirement(
    "a2a.send.required-fields", "a2a.error.validated-first", "a2a.error.fields-named", "a2a.jsonrpc.invalid-params",
    "a2a.error.same-in-all-bindings",
)  # fmt: skip
@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (None, "message"),
        ("hi", "message"),
        ({"role": "ROLE_USER", "parts": [{"text": "x"}]}, "message.messageId"),
        ({"messageId": "", "role": "ROLE_USER", "parts": [{"text": "x"}]}, "message.messageId"),
        ({"messageId": "m", "parts": [{"text": "x"}]}, "message.role"),
        ({"messageId": "m", "role": "user", "parts": [{"text": "x"}]}, "message.role"),
        ({"messageId": "m", "role": "ROLE_UNSPECIFIED", "parts": [{"text": "x"}]}, "message.role"),
        ({"messageId": "m", "role": "ROLE_USER"}, "message.parts"),
        ({"messageId": "m", "role": "ROLE_USER", "parts": []}, "message.parts"),
        ({"messageId": "m", "role": "ROLE_USER", "parts": [{"text": 5}]}, "message.parts.0.text"),
        ({"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}], "contextId": 5}, "message.contextId"),
    ],
)
async def test_a_malformed_message_is_refused_and_the_field_named(http_fresh: Caller, sent: Any, field: str) -> None:
    params = {} if sent is None else {"message": sent}
    error = await http_fresh.refused("INVALID_PARAMS", "SendMessage", **params)
    assert error.fields.keys() == {field}
    assert (await http_fresh.call("ListTasks"))["totalSize"] == 0


@pytest.mark.requirement("a2a.send.part-has-one-content")
@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({}, "message.parts.1"),
        ({"mediaType": "text/plain"}, "message.parts.1"),
        ({"text": "x", "url": "https://example.com"}, "message.parts.1"),
        ({"text": "x", "data": None}, "message.parts.1"),
        ({"raw": "not base64!"}, "message.parts.1.raw"),
    ],
)
async def test_a_part_has_exactly_one_content(http_caller: Caller, part: Any, field: str) -> None:
    sent = {**message("x"), "parts": [{"text": "fine"}, part]}
    error = await http_caller.refused("INVALID_PARAMS", "SendMessage", message=sent)
    assert error.fields.keys() == {field}


@pytest.mark.requirement("a2a.send.media-type-refused", "a2a.error.content-type")
async def test_a_part_of_a_type_that_the_card_does_not_take_is_refused(caller: Caller) -> None:
    plain = caller.to("plain")
    sent = {**message("x"), "parts": [{"raw": "AAAA", "mediaType": "image/png"}]}
    error = await plain.refused("CONTENT_TYPE_NOT_SUPPORTED", "SendMessage", message=sent)
    assert "text/plain" in error.message
    sent["parts"] = [{"text": "x", "mediaType": "Text/Plain; charset=utf-8"}]
    assert state((await plain.call("SendMessage", message=sent))["task"]) == "COMPLETED"


@pytest.mark.requirement("a2a.send.push-task-id-empty")
async def test_a_webhook_given_with_a_message_names_no_task(caller: Caller) -> None:
    webhook = {"url": "https://example.com/hook", "taskId": "t"}
    sent = {"message": message("hi"), "configuration": {"taskPushNotificationConfig": webhook}}
    error = await caller.refused("INVALID_PARAMS", "SendMessage", **sent)
    assert error.fields.keys() == {"configuration.taskPushNotificationConfig.taskId"}


# What reaches the agent, and what comes out again.


@pytest.mark.requirement("a2a.send.metadata-reaches-agent", "a2a.extension.data-unchanged")
async def test_metadata_and_output_modes_reach_the_agent(caller: Caller) -> None:
    metadata = {"https://example.com/ext": {"b": 1, "a": [None, 2.5]}, "snake_case": True}
    answer = await caller.to("mirror").send(
        "hi", metadata=metadata, configuration={"acceptedOutputModes": ["text/plain", "image/*"]}
    )
    seen = answer["message"]["parts"][0]["data"]
    assert seen["metadata"] == metadata
    assert seen["acceptedOutputModes"] == ["text/plain", "image/*"]


@pytest.mark.requirement("a2a.json.unknown-fields", "a2a.extension.data-unchanged")
async def test_unknown_fields_are_no_error_and_survive_into_history(http_caller: Caller) -> None:
    sent = message("hi", newField={"deep": [1, {"x": "y"}]}, extensions=["urn:x"], metadata={"urn:x": {"k": None}})
    sent["parts"][0]["newPartField"] = 7
    done = await http_caller.call("SendMessage", message=sent, unknownParam={"a": 1}, configuration={"unknown": True})
    said = done["task"]["history"][0]
    assert said == {**sent, "taskId": done["task"]["id"], "contextId": done["task"]["contextId"]}
    assert done["task"]["status"]["message"]["parts"] == sent["parts"]
    assert (await http_caller.get(done["task"]["id"]))["history"][0] == said


@pytest.mark.requirement("a2a.json.data-untouched")
async def test_a_data_part_comes_out_as_it_went_in(caller: Caller) -> None:
    raw = b'{"z":1,"a":[1.0,1e3,-0.5,9007199254740993,true,null,"\\u00e9\\ud83d\\ude00"],"m":{},"":[]}'
    sent = b'{"messageId":"%s","role":"ROLE_USER","parts":[{"data":%s},{"data":null},{"data":"text"},{"data":3}]}' % (
        f"data-{caller.binding}".encode(),
        raw,
    )
    if caller.binding == "jsonrpc":
        envelope = b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":%s}}'
        answer = await caller.gateway.post(envelope % sent)
    else:
        headers = {"Content-Type": "application/json"}
        content = b'{"message":%s}' % sent
        answer = await caller.gateway.http("POST", "/message:send", content=content, headers=headers)
    expected = (
        '[{"data":{"z":1,"a":[1.0,1000.0,-0.5,9007199254740993,true,null,"é😀"],"m":{},"":[]}},'
        '{"data":null},{"data":"text"},{"data":3}]'
    )
    assert answer.text.count(f'"parts":{expected}') == 2, answer.text  # in the history and in the echo


@pytest.mark.requirement("a2a.json.proto-names-read")
async def test_proto_names_are_understood_like_json_names(fresh: Caller) -> None:
    sent = {
        "message_id": "snake-1",
        "role": "ROLE_USER",
        "context_id": "c",
        "parts": [{"text": "x", "media_type": "text/plain"}],
    }
    task = (await fresh.call("SendMessage", message=sent, configuration={"history_length": 1}))["task"]
    assert task["history"] == [
        {"messageId": "snake-1", "role": "ROLE_USER", "contextId": "c", "taskId": task["id"],
         "parts": [{"text": "x", "mediaType": "text/plain"}]}
    ]  # fmt: skip
    assert "history" not in await fresh.get(task["id"], history_length=0)
    page = await fresh.call("ListTasks", context_id="c", page_size=1, include_artifacts=True)
    assert [listed["id"] for listed in page["tasks"]] == [task["id"]]


@pytest.mark.requirement("a2a.json.proto-names-read")
async def test_null_counts_as_not_given(fresh: Caller) -> None:
    sent = {
        **message("x", taskId=None, contextId=None, metadata=None, extensions=None, referenceTaskIds=None),
        "parts": [{"text": "x", "url": None, "raw": None, "mediaType": None, "filename": None, "metadata": None}],
    }
    nothing = {"historyLength": None, "returnImmediately": None, "acceptedOutputModes": None,
               "taskPushNotificationConfig": None}  # fmt: skip
    answer = await fresh.call("SendMessage", message=sent, configuration=nothing, metadata=None, tenant=None)
    task = answer["task"]
    assert task["history"] == [
        {"messageId": sent["messageId"], "role": "ROLE_USER", "parts": [{"text": "x"}],
         "taskId": task["id"], "contextId": task["contextId"]}
    ]  # fmt: skip
    assert (await fresh.call("SendMessage", message=message("y"), configuration=None))["task"]


@pytest.mark.requirement("a2a.json.proto-names-read")
async def test_a_field_under_both_of_its_names_is_refused(http_caller: Caller) -> None:
    for sent, field in (
        ({**message("x"), "context_id": "a", "contextId": "b"}, "message"),
        ({**message("x"), "parts": [{"text": "x", "media_type": "text/plain", "mediaType": "a/b"}]}, "message.parts.0"),
    ):
        error = await http_caller.refused("INVALID_PARAMS", "SendMessage", message=sent)
        assert error.fields.keys() == {field}


async def test_protojson_takes_numbers_as_texts_and_both_base64_alphabets(fresh: Caller) -> None:
    sent = {**message("x"), "parts": [{"raw": "-_-_"}, {"raw": "YQ"}, {"raw": "YQ=="}]}
    task = (await fresh.call("SendMessage", message=sent, configuration={"historyLength": "1"}))["task"]
    assert state(task) == "COMPLETED"
    assert state(await fresh.get(task["id"], historyLength="1")) == "COMPLETED"


async def test_protojson_refuses_what_only_looks_like_its_types(gateway: Gateway) -> None:
    rpc = Caller(gateway, "jsonrpc")
    for configuration in (
        {"historyLength": True},
        {"historyLength": 1.5},
        {"returnImmediately": "yes"},
        {"returnImmediately": 1},
    ):
        await rpc.refused("INVALID_PARAMS", "SendMessage", message=message("hi"), configuration=configuration)


@pytest.mark.requirement("a2a.json.camel-case", "a2a.json.timestamps", "a2a.json.enums")
async def test_answers_have_camel_case_names_enum_names_and_utc_timestamps(http_caller: Caller) -> None:
    task = await http_caller.task("count 3")
    page = await http_caller.call("ListTasks", pageSize=5, includeArtifacts=True)
    for name in names([task, page]):
        assert "_" not in name
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", task["status"]["timestamp"])
    assert task["status"]["state"] == "TASK_STATE_COMPLETED"
    assert {said["role"] for said in task["history"]} == {"ROLE_USER", "ROLE_AGENT"} or texts(task) == ["count 3"]


def names(tree: Any) -> set[str]:
    if isinstance(tree, list):
        return set().union(*map(names, tree))
    return set(tree).union(*map(names, tree.values())) if isinstance(tree, dict) else set()


@pytest.mark.requirement("a2a.limits.sizes")
async def test_a_body_or_a_nesting_beyond_the_limits_is_refused_with_a_reason(http_caller: Caller) -> None:
    deep: Any = "x"
    for _ in range(300):
        deep = [deep]
    answer = await http_caller.ask("SendMessage", message={**message("hi"), "metadata": {"deep": deep}})
    assert "nested" in http_caller.error(answer, "PARSE_ERROR").message or "deep" in answer.text
    answer = await http_caller.ask("SendMessage", message=message("x" * 1_100_000))
    assert answer.status_code == 413
    assert answer.json()["error"]["message"]
