"""Checks of the operator's own: a function that gets a Subject and gives findings, `async` or not."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from gateway.model.compliance import Finding, Subject

MAX_THREADS = 4  # of one check: as many of its calls may hang, then the next ones wait for their timeout


class Own:
    """An ordinary function runs in a thread, so that one that computes, or blocks, holds up nobody else. When its time
    is over nobody waits for it any more, but only it can end its thread: threads are the check's own, so that one that
    hangs takes none from the gateway and keeps it from no end."""

    def __init__(self, function: Callable[[Subject], Any]) -> None:
        self._function = function
        self._asynchronous = inspect.iscoroutinefunction(function)
        self._free = asyncio.Semaphore(MAX_THREADS)

    async def find(self, subject: Subject) -> Iterable[Finding]:
        if self._asynchronous:
            found = await self._function(subject)
        else:
            found = await self._in_a_thread(subject)
        findings = tuple(found or ())
        if not all(isinstance(each, Finding) for each in findings):
            raise TypeError("a check gives a list of Finding")
        return findings

    async def _in_a_thread(self, subject: Subject) -> Any:
        await self._free.acquire()
        loop, context = asyncio.get_running_loop(), copy_context()
        future: asyncio.Future[Any] = loop.create_future()

        def work() -> None:
            found, failed = None, None
            try:
                found = context.run(self._function, subject)
            except BaseException as error:  # whatever it is, it is the check that failed, and not this thread
                failed = error
            with suppress(RuntimeError):  # the gateway has stopped meanwhile
                loop.call_soon_threadsafe(self._ended, future, found, failed)

        try:
            threading.Thread(target=work, name="compliance-check", daemon=True).start()
        except RuntimeError:
            self._free.release()
            raise
        return await future

    def _ended(self, future: asyncio.Future[Any], found: Any, failed: BaseException | None) -> None:
        self._free.release()
        if future.done():
            return  # its time was over
        if failed is None:
            future.set_result(found)
        else:
            future.set_exception(failed if isinstance(failed, Exception) else RuntimeError(repr(failed)))
