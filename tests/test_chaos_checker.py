"""The checker finds what it is there to find: each planted fault, and nothing in a good history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import (
    Audited,
    Evidence,
    Kept,
    ToolCalls,
    Violation,
    accepted,
    check,
    completion,
    tool_calls_are_audited,
)
from tests.chaos.history import Entry, History, What, read
from tests.chaos.sequence import flaws

SUBMITTED, WORKING, COMPLETED, FAILED, CANCELED = (
    f"TASK_STATE_{name}" for name in ("SUBMITTED", "WORKING", "COMPLETED", "FAILED", "CANCELED")
)


class Story:
    """A history written by hand, two lines for most calls."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._calls = 0

    def ask(self, verb: str = "SendMessage", who: str = "alice", **fields: Any) -> Entry:
        self._calls += 1
        fields = {"agent": "echo", "message_id": "m-1", "body": "hello", **fields}
        return self.add(Entry(What.SENT, call=self._calls, who=who, verb=verb, **fields))

    def then(self, asked: Entry, what: What = What.ANSWERED, **fields: Any) -> Entry:
        return self.add(replace(asked, what=what, **fields))

    def told(self, task_id: str = "t-1", state: str = COMPLETED, **fields: Any) -> Entry:
        return self.then(self.ask(**fields), task_id=task_id, state=state)

    def add(self, entry: Entry) -> Entry:
        self.entries.append(replace(entry, n=len(self.entries) + 1))
        return self.entries[-1]


def kept(task_id: str = "t-1", state: str = COMPLETED, **fields: str) -> Kept:
    return Kept(**{"who": "alice", "agent": "echo", "message_id": "m-1", **fields, "task_id": task_id, "state": state})


def broken(
    story: Story,
    *tasks: Kept,
    upstream: Sequence[Kept] = (),
    foreign: Sequence[Kept] = (),
    audit: Sequence[Audited] | None = None,
) -> dict[str, list[Violation]]:
    """Every rule that is broken."""
    evidence = Evidence(story.entries, tasks, upstream, foreign, audit=audit)
    return {rule: found for rule, found in check(evidence).items() if found}


def only(found: dict[str, list[Violation]], invariant: str) -> Violation:
    ((rule, violations),) = found.items()
    assert rule.startswith(invariant)
    return violations[0]


@pytest.fixture
def story() -> Story:
    return Story()


def test_a_good_history_has_no_fault(story: Story) -> None:
    story.then(story.ask(), What.LOST)
    story.told()
    story.told()
    story.then(story.ask(body="another"), What.ERROR, reason="INVALID_PARAMS")
    stream = story.ask("SendStreamingMessage", message_id="m-2")
    for state in (SUBMITTED, WORKING, "", WORKING, COMPLETED):
        story.then(stream, What.EVENT, task_id="t-2", state=state)
    story.then(story.ask(message_id="m-3"), reply="r-3")
    story.then(story.ask(message_id="m-3"), reply="r-3")
    assert broken(story, kept(), kept("t-2", message_id="m-2")) == {}


BEGUN, DONE = Audited("t-1", "echo", "intent", "begun"), Audited("t-1", "echo", "outcome", "COMPLETED")


def test_an_audit_log_that_has_everything_has_no_fault(story: Story) -> None:
    story.told()
    assert broken(story, kept(), audit=[BEGUN, DONE]) == {}


@pytest.mark.parametrize(
    ("audit", "sentence"),
    [
        ([DONE], "was never begun"),
        ([BEGUN], "no end"),
        ([BEGUN, replace(DONE, outcome="FAILED")], "['FAILED']"),
        ([BEGUN, DONE, replace(DONE, task_id="t-2")], "t-2 is completed in the audit log only"),
    ],
)
def test_what_the_audit_log_lacks_or_made_up_is_found(story: Story, audit: list[Audited], sentence: str) -> None:
    story.told()
    assert sentence in only(broken(story, kept(), audit=audit), "I8").sentence


def test_what_the_agent_behind_the_gateway_saw_without_an_intent_is_found(story: Story) -> None:
    story.told()
    far = kept("far-1", agent="echo", message_id="u-1")
    found = broken(story, kept(), upstream=[far], audit=[BEGUN, DONE])
    assert any("saw 1 tasks and 0 were begun" in each.sentence for rule in found.values() for each in rule)


