"""One exchange with a server: its answer as far as it has arrived, and the ways in which it can come to nothing."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

CLOSED: Final = "closed the connection before its answer was complete"
MALFORMED: Final = "did not answer with well-formed HTTP"
LATE: Final = "did not answer in time"
UNASKED: Final = "sent an answer to a question that nobody had asked"


class Failed(Exception):
    """An exchange that came to nothing. `what` completes a sentence that begins with the host.

    `sent` is False when certainly no byte of the request has left; `late` when a deadline has passed; `stale` when a
    connection that had served before broke without a byte of this answer, as one does that its server had given up.
    """

    def __init__(self, what: str, *, sent: bool = True, late: bool = False, stale: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.sent = sent
        self.late = late
        self.stale = stale


# What a server does, many a one without a word, that does not take the certificate which it was shown.
UNCERTIFIED = "as one does that wants another client certificate"


def refused_certificate(error: BaseException | None) -> str | None:
    """What a TLS alert says of the certificate that we have shown, or have not (RFC 8446 §6.2); None for anything else.
    With TLS 1.3 it comes after the handshake, in place of the answer."""
    reason = getattr(error, "reason", None)
    _, alert, what = reason.partition("_ALERT_") if isinstance(reason, str) else ("", "", "")
    said = what.replace("_", " ").lower()
    if not alert or not ("certificate" in said or said in ("unknown ca", "access denied", "handshake failure")):
        return None
    return f"did not accept the gateway's client certificate: {said}"


class Line(Protocol):
    """The connection of an exchange, as the exchange sees it. Each of these does nothing when the exchange is over."""

    async def wait(self, exchange: Exchange, until: float) -> None: ...

    def read_on(self, exchange: Exchange) -> None: ...

    def give_up(self, exchange: Exchange) -> None: ...


class Exchange:
    """One answer, as far as it has arrived.

    `status`, `headers` and `length` (bytes that were announced) stand when the head is complete. Header names are
    lower-case, fields of one name are joined (RFC 9110 §5.3), bytes beyond ASCII read as Latin-1.
    """

    __slots__ = (
        "_first", "_rest", "asked_head", "connection", "ended", "enough", "failure", "headers", "length", "size",
        "status", "until_close", "waiter",
    )  # fmt: skip

    def __init__(self, connection: Line, *, enough: int, asked_head: bool) -> None:
        self.connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}
        self.length: int | None = None
        self.asked_head = asked_head  # an answer to HEAD has no body, whatever its head announces
        self.until_close = False  # its body has no other end than that of the connection
        self.enough = enough  # the waiter wakes when so many bytes wait to be taken
        self.size = 0  # how many do
        self.ended = False
        self.failure: Failed | None = None
        self.waiter: asyncio.Future[None] | None = None
        # What waits. Not a list of pieces: of two bytes that come as a chunk it would keep forty.
        self._first = b""
        self._rest = bytearray()

    def put(self, data: bytes) -> None:
        if self.size:
            self._rest += data
        else:
            self._first = data
        self.size += len(data)

    def take(self) -> bytes:
        """All that has arrived and was not taken before; b"" when that is nothing."""
        # Of one read: what it brought itself, not a copy.
        data = self._first + self._rest if self._rest else self._first
        self._first, self._rest, self.size = b"", bytearray(), 0
        self.connection.read_on(self)
        return data

    async def more(self, enough: int, until: float) -> None:
        """Wait until `enough` bytes can be taken, the answer has ended or failed. It fails at `until` (loop time)."""
        if self.size < enough and not self.ended and self.failure is None:
            self.enough = enough
            await self.connection.wait(self, until)

    def leave(self) -> None:
        """Nothing more of it is wanted: closes the connection, unless the answer has ended."""
        self.connection.give_up(self)
