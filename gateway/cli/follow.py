"""Following a task to where it rests, through broken connections and restarts of the gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from gateway.cli.client import Events
from gateway.cli.exits import Unreachable
from gateway.cli.show import Progress

# Together as long as a restart of the gateway takes with a store to recover.
PAUSES = (0.2, 1.0, 2.0, 4.0, 8.0)

# A stream that lived so long was a working one, even if its task had nothing to say: the count starts anew.
_WORKING = 30.0


def follow(
    events: Events,
    again: Callable[[str], Events],
    progress: Progress,
    *,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Feed the events to `progress` until the task rests. When the stream breaks, `again(task_id)` opens one.

    Raises Unreachable when no stream comes to stay, and at once when the first broke before it named a task.
    """
    pauses = iter(PAUSES)
    while True:
        opened = now()
        try:
            with closing(events):
                for event in events:
                    if progress.take(event):
                        pauses = iter(PAUSES)
                    if progress.rests:
                        return
            broken = Unreachable("The stream ended before the task did.", sent=True)
        except Unreachable as error:
            broken = error
        if progress.task_id is None:
            raise broken
        if now() - opened > _WORKING:
            pauses = iter(PAUSES)
        if (pause := next(pauses, None)) is None:
            raise broken
        progress.aside(f"{broken} Subscribing again in {pause:g} s …")
        sleep(pause)
        events = again(progress.task_id)
