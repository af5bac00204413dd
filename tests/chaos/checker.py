"""The invariants, checked afterwards: pure functions over a history and what the gateway kept.

Numbers I1 to I10 are those of the design's list of what must hold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.model.task import ACTIVE, MOVES, TaskState
from tests.chaos.history import Entry, What

SAYS = " says #"  # after the name of the principal, in texts that are one message's own
GONE = "TASK_NOT_FOUND"
CANCEL = "CancelTask"
STREAMS = frozenset({"SendStreamingMessage", "SubscribeToTask"})
SENDS = frozenset({"SendMessage", "SendStreamingMessage"})

# A refusal that a caller may meet without anybody being at fault. A used id has its own rule below.
CLEAR = frozenset(
    {
        "UNAVAILABLE",
        "OVERLOADED",
        "TASK_NOT_CANCELABLE",
        "UNSUPPORTED_OPERATION",
        "UPSTREAM_FAILED",
        "UPSTREAM_TIMEOUT",
    }
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A task as its owner reads it when everything is over."""

    who: str
    agent: str
    task_id: str
    state: str
    message_id: str = ""  # of the message that began it
    said: str = ""  # what that message said
    text: str = ""  # what the agent said last
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Audited:
    """An entry of the gateway's audit log that is about a task."""

    task_id: str
    agent: str
    phase: str
    outcome: str


@dataclass(frozen=True, slots=True)
class Violation:
    invariant: str
    sentence: str
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """`upstream` is what the agent behind the gateway kept, which is called `far`; `foreign` what another principal
    got to see; `audit` what the gateway wrote down, None where nobody looked."""

    entries: Sequence[Entry]
    kept: Sequence[Kept]
    upstream: Sequence[Kept] = ()
    foreign: Sequence[Kept] = ()
    far: str = "far"
    audit: Sequence[Audited] | None = None

    def about(self, task_id: str) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.task_id == task_id)

    def under(self, who: str, message_id: str) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if (entry.who, entry.message_id) == (who, message_id))


Rule: TypeAlias = Callable[[Evidence], Iterator[Violation]]
Key: TypeAlias = tuple[str, str, str]  # who, agent, messageId


def nothing_is_lost(evidence: Evidence) -> Iterator[Violation]:
    """I1: a task that was ever answered exists for its owner, then and in every later read."""
    kept = {(task.who, task.task_id) for task in evidence.kept}
    known: dict[tuple[str, str], Entry] = {}
    for entry in evidence.entries:
        mine = (entry.who, entry.task_id)
        if entry.what in (What.ANSWERED, What.EVENT) and entry.task_id:
            known.setdefault(mine, entry)
        elif entry.reason == GONE and mine in known and _asked_after(evidence, known[mine], entry):
            yield Violation("I1", f"{entry.task_id} was answered and then not found", (known[mine], entry))
    for (who, task_id), entry in known.items():
        if (who, task_id) not in kept:
            yield Violation("I1", f"{who} was told of {task_id}, which is no longer there", (entry,))


def nothing_is_doubled(evidence: Evidence) -> Iterator[Violation]:
    """I2: one message, at most one task; the same message again, the same answer; another under its id, an error."""
    made: dict[Key, list[Kept]] = defaultdict(list)
    told = _answered(evidence)
    for task in evidence.kept:
        message_id = task.message_id or told.get(task.task_id, f"(the message of {task.task_id})")
        made[task.who, task.agent, message_id].append(task)
    for (who, agent, message_id), tasks in made.items():
        if len(tasks) > 1:
            ids = ", ".join(sorted(task.task_id for task in tasks))
            sentence = f"{who}'s {message_id} made {len(tasks)} tasks at {agent}: {ids}"
            yield Violation("I2", sentence, evidence.under(who, message_id))
    yield from _equal_answers(evidence)


def _equal_answers(evidence: Evidence) -> Iterator[Violation]:
    first: dict[Key, Entry] = {}
    for entry in evidence.entries:
        if entry.verb not in SENDS or entry.what not in (What.ANSWERED, What.EVENT):
            continue
        if not (entry.task_id or entry.reply):
            continue
        key = (entry.who, entry.agent, entry.message_id)
        before = first.setdefault(key, entry)
        if before.body != entry.body:
            sentence = f"two different messages under {entry.message_id} were both answered"
            yield Violation("I2", sentence, (before, entry))
        elif (before.task_id, before.reply) != (entry.task_id, entry.reply):
            sentence = f"{entry.message_id} was answered with {_answer(before)} and with {_answer(entry)}"
            yield Violation("I2", sentence, (before, entry))


