"""The store alone: what its commits cost, in processor time and in bytes written.

    make bench ARGS=store                      every kind of call, on an empty database
    make bench ARGS="store --rows 1000000"     on one that holds a million calls of that kind already

The values are made before the clock starts. What was written is read back from the reopened file and counted.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import uvloop

from gateway.model.audit import AuditEntry, Verdict
from gateway.model.changes import AdvanceTask, Change, CreateTask, Reserve, SaveReply
from gateway.model.message import Artifact, Message, Part, Role
from gateway.model.ports import Store
from gateway.model.rows import Key, Record, Reservation, TaskRow
from gateway.model.task import ArtifactUpdate, StatusUpdate, Task, TaskState, TaskStatus, envelope
from gateway.stores.sqlite import SqliteStore, open_sqlite

CALLERS = 32  # as many as the served scenarios have connections
ROUNDS = 5
CALLS = 4_000  # a round
AT = 1_764_000_000_000
TENANT, OWNER, AGENT = "default", "key:0123456789ab", "echo"
CHUNKS = 10

Commit: TypeAlias = tuple[tuple[Change, ...], tuple[AuditEntry, ...]]
Call: TypeAlias = tuple[Commit, ...]  # its commits, one after the other


@dataclass(frozen=True, slots=True)
class Kind:
    about: str
    make: Callable[[str, str], Call]
    table: str  # where each call leaves one row


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call: microseconds on the event loop and in other threads, KiB written (log and checkpoints)."""

    rate: float
    loop_us: float
    threads_us: float
    written_kib: float
    shared: float  # calls in one transaction


# Calls.


def reply(message_id: str, task_id: str) -> Call:
    held = replace(_reservation(message_id, task_id), reply=_said(task_id))
    return (((Reserve(held),), (_entry("intent", "begun"), _entry("outcome", "reply"))),)


def remote(message_id: str, task_id: str) -> Call:
    held = _reservation(message_id, task_id)
    first = ((Reserve(held),), (_entry("intent", "begun"),))
    return first, ((SaveReply(held.key, _said(task_id)),), (_entry("outcome", "reply"),))


def task(message_id: str, task_id: str) -> Call:
    new = _task(message_id, task_id)
    done = _completed(new)
    row, settled = _row(new.apply(done), 2, message_id), replace(_reservation(message_id, task_id), settled=True)
    changes = (Reserve(settled), CreateTask(row, "node", _records(1, new, done)))
    return ((changes, (_entry("intent", "begun"), _entry("outcome", "COMPLETED", task_id))),)


