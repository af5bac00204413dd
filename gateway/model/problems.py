"""Why the gateway cannot start, said so that the operator can put it right.

Whatever stands between `gateway serve` and a listening socket is a `StartError`: the command shows its
problems, one per line and without a traceback, and exits with 2. Anything else raised there is our own fault.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to put right. `where` is `file:line: field`, a path or an address: where to look."""

    where: str
    reason: str
    hint: str = ""

    def __str__(self) -> str:
        sentence = f"{self.where}: {self.reason}" if self.where else self.reason
        return f"{sentence} — {self.hint}" if self.hint else sentence


class StartError(Exception):
    """The gateway cannot start. Carries every problem that was found, never only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class BadCertificate(Exception):
    """Files of a certificate that cannot be used; the sentence says why."""
