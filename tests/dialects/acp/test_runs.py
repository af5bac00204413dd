"""A task's log as the events of a run, and the events of a run as a task's: through both, a task is what it was."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.dialects.acp.runs import RunLog
from gateway.dialects.acp.upstream import RunReader, create_body, resume_body
from gateway.dialects.strict_json import read
from gateway.model.agent import Context, Upstream
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Message, Part, Role
from gateway.model.rows import Record
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate, Step, Task, TaskState, TaskStatus, envelope

AT = "2026-11-26T08:00:00.000Z"
TASK, CONTEXT = "0" * 31 + "1", "0" * 31 + "2"
ENDS = (TaskState.COMPLETED, TaskState.FAILED, TaskState.REJECTED, TaskState.CANCELED)
RESTS = (*ENDS, TaskState.INPUT_REQUIRED, TaskState.AUTH_REQUIRED)

texts = st.sampled_from(["a", "b\n", ""])
parts = st.lists(
    st.one_of(
        st.builds(lambda text: Part.of(text=text), texts),
        st.just(Part.of(data={"a": 1})),
        st.just(Part.of(raw="AAEC", media_type="image/png", filename="p.png", metadata={"x": 1})),
    ),
    max_size=2,
)
notes = st.sampled_from([None, {"x": 1}, {"acp": {"generic": True}}, {"acp": {"message": 1}}])


def said(given: Sequence[Part], metadata: Any, number: int) -> Message:
    more = {} if metadata is None else {"metadata": metadata}
    return Message.of(
        message_id=f"m{number}", role=Role.AGENT, parts=tuple(given), task_id=TASK, context_id=CONTEXT, **more
    )


def status(state: TaskState, message: Message | None, metadata: Any = None) -> StatusUpdate:
    more = {} if message is None else {"message": message}
    about = {} if metadata is None else {"metadata": metadata}
    return StatusUpdate.of(
        task_id=TASK, context_id=CONTEXT, status=TaskStatus.of(state=state, timestamp=AT, **more), **about
    )


def artifact(id: str, given: Sequence[Part], append: bool, more: dict[str, Any]) -> ArtifactUpdate:
    tree = {"artifactId": id, "parts": [part.model_dump(by_alias=True, exclude_unset=True) for part in given], **more}
    return ArtifactUpdate.model_validate(
        {"taskId": TASK, "contextId": CONTEXT, "artifact": tree, "append": append, "lastChunk": False}
    )


@st.composite
def logs(draw: st.DrawFn) -> list[Step]:
    numbers = itertools.count(1)
    steps: list[Step] = []
    for _ in range(draw(st.integers(0, 5))):
        if draw(st.booleans()):
            message = said(draw(parts), draw(notes), next(numbers)) if draw(st.booleans()) else None
            steps.append(status(TaskState.WORKING, message, draw(st.sampled_from([None, {"seen": 1}]))))
        else:
            more = draw(st.fixed_dictionaries({}, optional={"name": texts, "metadata": notes.filter(bool)}))
            id = draw(st.sampled_from(["one", "message-1", "message-2"]))
            steps.append(artifact(id, draw(parts), draw(st.booleans()), more))
    message = said(draw(parts), draw(notes), next(numbers)) if draw(st.booleans()) else None
    return [*steps, status(draw(st.sampled_from(RESTS)), message)]


def begun() -> Task:
    asked = Message.of(message_id="q", role=Role.USER, parts=(Part.of(text="go"),), task_id=TASK, context_id=CONTEXT)
    submitted = TaskStatus.of(state=TaskState.SUBMITTED, timestamp=AT)
    return Task.of(id=TASK, context_id=CONTEXT, status=submitted, history=(asked,))


def records(*events: Event) -> Iterator[Record]:
    return (Record(seq, event, envelope(event)) for seq, event in enumerate((begun(), *events), 1))


def context(task: Task | None = None) -> Context:
    ids = itertools.count(1)
    return Context("a", TASK, CONTEXT, lambda: 0, lambda: f"new-{next(ids)}", task=task)


def told(*events: Event) -> tuple[RunLog, list[Any]]:
    run = RunLog("echo")
    return run, [read(event) for record in records(*events) for event in run.feed(record)]


def shown(task: Task) -> Any:
    """A task without what is told anew on the way: the times of its states."""
    tree = task.model_dump(mode="json", by_alias=True, exclude_unset=True)
    tree["status"].pop("timestamp", None)
    history = [message for message in tree.get("history", ()) if message["role"] == Role.AGENT]
    for message in history:
        if message.get("metadata") == {"acp": {"generic": True}}:
            del message["messageId"]  # an event of ACP has none
    return {**tree, "artifacts": tree.get("artifacts", []), "history": history}


@given(logs())
@pytest.mark.requirement("acp.runs.nothing-lost")
def test_a_task_that_travels_as_a_run_arrives_as_it_was(steps: list[Step]) -> None:
    task = begun().apply(*steps)
    _, events = told(*steps)
    reader = RunReader(context())
    arrived = begun()
    for event in events:
        for step in reader.feed(event):
            assert not isinstance(step, Task)
            arrived = arrived.apply(step)
    ours, theirs = shown(task), shown(arrived)
    if not task.status.message or not task.status.message.parts:  # a question or a last word without any words
        ours["status"].pop("message", None)
        theirs["status"].pop("message", None)
    assert theirs == ours


@given(logs())
def test_a_look_at_the_run_shows_the_same_results(steps: list[Step]) -> None:
    # What takes an artifact's parts away stands in no run.
    assume(all(step.artifact.parts for step in steps if isinstance(step, ArtifactUpdate)))
    run, events = told(*steps)
    streamed, reader = begun(), RunReader(context())
    for event in events:
        for step in reader.feed(event):
            assert not isinstance(step, Task)
            streamed = streamed.apply(step)
    looking = RunReader(context())
    whole = looking.whole(looking.look(read(orjson.dumps(run.run))))
    assert whole.artifacts == streamed.artifacts
    assert whole.status.state == streamed.status.state


@given(logs())
@pytest.mark.requirement("acp.runs.events")
def test_the_events_of_a_run_come_in_acps_order(steps: list[Step]) -> None:
    run, events = told(*steps)
    types = [event["type"] for event in events]
    assert types[:2] == ["run.created", "run.in-progress"] or isinstance(steps[0], ArtifactUpdate)
    assert types[-1] == f"run.{run.run['status']}"
    inside = False
    for type in types:
        if type == "message.created":
            assert not inside
            inside = True
        elif type == "message.part":
            assert inside
        elif type == "message.completed":
            assert inside
            inside = False
    assert not inside
    assert run.count == len(events)
    assert (run.run["finished_at"] is not None) == (run.run["status"] not in ("awaiting",))


def test_the_same_log_gives_the_same_events_each_time() -> None:
    steps: list[Step] = [artifact("a", (Part.of(text="1"),), False, {}), status(TaskState.COMPLETED, None)]
    assert told(*steps)[1] == told(*steps)[1]


# What acp-sdk's server sends.


def run_of(status: str, *output: Any, **more: Any) -> dict[str, Any]:
    return {"run_id": "r", "agent_name": "x", "session_id": "s", "status": status, "output": list(output), **more}


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"content_type": "text/plain", "content": content, "content_encoding": "plain", **more}


def test_a_stream_that_missed_something_ends_with_the_whole() -> None:
    reader = RunReader(context())
    reader.feed({"type": "run.created", "run": run_of("created")})
    reader.feed({"type": "message.created", "message": {"role": "agent/x", "parts": []}})
    reader.feed({"type": "message.part", "part": text("one")})
    message = {"role": "agent/x", "parts": [text("one"), text("two")], "completed_at": AT}
    (task,) = reader.feed({"type": "run.completed", "run": run_of("completed", message)})
    assert isinstance(task, Task)
    assert [part.text for part in (task.artifacts or ())[0].parts] == ["one", "two"]
    assert task.status.state is TaskState.COMPLETED


def test_a_run_that_goes_on_continues_the_message_that_was_open() -> None:
    before = begun().apply(
        ArtifactUpdate.model_validate(
            {
                "taskId": TASK,
                "contextId": CONTEXT,
                "artifact": {
                    "artifactId": "message-1",
                    "parts": [{"text": "one"}],
                    "metadata": {"acp": {"message": 1}},
                },
            }
        )
    )
    reader = RunReader(context(before))
    reader.feed({"type": "run.in-progress", "run": run_of("in-progress", {"role": "agent/x", "parts": [text("one")]})})
    (update,) = reader.feed({"type": "message.part", "part": text("two")})
    assert isinstance(update, ArtifactUpdate)
    assert (update.artifact.artifact_id, update.append) == ("message-1", True)


@pytest.mark.parametrize(
    "event",
    [
        {"no": "type"},
        "text",
        {"type": "run.created"},
        {"type": "run.created", "run": {"run_id": "r", "status": "odd"}},
        {"type": "message.part", "part": {"content": "a", "content_url": "https://example.com/"}},
        {"type": "message.created", "message": {"role": "system", "parts": []}},
    ],
)
def test_nonsense_is_called_so(event: Any) -> None:
    with pytest.raises(GatewayError) as refused:
        RunReader(context()).feed(event)
    assert refused.value.reason is Reason.INVALID_AGENT_RESPONSE


junk: st.SearchStrategy[Any] = st.sampled_from(
    [None, 1, 1.5, True, "", "x", [], [1], [{}], {}, {"a2a": 1}, {"artifact": {}}, {"acp": {"message": 1}}, "agent"]
)


@given(logs(), st.data())
def test_whatever_a_server_sends_is_an_event_or_called_nonsense(steps: list[Step], data: st.DataObject) -> None:
    _, events = told(*steps)
    number = data.draw(st.integers(0, len(events) - 1))
    holder: Any = events[number]
    while data.draw(st.booleans()):
        inner = [each for each in (holder.values() if isinstance(holder, dict) else holder) if each and _holds(each)]
        if not inner:
            break
        holder = data.draw(st.sampled_from(inner))
    key: Any = data.draw(st.sampled_from([*holder, "a2a"] if isinstance(holder, dict) else range(len(holder))))
    holder[key] = data.draw(junk)
    reader = RunReader(context())
    for event in events:
        with contextlib.suppress(GatewayError):
            reader.feed(event)


def _holds(tree: Any) -> bool:
    return isinstance(tree, dict | list)


def test_an_error_in_the_stream_breaks_it() -> None:
    with pytest.raises(GatewayError, match="out of paper"):
        RunReader(context()).feed({"type": "error", "error": {"code": "server_error", "message": "out of paper"}})


def test_another_run_than_the_one_asked_about_is_refused() -> None:
    reader = RunReader(context())
    reader.run_id = "r"
    with pytest.raises(GatewayError):
        reader.look(run_of("created", run_id="other"))


def test_bodies_say_what_the_server_wants_to_hear() -> None:
    turn = Message.of(message_id="m", role=Role.USER, parts=(Part.of(text="hi"),))
    body: Any = read(create_body("x", turn, context()))
    ((given,), id) = (body.pop("input"), body["agent_name"])
    assert (id, body) == ("x", {"agent_name": "x", "mode": "stream"})
    note = given.pop("a2a")
    assert given == {"role": "user", "parts": [text("hi")]}
    assert note["messageId"].startswith("m-")
    assert TASK not in note["messageId"]  # our own ids stay here
    known = context()
    known.upstream = Upstream("", context_id="s")
    again: Any = read(create_body("x", turn, known))
    assert again["session_id"] == "s"
    answer: Any = read(resume_body("r", turn, context()))
    assert answer["await_resume"] == {"type": "message", "message": {**given, "a2a": note}}
    assert answer["mode"] == "stream"