def test_a_lost_task_is_found(story: Story) -> None:
    answered = story.told()
    violation = only(broken(story), "I1")
    assert violation.entries == (answered,)


def test_a_task_that_is_not_found_although_it_was_answered_is_found(story: Story) -> None:
    story.told()
    story.then(story.ask("GetTask", message_id="", task_id="t-1"), What.ERROR, reason="TASK_NOT_FOUND")
    assert "answered and then not found" in only(broken(story, kept()), "I1").sentence


def test_another_principal_may_be_told_that_a_task_is_not_there(story: Story) -> None:
    story.told()
    asked = story.ask("GetTask", who="bob", message_id="", task_id="t-1")
    story.then(asked, What.ERROR, reason="TASK_NOT_FOUND")
    assert broken(story, kept()) == {}


def test_a_doubled_task_is_found(story: Story) -> None:
    story.then(story.ask(), What.LOST)
    story.told("t-2")
    assert "made 2 tasks" in only(broken(story, kept("t-1"), kept("t-2")), "I2").sentence


def test_a_doubled_task_that_lacks_its_message_is_found(story: Story) -> None:
    story.told("t-2")
    assert "made 2 tasks" in only(broken(story, kept("t-1"), kept("t-2", message_id="")), "I2").sentence


def test_the_same_message_id_of_two_principals_is_no_double(story: Story) -> None:
    story.told("t-1")
    story.told("t-2", who="bob")
    assert broken(story, kept("t-1"), kept("t-2", who="bob")) == {}


def test_a_retry_with_another_answer_is_found(story: Story) -> None:
    story.told("t-1")
    story.told("t-2")
    assert "was answered with task t-1 and with task t-2" in str(
        broken(story, kept("t-1"), kept("t-2", message_id="x"))
    )


def test_a_retry_with_another_message_as_answer_is_found(story: Story) -> None:
    story.then(story.ask(), reply="r-1")
    story.then(story.ask(), reply="r-2")
    assert "message r-2" in only(broken(story), "I2").sentence


def test_a_different_message_under_a_used_id_that_is_answered_is_found(story: Story) -> None:
    story.told()
    story.told(body="another")
    assert "two different messages" in only(broken(story, kept()), "I2").sentence


def test_work_that_is_done_twice_upstream_is_found(story: Story) -> None:
    story.told(text="alice says #1")
    upstream = [kept("u-1", said="alice says #1"), kept("u-2", said="alice says #1"), kept("u-3", said="alice says #2")]
    mine = kept(said="alice says #1", text="alice says #1")
    assert "done 2 times" in only(broken(story, mine, upstream=upstream), "I2 the remote").sentence


def test_two_callers_with_one_task_upstream_are_found(story: Story) -> None:
    tasks = [kept("t-1", agent="far", said="wait 1"), kept("t-2", who="bob", agent="far", said="wait 1")]
    violation = only(broken(story, *tasks, upstream=[kept("u-1", said="wait 1")]), "I10 nothing is shared")
    assert violation.sentence == "2 tasks completed 'wait 1' with 1 tasks upstream"


def test_an_illegal_step_in_a_stream_is_found(story: Story) -> None:
    stream = story.ask("SendStreamingMessage")
    for state in (SUBMITTED, WORKING, SUBMITTED, COMPLETED):
        story.then(stream, What.EVENT, task_id="t-1", state=state)
    assert only(broken(story, kept()), "I3").sentence == f"a stream went from {WORKING} to {SUBMITTED}"


def test_a_terminal_state_that_is_left_is_found(story: Story) -> None:
    story.told(state=FAILED)
    assert only(broken(story, kept()), "I3").sentence == f"t-1 was {FAILED} and ended as {COMPLETED}"


def test_a_state_that_goes_back_between_two_calls_is_found(story: Story) -> None:
    story.told(state=WORKING)
    story.told(state=SUBMITTED)
    assert only(broken(story, kept()), "I3").sentence == f"t-1 was {WORKING} and later {SUBMITTED}"


def test_answers_that_overlap_may_come_in_any_order(story: Story) -> None:
    first, second = story.ask("GetTask", message_id=""), story.ask("GetTask", message_id="")
    story.then(second, task_id="t-1", state=COMPLETED)
    story.then(first, task_id="t-1", state=WORKING)
    assert broken(story, kept()) == {}


