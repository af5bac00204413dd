"""What the tests kill, starve and lock out: `python -m tests.stores.child commit|hold|starve PATH [FIRST]`.

Writes one line to stdout for each acknowledged commit: its request id.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

from gateway.model.errors import GatewayError
from gateway.stores import reservations
from gateway.stores.sqlite import SqliteStore, open_sqlite
from tests.stores.contract import NODE, NOW, entry, key, new_task, reserve

STARVED_AT = 1_000_000


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def commit_forever(store: SqliteStore, first: int) -> None:
    """Accept tasks from eight callers at once until somebody kills us, in the middle of a merge as like as not."""
    reservations.MERGE_SIZE, reservations.MERGE_STEP = 100, 10
    numbers = count(first)

    async def caller() -> None:
        for n in numbers:
            id = f"task-{n}"
            change = new_task(id, key=key(id))
            await store.commit(reserve(key(id), task_id=id), change, records=[entry(id)])
            say(id)

    await asyncio.gather(*(caller() for _ in range(8)))


async def hold(store: SqliteStore, first: int) -> None:
    """Keep the lock until stdin ends."""
    say("open")
    await asyncio.to_thread(sys.stdin.read)


async def starve(store: SqliteStore, first: int) -> None:
    """Commit until the file may not grow any more, then try once again with little."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (STARVED_AT, resource.RLIM_INFINITY))
    try:
        for n in count(first):
            await store.commit(records=[entry(f"req-{n}", outcome="x" * 10_000)])
            say(f"req-{n}")
    except GatewayError as error:
        say(error.reason)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    try:
        await store.commit(records=[entry("after")])
    except GatewayError as error:
        say(error.message)
    store.later(records=[entry("much later")])
    await store.aclose()


MODES: dict[str, Callable[[SqliteStore, int], Awaitable[None]]] = {
    "commit": commit_forever,
    "hold": hold,
    "starve": starve,
}


async def main(mode: str, path: str, first: str = "0") -> None:
    store = await open_sqlite(Path(path), now=lambda: NOW, node=NODE)
    await MODES[mode](store, int(first))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
