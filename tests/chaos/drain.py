"""R8: SIGTERM under load: who is inside is served or told, the process is gone in time, the work goes on later."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.town import LOCAL, Plan, Result, Town, town
from tests.chaos.wire import Caller, Json, Lost, Refused

EXIT_S = 25.0
STREAMS = 40
WAITERS = 20
HASTY = 4  # clients that send one short message after the other
CLEAR = ("UNAVAILABLE", "HTTP 503")

# A request whose bytes left this shortly before the signal may still have been on its way: HTTP/1.1 has no means to
# take back a connection without a race (RFC 9112 §9.5).
DOORWAY_S = 0.05


@dataclass(slots=True)
class Tally:
    finished: int = 0
    turned_away: int = 0  # with a clear word
    late: int = 0  # asked after the signal, or in the doorway, and not answered
    failed: list[str] = field(default_factory=list)


async def drain(plan: Plan) -> list[Result]:
    patience, long = (5.0, 12) if plan.short else (20.0, 30)
    async with town(plan, "drain", "alice", server={"drain_seconds": patience}) as here:
        tally, tasks = Tally(), dict[str, str]()
        everyone, told = asyncio.Event(), asyncio.Event()
        signaled = [float("inf")]
        inside = [_unary(here, f"wait {1 + n % 3}", f"u-{n}", tally, signaled) for n in range(WAITERS)]
        inside += [_hasty(here, n, tally, signaled, told) for n in range(HASTY)]
        watching = [_stream(here, f"wait {long if n % 2 else 3}", f"s-{n}", tasks, everyone) for n in range(STREAMS)]
        load = [asyncio.create_task(job) for job in inside]
        streams = [asyncio.create_task(job) for job in watching]
        both: list[asyncio.Task[Any]] = [*load, *streams]
        async with asyncio.timeout(20):
            await everyone.wait()
        await asyncio.sleep(0.3)
        began = time.monotonic()
        signaled[0] = began
        here.gateway.terminate()
        status = await here.gateway.ended(patience + EXIT_S)
        took = time.monotonic() - began
        told.set()
        await asyncio.wait(both, timeout=5)
        hanging = [job for job in both if not job.done()]
        for job in hanging:
            job.cancel()
        streamed = await asyncio.gather(*streams, return_exceptions=True)
        await asyncio.gather(*load, return_exceptions=True)
        ended = sum(end == "ended" for end in streamed)
        closed = sum(end == "closed" for end in streamed)
        print(f"  {tally.finished} unary answers, {tally.turned_away} turned away, {tally.late} too late")
        print(f"  {len(streamed)} streams: {ended} to their end, {closed} closed in good order")
        print(f"  exit status {_named(status)} after {took:.1f} s")
        torn = [f"{n}: {end!r}" for n, end in enumerate(streamed) if end not in ("ended", "closed")]
        await here.gateway.aclose()
        return [
            Result("0 requests in flight failed", not tally.failed, tally.failed[:10]),
            Result("no connection hangs after the exit", not hanging, [f"{len(hanging)} hang"]),
            Result("every stream ends in good order", not torn, torn[:10]),
            Result(f"the exit takes at most {EXIT_S:.0f} s", status is not None and took <= EXIT_S),
            Result("the exit status is 0", status == 0, [f"it is {_named(status)}", here.gateway.last_words()]),
            await _goes_on(here, tasks, long),
        ]


async def _unary(here: Town, text: str, id: str, tally: Tally, signaled: list[float]) -> None:
    asked = time.monotonic()
    try:
        await here.caller("alice").call(LOCAL, "SendMessage", {"message": _message(id, text)})
        tally.finished += 1
    except Refused as error:
        if error.reason in CLEAR:
            tally.turned_away += 1
        else:
            tally.failed.append(f"{id} ({text}): {error}")
    except Lost as error:
        if asked > signaled[0] - DOORWAY_S:
            tally.late += 1
        else:
            tally.failed.append(f"{id} ({text}), asked {signaled[0] - asked:.2f} s before the signal: {error}")


async def _hasty(here: Town, n: int, tally: Tally, signaled: list[float], told: asyncio.Event) -> None:
    count = 0
    while not told.is_set() and not tally.late:
        count += 1
        await _unary(here, f"hasty {n} {count}", f"h-{n}-{count}", tally, signaled)
        await asyncio.sleep(0.005)


async def _stream(here: Town, text: str, id: str, tasks: dict[str, str], everyone: asyncio.Event) -> str:
    """How the stream ended: `ended` with the task, `closed` in good order before. Tells when all are open."""
    caller: Caller = here.caller("alice")
    last = ""
    try:
        async for event in caller.stream(LOCAL, "SendStreamingMessage", {"message": _message(id, text)}):
            if "task" in event:
                tasks[id] = event["task"]["id"]
                if len(tasks) == STREAMS:
                    everyone.set()
            update = event.get("task") or event.get("statusUpdate")
            last = update["status"]["state"] if update else last
    except Refused as error:
        return "closed" if error.reason in CLEAR else str(error)
    return "ended" if last == "TASK_STATE_COMPLETED" else "closed"


async def _goes_on(here: Town, tasks: dict[str, str], long: int) -> Result:
    """After the next start every task of every stream completes."""
    await here.restart()
    caller = here.caller("alice")
    states: dict[str, str] = {}
    until = time.monotonic() + long + 15
    while time.monotonic() < until and set(states.values()) != {"TASK_STATE_COMPLETED"}:
        await asyncio.sleep(0.5)
        for id in tasks.values():
            if states.get(id) != "TASK_STATE_COMPLETED":
                states[id] = (await caller.call(LOCAL, "GetTask", {"id": id}))["status"]["state"]
    open_ends = [f"{id} is {state}" for id, state in states.items() if state != "TASK_STATE_COMPLETED"]
    return Result("the tasks go on after the next start and complete", not open_ends, open_ends[:10])


def _message(id: str, text: str) -> Json:
    return {"messageId": id, "role": "ROLE_USER", "parts": [{"text": text}]}


def _named(status: int | None) -> str:
    if status is None:
        return "none"
    return signal.Signals(-status).name if status < 0 else str(status)
