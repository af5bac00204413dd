"""Certificates that are read again when their files change. A part of app.py, in a room of its own.

Whoever renews them (an ACME client, SPIFFE's helper) writes new files every few hours or weeks, one after the other.
Files that do not fit together are no reason to stop: what was read before is used on, until they do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from gateway.model.problems import BadCertificate
from gateway.watching import Watch

log = logging.getLogger(__name__)


class Renewal:
    """Of one certificate. `what` is where the configuration names its files, `renew` reads and uses them, and raises
    BadCertificate. `unasked` is told of each time, with the problem."""

    def __init__(self, what: str, files: Iterable[Path], renew: Callable[[], Awaitable[None]]) -> None:
        self.unasked: Callable[[str, str | None], None] = lambda what, problem: None
        self._what = what
        self._renew = renew
        self._watch = Watch(f"certificate of {what}", self._again)
        self._watch.read(files)

    def start(self) -> None:
        self._watch.start()

    async def aclose(self) -> None:
        await self._watch.aclose()

    async def _again(self) -> None:
        problem = None
        try:
            await self._renew()
            log.info("%s: the files have changed, and new connections go by them", self._what)
        except BadCertificate as error:
            problem = str(error)
            log.error("%s: the files have changed and %s; what they said before is used on", self._what, problem)
        self.unasked(self._what, problem)