def test_a_stuck_task_is_found(story: Story) -> None:
    story.told(state=WORKING)
    assert only(broken(story, kept(state=WORKING)), "I5").sentence == f"t-1 is still {WORKING}"


def test_a_task_that_waits_for_its_caller_is_not_stuck(story: Story) -> None:
    story.told(state="TASK_STATE_INPUT_REQUIRED")
    assert broken(story, kept(state="TASK_STATE_INPUT_REQUIRED")) == {}


def test_a_message_that_is_never_answered_is_found(story: Story) -> None:
    story.then(story.ask(), What.GIVEN_UP)
    assert "never answered" in only(broken(story), "I5").sentence


def test_a_cancelation_that_is_ignored_is_found(story: Story) -> None:
    story.told(state=WORKING)
    story.then(story.ask("CancelTask", message_id=""), task_id="t-1", state=WORKING)
    assert only(broken(story, kept()), "I9").sentence == f"t-1 is {WORKING} after it was canceled"


def test_a_cancelation_that_nobody_asked_for_is_found(story: Story) -> None:
    story.told(state=WORKING)
    assert "nobody asked" in only(broken(story, kept(state=CANCELED)), "I9").sentence


def test_a_task_that_two_principals_see_is_found(story: Story) -> None:
    story.told()
    story.then(story.ask("GetTask", who="bob", message_id=""), task_id="t-1", state=COMPLETED)
    assert "shown to alice and to bob" in str(
        broken(story, kept(), kept(who="bob"))["I10 nobody sees what is another's"]
    )


def test_words_of_another_principal_are_found(story: Story) -> None:
    story.told(text="bob says #1")
    assert only(broken(story, kept()), "I10 nobody").sentence == "alice was shown 'bob says #1'"


def test_a_task_that_a_foreign_principal_can_read_is_found(story: Story) -> None:
    story.told()
    assert only(broken(story, kept(), foreign=[kept(who="bob")]), "I10").sentence == "bob could read t-1"


def test_a_refusal_that_tells_of_an_accident_is_found(story: Story) -> None:
    story.then(story.ask(), What.ERROR, reason="INTERNAL_ERROR", text="incident 7")
    assert "INTERNAL_ERROR" in only(broken(story), "every refusal").sentence


def test_a_first_message_that_is_called_a_used_one_is_found(story: Story) -> None:
    story.then(story.ask(), What.ERROR, reason="INVALID_PARAMS")
    assert "INVALID_PARAMS" in only(broken(story), "every refusal").sentence


def test_a_failure_without_a_reason_is_found(story: Story) -> None:
    story.told(state=FAILED)
    assert only(broken(story, kept(state=FAILED)), "every end").sentence == f"t-1 is {FAILED} without a reason"
    assert broken(story, kept(state=FAILED, reason="unknown-outcome")) == {}


def test_an_echo_of_another_message_is_found(story: Story) -> None:
    story.told()
    found = broken(story, kept(said="alice says #1", text="bob says #1"))
    assert "echoed 'bob says #1'" in only(found, "every end").sentence


def test_completion_counts_only_tasks_that_were_told_to_end_well(story: Story) -> None:
    story.then(story.ask("CancelTask"), task_id="t-3", state=CANCELED)
    tasks = [
        kept("t-1"),
        kept("t-2", FAILED, reason="deadline"),
        kept("t-3", CANCELED),
        kept("t-4", FAILED, said="fail"),
    ]
    found = completion(Evidence(story.entries, tasks), "echo")
    assert (found.completed, found.total, found.others) == (1, 2, {f"{FAILED} deadline": 1})


def test_a_message_counts_once_however_often_it_is_answered(story: Story) -> None:
    story.told()
    story.told()
    story.then(story.ask(message_id="m-2"), reply="r-1")
    story.then(story.ask(message_id="m-3"), What.LOST)
    assert accepted(story.entries) == 2


