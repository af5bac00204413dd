"""A server that keeps failing is left alone for a while: callers hear so at once, and it can recover in peace."""

from __future__ import annotations

from gateway.model.errors import GatewayError, Reason
from gateway.model.login import LoginNeeded
from gateway.model.tool import PeerError

MAX_FAILURES = 5  # in a row; a single lost connection is everyday life
PAUSES = (1, 5, 15, 60)  # seconds; then one call tries whether it is back

_FAILURES = frozenset({Reason.UPSTREAM_FAILED, Reason.UPSTREAM_TIMEOUT, Reason.UNAVAILABLE})


class Breaker:
    """`admit` before a call, then exactly one of `worked`, `failed` and `unknown` after it. Times are milliseconds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._failures = 0
        self._until = 0
        self._trying = False

    @property
    def open(self) -> bool:
        return self._failures >= MAX_FAILURES

    def admit(self, now: int) -> None:
        """Raises UNAVAILABLE while the server is left alone."""
        if not self.open:
            return
        if now < self._until or self._trying:
            wait = max(1.0, (self._until - now) / 1000)
            raise GatewayError(
                Reason.UNAVAILABLE,
                f"The MCP server {self._name} failed {self._failures} times in a row and rests for {wait:.0f} s",
                metadata={"server": self._name},
                retry_after=wait,
            )
        self._trying = True

    def worked(self) -> None:
        self._failures, self._trying = 0, False

    def failed(self, now: int) -> None:
        self._failures, self._trying = self._failures + 1, False
        if self.open:
            self._until = now + 1000 * PAUSES[min(self._failures - MAX_FAILURES, len(PAUSES) - 1)]

    def unknown(self) -> None:
        """The call ended before the server could show anything, as when its caller left."""
        self._trying = False

    def heard(self, error: GatewayError, now: int) -> None:
        """An answer that refuses is an answer: only silence and nonsense count."""
        if isinstance(error, LoginNeeded):
            self.unknown()  # it waits for a person, and its own sentence says so better than a pause would
        elif isinstance(error, PeerError) or error.reason not in _FAILURES:
            self.worked()
        else:
            self.failed(now)
