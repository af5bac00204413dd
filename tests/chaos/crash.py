"""R1, R2: SIGKILL under load, sixty times, and every promise made before still holds."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from gateway.stores.auditlog import entry_of
from gateway.verifier import Database, Exit, Trust, notes_in, verify
from tests.chaos.checker import Audited, Completion, Evidence, Kept, Violation, accepted, check, completion
from tests.chaos.client import Client, Told
from tests.chaos.history import Entry, What
from tests.chaos.moments import MOMENTS, STARTING, Executioner
from tests.chaos.scripts import Stage, choose
from tests.chaos.town import LOCAL, REMOTE, Plan, Result, Town, town

PRINCIPALS = ("alice", "bob")
CLIENTS = 8  # half of them each principal's; their messageIds are the same on purpose
AGENTS = (LOCAL, REMOTE)
SHARE_FAR = 0.2
COMPLETED_SHARE = 0.95
AT_REST_S = 40.0
ENOUGH_S = 120.0  # for the accepted messages that are still wanted after the last kill
SHOWN = 5  # violations of one rule that are printed; the rest is counted


async def crash(plan: Plan) -> list[Result]:
    async with town(plan, "crash", *PRINCIPALS) as here:
        began = time.monotonic()
        kills = await _trouble(here, plan)
        live = time.monotonic() - began
        clients = tuple(here.client(who) for who in PRINCIPALS)
        await here.settled(AGENTS, clients, AT_REST_S)
        await _ask_all_again(here, clients)
        evidence = await _read_back(here, clients)
        return _judge(here, evidence, kills, live, plan.wanted)


# Trouble.


async def _trouble(here: Town, plan: Plan) -> Counter[str]:
    over = asyncio.Event()
    workers = [asyncio.create_task(_work(here, number, over)) for number in range(CLIENTS)]
    try:
        kills = await _kill(here, plan)
        until = time.monotonic() + ENOUGH_S
        while accepted(here.history.entries) < plan.wanted and time.monotonic() < until:
            _watch(workers)
            await asyncio.sleep(0.25)
        over.set()
        # Whoever still waits for an answer then has met something that is stuck; what it is will be seen in the end.
        await asyncio.wait(workers, timeout=AT_REST_S)
        _watch(workers)
        return kills
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _work(here: Town, number: int, over: asyncio.Event) -> None:
    """One client, several plays at a time."""
    who = PRINCIPALS[number % len(PRINCIPALS)]
    client = here.client(who, number)
    label = str(number // len(PRINCIPALS))
    count = 0

    async def lane() -> None:
        nonlocal count
        while not over.is_set():
            count += 1
            # The same for each principal: equal ids, often equal words, and yet every task is its owner's alone.
            chance = random.Random(f"{here.seed}/{label}/{count}")
            agent = REMOTE if chance.random() < SHARE_FAR else LOCAL
            await choose(chance)(Stage(client, agent, chance, count, label))
            await asyncio.sleep(chance.uniform(0, 0.05))

    await asyncio.gather(lane(), lane(), lane())


async def _kill(here: Town, plan: Plan) -> Counter[str]:
    chance = random.Random(f"{plan.seed}/kill")
    executioner = Executioner(here.signals, here.gateway.data / "gateway.db", chance)
    done: Counter[str] = Counter()
    while sum(done.values()) < plan.kills:
        moment = MOMENTS[sum(done.values()) % len(MOMENTS)]
        if moment == STARTING:
            await _kill_while_starting(here, chance, done)
            continue
        await _pause(chance)
        came = await executioner.strike(moment, here.gateway.kill)
        await _buried(here, done, came)
        await _reborn(here)
    return done


async def _kill_while_starting(here: Town, chance: random.Random, done: Counter[str]) -> None:
    await _pause(chance)
    here.gateway.kill()
    await _buried(here, done, "at random")
    await here.gateway.spawn()
    usual = statistics.median(here.gateway.starts)
    await asyncio.sleep(usual * chance.uniform(0.5, 1.0))
    here.gateway.kill()
    await _buried(here, done, STARTING)
    await _reborn(here)


async def _pause(chance: random.Random) -> None:
    """Long enough for work to be under way, too short for it to be finished."""
    await asyncio.sleep(chance.uniform(0.1, 0.8))


async def _buried(here: Town, done: Counter[str], moment: str) -> None:
    here.up.clear()
    await here.gateway.ended(10)
    done[moment] += 1
    here.history.add(Entry(What.KILLED, text=moment))


async def _reborn(here: Town) -> None:
    await here.restart()
    here.history.add(Entry(What.READY))
    here.up.set()


def _watch(workers: Iterable[asyncio.Task[None]]) -> None:
    """A client that fell over is a fault of ours and ends the run."""
    for worker in workers:
        if worker.done():
            worker.result()


# Afterwards.


async def _ask_all_again(here: Town, clients: Iterable[Client]) -> None:
    """Every message that was ever answered, once more: the answer must be the same."""
    by_name = {client.who: client for client in clients}
    told: dict[tuple[str, str, str], Told] = {}
    sent = {entry.call: entry for entry in here.history.entries if entry.what is What.SENT}
    for entry in here.history.entries:
        if entry.what in (What.ANSWERED, What.EVENT) and entry.message_id:
            asked = sent[entry.call]
            message = Told(asked.message_id, asked.text, asked.task_id or None)
            told.setdefault((entry.who, entry.agent, entry.message_id), message)
    limit = asyncio.Semaphore(16)

    async def ask(who: str, agent: str, message: Told) -> None:
        async with limit:
            await by_name[who].send(agent, message)

    await asyncio.gather(*(ask(who, agent, message) for (who, agent, _), message in told.items()))


async def _read_back(here: Town, clients: tuple[Client, ...]) -> Evidence:
    kept = [task for client in clients for agent in AGENTS for task in await client.kept(agent)]
    limit = asyncio.Semaphore(16)
    by_name = {client.who: client for client in clients}

    async def get(task: Kept) -> None:
        async with limit:
            await by_name[task.who].get(task.agent, task.task_id)

    await asyncio.gather(*(get(task) for task in kept))
    foreign = await _peek(by_name, kept)
    upstream = await here.beyond().kept("echo")
    audit = await asyncio.to_thread(_audited, here.gateway.data)
    return Evidence(tuple(here.history.entries), kept, upstream, foreign, audit=audit)


def _audited(data: Path) -> list[Audited]:
    with closing(Database(data / "gateway.db")) as log:
        every = (entry_of(line) for _, lines, _ in log.runs() for line in lines)
        return [Audited(each.task_id, each.target, each.phase, each.outcome) for each in every if each.task_id]


def _verified(data: Path) -> Result:
    """The audit log after all kills, beside the gateway that runs."""
    since = notes_in((data / "audit" / "head").read_text())
    with closing(Database(data / "gateway.db")) as log:
        report = verify(log, Trust.parse((data / "audit" / "keys").read_text()), since)
    details = [report.sentence, *report.notes]
    print(f"  audit log: {'; '.join(details)}")
    return Result("the audit log is as it was written", report.exit is Exit.OK, details)


async def _peek(by_name: dict[str, Client], kept: list[Kept]) -> list[Kept]:
    """What each principal gets to see of the other's tasks."""
    seen = []
    for task in kept[:: max(1, len(kept) // 200)]:
        other = next(who for who in by_name if who != task.who)
        heard = await by_name[other].peek(task.agent, task.task_id)
        if heard is not None:
            seen.append(Kept(other, task.agent, heard.task_id, heard.state))
    return seen


# Judging.


def _judge(here: Town, evidence: Evidence, kills: Counter[str], live: float, wanted: int) -> list[Result]:
    total = accepted(evidence.entries)
    what = Counter(entry.what for entry in evidence.entries)
    starts = here.gateway.starts
    print(f"  {sum(kills.values())} kills in {live:.0f} s: {_table(kills)}")
    print(f"  {total} accepted, {len(evidence.kept)} tasks, {len(evidence.upstream)} of them upstream too")
    print(f"  history: {_table(what)} ({here.history.path})")
    print(f"  start to first 200: median {statistics.median(starts):.2f} s, longest {max(starts):.2f} s")
    results = [_ruled(sentence, found) for sentence, found in check(evidence).items()]
    local, far = completion(evidence, LOCAL), completion(evidence, REMOTE)
    results.append(
        Result(
            f"{COMPLETED_SHARE:.0%} of the echo tasks completed",
            local.share >= COMPLETED_SHARE,
            [_completion(local)],
        )
    )
    print(f"  echo: {_completion(local)}")
    print(f"  remote: {_completion(far)}")
    results.append(_verified(here.gateway.data))
    early = here.gateway.early_end
    results.append(Result(f"at least {wanted} messages were accepted", total >= wanted, [f"{total} were"]))
    results.append(Result("the gateway ended only when it was killed", early is None, [early or ""]))
    return results


def _ruled(sentence: str, found: list[Violation]) -> Result:
    details = []
    for violation in found[:SHOWN]:
        details.append(violation.sentence)
        details += [f"  {entry}" for entry in violation.entries[:12]]
    if len(found) > SHOWN:
        details.append(f"and {len(found) - SHOWN} more")
    return Result(f"{sentence}: {len(found)} violations" if found else sentence, not found, details)


def _completion(found: Completion) -> str:
    others = f", others: {_table(found.others)}" if found.others else ""
    return f"{found.completed} of {found.total} completed ({found.share:.1%}){others}"


def _table(counts: dict[str, int] | Counter[str] | Counter[What]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
