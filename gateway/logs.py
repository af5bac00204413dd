"""One line per log record, whatever text is in it: what an upstream or a caller wrote cannot forge a line."""

from __future__ import annotations

import logging
import sys


class LineFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        trace = record.exc_info or record.stack_info
        text = super().format(record)
        head, _, rest = text.partition("\nTraceback (") if trace else (text, "", "")
        line = _escaped(head)
        if not rest:
            return line
        # A traceback keeps its lines, each marked as belonging to the record above it.
        return "\n".join([line, *(f"  | {_escaped(part)}" for part in ("Traceback (" + rest).splitlines())])


def _escaped(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape", "backslashreplace").decode("ascii")


def configure(level: int = logging.WARNING) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
