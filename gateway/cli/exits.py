"""How a command ends: the codes that programs rely on, and the one exception that ends it early."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    WAITING = 3
    UNREACHABLE = 4
    INTERRUPTED = 130


MEANING: dict[Exit, str] = {
    Exit.DONE: "Done. For `send` and `tasks watch`: the task completed, or a message was the answer.",
    Exit.FAILED: "The gateway refused and said why, or the task failed, was rejected or was canceled.",
    Exit.USAGE: "The command line is wrong, or `serve` could not start. Nothing was done.",
    Exit.WAITING: "The task waits for input or for authorization; the command to answer with is shown.",
    Exit.UNREACHABLE: "No gateway answered at GATEWAY_URL, or the connection broke and did not come back.",
    Exit.INTERRUPTED: "Ctrl-C. A task that was being followed goes on; how to watch or cancel it is shown.",
}


class Stop(Exception):
    """Ends the command with a sentence for the person and a code for the program."""

    def __init__(self, sentence: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(sentence)
        self.code = code


class Refused(Stop):
    """The gateway answered that it will not. `reason` is its word for programs, where it gave one."""

    def __init__(self, sentence: str, status: int, reason: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.reason = reason


class Unreachable(Stop):
    """No answer came. `sent` says that the request may have arrived all the same."""

    def __init__(self, sentence: str, *, sent: bool) -> None:
        super().__init__(sentence, Exit.UNREACHABLE)
        self.sent = sent
