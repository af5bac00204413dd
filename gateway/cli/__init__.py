"""The program: `gateway serve` runs the gateway, every other command speaks to one that runs.

`grammar.py` holds all commands and names the function behind each; only the module of the command that was
asked for is imported, so `gateway --help` and `gateway send` stay quick.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

from gateway.cli.exits import Exit, Stop
from gateway.cli.grammar import parse
from gateway.cli.text import note

# What a shell reports for a program that SIGPIPE ended: our reader (`| head`) has seen enough.
_READER_LEFT = 128 + 13


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is its answer to programs (`exits.py`)."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # A terminal that cannot show a character gets its number, not a traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        module, function = options.run.split(":")
        code = int(getattr(importlib.import_module(f"gateway.cli.{module}"), function)(options))
        sys.stdout.flush()
        return code
    except SystemExit as end:  # argparse: the help was shown, or the words were wrong
        return end.code if isinstance(end.code, int) else Exit.USAGE
    except Stop as stop:
        note(f"gateway: {stop}")
        return stop.code
    except KeyboardInterrupt:
        note("")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes once more on its way out and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_LEFT
