"""What every store does: the port's contract as tests. A store's test file imports the class and gives `store`.

The stores here are made with `now=lambda: NOW` and `node=NODE`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.model.agent import Upstream
from gateway.model.approval import chain
from gateway.model.audit import AuditEntry, AuditQuery, Verdict
from gateway.model.changes import (
    AdvanceTask,
    BuryDelivery,
    CreateTask,
    DropAgent,
    DropCards,
    DropPin,
    DropPushConfig,
    PutAgent,
    PutCard,
    PutKey,
    PutPin,
    PutPushConfig,
    PutUpstreamContext,
    Release,
    ReplayDelivery,
    Reserve,
    SaveReply,
    SettleDelivery,
)
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Artifact, Message, Part, Role
from gateway.model.ports import Fenced, Store
from gateway.model.principal import Kind, Principal
from gateway.model.provenance import CardKeys, CardRecord, Finding, Standing
from gateway.model.push import PushAuthentication, PushConfig
from gateway.model.rows import (
    AgentRecord,
    Balance,
    DeadDelivery,
    Delivery,
    Key,
    KeyRecord,
    PinRecord,
    PushQueue,
    Record,
    RemoteSettings,
    Reservation,
    TaskQuery,
    TaskRow,
)
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate, Task, TaskState, TaskStatus, envelope
from gateway.model.trail import Asked, Trail
from gateway.stores.problems import BadChange

NOW = 1_764_000_000_000
NODE = "this-life"


# Values, with everything that a test does not care about filled in.


def key(message_id: str = "m1", *, tenant: str = "t", principal: str = "key:ann", agent: str = "echo") -> Key:
    return Key(tenant, principal, agent, message_id)


def reserve(of: Key, *, at: int = NOW, digest: bytes = b"d" * 32, task_id: str = "task-1") -> Reserve:
    return Reserve(Reservation(of, digest, task_id, at))


def says(text: str, *, id: str = "r1", role: Role = Role.AGENT) -> Message:
    return Message(message_id=id, role=role, parts=(Part(text=text),))


def entry(request_id: str = "req-1", **fields: Any) -> AuditEntry:
    values: dict[str, Any] = {
        "at": NOW,
        "tenant": "t",
        "principal": "key:ann",
        "verb": "SendMessage",
        "target": "echo",
        "request_id": request_id,
        "phase": "outcome",
        "verdict": Verdict.PASS,
        "rule": "allow",
        "outcome": "ok",
        "task_id": None,
        "digest": None,
    }
    return AuditEntry(**{**values, **fields})


def status(state: TaskState, text: str | None = None, *, task_id: str = "task-1") -> StatusUpdate:
    fields: dict[str, Any] = {"state": state}
    if text is not None:
        fields["message"] = says(text)
    return StatusUpdate(task_id=task_id, context_id="ctx", status=TaskStatus(**fields))


def chunk(text: str, *, append: bool = True, task_id: str = "task-1") -> ArtifactUpdate:
    artifact = Artifact(artifact_id="a", parts=(Part(text=text),))
    return ArtifactUpdate(task_id=task_id, context_id="ctx", artifact=artifact, append=append)


def new_task(
    id: str = "task-1",
    *,
    tenant: str = "t",
    owner: str = "key:ann",
    agent: str = "echo",
    context_id: str = "ctx",
    state: TaskState = TaskState.WORKING,
    updated: int = NOW,
    node: str = NODE,
    push: tuple[PushConfig, ...] = (),
    key: Key | None = None,
    trail: Trail | None = None,
    caller: Principal | None = None,
) -> CreateTask:
    task = Task(id=id, context_id=context_id, status=TaskStatus(state=state))
    row = TaskRow(tenant, id, owner, agent, task, 1, 1, NOW, updated, NOW + 60_000, "m1", trail=trail, caller=caller)
    return CreateTask(row, node, records(1, [task]), key, push)


def records(first: int, events: Sequence[Event]) -> tuple[Record, ...]:
    return tuple(Record(seq, event, envelope(event)) for seq, event in enumerate(events, first))


def came(*agents: str, root: str = "outermost", task: str = "asks", conversation: str = "ctx") -> Trail:
    """Through these agents, the outermost first."""
    return Trail(root, conversation, task, tuple(Asked(agent, agent.encode() * 8) for agent in agents))


def advance(row: TaskRow, *events: StatusUpdate | ArtifactUpdate | Message | Task, **fields: Any) -> AdvanceTask:
    """The change that brings `events` to the task of `row`; its `.row` is the state after them."""
    task = row.task
    for event in events:
        task = event if isinstance(event, Task) else task.apply(event)
    options = {name: fields.pop(name) for name in ("push", "key") if name in fields}
    after = replace(row, task=task, seq=row.seq + len(events), **fields)
    return AdvanceTask(after, records(row.seq + 1, events), **options)


def webhook(id: str = "hook", task_id: str = "task-1", url: str = "https://hooks.example/1") -> PushConfig:
    authentication = PushAuthentication(scheme="Bearer", credentials="secret")
    return PushConfig(url=url, id=id, task_id=task_id, authentication=authentication)


def bury(seq: int = 1, id: str = "hook", task_id: str = "task-1", at: int = NOW + 9) -> BuryDelivery:
    return BuryDelivery("t", task_id, id, seq, "the webhook answered with status 500", at)


def query(**fields: Any) -> TaskQuery:
    values: dict[str, Any] = {"tenant": "t", "owner": "key:ann", "agent": None, "limit": 50}
    return TaskQuery(**{**values, **fields})


async def fetched(store: Store, id: str = "task-1", **filters: str) -> TaskRow:
    row = await store.task("t", id, **filters)
    assert row is not None
    return row


async def listed(store: Store, **fields: Any) -> list[str]:
    return [row.id for row in (await store.tasks(query(**fields))).rows]


async def delivered(store: Store, now: int = NOW) -> list[Delivery]:
    """All that is due, delivered one after the other as far as one webhook's task goes."""
    done: list[Delivery] = []
    while due := await store.due(now, 100, 1000):
        done += due
        await store.commit(*(SettleDelivery(d.tenant, d.task_id, str(d.config.id), d.seq) for d in due))
    return done


