"""Timers that all wait equally long."""

from __future__ import annotations

import asyncio

from gateway.core.timers import Timers

SOON = 0.01
BOUND = 30.0


async def test_timers_go_off_in_the_order_in_which_they_were_started() -> None:
    timers, heard, last = Timers(SOON), list[int](), asyncio.Event()
    started = [timers.start(lambda number=number: heard.append(number)) for number in range(3)]  # type: ignore[misc]
    timers.start(last.set)
    await asyncio.wait_for(last.wait(), BOUND)
    assert heard == [0, 1, 2]
    assert all(timer.expired for timer in started)


async def test_a_canceled_timer_stays_silent_and_holds_nobody_up() -> None:
    timers, heard, last = Timers(SOON), list[str](), asyncio.Event()
    canceled = timers.start(lambda: heard.append("canceled"))
    timers.start(lambda: heard.append("kept"))
    timers.start(last.set)
    canceled.cancel()
    await asyncio.wait_for(last.wait(), BOUND)
    assert heard == ["kept"]
    assert not canceled.expired


async def test_a_timer_may_start_another_one() -> None:
    timers, second = Timers(SOON), asyncio.Event()
    timers.start(lambda: timers.start(second.set))
    await asyncio.wait_for(second.wait(), BOUND)


async def test_canceled_timers_do_not_pile_up() -> None:
    timers = Timers(3600)
    for _ in range(1000):
        timers.start(lambda: None).cancel()
    assert len(timers._running) == 1
    timers.close()


async def test_a_closed_clock_is_silent() -> None:
    timers, heard = Timers(SOON), list[str]()
    timers.start(lambda: heard.append("no"))
    timers.close()
    other, last = Timers(SOON * 2), asyncio.Event()
    other.start(last.set)
    await asyncio.wait_for(last.wait(), BOUND)
    assert heard == []
