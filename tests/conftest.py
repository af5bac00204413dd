"""What all tests share: nothing but a process that can be interrupted."""

from __future__ import annotations

import signal

# A shell without job control lets its background jobs ignore Ctrl-C, and children inherit that. Tests send it to them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
