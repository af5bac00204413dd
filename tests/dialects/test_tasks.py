"""The older messages as values: what is read, what is written, and the table between the two vocabularies."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.dialects import tasks
from gateway.model.call import FetchResult, PullTasks, SendMessage, SubmitResult
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Artifact, Message, Part, Role
from gateway.model.task import Task, TaskState, TaskStatus


def decode(method: str, params: Any, agent: str | None = None) -> tuple[Any, float]:
    return tasks.decode(method, params, agent, lambda: "made")


def create(agent: str | None = None, **params: Any) -> SendMessage:
    call, _ = decode(tasks.CREATE, {"agent_id": "a", "task": {"id": "1", "description": "x"}, **params}, agent)
    assert isinstance(call, SendMessage)
    return call


def test_every_state_has_one_older_word_and_every_word_a_state() -> None:
    assert set(tasks.STATUS) == set(TaskState)
    assert set(tasks.STATE) == set(tasks.STATUS.values())
    for word, state in tasks.STATE.items():
        assert tasks.STATUS[state] == word


def test_a_create_is_a_message_whose_id_is_the_tasks() -> None:
    call = create(input_data=[1])
    assert (call.agent, call.message.message_id, call.always_deduplicate) == ("a", "1", True)
    assert [part.wire() for part in call.message.parts] == [
        b'{"text":"x"}',
        b'{"data":[1],"mediaType":"application/json"}',
    ]


def test_equal_content_has_an_equal_digest_wherever_input_data_stands() -> None:
    inside = create(task={"id": "1", "description": "x", "input_data": {"a": 1}})
    beside = create(input_data={"a": 1})
    assert inside.digest == beside.digest
    assert inside.digest != create(input_data={"a": 2}).digest


@pytest.mark.parametrize("value", [0, False, "", [], {}])
def test_input_data_that_is_empty_is_input_data(value: Any) -> None:
    assert create(input_data=value).message.parts[1].data == value


def test_a_task_without_an_id_gets_the_next_one() -> None:
    assert create(task={"description": "x"}).message.message_id == "made"


def test_the_endpoints_agent_and_the_named_one_must_agree() -> None:
    assert create("a").agent == "a"
    with pytest.raises(GatewayError, match="agent_id: must be 'b'") as caught:
        create("b")
    assert caught.value.reason is Reason.INVALID_PARAMS


def test_a_task_may_name_its_agent_itself_and_never_another_one() -> None:
    inside = {"id": "1", "agent_id": "b", "description": "x"}
    assert create(agent_id=None, task=inside).agent == "b"
    assert create("b", agent_id="b", task=inside).agent == "b"
    for endpoint, named in ((None, "a"), ("a", None), ("a", "a")):
        with pytest.raises(GatewayError, match="agent_id") as refused:
            create(endpoint, agent_id=named, task=inside)
        assert refused.value.reason is Reason.INVALID_PARAMS


def test_a_result_asks_or_reports() -> None:
    asks, wait = decode(tasks.RESULT, {"task_id": "1", "wait": 3})
    assert (asks, wait) == (FetchResult(None, "1", 3.0), 3.0)
    reports, _ = decode(tasks.RESULT, {"task_id": "1", "status": "failed"}, "a")
    assert reports == SubmitResult("a", "1", TaskState.FAILED)
    bare, _ = decode(tasks.RESULT, {"task_id": "1", "result": None}, "a")
    assert bare == SubmitResult("a", "1", TaskState.COMPLETED, None, True)
    with pytest.raises(GatewayError, match="in_progress, completed or failed"):
        decode(tasks.RESULT, {"task_id": "1", "status": "pending"})


def test_a_worker_asks_for_work() -> None:
    assert decode(tasks.PENDING, {"limit": 2, "wait": 1}, "a")[0] == PullTasks("a", 2, 1.0)
    for wrong in ({"limit": 0}, {"limit": 101}, {"wait": -1}, {"wait": 301}):
        with pytest.raises(GatewayError):
            decode(tasks.PENDING, wrong, "a")


def encoded(answer: Task | Message) -> Any:
    return orjson.loads(tasks.encode("1", "a", "c", answer))


def task(state: TaskState, text: str | None = None, **more: Any) -> Task:
    said = None if text is None else Message(message_id="m", role=Role.AGENT, parts=(Part(text=text),))
    return Task(id="t", context_id="c", status=TaskStatus(state=state, message=said), **more)


@pytest.mark.parametrize("state", TaskState)
def test_a_task_says_its_state_in_both_vocabularies(state: TaskState) -> None:
    body = encoded(task(state, "why"))
    assert body["status"] == tasks.STATUS[state]
    assert body["metadata"] == {"a2a_state": state}
    told = {"completed": "result", "failed": "reason"}.get(body["status"], "detail" if state.interrupted else None)
    assert {"result", "reason", "detail"} & body.keys() == ({told} if told else set())


def test_artifacts_are_the_result_and_the_last_word_without_any() -> None:
    one = Artifact(artifact_id="1", parts=(Part(data={"n": 1}),))
    two = Artifact(artifact_id="2", parts=(Part(text="x"), Part(url="https://e.example/")))
    assert encoded(task(TaskState.COMPLETED, "bye", artifacts=(one,)))["result"] == {"n": 1}
    assert encoded(task(TaskState.COMPLETED, artifacts=(one, two)))["result"] == [
        {"n": 1},
        ["x", {"url": "https://e.example/"}],
    ]
    assert encoded(task(TaskState.COMPLETED, "bye"))["result"] == "bye"
    assert encoded(task(TaskState.COMPLETED))["result"] is None


def test_what_is_delegated_is_what_can_be_read_again() -> None:
    message = create(input_data={"a": 1}, task={"id": "1", "description": "x", "priority": "high"}).message
    params = tasks.delegation("a", "ours", "c", "key:alice", message)
    again = decode(tasks.CREATE, params)[0]
    assert again.message.message_id == "ours"
    assert again.message.context_id == "c"
    assert again.message.parts == message.parts
    assert again.message.metadata["priority"] == "high"
