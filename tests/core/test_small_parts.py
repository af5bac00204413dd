"""Policy, gate, live fan-out, page tokens, keys: each alone."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.cursor import Cursors
from gateway.core.gate import Gate
from gateway.core.keys import KeyRing, fingerprint
from gateway.core.live import MAX_BACKLOG, Live
from gateway.core.policy import USE, WORK, Policy, Target
from gateway.core.watch import Watch
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import ANONYMOUS, LOCAL, Kind, Principal
from gateway.model.rows import Record
from gateway.model.task import StatusUpdate, Task, TaskState, TaskStatus, envelope
from gateway.stores.memory import MemoryStore

ALICE = Principal(Kind.KEY, "alice")
ADMIN = ("ListAgents", "AddAgent", "RemoveAgent", "AddKey", "ListKeys", "RevokeKey", "AnythingElse")


# Policy.


@pytest.mark.parametrize("verb", sorted({*USE, *WORK, *ADMIN}))
def test_the_machines_own_credential_may_do_everything(verb: str) -> None:
    assert Policy().decide(LOCAL, verb, Target("x")).allowed


@pytest.mark.parametrize("who", [ALICE, ANONYMOUS, ALICE.delegate("echo")], ids=lambda who: who.id)
@pytest.mark.parametrize("verb", sorted({*ADMIN, *WORK}))
def test_nobody_else_administers_or_works_for_an_agent(who: Principal, verb: str) -> None:
    assert not Policy().decide(who, verb, Target("x", public=True)).allowed


@pytest.mark.parametrize("verb", sorted(USE))
def test_others_use_public_agents_and_no_other(verb: str) -> None:
    assert Policy().decide(ALICE, verb, Target("x", public=True)).allowed
    assert not Policy().decide(ALICE, verb, Target("x", public=False)).allowed


def test_the_extended_card_is_not_for_the_anonymous() -> None:
    assert not Policy().decide(ANONYMOUS, "GetExtendedAgentCard", Target("x", public=True)).allowed


def test_a_worker_works_for_its_agent_only() -> None:
    policy = Policy()
    assert policy.decide(ALICE, "PullTasks", Target("x", worker=ALICE.id)).rule == "worker"
    assert not policy.decide(ALICE, "PullTasks", Target("x", worker="key:bob")).allowed
    assert not policy.decide(ALICE, "SendMessage", Target("x", worker=ALICE.id)).allowed


def test_a_name_that_sounds_like_power_has_none() -> None:
    for name in ("admin", "admin-x", "local", "root"):
        assert not Policy().decide(Principal(Kind.KEY, name), "AddKey", Target("x")).allowed


def test_made_up_names_do_not_fill_the_memory() -> None:
    policy = Policy()
    for index in range(10_000):
        policy.decide(ALICE, "SendMessage", Target(f"agent-{index}"))
    assert len(policy._memo) <= 4096


# Principals.


def test_a_delegated_principal_works_on_the_callers_tasks_and_counts_its_hops() -> None:
    deep = ALICE.delegate("one").delegate("two")
    assert deep.id == "agent:two"
    assert deep.owner == ALICE.id
    assert deep.hops == 2


# Gate.


async def test_a_gate_lets_in_so_many_at_once_so_many_wait_and_the_next_is_refused() -> None:
    gate = Gate(concurrency=1, queue=1)
    gate.enter()
    gate.enter()
    with pytest.raises(GatewayError) as refused:
        gate.enter()
    assert refused.value.reason is Reason.OVERLOADED
    gate.leave()
    gate.enter()


async def test_slots_are_given_in_order_and_one_who_gives_up_waiting_loses_none() -> None:
    gate, order = Gate(concurrency=1, queue=9), []
    first = asyncio.Event()

    async def work(name: str, until: asyncio.Event | None = None) -> None:
        async with gate:
            order.append(name)
            if until is not None:
                await until.wait()

    running = [asyncio.create_task(work("a", first)), *(asyncio.create_task(work(name)) for name in "bcd")]
    await asyncio.sleep(0)
    running[1].cancel()  # while it waits
    first.set()
    running[2].cancel()
    await asyncio.wait(running)
    async with asyncio.timeout(5), gate:
        assert order == ["a", "d"]


# Live fan-out.


def update(seq: int, state: TaskState = TaskState.WORKING) -> Record:
    event = StatusUpdate(task_id="t", context_id="c", status=TaskStatus(state=state))
    return Record(seq, event, envelope(event))


def whole(seq: int, state: TaskState = TaskState.WORKING) -> Record:
    task = Task(id="t", context_id="c", status=TaskStatus(state=state))
    return Record(seq, task, envelope(task))


async def test_every_reader_gets_the_same_events_in_the_same_order() -> None:
    live = Live()
    readers = [live.subscribe(("", "t")) for _ in range(3)]
    for seq in range(1, 6):
        live.publish(("", "t"), (update(seq),))
    for reader in readers:
        assert [(await reader.next() or ())[0].seq for _ in range(5)] == [1, 2, 3, 4, 5]


async def test_a_reader_that_leaves_disturbs_nobody_and_leaves_nothing_behind() -> None:
    live = Live()
    stays, leaves = live.subscribe(("", "t")), live.subscribe(("", "t"))
    leaves.close()
    leaves.close()
    live.publish(("", "t"), (update(1),))
    assert await stays.next()
    stays.close()
    assert live._topics == {}


async def test_a_reader_that_is_too_slow_is_told_so_and_holds_little() -> None:
    live = Live()
    slow = live.subscribe(("", "t"))
    for seq in range(MAX_BACKLOG + 2):
        live.publish(("", "t"), (update(seq),))
    assert len(slow._queue) <= MAX_BACKLOG
    with pytest.raises(GatewayError) as told:
        await slow.next()
    assert told.value.reason is Reason.OVERLOADED


async def test_silence_is_reported_as_an_empty_group() -> None:
    assert await asyncio.wait_for(Live(heartbeat=0.01).subscribe(("", "t")).next(), 5) == ()


async def test_closing_ends_present_and_later_readers() -> None:
    live = Live()
    present = live.subscribe(("", "t"))
    live.close()
    assert await present.next() is None
    assert await live.subscribe(("", "t")).next() is None


async def test_a_watch_shows_the_task_then_only_what_is_newer_and_ends_with_the_task() -> None:
    live = Live()
    subscription = live.subscribe(("", "t"))
    live.publish(("", "t"), (update(1), update(2)))
    live.publish(("", "t"), (update(3, TaskState.COMPLETED),))
    groups = [group async for group in Watch(subscription, whole(1))]
    assert [[record.seq for record in group] for group in groups] == [[1], [2], [3]]


async def test_a_watch_of_an_ended_task_is_the_task_alone() -> None:
    watch = Watch(Live().subscribe(("", "t")), whole(7, TaskState.FAILED))
    assert [[record.seq for record in group] async for group in watch] == [[7]]


async def test_a_question_ends_the_answer_to_a_message_but_not_a_subscription() -> None:
    live = Live()
    turn, subscription = live.subscribe(("", "t")), live.subscribe(("", "t"))
    live.publish(("", "t"), (update(2, TaskState.INPUT_REQUIRED),))
    live.publish(("", "t"), (update(3, TaskState.COMPLETED),))
    assert [group[0].seq async for group in Watch(turn, whole(1), until_pause=True)] == [1, 2]
    assert [group[0].seq async for group in Watch(subscription, whole(1))] == [1, 2, 3]


# Page tokens.


@given(st.text(min_size=1), st.text())
def test_a_page_token_opens_for_the_question_it_was_given_for(position: str, bound: str) -> None:
    cursors = Cursors(b"key")
    if position.isprintable():
        assert cursors.open(cursors.seal(position, bound), bound) == position


@given(st.text(), st.text())
def test_a_page_token_that_was_not_given_out_opens_nothing(token: str, bound: str) -> None:
    with pytest.raises(GatewayError) as refused:
        Cursors(b"key").open(token, bound)
    assert refused.value.violations[0].field == "pageToken"


def test_a_page_token_is_of_no_use_to_anybody_else_or_for_another_question() -> None:
    token = Cursors(b"key").seal("5", "alice\nall")
    for cursors, bound in (
        (Cursors(b"key"), "bob\nall"),
        (Cursors(b"key"), "alice\nfailed"),
        (Cursors(b"other"), "alice\nall"),
    ):
        with pytest.raises(GatewayError):
            cursors.open(token, bound)


# Keys.


def ring(store: MemoryStore, local: str | None = "local-secret-of-the-machine") -> KeyRing:
    return KeyRing(store, itertools.count(1).__next__, local)


async def test_a_new_key_is_its_principal_also_after_a_restart_until_it_is_revoked() -> None:
    store = MemoryStore()
    keys = ring(store)
    made = await keys.add("alice", store.commit)
    assert keys.known(fingerprint(made.secret.encode())) == ALICE
    again = ring(store)
    await again.start()
    assert again.known(fingerprint(made.secret.encode())) == ALICE
    await again.revoke(made.record.id, store.commit)
    assert again.known(fingerprint(made.secret.encode())) is None


async def test_a_key_is_stored_as_its_hash_and_shows_only_its_beginning() -> None:
    store = MemoryStore()
    made = await ring(store).add("alice", store.commit)
    record = (await store.keys())[0]
    assert made.secret not in repr(record)
    assert made.secret.startswith(record.prefix)
    assert len(made.secret) - len(record.prefix) >= 32


async def test_several_keys_of_one_name_are_one_principal() -> None:
    store = MemoryStore()
    keys = ring(store)
    one, two = await keys.add("alice", store.commit), await keys.add("alice", store.commit)
    assert one.secret != two.secret
    assert keys.known(fingerprint(one.secret.encode())) == keys.known(fingerprint(two.secret.encode()))


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\n", "ä", "x" * 64])
async def test_a_key_needs_a_plain_name(name: str) -> None:
    store = MemoryStore()
    with pytest.raises(GatewayError):
        await ring(store).add(name, store.commit)


def test_without_a_local_credential_nothing_is_local() -> None:
    assert ring(MemoryStore(), None).known(fingerprint(b"")) is None