def upstream_is_asked_once(evidence: Evidence) -> Iterator[Violation]:
    """I2, one hop further: one message of a client made at most one task at the agent behind the gateway."""
    made: dict[str, list[Kept]] = defaultdict(list)
    for task in evidence.upstream:
        made[task.said].append(task)
    for said, tasks in made.items():
        if len(tasks) > 1 and "#" in said:  # texts with a mark in them are one message's own
            entries = tuple(entry for entry in evidence.entries if entry.text == said)
            yield Violation("I2", f"{said!r} was done {len(tasks)} times upstream", entries)


def nothing_is_shared_upstream(evidence: Evidence) -> Iterator[Violation]:
    """I10, one hop further: every task that an agent behind the gateway completed is one of its own there.
    Two callers who say the same words under the same messageId are still two callers."""
    theirs = Counter(task.said for task in evidence.upstream)
    mine: dict[str, list[Kept]] = defaultdict(list)
    for task in evidence.kept:
        if task.agent == evidence.far and task.state == TaskState.COMPLETED:
            mine[task.said].append(task)
    for said, tasks in mine.items():
        if len(tasks) > theirs[said]:
            ids: dict[str, list[Kept]] = defaultdict(list)
            for task in tasks:
                ids[task.message_id].append(task)
            entries = (
                entry
                for message_id, same in ids.items()
                if len(same) > 1
                for task in same
                for entry in evidence.under(task.who, message_id)
            )
            sentence = f"{len(tasks)} tasks completed {said!r} with {theirs[said]} tasks upstream"
            yield Violation("I10", sentence, tuple(entries))


def the_end_is_the_end(evidence: Evidence) -> Iterator[Violation]:
    """I3: states follow the table, in each stream step by step and between calls in the order of time; a terminal
    state is never left."""
    sent = _sent(evidence)
    observed: dict[str, list[tuple[int, Entry]]] = defaultdict(list)
    for entry in evidence.entries:
        if entry.task_id and entry.state and entry.what in (What.ANSWERED, What.EVENT):
            request = sent.get(entry.call)
            observed[entry.task_id].append((request.n if request is not None else entry.n, entry))
    for seen in observed.values():
        yield from _steps_of_streams(entry for _, entry in seen)
        yield from _order_in_time(seen)
    last = {task.task_id: task for task in evidence.kept}
    for task_id, seen in observed.items():
        kept = last.get(task_id)
        for _, entry in seen:
            if kept is not None and kept.state not in reachable(entry.state):
                sentence = f"{task_id} was {entry.state} and ended as {kept.state}"
                yield Violation("I3", sentence, (entry,))


def _steps_of_streams(entries: Iterable[Entry]) -> Iterator[Violation]:
    before: dict[int, Entry] = {}
    for entry in entries:
        if entry.what is not What.EVENT:
            continue
        previous = before.get(entry.call)
        if previous is not None and TaskState(entry.state) not in MOVES[TaskState(previous.state)]:
            yield Violation("I3", f"a stream went from {previous.state} to {entry.state}", (previous, entry))
        before[entry.call] = entry


def _order_in_time(seen: Sequence[tuple[int, Entry]]) -> Iterator[Violation]:
    """Of what was known when a request left, only the farthest states matter: they forbid the most."""
    finished: list[Entry] = []
    for asked, entry in sorted(seen, key=lambda pair: pair[0]):
        for earlier in finished:
            if earlier.n < asked and entry.state not in reachable(earlier.state):
                sentence = f"{entry.task_id} was {earlier.state} and later {entry.state}"
                yield Violation("I3", sentence, (earlier, entry))
                break
        if all(kept.state != entry.state for kept in finished):
            finished.append(entry)
        else:  # of equal states the one known first says the most
            finished = [entry if e.state == entry.state and entry.n < e.n else e for e in finished]


def nothing_is_stuck(evidence: Evidence) -> Iterator[Violation]:
    """I5: after the wait nothing is still at work, and every request got an answer in the end."""
    for task in evidence.kept:
        if task.state in ACTIVE:
            yield Violation("I5", f"{task.task_id} is still {task.state}", evidence.about(task.task_id))
    for entry in evidence.entries:
        if entry.what is What.GIVEN_UP:
            sentence = f"{entry.message_id or entry.task_id} was never answered"
            yield Violation("I5", sentence, (entry, *evidence.under(entry.who, entry.message_id)))


def cancellation_is_obeyed(evidence: Evidence) -> Iterator[Violation]:
    """I9: a cancelation that was answered has ended the task, and nobody else ends one that way."""
    asked = {entry.task_id for entry in evidence.entries if entry.verb == CANCEL}
    for entry in evidence.entries:
        if entry.verb == CANCEL and entry.what is What.ANSWERED and not TaskState(entry.state).terminal:
            yield Violation("I9", f"{entry.task_id} is {entry.state} after it was canceled", (entry,))
    for task in evidence.kept:
        if task.state == TaskState.CANCELED and task.task_id not in asked:
            yield Violation("I9", f"{task.task_id} is canceled and nobody asked", evidence.about(task.task_id))


