"""The state machine, whatever comes in whatever order."""

from __future__ import annotations

import contextlib
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.agent import Context
from gateway.model.base import milliseconds, timestamp
from gateway.model.message import Artifact, Message, Part, Role
from gateway.model.task import (
    MOVES,
    TERMINAL,
    ArtifactUpdate,
    Event,
    IllegalMove,
    Task,
    TaskState,
    TaskStatus,
    envelope,
    open_envelope,
)

TASK = Task(id="t", context_id="c", status=TaskStatus(state=TaskState.SUBMITTED))


def context() -> Context:
    ids = itertools.count(1)
    return Context("echo", "t", "c", now=lambda: 1_790_000_000_000, new_id=lambda: f"id-{next(ids)}")


def events() -> st.SearchStrategy[Event]:
    at = context()
    texts = st.text(max_size=5)
    return st.one_of(
        st.builds(lambda state, text: at.status(state, text or None), st.sampled_from(TaskState), texts),
        st.builds(
            lambda id, text, append: at.artifact(text, id=id, append=append),
            st.sampled_from("ab"),
            texts,
            st.booleans(),
        ),
        st.builds(lambda text: at.message(text, role=Role.USER), texts),
    )


@given(st.lists(events(), max_size=20))
def test_terminal_stays_terminal_and_a_refused_event_changes_nothing(sequence: list[Event]) -> None:
    task, ended = TASK, None
    for event in sequence:
        assert not isinstance(event, Task)
        try:
            after = task.apply(event)
        except IllegalMove:
            continue
        assert after.status.state is task.status.state or after.status.state in MOVES[task.status.state]
        assert ended is None, "an event was applied after the end"
        task = after
        ended = task.status.state if task.status.state in TERMINAL else None


@given(st.lists(events(), max_size=20))
def test_what_is_written_is_read_back_the_same(sequence: list[Event]) -> None:
    task = TASK
    for event in sequence:
        assert not isinstance(event, Task)
        try:
            task = task.apply(event)
        except IllegalMove:
            continue
        tree = type(event).model_validate_json(event.wire()).model_dump(by_alias=True, exclude_unset=True)
        assert open_envelope({event.KEY: tree}) == event
    assert Task.model_validate_json(task.wire()) == task
    assert "null" not in re.sub(r'"(?:[^"\\]|\\.)*"', "", task.wire().decode()), "texts may say it, values may not"


@given(st.lists(events(), max_size=12), st.lists(events(), max_size=12))
def test_the_differences_to_a_later_whole_lead_to_it(first: list[Event], then: list[Event]) -> None:
    def fold(task: Task, sequence: list[Event]) -> Task:
        for event in sequence:
            if isinstance(event, Task) or (isinstance(event, Message) and event.role is Role.USER):
                continue
            with contextlib.suppress(IllegalMove):
                task = task.apply(event)
        return task

    mine = fold(TASK, first)
    theirs = fold(mine, then)
    reached = mine
    for event in mine.differences(theirs):
        reached = reached.apply(event)
    assert (reached.status.state, reached.status.message) == (theirs.status.state, theirs.status.message)
    assert {a.artifact_id: a for a in reached.artifacts or ()} == {a.artifact_id: a for a in theirs.artifacts or ()}


def test_no_edge_leaves_a_terminal_state_and_none_leads_back_to_submitted() -> None:
    assert all(not MOVES[state] for state in TERMINAL)
    assert all(TaskState.SUBMITTED not in after for state, after in MOVES.items() if state is not TaskState.SUBMITTED)
    assert set(MOVES) == set(TaskState)


def test_chunks_are_appended_to_the_artifact_they_belong_to_and_a_fresh_one_replaces_it() -> None:
    at = context()
    task = TASK.apply(at.artifact("a", id="x")).apply(at.artifact("b", id="x", append=True))
    assert task.artifacts == (Artifact(artifact_id="x", parts=(Part(text="a"), Part(text="b"))),)
    assert task.apply(at.artifact("new", id="x")).artifacts == (Artifact(artifact_id="x", parts=(Part(text="new"),)),)


def test_an_older_status_message_moves_into_the_history() -> None:
    at = context()
    task = TASK.apply(at.working("one")).apply(at.working("two"))
    assert [message.text for message in task.history or ()] == ["one"]


@pytest.mark.parametrize(
    ("length", "expected"), [(None, ["1", "2", "3"]), (2, ["2", "3"]), (9, ["1", "2", "3"]), (0, None)]
)
def test_a_view_has_at_most_the_newest_messages_asked_for(length: int | None, expected: list[str] | None) -> None:
    at, task = context(), TASK
    for text in "123":
        task = task.apply(at.message(text, role=Role.USER))
    view = task.trimmed(length)
    assert ("history" in view.model_fields_set) == (expected is not None)
    if expected is not None:
        assert [message.text for message in view.history or ()] == expected
    assert [message.text for message in task.history or ()] == ["1", "2", "3"]


def test_a_view_without_artifacts_does_not_mention_them() -> None:
    task = TASK.apply(context().artifact("a"))
    assert b"artifacts" not in task.trimmed(None, artifacts=False).wire()
    assert b"artifacts" in task.wire()


def test_words_of_a_newer_peer_survive() -> None:
    text = b'{"id":"t","contextId":"c","status":{"state":"TASK_STATE_WORKING","mood":null},"generation":7}'
    assert Task.model_validate_json(text).wire() == text


def test_a_part_may_carry_null_as_its_data() -> None:
    assert Part.model_validate({"data": None}).wire() == b'{"data":null}'


def test_an_envelope_holds_exactly_the_event() -> None:
    update = ArtifactUpdate(task_id="t", context_id="c", artifact=Artifact(artifact_id="a", parts=(Part(text="x"),)))
    assert envelope(update).startswith(b'{"artifactUpdate":{"taskId":"t"')
    with pytest.raises(ValueError, match="StreamResponse"):
        open_envelope({"other": {}})


@given(st.integers(min_value=0, max_value=4_000_000_000_000))
def test_timestamps_are_utc_with_milliseconds_and_read_back(ms: int) -> None:
    assert timestamp(ms).endswith("Z")
    assert milliseconds(timestamp(ms)) == ms


@pytest.mark.parametrize("text", ["", "yesterday", "2026-11-21T08:00:00"])
def test_a_time_without_an_offset_is_no_timestamp(text: str) -> None:
    assert milliseconds(text) is None
