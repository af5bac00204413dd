"""I6: what one subscriber saw of one task, over all its connections: a contiguous run, whatever broke in between.

The tasks count: their artifact's chunks are the numbers 1, 2, 3 … so a missing, doubled or misplaced one shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gateway.model.task import MOVES, TaskState

Json = dict[str, Any]


def flaws(connections: Sequence[Sequence[Json]], final: Json, total: int) -> Iterator[str]:
    """Sentences about everything wrong with the StreamResponses of one subscriber and the task as it ended."""
    reached = 0
    for number, events in enumerate(connections, start=1):
        last = 0
        for sentence, count in _connection(events):
            if sentence:
                yield f"connection {number}: {sentence}"
            last = max(last, count)
        snapshot = _numbers(events[0].get("task", {})) if events else []
        if events and len(snapshot) < reached:
            yield f"connection {number} began at {len(snapshot)}, {reached} had been seen before"
        reached = max(reached, last)
    if _numbers(final) != list(range(1, total + 1)):
        yield f"the task ended with {len(_numbers(final))} chunks in place of {total}"
    if not TaskState(final["status"]["state"]).terminal:
        yield f"the task ended as {final['status']['state']}"


def _connection(events: Sequence[Json]) -> Iterator[tuple[str, int]]:
    """A sentence for each flaw (empty for none), with how far the counting had come."""
    count = 0
    state: TaskState | None = None
    for index, event in enumerate(events):
        if "task" in event:
            if index:
                yield "a second snapshot came", count
            count = len(_numbers(event["task"]))
            if _numbers(event["task"]) != list(range(1, count + 1)):
                yield f"the snapshot holds {_numbers(event['task'])}", count
            state = TaskState(event["task"]["status"]["state"])
            continue
        if state is None:
            yield f"the first event is no task but {next(iter(event))}", count
            state = TaskState.SUBMITTED
        if state.terminal:
            yield f"after {state} came {next(iter(event))}", count
        if "statusUpdate" in event:
            after = TaskState(event["statusUpdate"]["status"]["state"])
            if after not in MOVES[state]:
                yield f"{state} was followed by {after}", count
            state = after
        elif "artifactUpdate" in event:
            for chunk in _chunks(event["artifactUpdate"]["artifact"]):
                if chunk != count + 1:
                    yield f"after chunk {count} came {chunk}", count
                count = chunk
        yield "", count


def _numbers(task: Json) -> list[int]:
    return [number for artifact in task.get("artifacts", ()) for number in _chunks(artifact)]


def _chunks(artifact: Json) -> list[int]:
    return [int(part["text"]) for part in artifact["parts"]]
