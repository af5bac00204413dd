"""Checks of the operator's own: a function that gets a Subject and gives findings, `async` or not."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from gateway.model.compliance import Finding, Subject


class Own:
    """An ordinary function runs in a thread, so that one that computes, or blocks, holds up nobody else. (When its time
    is over nobody waits for it any more, but only it can end its thread.)"""

    def __init__(self, function: Callable[[Subject], Any]) -> None:
        self._function = function
        self._asynchronous = inspect.iscoroutinefunction(function)

    async def find(self, subject: Subject) -> Iterable[Finding]:
        if self._asynchronous:
            found = await self._function(subject)
        else:
            found = await asyncio.to_thread(self._function, subject)
        findings = tuple(found or ())
        if not all(isinstance(each, Finding) for each in findings):
            raise TypeError("a check gives a list of Finding")
        return findings