def test_a_history_reads_back_as_it_was_written(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.add(Entry(What.SENT, call=history.call(), who="alice", text="ä\n"))
    history.add(Entry(What.KILLED, text="at random"))
    history.close()
    assert list(read(history.path)) == history.entries


# Streams.


def chunk(number: int) -> dict[str, Any]:
    return {"artifactUpdate": {"artifact": {"artifactId": "count", "parts": [{"text": f"{number}\n"}]}}}


def task(count: int, state: str = WORKING) -> dict[str, Any]:
    parts = [{"text": f"{n}\n"} for n in range(1, count + 1)]
    artifacts = [{"artifactId": "count", "parts": parts}] if parts else []
    return {"status": {"state": state}, "artifacts": artifacts}


def shown(count: int, state: str = WORKING) -> dict[str, Any]:
    return {"task": task(count, state)}


END = {"statusUpdate": {"status": {"state": COMPLETED}}}
WHOLE = task(3, COMPLETED)


@pytest.mark.parametrize(
    "connections",
    [
        [[shown(0, SUBMITTED), chunk(1), chunk(2), chunk(3), END]],
        [[shown(0), chunk(1)], [], [shown(2), chunk(3), END]],
        [[shown(3), END]],
    ],
)
def test_a_contiguous_run_has_no_flaw(connections: list[list[dict[str, Any]]]) -> None:
    assert list(flaws(connections, WHOLE, 3)) == []


@pytest.mark.parametrize(
    ("connections", "sentence"),
    [
        ([[shown(0), chunk(1), chunk(3)]], "connection 1: after chunk 1 came 3"),
        ([[shown(1), chunk(1), chunk(2)]], "connection 1: after chunk 1 came 1"),
        ([[shown(0), chunk(1), chunk(2)], [shown(1), chunk(2)]], "connection 2 began at 1, 2 had been seen before"),
        ([[chunk(1)]], "connection 1: the first event is no task but artifactUpdate"),
        ([[shown(2), chunk(3), END, chunk(3)]], "connection 1: after TASK_STATE_COMPLETED came artifactUpdate"),
        ([[shown(0), chunk(1), shown(1)]], "connection 1: a second snapshot came"),
    ],
)
def test_a_flaw_of_a_stream_is_found(connections: list[list[dict[str, Any]]], sentence: str) -> None:
    assert sentence in list(flaws(connections, WHOLE, 3))


def test_a_task_that_ends_with_a_chunk_missing_is_found() -> None:
    assert list(flaws([], task(2, COMPLETED), 3)) == ["the task ended with 2 chunks in place of 3"]


# Calls of tools.


def called(*said: str, mark: str = "m") -> list[Audited]:
    return [Audited(mark, "book/note", *each.split()) for each in said]


@pytest.mark.parametrize(
    ("told", "times", "audit"),
    [
        (True, 1, called("intent begun", "outcome ok")),
        (False, 1, called("intent begun")),  # killed while the server worked
        (False, 0, called("intent begun")),  # or before the bytes left
        (False, 1, called("intent begun", "outcome ok")),  # or before the answer left
        (False, 0, called("outcome TOOL_NOT_FOUND")),
        (False, 2, called("intent begun", "intent begun", "outcome ok")),
    ],
)
def test_calls_of_tools_that_are_recorded_as_they_were_are_in_order(
    told: bool, times: int, audit: list[Audited]
) -> None:
    calls = ToolCalls(frozenset({"m"} if told else ()), Counter({"m": times}), audit)
    assert list(tool_calls_are_audited(calls)) == []


@pytest.mark.parametrize(
    ("told", "times", "audit", "sentence"),
    [
        (False, 1, [], "the server saw m 1 times, and 0 were begun"),
        (False, 2, called("intent begun"), "the server saw m 2 times, and 1 were begun"),
        (True, 1, called("intent begun"), "m was answered; the audit log has no end"),
        (True, 1, called("intent begun", "outcome UNAVAILABLE"), "m was answered; the audit log has UNAVAILABLE"),
        (False, 0, called("intent begun", "outcome ok"), "m is ok in the audit log only"),
        (False, 0, called("outcome ok"), "m has ended and was never begun"),
    ],
)
def test_a_call_of_a_tool_that_the_record_does_not_bear_out_is_found(
    told: bool, times: int, audit: list[Audited], sentence: str
) -> None:
    calls = ToolCalls(frozenset({"m"} if told else ()), Counter({"m": times}), audit)
    assert sentence in [each.sentence for each in tool_calls_are_audited(calls)]