def steps(message_id: str, task_id: str) -> Call:
    """The accept, the task, its chunks in two groups, its end."""
    held = _reservation(message_id, task_id)
    new = _task(message_id, task_id)
    commits: list[Commit] = [((Reserve(held),), (_entry("intent", "begun"),))]
    commits.append(((CreateTask(_row(new, 1, message_id), "node", _records(1, new), held.key),), ()))
    seq, now = 1, new
    for _ in range(2):
        events = [_chunk(now, n > 0 or seq > 1) for n in range(CHUNKS // 2)]
        for event in events:
            now = now.apply(event)
        records = _records(seq + 1, *events)
        seq += len(events)
        commits.append(((AdvanceTask(_row(now, seq, message_id), records),), ()))
    done = _completed(now)
    end = AdvanceTask(_row(now.apply(done), seq + 1, message_id), _records(seq + 1, done))
    commits.append(((end,), (_entry("outcome", "COMPLETED", task_id),)))
    return tuple(commits)


KINDS = {
    "reply": Kind("a local agent answers with a Message: one commit", reply, "reservation"),
    "remote": Kind("a remote agent does: the intent, then the reply", remote, "reservation"),
    "task": Kind("a task that is created and completed in one commit", task, "task"),
    "steps": Kind("a task in five commits: accept, create, twice five chunks, end", steps, "task"),
}


def _reservation(message_id: str, task_id: str) -> Reservation:
    return Reservation(Key(TENANT, OWNER, AGENT, message_id), b"d" * 32, task_id, AT)


def _said(id: str) -> Message:
    return Message(message_id=id, role=Role.AGENT, parts=(Part(text="hello 1234567"),), context_id=id)


def entry(outcome: str, id: str, at: int) -> AuditEntry:
    """The end of a call that nothing else is known of."""
    return AuditEntry(
        at, outcome, "outcome", OWNER, id, "allow", AGENT, TENANT, "SendMessage", Verdict.PASS, None, "ab" * 32, 120,
        correlation=id, upstream_hash="cd" * 32,
    )  # fmt: skip


def _entry(phase: str, outcome: str, task_id: str | None = None) -> AuditEntry:
    who, what, id, allowed = OWNER, "SendMessage", "0" * 32, Verdict.PASS
    return AuditEntry(
        AT, outcome, phase, who, id, "allow", AGENT, TENANT, what, allowed, task_id, "ab" * 32, 120,
        correlation=id, upstream_hash="cd" * 32,
    )  # fmt: skip


def _task(message_id: str, task_id: str) -> Task:
    said = Message(message_id=message_id, role=Role.USER, parts=(Part(text="hello 1234567"),), task_id=task_id)
    status = TaskStatus(state=TaskState.SUBMITTED, timestamp="2025-11-24T16:00:00.000Z")
    return Task(id=task_id, context_id=f"c{task_id[1:]}", status=status, history=(said,))


def _completed(now: Task) -> StatusUpdate:
    status = TaskStatus(state=TaskState.COMPLETED, message=_said(now.id), timestamp="2025-11-24T16:00:00.100Z")
    return StatusUpdate(task_id=now.id, context_id=now.context_id, status=status)


def _chunk(now: Task, append: bool) -> ArtifactUpdate:
    artifact = Artifact(artifact_id="a", parts=(Part(text="a chunk of some forty characters or so.."),))
    return ArtifactUpdate(task_id=now.id, context_id=now.context_id, artifact=artifact, append=append)


def _records(first: int, *events: Any) -> tuple[Record, ...]:
    return tuple(Record(seq, event, envelope(event)) for seq, event in enumerate(events, first))


def _row(now: Task, seq: int, message_id: str) -> TaskRow:
    updated = AT + now.status.state.terminal  # with the status, not with each chunk
    return TaskRow(TENANT, now.id, OWNER, AGENT, now, seq, 1, AT, updated, AT + 60_000, message_id)


def ids(seed: int) -> Iterator[tuple[str, str]]:
    """Message ids as random as those of real clients; task ids in the order of time, as ours are."""
    chance = random.Random(seed)
    for n in range(1, 1 << 40):
        yield f"{chance.getrandbits(64):016x}", f"{n:012x}{chance.getrandbits(80):020x}"


# Measuring.


async def measure(store: Store, path: Path, calls: Sequence[Call]) -> Cost:
    """All calls by 32 callers at once. Raises RuntimeError if a key was taken: the ids are new."""
    waiting = iter(calls)

    async def caller() -> None:
        for call in waiting:
            for changes, records in call:
                if await store.commit(*changes, records=records) is not None:
                    raise RuntimeError("a new key was taken")

    before = _clocks(path)
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    after = _clocks(path)
    wall, loop, process, written, transactions = (b - a for a, b in zip(before, after, strict=True))
    n = len(calls)
    return Cost(n / wall, loop / n * 1e6, (process - loop) / n * 1e6, written / n / 1024, n / max(1, transactions))


def _clocks(path: Path) -> tuple[float, float, float, int, int]:
    """Now; processor time of this thread and of all; bytes written; transactions (`iChange` in the WAL index)."""
    with open("/proc/self/io", "rb") as io, open(f"{path}-shm", "rb") as index:
        written = int(dict(line.split(b": ") for line in io.read().splitlines())[b"wchar"])
        transactions = int.from_bytes(index.read(12)[8:], "little")
    return time.perf_counter(), time.thread_time(), time.process_time(), written, transactions


async def run(name: str, rows: int, callers_rounds: int = ROUNDS) -> Cost:
    """The kind's rounds on a database that holds `rows` calls already; their median."""
    kind, new = KINDS[name], ids(1)
    with tempfile.TemporaryDirectory(prefix="store-") as folder:
        path = Path(folder) / "gateway.db"
        async with _opened(path) as store:
            for first in range(0, rows, CALLS):
                size = min(CALLS, rows - first)
                await measure(store, path, [kind.make(*next(new)) for _ in range(size)])
            rounds = []
            for _ in range(callers_rounds):
                calls = [kind.make(*next(new)) for _ in range(CALLS)]
                rounds.append(await measure(store, path, calls))
        await _check(path, kind, rows + callers_rounds * CALLS)
    return Cost(*(statistics.median(getattr(cost, field) for cost in rounds) for field in Cost.__slots__))


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = await open_sqlite(path, now=lambda: AT, node="node")
    try:
        yield store
    finally:
        await store.aclose()


async def _check(path: Path, kind: Kind, calls: int) -> None:
    """Raises RuntimeError unless the file holds what was acknowledged: entries without a gap, and the last call."""
    async with _opened(path) as store:
        *_, (message_id, task_id) = (id for id, _ in zip(ids(1), range(calls), strict=False))
        last = await store.audit(2 * calls - 1, 2)
        held = await store.reservation(TENANT, OWNER, message_id)
        done = await store.task(TENANT, task_id) if kind.table == "task" else None
    whole = [idx for idx, _ in last] == [2 * calls] and len(held) == 1
    if not whole or (kind.table == "task" and (done is None or not done.task.status.state.terminal)):
        raise RuntimeError(f"{path}: not everything that was acknowledged is there")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks store", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rows", type=int, default=0, help="calls that the database holds before")
    parser.add_argument("names", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)} (default: all)")
    options = parser.parse_args(words)
    if unknown := [name for name in options.names if name not in KINDS]:
        parser.error(f"unknown: {', '.join(unknown)}")
    print(f"{'call':8} {'calls/s':>9} {'loop µs':>9} {'threads µs':>11} {'CPU µs':>8} {'KiB':>7} {'shared':>7}")
    for name in options.names or KINDS:
        cost = uvloop.run(run(name, options.rows))
        cpu = f"{cost.loop_us:9.1f} {cost.threads_us:11.1f} {cost.loop_us + cost.threads_us:8.1f}"
        print(f"{name:8} {cost.rate:9.0f} {cpu} {cost.written_kib:7.1f} {cost.shared:7.1f}")
    return 0
