"""What all tests share: a process that can be interrupted, and a port for whoever needs one."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.ports import reserved

# A shell without job control lets its background jobs ignore Ctrl-C, and children inherit that. Tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def port() -> Iterator[int]:
    """Where the test may listen, stop and listen again."""
    with reserved() as port:
        yield port