def owners_see_their_own(evidence: Evidence) -> Iterator[Violation]:
    """I10: no task and no word of it is shown to another principal."""
    owner: dict[str, Entry] = {}
    for entry in evidence.entries:
        if entry.task_id and entry.what in (What.ANSWERED, What.EVENT):
            first = owner.setdefault(entry.task_id, entry)
            if first.who != entry.who:
                sentence = f"{entry.task_id} was shown to {first.who} and to {entry.who}"
                yield Violation("I10", sentence, (first, entry))
        speaker = entry.text.partition(SAYS)[0]
        if SAYS in entry.text and entry.what in (What.ANSWERED, What.EVENT) and speaker != entry.who:
            yield Violation("I10", f"{entry.who} was shown {entry.text!r}", evidence.about(entry.task_id))
    holders: dict[str, str] = {}
    for task in evidence.kept:
        if holders.setdefault(task.task_id, task.who) != task.who:
            yield Violation("I10", f"{task.task_id} is listed for {holders[task.task_id]} and {task.who}")
    for task in evidence.foreign:
        yield Violation("I10", f"{task.who} could read {task.task_id}", evidence.about(task.task_id))


def refusals_are_clear(evidence: Evidence) -> Iterator[Violation]:
    """Whoever is refused is told a reason that fits; an incident of the gateway's own never fits."""
    bodies: dict[Key, set[str]] = defaultdict(set)
    for entry in evidence.entries:
        if entry.what is What.SENT and entry.verb in SENDS:
            bodies[entry.who, entry.agent, entry.message_id].add(entry.body)
    for entry in evidence.entries:
        if entry.what is not What.ERROR or entry.reason in CLEAR or entry.reason == GONE:
            continue
        reused = len(bodies[entry.who, entry.agent, entry.message_id]) > 1
        if not (reused and entry.reason == "INVALID_PARAMS"):
            yield Violation("clear", f"{entry.verb} was refused with {entry.reason}: {entry.text}", (entry,))


def ends_are_explained(evidence: Evidence) -> Iterator[Violation]:
    """A task that did not complete says why; one that echoes says what it was told."""
    for task in evidence.kept:
        if TaskState(task.state) in (TaskState.FAILED, TaskState.REJECTED) and not (task.text or task.reason):
            sentence = f"{task.task_id} is {task.state} without a reason"
            yield Violation("explained", sentence, evidence.about(task.task_id))
        echoes = task.state == TaskState.COMPLETED and "#" in task.said and task.text != task.said
        if echoes:
            sentence = f"{task.task_id} was told {task.said!r} and echoed {task.text!r}"
            yield Violation("explained", sentence, evidence.about(task.task_id))


def effects_are_audited(evidence: Evidence) -> Iterator[Violation]:
    """I8: what happened is in the audit log, begun and ended; what is there as done has happened; and the agent behind
    the gateway saw nothing that was not begun."""
    if evidence.audit is None:
        return
    ended: dict[str, set[str]] = defaultdict(set)
    begun: dict[str, str] = {}
    for each in evidence.audit:
        if each.phase == "intent":
            begun.setdefault(each.task_id, each.agent)
        else:
            ended[each.task_id].add(each.outcome)
    states = {task.task_id: TaskState(task.state) for task in evidence.kept}
    for task_id, state in states.items():
        if task_id not in begun:
            yield Violation("I8", f"{task_id} is there and was never begun", evidence.about(task_id))
        if state.terminal and not {state.name, "unknown"} & ended[task_id]:  # after a kill nobody knows
            sentence = f"{task_id} is {state} and the audit log has {sorted(ended[task_id]) or 'no end'}"
            yield Violation("I8", sentence, evidence.about(task_id))
    for task_id, outcomes in ended.items():
        if TaskState.COMPLETED.name in outcomes and states.get(task_id) is not TaskState.COMPLETED:
            yield Violation("I8", f"{task_id} is completed in the audit log only", evidence.about(task_id))
    intents = sum(agent == evidence.far for agent in begun.values())
    if len(evidence.upstream) > intents:
        yield Violation("I8", f"{evidence.far} saw {len(evidence.upstream)} tasks and {intents} were begun")


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """Calls of tools by their marks: which were answered to their callers, how often the server saw each, and the
    entries about them, where the mark stands for the task."""

    told: frozenset[str]
    seen: Counter[str]
    audit: Sequence[Audited]

    @property
    def begun(self) -> Counter[str]:
        return Counter(each.task_id for each in self.audit if each.phase == "intent")

    @property
    def ended(self) -> dict[str, str]:
        return {each.task_id: each.outcome for each in self.audit if each.phase == "outcome"}

    @property
    def unknown(self) -> set[str]:
        """What a kill cut off: the next start has said so."""
        return {mark for mark, outcome in self.ended.items() if outcome == "unknown"}

    @property
    def open(self) -> set[str]:
        return self.begun.keys() - self.ended.keys()


