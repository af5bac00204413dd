"""Time on a machine that does something else, too."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Literal


class Stopwatch:
    """Begins when it is made."""

    def __init__(self) -> None:
        self._began, self._waited = time.monotonic(), in_line()

    def seconds(self, *children: int) -> float:
        """What has gone by, without the time in which this process, or one of these that it has started since, could
        have run and others had the processor. A duty like `within a second` holds in it however busy the machine is."""
        waited = in_line() - self._waited + sum(map(in_line, children))
        return time.monotonic() - self._began - waited


def in_line(pid: int | Literal["self"] = "self") -> float:
    """Seconds for which the threads of a process have stood in line for a processor. Linux counts them (schedstat, in
    its documentation of the scheduler); elsewhere 0."""
    waited = 0
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # it has ended since
                waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9