async def written(store: Store) -> list[str]:
    """The request ids of all audit records, in order."""
    return [record.request_id for _, record in await store.audit(0, 10_000)]


class StoreContract:
    # Reservations.

    async def test_a_free_key_is_taken_and_nobody_is_returned(self, store: Store) -> None:
        assert await store.commit(reserve(key())) is None
        assert await store.reservation("t", "key:ann", "m1") == [reserve(key()).reservation]

    async def test_a_taken_key_returns_its_holder_as_it_stands(self, store: Store) -> None:
        await store.commit(reserve(key()))
        await store.commit(SaveReply(key(), says("hello")))
        holder = await store.commit(reserve(key(), task_id="other", digest=b"x" * 32))
        assert holder == Reservation(key(), b"d" * 32, "task-1", NOW, reply=says("hello"))

    async def test_nothing_else_of_a_commit_with_a_taken_key_is_applied(self, store: Store) -> None:
        await store.commit(reserve(key()))
        holder = await store.commit(new_task(), reserve(key()), records=[entry()])
        assert holder is not None
        assert await store.task("t", "task-1") is None
        assert await store.events("t", "task-1", 0) == []
        assert await written(store) == []

    async def test_of_concurrent_commits_for_one_key_exactly_one_wins(self, store: Store) -> None:
        tries = [store.commit(reserve(key(), task_id=f"task-{n}"), records=[entry()]) for n in range(20)]
        holders = await asyncio.gather(*tries)
        assert holders.count(None) == 1
        winner = (await store.reservation("t", "key:ann", "m1"))[0]
        assert all(holder in (None, winner) for holder in holders)
        assert len(await written(store)) == 1

    @pytest.mark.parametrize(
        "other", [key(tenant="u"), key(principal="key:bob"), key(agent="other"), key("m2")], ids=str
    )
    async def test_keys_that_differ_in_one_part_do_not_meet(self, store: Store, other: Key) -> None:
        await store.commit(reserve(key()))
        assert await store.commit(reserve(other)) is None

    async def test_a_message_id_is_found_for_one_agent_or_for_all(self, store: Store) -> None:
        await store.commit(reserve(key(agent="b")), reserve(key(agent="a")), reserve(key(principal="key:bob")))
        found = await store.reservation("t", "key:ann", "m1")
        assert [r.key.agent for r in found] == ["a", "b"]
        assert [r.key.agent for r in await store.reservation("t", "key:ann", "m1", agent="b")] == ["b"]
        assert await store.reservation("u", "key:ann", "m1") == []

    async def test_a_released_key_is_free_again(self, store: Store) -> None:
        await store.commit(reserve(key()))
        await store.commit(Release(key()))
        assert await store.reservation("t", "key:ann", "m1") == []
        assert await store.commit(reserve(key())) is None

    async def test_a_key_that_something_came_of_is_not_released(self, store: Store) -> None:
        await store.commit(reserve(key("m1")), SaveReply(key("m1"), says("hello")))
        await store.commit(reserve(key("m2")), new_task(key=key("m2")))
        await store.commit(Release(key("m1")), Release(key("m2")))
        assert await store.commit(reserve(key("m1"))) is not None
        assert await store.commit(reserve(key("m2"))) is not None

    async def test_unsettled_are_the_old_keys_with_neither_reply_nor_task(self, store: Store) -> None:
        await store.commit(reserve(key("replied"), at=1), SaveReply(key("replied"), says("hello")))
        await store.commit(reserve(key("tasked"), at=2), new_task(key=key("tasked")))
        await store.commit(reserve(key("young"), at=10))
        await store.commit(reserve(key("open"), at=9))
        await store.commit(reserve(key("older"), at=3))
        assert [r.key.message_id for r in await store.unsettled(10)] == ["older", "open"]

    async def test_a_continued_task_settles_the_key_of_its_message(self, store: Store) -> None:
        await store.commit(new_task(state=TaskState.INPUT_REQUIRED))
        await store.commit(reserve(key("m2")))
        row = await fetched(store)
        await store.commit(advance(row, status(TaskState.WORKING), key=key("m2")))
        assert (await store.reservation("t", "key:ann", "m2"))[0].settled

    # Tasks.

    async def test_a_task_comes_back_as_it_was_given(self, store: Store) -> None:
        change = new_task()
        task = change.row.task.model_copy(
            update={
                "artifacts": (Artifact(artifact_id="a", parts=(Part(data={"n": [1, 2.5, None, "ü\n\x01"]}),)),),
                "history": (says("first\nsecond", role=Role.USER),),
                "metadata": {"later": {"version": [2**53 + 1]}},
            }
        )
        upstream = Upstream("https://remote.example", "their-task", "their-context")
        row = replace(change.row, task=task, upstream=upstream)
        await store.commit(replace(change, row=row, records=records(1, [task])))
        assert await store.task("t", "task-1") == row
        assert await store.events("t", "task-1", 0) == list(records(1, [task]))

    async def test_fields_that_nobody_of_us_knows_survive(self, store: Store) -> None:
        wire = {"id": "task-1", "contextId": "ctx", "status": {"state": "TASK_STATE_WORKING"}, "new": {"é": [1]}}
        task = Task.model_validate(wire)
        change = new_task()
        await store.commit(replace(change, row=replace(change.row, task=task), records=records(1, [task])))
        row = await fetched(store)
        assert row.task.wire() == task.wire()
        assert (await store.events("t", "task-1", 0))[0].body == envelope(task)

    async def test_a_task_is_invisible_to_other_tenants_owners_and_agents(self, store: Store) -> None:
        await store.commit(new_task())
        assert await store.task("t", "task-1", owner="key:ann", agent="echo") is not None
        assert await store.task("u", "task-1") is None
        assert await store.task("t", "task-1", owner="key:bob") is None
        assert await store.task("t", "task-1", agent="other") is None

    async def test_two_tenants_may_have_tasks_of_one_id(self, store: Store) -> None:
        await store.commit(new_task(), new_task(tenant="u", owner="key:bob"))
        assert (await fetched(store)).owner == "key:ann"
        assert [row.owner for row in (await store.tasks(query(tenant="u", owner="key:bob"))).rows] == ["key:bob"]

    async def test_a_second_task_of_one_id_is_refused_and_the_first_stays(self, store: Store) -> None:
        await store.commit(new_task())
        with pytest.raises(BadChange):
            await store.commit(new_task(owner="key:bob"), records=[entry()])
        assert (await fetched(store)).owner == "key:ann"
        assert await written(store) == []

    async def test_an_advanced_task_is_the_fold_of_its_events(self, store: Store) -> None:
        await store.commit(new_task())
        row = await fetched(store)
        turns: list[tuple[StatusUpdate | ArtifactUpdate | Message, ...]] = [
            (says("please", id="u1", role=Role.USER), status(TaskState.WORKING, "reading…")),
            (chunk("one ", append=False),),
            (chunk("two "), chunk("three")),
            (status(TaskState.INPUT_REQUIRED, "which?"),),
            (says("that", id="u2", role=Role.USER), status(TaskState.WORKING)),
            (status(TaskState.COMPLETED, "done"),),
        ]
        for n, events in enumerate(turns):
            change = advance(row, *events, updated=NOW + n, deadline=NOW + 10 * n)
            await store.commit(change)
            row = await fetched(store)
            assert row == change.row
        assert row.task.status.state is TaskState.COMPLETED
        assert [record.seq for record in await store.events("t", "task-1", 0)] == list(range(1, 11))

    async def test_a_task_event_replaces_the_whole(self, store: Store) -> None:
        await store.commit(new_task())
        row = await fetched(store)
        seen = Task(id="task-1", context_id="ctx", status=TaskStatus(state=TaskState.WORKING), metadata={"n": 1})
        change = advance(row, chunk("lost", append=False), seen, chunk("kept", append=False))
        await store.commit(change)
        assert await fetched(store) == change.row

    async def test_events_are_read_from_any_number_on_with_their_exact_bodies(self, store: Store) -> None:
        await store.commit(new_task())
        row = await fetched(store)
        change = advance(row, chunk("line\nbreak", append=False), chunk('],\n["'), chunk("ü"))
        await store.commit(change)
        log = [*new_task().records, *change.records]
        for after in range(5):
            assert await store.events("t", "task-1", after) == log[after:]

    async def test_a_body_with_layout_means_the_same_afterwards(self, store: Store) -> None:
        await store.commit(new_task())
        row = await fetched(store)
        change = advance(row, chunk("x", append=False))
        pretty = change.records[0].body.replace(b":", b":\n  ", 1)
        await store.commit(replace(change, records=(replace(change.records[0], body=pretty),)))
        assert [r.event for r in await store.events("t", "task-1", 1)] == [change.records[0].event]

    async def test_a_write_with_an_old_fence_is_refused_and_writes_nothing(self, store: Store) -> None:
        await store.commit(new_task(node="dead"))
        before = await fetched(store)
        (after,) = await store.claim(NODE, NOW, NOW + 1, 10)
        await store.commit(advance(after, chunk("new", append=False)))
        # Both the same event number as the winner's, and the next one.
        for stale in (before, replace(before, seq=2)):
            with pytest.raises(Fenced):
                await store.commit(advance(stale, chunk("old", append=False)), records=[entry()])
        assert [record.seq for record in await store.events("t", "task-1", 0)] == [1, 2]
        assert await written(store) == []

    async def test_a_task_that_does_not_exist_is_fenced(self, store: Store) -> None:
        with pytest.raises(Fenced):
            await store.commit(advance(new_task().row, chunk("x", append=False)))

    async def test_a_log_has_no_gap_and_no_overlap(self, store: Store) -> None:
        await store.commit(new_task())
        row = await fetched(store)
        await store.commit(advance(row, chunk("a", append=False), chunk("b")))
        for seq in (1, 2, 5):
            with pytest.raises(BadChange):
                await store.commit(advance(replace(row, seq=seq), chunk("c"), chunk("d")))
        assert (await fetched(store)).seq == 3

    @pytest.mark.parametrize("end", [state for state in TaskState if state.terminal])
    async def test_terminal_stays_terminal(self, store: Store, end: TaskState) -> None:
        await store.commit(new_task(state=end))
        row = await fetched(store)
        moved = row.task.model_copy(update={"status": TaskStatus(state=TaskState.WORKING)})
        event = status(TaskState.WORKING)
        change = AdvanceTask(replace(row, task=moved, seq=2), records(2, [event]))
        with pytest.raises(BadChange):
            await store.commit(change)
        assert await fetched(store) == row

    async def test_one_bad_change_undoes_its_commit_and_no_other(self, store: Store) -> None:
        await store.commit(new_task())
        row = await fetched(store)
        stale = replace(row, fence=0)
        results = await asyncio.gather(
            store.commit(new_task("before"), records=[entry("before")]),
            store.commit(advance(row, chunk("x", append=False)), new_task("lost"), new_task(), records=[entry("bad")]),
            store.commit(new_task("lost"), advance(stale, chunk("x", append=False)), records=[entry("stale")]),
            store.commit(advance(row, chunk("y", append=False)), records=[entry("good")]),
            store.commit(new_task("after"), records=[entry("after")]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), BadChange, Fenced, type(None), type(None)]
        assert await written(store) == ["before", "good", "after"]
        assert await store.task("t", "lost") is None
        assert (await fetched(store)).task == row.task.apply(chunk("y", append=False))

    # Lists.

    async def test_tasks_are_listed_newest_status_first(self, store: Store) -> None:
        for id, updated in (("b", 5), ("a", 5), ("c", 9), ("d", 1)):
            await store.commit(new_task(id, updated=updated))
        assert await listed(store) == ["c", "b", "a", "d"]

    async def test_pages_join_without_loss_or_repetition(self, store: Store) -> None:
        await store.commit(*(new_task(f"task-{n:02}", updated=n // 3) for n in range(20)))
        seen: list[str] = []
        after = None
        while True:
            found = await store.tasks(query(limit=7, after=after))
            page, total = found.rows, found.total
            assert total == 20
            if not page:
                break
            seen += [row.id for row in page]
            after = (page[-1].updated, page[-1].id)
        assert seen == sorted((f"task-{n:02}" for n in range(20)), reverse=True)

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({}, ["f", "e", "d", "c", "b", "a"]),
            ({"agent": "x"}, ["e", "c", "a"]),
            ({"context_id": "c1"}, ["c", "b", "a"]),
            ({"state": TaskState.FAILED}, ["f", "c"]),
            ({"updated_since": 5}, ["f", "e"]),
            ({"agent": "x", "context_id": "c1"}, ["c", "a"]),
            ({"agent": "x", "state": TaskState.FAILED}, ["c"]),
            ({"agent": "x", "context_id": "c1", "state": TaskState.FAILED, "updated_since": 3}, ["c"]),
            ({"agent": "nobody"}, []),
            ({"owner": "key:bob"}, ["bobs"]),
            ({"tenant": "u"}, ["elsewhere"]),
        ],
        ids=str,
    )
    async def test_filters_narrow_the_list_and_the_count(
        self, store: Store, filters: dict[str, Any], expected: list[str]
    ) -> None:
        kinds = [(id, "xy"[n % 2], f"c{n // 3 + 1}") for n, id in enumerate("abcdef")]
        for n, (id, agent, context_id) in enumerate(kinds, 1):
            state = TaskState.FAILED if n % 3 == 0 else TaskState.WORKING
            await store.commit(new_task(id, agent=agent, context_id=context_id, state=state, updated=n))
        await store.commit(new_task("bobs", owner="key:bob"), new_task("elsewhere", tenant="u"))
        found = await store.tasks(query(**filters))
        rows, total = found.rows, found.total
        assert [row.id for row in rows] == expected
        assert total == len(expected)

    async def test_the_count_is_of_all_pages(self, store: Store) -> None:
        await store.commit(*(new_task(f"task-{n}", agent="xy"[n % 2], updated=n) for n in range(9)))
        found = await store.tasks(query(agent="x", limit=2, after=(4, "task-4")))
        rows, total = found.rows, found.total
        assert [row.id for row in rows] == ["task-2", "task-0"]
        assert total == 5

    async def test_a_listed_task_is_as_new_as_a_fetched_one(self, store: Store) -> None:
        await store.commit(new_task())
        row = await fetched(store)
        await store.commit(advance(row, chunk("x", append=False), updated=NOW + 7))
        assert (await store.tasks(query())).rows == [await fetched(store)]

    # Pushes.

    async def test_push_configurations_are_kept_per_task(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        assert await store.push_config("t", "task-1", "hook") == webhook()
        assert await store.push_config("u", "task-1", "hook") is None
        changed = webhook().model_copy(update={"url": "https://elsewhere.example"})
        await store.commit(PutPushConfig("t", changed))
        assert await store.push_configs("t", "task-1", limit=10) == [changed]

    async def test_push_configurations_are_listed_by_id_in_pages(self, store: Store) -> None:
        await store.commit(*(PutPushConfig("t", webhook(id)) for id in ("c", "a", "b")))
        assert [c.id for c in await store.push_configs("t", "task-1", limit=2)] == ["a", "b"]
        assert [c.id for c in await store.push_configs("t", "task-1", limit=2, after="b")] == ["c"]

    async def test_each_event_is_due_once_for_each_configuration(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook("h1"), webhook("h2"))))
        row = await fetched(store)
        change = advance(row, chunk("x", append=False), status(TaskState.COMPLETED), push=True)
        await store.commit(change)
        due = await delivered(store)
        assert sorted((d.config.id, d.seq) for d in due) == [(h, s) for h in ("h1", "h2") for s in (1, 2, 3)]
        bodies = {record.seq: record.body for record in (*new_task().records, *change.records)}
        assert all(d.body == bodies[d.seq] and d.attempts == 1 for d in due)
        assert {d.config for d in due if d.config.id == "h1"} == {webhook("h1")}

    async def test_messages_are_history_and_go_to_no_webhook(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        row = await fetched(store)
        turn = (says("more", role=Role.USER), status(TaskState.WORKING))
        await store.commit(advance(row, *turn, push=True))
        assert [d.seq for d in await delivered(store)] == [1, 3]

    async def test_without_push_nothing_is_queued(self, store: Store) -> None:
        await store.commit(new_task(), PutPushConfig("t", webhook()))
        row = await fetched(store)
        await store.commit(advance(row, status(TaskState.COMPLETED)))
        assert await store.due(NOW, 10, 1000) == []

    async def test_a_leased_delivery_is_hidden_until_its_lease_ends(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        assert [d.attempts for d in await store.due(NOW, 10, 1000)] == [1]
        assert await store.due(NOW + 999, 10, 1000) == []
        # An attempt that nobody reported on was cut short; it does not count.
        assert [d.attempts for d in await store.due(NOW + 1000, 10, 1000)] == [1]

    async def test_nothing_is_due_before_its_time_and_no_more_than_asked_for(self, store: Store) -> None:
        await store.commit(*(new_task(f"task-{n}", push=(webhook(task_id=f"task-{n}"),)) for n in range(5)))
        assert await store.due(NOW - 1, 10, 1000) == []
        first = await store.due(NOW, 3, 1000)
        second = await store.due(NOW, 3, 1000)
        assert (len(first), len(second)) == (3, 2)
        assert {d.task_id for d in (*first, *second)} == {f"task-{n}" for n in range(5)}

    async def test_a_settled_delivery_is_gone_and_a_failed_one_comes_again(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook("h1"), webhook("h2"))))
        await store.due(NOW, 10, 1000)
        await store.commit(
            SettleDelivery("t", "task-1", "h1", 1), SettleDelivery("t", "task-1", "h2", 1, retry_at=NOW + 5000)
        )
        assert await store.due(NOW + 4999, 10, 1000) == []
        assert [(d.config.id, d.attempts) for d in await store.due(NOW + 5000, 10, 1000)] == [("h2", 2)]

    async def test_events_behind_a_waiting_one_wait_with_it(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        await store.due(NOW, 10, 1000)
        await store.commit(SettleDelivery("t", "task-1", "hook", 1, retry_at=NOW + 5000))
        row = await fetched(store)
        await store.commit(advance(row, status(TaskState.COMPLETED), push=True))
        await store.commit(new_task("task-2", push=(webhook(task_id="task-2"),)))
        assert [d.task_id for d in await store.due(NOW, 10, 1000)] == ["task-2"]
        assert [d.seq for d in await delivered(store, NOW + 5000) if d.task_id == "task-1"] == [1, 2]

    async def test_an_event_that_is_given_up_makes_way_for_the_next(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        row = await fetched(store)
        await store.commit(advance(row, status(TaskState.COMPLETED), push=True))
        assert [d.seq for d in await store.due(NOW, 10, 1000)] == [1]
        assert await store.due(NOW, 10, 1000) == []
        await store.commit(SettleDelivery("t", "task-1", "hook", 1))
        assert [(d.seq, d.attempts) for d in await store.due(NOW, 10, 1000)] == [(2, 1)]
        # Settling the first once more (a worker that was slow) does not hurry the second.
        await store.commit(SettleDelivery("t", "task-1", "hook", 1))
        assert await store.due(NOW, 10, 1000) == []

    async def test_a_delivery_knows_when_its_event_happened_however_often_it_is_tried(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        await store.due(NOW, 10, 1000)
        await store.commit(SettleDelivery("t", "task-1", "hook", 1, NOW + 5000, "no"))
        assert [d.queued for d in await store.due(NOW + 5000, 10, 1000)] == [NOW]

    async def test_a_host_gets_no_more_than_it_has_room_for(self, store: Store) -> None:
        tasks = [new_task(f"task-{n}", push=(webhook(task_id=f"task-{n}"),)) for n in range(5)]
        other = webhook(task_id="task-9", url="https://Elsewhere.example:8443/x?y")
        await store.commit(*tasks, new_task("task-9", push=(other,)))
        due = await store.due(NOW, 10, 1000, per_host=3, busy={"hooks.example": 1, "idle.example": 3})
        assert [d.task_id for d in due] == ["task-0", "task-1", "task-9"]
        busy = {"hooks.example": 3, "elsewhere.example:8443": 1}
        assert await store.due(NOW, 10, 1000, per_host=3, busy=busy) == []
        assert [d.task_id for d in await store.due(NOW, 2, 1000, per_host=3)] == ["task-2", "task-3"]

    async def test_of_tasks_of_the_silent_nothing_is_due(self, store: Store) -> None:
        tasks = [new_task(f"task-{n}", push=(webhook(task_id=f"task-{n}"),)) for n in range(2)]
        other = new_task("task-9", owner="key:bob", push=(webhook(task_id="task-9"),))
        await store.commit(*tasks, other)
        silent = frozenset({tasks[0].row.owner, "key:nobody"})
        assert [(d.task_id, d.owner) for d in await store.due(NOW, 10, 1000, silent=silent)] == [("task-9", "key:bob")]
        assert [d.task_id for d in await store.due(NOW, 10, 1000)] == ["task-0", "task-1"]

    async def test_a_queue_that_waits_can_be_seen_with_its_reason(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        await store.commit(advance(await fetched(store), status(TaskState.COMPLETED), push=True))
        await store.due(NOW, 10, 1000)
        await store.commit(SettleDelivery("t", "task-1", "hook", 1, NOW + 5000, "status 500"))
        expected = PushQueue("t", "task-1", "hook", "hooks.example", 2, 1, NOW, NOW + 5000, "status 500")
        assert await store.queues(10) == [expected]
        assert await store.queues(10, tenant="t", owner="key:ann") == [expected]
        assert await store.queues(10, tenant="t", owner="key:bob") == await store.queues(10, tenant="u") == []

    async def test_what_is_given_up_is_kept_and_makes_way_for_the_next(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        await store.commit(advance(await fetched(store), status(TaskState.COMPLETED), push=True))
        await store.due(NOW, 10, 1000)
        await store.commit(bury())
        (letter,) = await store.dead(0, 10)
        problem = "the webhook answered with status 500"
        assert letter == DeadDelivery(letter.id, "t", "task-1", "hook", 1, "hooks.example", 1, problem, NOW, NOW + 9)
        assert [d.seq for d in await store.due(NOW, 10, 1000)] == [2]
        await store.commit(bury())  # once is enough
        assert await store.dead(0, 10) == [letter]
        assert await store.dead(0, 10, tenant="t", owner="key:ann", id=letter.id) == [letter]
        assert await store.dead(0, 10, tenant="t", owner="key:bob") == await store.dead(letter.id, 10) == []

    async def test_a_replayed_push_comes_after_what_is_in_hand_and_before_what_waits(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        row = await fetched(store)
        later = advance(row, chunk("x", append=False), status(TaskState.COMPLETED), push=True)
        await store.commit(later)
        await store.due(NOW, 10, 1000)
        await store.commit(bury())
        assert [d.seq for d in await store.due(NOW, 10, 1000)] == [2]
        (letter,) = await store.dead(0, 10)
        await store.commit(ReplayDelivery(letter.id))
        assert await store.dead(0, 10) == []
        assert await store.due(NOW, 10, 1000) == []
        await store.commit(SettleDelivery("t", "task-1", "hook", 2))
        assert [(d.seq, d.attempts, d.body) for d in await delivered(store)] == [
            (1, 1, new_task().records[0].body), (3, 1, later.records[1].body),
        ]  # fmt: skip

    async def test_replaying_what_is_not_there_is_no_error_and_numbers_are_not_used_again(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        await store.commit(bury())
        (first,) = await store.dead(0, 10)
        await store.commit(ReplayDelivery(first.id), ReplayDelivery(first.id), ReplayDelivery(first.id + 100))
        assert [d.seq for d in await store.due(NOW, 10, 1000)] == [1]
        await store.commit(bury())
        (second,) = await store.dead(0, 10)
        assert second.id > first.id

    async def test_a_changed_webhook_takes_its_queue_along(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook(),)))
        await store.commit(PutPushConfig("t", webhook(url="https://new.example/1")))
        assert await store.due(NOW, 10, 1000, per_host=1, busy={"new.example": 1}) == []
        assert [d.config.url for d in await store.due(NOW, 10, 1000)] == ["https://new.example/1"]

    async def test_deleting_a_configuration_deletes_what_was_given_up_for_it(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook("h1"), webhook("h2"))))
        await store.commit(bury(id="h1"), bury(id="h2"), DropPushConfig("t", "task-1", "h1"))
        assert [letter.config_id for letter in await store.dead(0, 10)] == ["h2"]

    async def test_deleting_a_configuration_deletes_what_is_queued_for_it(self, store: Store) -> None:
        await store.commit(new_task(push=(webhook("h1"), webhook("h2"))))
        await store.commit(DropPushConfig("t", "task-1", "h1"))
        assert await store.push_config("t", "task-1", "h1") is None
        assert [d.config.id for d in await store.due(NOW, 10, 1000)] == ["h2"]

    async def test_deleting_a_configuration_twice_is_no_error(self, store: Store) -> None:
        await store.commit(DropPushConfig("t", "task-1", "nothing"))

    # Take-over.

    async def test_tasks_of_an_earlier_life_are_claimed_once_with_a_new_fence(self, store: Store) -> None:
        await store.commit(*(new_task(f"task-{n}", node=f"life-{n % 2}") for n in range(5)))
        first = await store.claim(NODE, NOW, NOW + 1000, 3)
        second = await store.claim(NODE, NOW, NOW + 1000, 3)
        assert (len(first), len(second)) == (3, 2)
        assert {row.id for row in (*first, *second)} == {f"task-{n}" for n in range(5)}
        assert {row.fence for row in (*first, *second)} == {2}
        assert await store.claim(NODE, NOW, NOW + 1000, 3) == []
        assert (await fetched(store, "task-0")).fence == 2

    async def test_only_active_tasks_are_claimed(self, store: Store) -> None:
        for state in TaskState:
            await store.commit(new_task(state.name, state=state, node="dead"))
        claimed = await store.claim(NODE, NOW, NOW + 1000, 100)
        assert {row.id for row in claimed} == {"SUBMITTED", "WORKING"}

    async def test_our_own_tasks_are_not_claimed(self, store: Store) -> None:
        await store.commit(new_task())
        assert await store.claim(NODE, NOW + 10**9, NOW + 10**9, 10) == []

    async def test_who_goes_on_with_an_interrupted_task_executes_it(self, store: Store) -> None:
        await store.commit(new_task(state=TaskState.INPUT_REQUIRED, node="dead"))
        row = await fetched(store)
        await store.commit(advance(row, status(TaskState.WORKING)))
        assert await store.claim(NODE, NOW, NOW + 1000, 10) == []

    # What waits, and trees.

    async def test_a_task_knows_the_way_to_it_until_it_is_asked_from_elsewhere(self, store: Store) -> None:
        way = came("fan", "left", conversation='a "text" with [quotes]')
        await store.commit(new_task(state=TaskState.INPUT_REQUIRED, trail=way))
        row = await fetched(store)
        assert row.trail == way
        assert (row.asker.id, *chain(row.asker)) == ("agent:left", "agent:fan", "key:ann")
        other = came("fan", root="another")
        again = advance(row, status(TaskState.WORKING), trail=other)
        await store.commit(again)
        assert (await fetched(store)).trail == other
        await store.commit(advance(again.row, status(TaskState.INPUT_REQUIRED), trail=None))
        row = await fetched(store)
        assert row.trail is None
        assert row.asker.id == "key:ann"

    async def test_a_task_knows_what_its_caller_was_let_in_with_until_somebody_comes_with_other_rights(
        self, store: Store
    ) -> None:
        ann = Principal(
            Kind.OAUTH, "idp#ann", "t", roles=frozenset({"clerk", "a b"}), scopes=frozenset({"x", "y"}), client="app"
        )
        robot = Principal(Kind.OAUTH, "idp#robot", "t", on_behalf_of=ann, hops=4, scopes=frozenset({"x"}))
        await store.commit(new_task(owner=ann.id, caller=robot, trail=came("fan"), state=TaskState.INPUT_REQUIRED))
        row = await fetched(store)
        assert row.caller == robot
        assert row.asker == robot.delegate("fan")
        for principal in (None, ann.id, robot.id):
            assert [each.caller for each in await store.waiting(10, principal=principal)] == [robot]
        for principal in ("oauth:idp#robo", "oauth:dp#robot", "key:idp#robot"):
            assert await store.waiting(10, principal=principal) == []
        assert [each.caller for each in await store.in_tree("t", "outermost", 10)] == [robot]
        assert [each.caller for each in (await store.tasks(TaskQuery("t", ann.id, None, 10))).rows] == [robot]
        again = advance(row, status(TaskState.WORKING), trail=None, caller=ann)
        await store.commit(again)
        (row,) = await store.claim("next", NOW, NOW + 1, 10)
        assert row.caller == row.asker == ann
        grown = advance(row, chunk("more", append=False))
        await store.commit(grown)
        assert (await fetched(store)).caller == ann
        await store.commit(advance(grown.row, status(TaskState.INPUT_REQUIRED), caller=None))
        row = await fetched(store)
        assert row.caller is None
        assert row.asker == Principal(Kind.OAUTH, "idp#ann", "t")

    async def test_what_waits_is_found_by_its_owner_and_by_every_agent_that_it_would_go_on_for(
        self, store: Store
    ) -> None:
        waits = TaskState.INPUT_REQUIRED
        await store.commit(
            new_task("t-1", state=waits, agent="fan"),
            new_task("t-2", state=TaskState.AUTH_REQUIRED, trail=came("fan", "left")),
            new_task("t-3", state=waits, owner="key:bob", trail=came("fan", conversation='["left",')),
            new_task("t-4", state=TaskState.WORKING, trail=came("fan", "left")),
            new_task("t-5", state=TaskState.COMPLETED, agent="left"),
        )

        async def found(agent: str | None = None, principal: str | None = None) -> list[str]:
            return [row.id for row in await store.waiting(10, agent=agent, principal=principal)]

        assert await found() == ["t-1", "t-2", "t-3"]
        assert await found(agent="fan") == ["t-1", "t-2", "t-3"]
        assert await found(agent="left") == ["t-2"]
        assert await found(agent="lef") == await found(agent="eft") == []
        assert await found(agent="echo") == ["t-2", "t-3"]
        assert await found(principal="key:bob") == ["t-3"]
        assert await found(agent="fan", principal="key:bob") == ["t-3"]

    async def test_what_waits_is_read_page_by_page_also_while_it_ends(self, store: Store) -> None:
        ids = [("t", f"task-{n}") for n in range(5)] + [("u", "task-0"), ("u", "task-1")]
        await store.commit(*(new_task(id, tenant=tenant, state=TaskState.INPUT_REQUIRED) for tenant, id in ids))
        seen, after = list[tuple[str, str]](), ("", "")
        while page := await store.waiting(2, after=after):
            seen += [(row.tenant, row.id) for row in page]
            await store.commit(advance(page[0], status(TaskState.CANCELED, task_id=page[0].id)))
            after = seen[-1]
        assert seen == ids
        assert len(await store.waiting(10)) == len(ids) - 4

    async def test_a_tree_is_what_its_outermost_task_has_led_to_and_is_not_at_its_end(self, store: Store) -> None:
        for n, state in enumerate(TaskState):
            await store.commit(new_task(f"{n}-{state.name}", state=state, trail=came("fan")))
        await store.commit(
            new_task("outermost"),
            new_task("other-tree", trail=came("fan", root="other")),
            new_task("other-tenant", tenant="u", trail=came("fan")),
        )
        found = [row.id for row in await store.in_tree("t", "outermost", 10)]
        assert [id.partition("-")[2] for id in found] == ["SUBMITTED", "WORKING", "INPUT_REQUIRED", "AUTH_REQUIRED"]
        assert [row.id for row in await store.in_tree("t", "outermost", 2, after=found[0])] == found[1:3]
        (claimed,) = [row for row in await store.claim("next", NOW, NOW + 1, 10) if row.id == found[1]]
        assert claimed.trail == came("fan")

    # The rest.

    async def test_upstream_contexts_are_found_by_owner_and_agent(self, store: Store) -> None:
        await store.commit(PutUpstreamContext("t", "key:ann", "echo", "ctx", "old"))
        await store.commit(PutUpstreamContext("t", "key:ann", "echo", "ctx", "new", "https://b.example/rpc"))
        found = await store.upstream_context("t", "key:ann", "echo", "ctx")
        assert found == Upstream("https://b.example/rpc", context_id="new")
        assert await store.upstream_context("t", "key:bob", "echo", "ctx") is None
        assert await store.upstream_context("u", "key:ann", "echo", "ctx") is None

    async def test_agents_are_put_changed_and_dropped(self, store: Store) -> None:
        bare = AgentRecord("b", "https://b.example/card", False, NOW)
        pinned = RemoteSettings(("https://b.example",), Balance.LEAST_LOADED, CardKeys(b'{"keys":[]}'), True)
        known = AgentRecord("a", "https://a.example/card", True, NOW, b'{"name":"A"}', '"etag"', NOW + 1, pinned)
        await store.commit(PutAgent(bare), PutAgent(replace(known, card=None)))
        await store.commit(PutAgent(known))
        assert await store.agents() == [known, bare]
        elsewhere = replace(known, settings=RemoteSettings(card_keys=CardKeys(url="https://k.example")))
        await store.commit(PutAgent(elsewhere))
        assert await store.agents() == [elsewhere, bare]
        await store.commit(DropAgent("a"), DropAgent("nobody"))
        assert await store.agents() == [bare]

    async def test_cards_are_put_changed_and_dropped_by_agent(self, store: Store) -> None:
        finding = Finding(Standing.INVALID, "does not fit", "k1", "ES256", "https://a.example/keys")
        first = CardRecord("a", "https://a.example/card", "https://a.example/2", NOW, b'{"n":1}', Standing.UNSIGNED)
        other = CardRecord("b", first.card_url, first.source, NOW, b"{}", Standing.INVALID, (finding,), NOW, ("x", "y"))
        await store.commit(PutCard(other), PutCard(first), PutCard(replace(first, card_url="https://c.example/card")))
        changed = replace(first, verdict=Standing.VERIFIED, changes=("new skill: s",), changed=NOW + 1)
        await store.commit(PutCard(changed))
        assert await store.cards() == [changed, replace(first, card_url="https://c.example/card"), other]
        await store.commit(DropCards("a"), DropCards("nobody"))
        assert await store.cards() == [other]

    async def test_keys_are_put_and_revoked(self, store: Store) -> None:
        record = KeyRecord("k1", "t", "ann", "gw_1234", b"\x00" * 32, NOW)
        other = KeyRecord("k2", "t", "bob", "gw_5678", b"\xff" * 32, NOW)
        await store.commit(PutKey(other), PutKey(record))
        await store.commit(PutKey(replace(record, revoked=NOW + 1)))
        assert await store.keys() == [replace(record, revoked=NOW + 1), other]

    async def test_approved_definitions_are_put_changed_and_dropped(self, store: Store) -> None:
        tree = {"name": "add", "inputSchema": {"type": "object"}, "big": 2**62}
        first, other = (
            PinRecord("docs", "tools", "add", "a1", tree, NOW),
            PinRecord("docs", "prompts", "add", "b", {}, NOW),
        )
        await store.commit(PutPin(first), PutPin(other))
        assert await store.pins() == [other, first]
        changed = PinRecord("docs", "tools", "add", "a2", {**tree, "title": "+"}, NOW + 1)
        await store.commit(PutPin(changed), DropPin("docs", "prompts", "add"), DropPin("docs", "tools", "no such"))
        assert await store.pins() == [changed]

    async def test_audit_records_come_back_in_the_order_of_the_commits(self, store: Store) -> None:
        full = entry(
            "0",
            chain=("agent:echo", "key:eve"),
            verdict=Verdict.BLOCK,
            reason="no rule allows this",
            task_id="task-1",
            digest="ab" * 32,
            length=12,
            correlation="0",
            cause="c",
            trace="1" * 32,
            policy="p" * 64,
            upstream_hash="h" * 64,
            change={"after": [{"id": "k"}], "before": []},
            client="app",
        )
        await store.commit(records=[full, entry("1")])
        await asyncio.gather(*(store.commit(records=[entry(str(n))]) for n in range(2, 10)))
        assert await written(store) == [str(n) for n in range(10)]
        assert (await store.audit(0, 1))[0][1] == full
        page = await store.audit(3, 4)
        assert [idx for idx, _ in page] == [4, 5, 6, 7]

    async def test_who_is_forgotten_is_nobody_in_the_record(self, store: Store) -> None:
        await store.commit(records=[entry("1"), entry("2", principal="agent:echo", chain=("key:ann",)), entry("3")])
        made: list[str] = []

        def record(pseudonym: str) -> AuditEntry:
            made.append(pseudonym)
            return entry("4", principal="local:local", target=pseudonym)

        pseudonym = await store.forget_subject("key:ann", record)
        assert [pseudonym] == made
        assert pseudonym is not None
        assert (await store.search_audit(AuditQuery(9, principal="key:ann"))).entries == []
        of_them = await store.search_audit(AuditQuery(9, principal=pseudonym))
        assert [each.request_id for _, each in of_them.entries] == ["3", "2", "1"]
        assert (await store.search_audit(AuditQuery(9, target=pseudonym))).entries[0][0] == 4
        assert await store.forget_subject("key:ann", record) is None

    async def test_the_record_is_searched_by_the_client_that_somebody_came_with(self, store: Store) -> None:
        ann, robot = "oauth:https://idp.example#ann", "oauth:https://idp.example#app"
        await store.commit(
            records=[
                entry("1", principal=ann, client="app"),
                entry("2", principal=ann, client="cli"),
                entry("3", principal=ann),
                entry("4", principal="agent:desk", chain=(ann,), client="app"),
                entry("5", principal=robot, client="app"),
                entry("6", principal="oauth:https://idp.example##app", client="app"),
                entry("7", principal="oauth:https://idp.example#other#app", client="cli", target="app"),
            ]
        )

        async def by(client: str, **more: Any) -> list[str]:
            page = await store.search_audit(AuditQuery(9, client=client, **more))
            assert {each.client for _, each in page.entries} <= {client}
            return [each.request_id for _, each in page.entries]

        assert await by("app") == ["6", "5", "4", "1"]
        assert await by("app", principal=ann) == ["4", "1"]
        assert await by("cli") == ["7", "2"]
        assert await by("nobody") == []
        assert await store.forget_subject(robot, lambda pseudonym: entry("8", target=pseudonym)) is not None
        assert await by("app") == ["6", "4", "1"], "a client that asks for itself is forgotten like anybody"

    async def test_the_record_is_searched_from_its_end_page_by_page(self, store: Store) -> None:
        for number in range(20):
            await store.commit(records=[entry(str(number), verb="GetTask" if number % 2 else "ListTasks")])
        page = await store.search_audit(AuditQuery(4, verb="GetTask"))
        assert [number for number, _ in page.entries] == [20, 18, 16, 14]
        rest = await store.search_audit(AuditQuery(9, before=page.before, verb="GetTask"))
        assert [number for number, _ in rest.entries] == [12, 10, 8, 6, 4, 2]
        assert rest.before is None
        assert (await store.search_audit(AuditQuery(9, since=NOW + 1))).entries == []

    async def test_what_is_written_later_is_there_before_the_next_commit(self, store: Store) -> None:
        store.later(new_task(), records=[entry("later")])
        await store.commit(records=[entry("commit")])
        assert await written(store) == ["later", "commit"]
        assert await store.task("t", "task-1") is not None

    async def test_what_is_written_later_needs_no_commit(self, store: Store) -> None:
        store.later(records=[entry("later")])
        async with asyncio.timeout(10):
            while not await written(store):
                pass

    async def test_a_failure_of_what_is_written_later_is_logged_and_never_raised(
        self, store: Store, caplog: pytest.LogCaptureFixture
    ) -> None:
        await store.commit(new_task())
        store.later(new_task(), records=[entry("bad")])
        store.later(records=[entry("good")])
        await store.commit()
        assert await written(store) == ["good"]
        assert [record.levelno for record in caplog.records] == [logging.ERROR]

    async def test_an_empty_commit_waits_for_what_was_asked_for_before(self, store: Store) -> None:
        store.later(records=[entry()])
        assert await store.commit() is None
        assert await written(store) == ["req-1"]

    async def test_a_closed_store_is_unavailable_and_closing_twice_is_no_error(self, store: Store) -> None:
        await store.aclose()
        await store.aclose()
        assert store.trouble is not None
        with pytest.raises(GatewayError) as refused:
            await store.commit(records=[entry()])
        assert refused.value.reason is Reason.UNAVAILABLE
        store.later(records=[entry()])
