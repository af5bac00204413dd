"""What all tests share: a process that can be interrupted, examples that are the same each time, and a port."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.ports import reserved

# A shell without job control lets its background jobs ignore Ctrl-C, and children inherit that. Tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is, and what chance finds fails a change that has no part in it.
# Whoever looks for new examples says --hypothesis-profile=default.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


@pytest.fixture
def port() -> Iterator[int]:
    """Where the test may listen, stop and listen again."""
    with reserved() as port:
        yield port