def tool_calls_are_audited(calls: ToolCalls) -> Iterator[Violation]:
    """I8 for tools: effects are among the records, records of success among the effects, and each of the server's
    sights has an intent of its own."""
    begun, ended = calls.begun, calls.ended
    for mark, times in calls.seen.items():
        if times > begun[mark]:
            yield Violation("I8", f"the server saw {mark} {times} times, and {begun[mark]} were begun")
    for mark in calls.told:
        if not calls.seen[mark] or ended.get(mark) != "ok":
            yield Violation("I8", f"{mark} was answered; the audit log has {ended.get(mark, 'no end')}")
    for mark, outcome in ended.items():
        if outcome == "ok" and not calls.seen[mark]:
            yield Violation("I8", f"{mark} is ok in the audit log only")
        if not begun[mark] and outcome == "ok":
            yield Violation("I8", f"{mark} has ended and was never begun")


RULES: dict[str, Rule] = {
    "I1 no answered task is lost": nothing_is_lost,
    "I2 no message is done twice": nothing_is_doubled,
    "I2 the remote agent is asked once": upstream_is_asked_once,
    "I10 nothing is shared at the remote agent": nothing_is_shared_upstream,
    "I3 states follow the table and the end is the end": the_end_is_the_end,
    "I5 nothing is stuck": nothing_is_stuck,
    "I9 a cancelation is obeyed or refused": cancellation_is_obeyed,
    "I10 nobody sees what is another's": owners_see_their_own,
    "I8 the audit log has all that happened and nothing else": effects_are_audited,
    "every refusal is clear": refusals_are_clear,
    "every end is explained": ends_are_explained,
}


def check(evidence: Evidence) -> dict[str, list[Violation]]:
    """Every rule by its sentence, with what breaks it."""
    return {name: list(rule(evidence)) for name, rule in RULES.items()}


@dataclass(frozen=True, slots=True)
class Completion:
    """Of the tasks that were told to end well, how many did; `others` are counted by how they ended."""

    completed: int
    total: int
    others: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        return self.completed / self.total if self.total else 1.0


def completion(evidence: Evidence, agent: str) -> Completion:
    canceled = {entry.task_id for entry in evidence.entries if entry.verb == CANCEL}
    meant = [
        task
        for task in evidence.kept
        if task.agent == agent and task.task_id not in canceled and task.said not in ("ask", "fail", "reject")
    ]
    others: dict[str, int] = defaultdict(int)
    for task in meant:
        if task.state != TaskState.COMPLETED:
            others[f"{task.state} {task.reason}".strip()] += 1
    return Completion(sum(task.state == TaskState.COMPLETED for task in meant), len(meant), dict(others))


def accepted(entries: Iterable[Entry]) -> int:
    """How many messages were answered with a task or a Message, each counted once."""
    return len(
        {
            (entry.who, entry.agent, entry.message_id)
            for entry in entries
            if entry.verb in SENDS and entry.what in (What.ANSWERED, What.EVENT) and (entry.task_id or entry.reply)
        }
    )


def reachable(state: str) -> frozenset[str]:
    """The states in which a task that was in `state` may be seen later."""
    return _REACHABLE[TaskState(state)]


def _closure(start: TaskState) -> frozenset[str]:
    found, ahead = {start}, [start]
    while ahead:
        for after in MOVES[ahead.pop()] - found:
            found.add(after)
            ahead.append(after)
    return frozenset(found)


_REACHABLE = {state: _closure(state) for state in TaskState}


def _sent(evidence: Evidence) -> dict[int, Entry]:
    return {entry.call: entry for entry in evidence.entries if entry.what is What.SENT}


def _answered(evidence: Evidence) -> dict[str, str]:
    """Which message each task answered first. A task may be without it: one that only says that the outcome of a
    message is not known."""
    told: dict[str, str] = {}
    for entry in evidence.entries:
        if entry.verb in SENDS and entry.task_id and entry.what in (What.ANSWERED, What.EVENT):
            told.setdefault(entry.task_id, entry.message_id)
    return told


def _asked_after(evidence: Evidence, known: Entry, entry: Entry) -> bool:
    return any(e.call == entry.call and e.what is What.SENT and e.n > known.n for e in evidence.entries)


def _answer(entry: Entry) -> str:
    return f"task {entry.task_id}" if entry.task_id else f"message {entry.reply}"
