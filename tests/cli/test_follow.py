from __future__ import annotations

import pytest

from gateway.cli.client import Events, events
from gateway.cli.exits import Exit, Unreachable
from gateway.cli.follow import PAUSES, follow
from gateway.cli.show import Progress
from tests.cli.fake_gateway import Json, moved, task


def stream(*told: Json) -> Events:
    yield from told


class Clock:
    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


def test_a_stream_that_only_repeats_the_task_is_given_up_after_all_pauses() -> None:
    clock = Clock()
    same = {"task": task()}
    with pytest.raises(Unreachable, match="ended before the task did"):
        follow(stream(same), lambda _: stream(same), Progress(), sleep=clock.sleep, now=clock.now)
    assert clock.slept == list(PAUSES)


def test_news_start_the_count_anew() -> None:
    clock = Clock()
    told = [stream({"task": task()}), stream({"task": task()}, moved("WORKING", "more")), stream(moved("COMPLETED"))]
    progress = Progress()
    follow(stream({"task": task()}), lambda _: told.pop(0), progress, sleep=clock.sleep, now=clock.now)
    assert clock.slept == [PAUSES[0], PAUSES[1], PAUSES[0]]
    assert progress.exit is Exit.DONE


def test_a_stream_that_lived_long_was_no_failure_however_quiet_its_task() -> None:
    clock = Clock()
    left = 20

    def quiet(_: str) -> Events:
        nonlocal left
        left -= 1
        yield {"task": task()} if left else moved("COMPLETED")
        clock.time += 60

    follow(quiet(""), quiet, Progress(), sleep=clock.sleep, now=clock.now)
    assert set(clock.slept) == {PAUSES[0]}


def test_where_a_task_rested_before_our_answer_is_not_its_end() -> None:
    asked = task("INPUT_REQUIRED", "Which?")
    progress = Progress()
    progress.know(asked)
    rested = []
    for told in (asked, task("INPUT_REQUIRED", "And which else?")):
        progress.take({"task": told})
        rested.append(progress.rests)
    assert rested == [False, True]
    assert progress.exit is Exit.WAITING


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_read_whole_however_the_bytes_come(size: int) -> None:
    sent = b': comment\r\ndata: {"a":\ndata: 1}\n\nevent: x\nid: 7\ndata:{}\r\n\r\n\n\ndata: unfinished'
    chunks = (sent[at : at + size] for at in range(0, len(sent), size))
    assert list(events(chunks)) == [b'{"a":\n1}', b"{}"]
