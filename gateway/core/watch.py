"""Watching one task: the task as it stands, then what follows, to the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.core.live import Subscription
from gateway.model.message import Message
from gateway.model.rows import Record
from gateway.model.task import StatusUpdate, Task, TaskState, envelope


class Lease(Protocol):
    """What lets somebody watch a task of `owner`'s."""

    owner: str

    def holds(self) -> bool: ...

    def close(self) -> None:
        """The stream is over."""
        ...


class Followed:
    """What ends a stream of a task's news before the task does: its reader leaves, or its lease is over."""

    lent: Lease | None = None

    def __init__(self, subscription: Subscription | None) -> None:
        self._subscription = subscription

    def end(self) -> None:
        """No more news for this reader."""
        if self._subscription is not None:
            self._subscription.end()

    async def aclose(self) -> None:
        if self._subscription is not None:
            self._subscription.close()
        if self.lent is not None:
            self.lent.close()

    def _may_go_on(self) -> bool:
        return self.lent is None or self.lent.holds()


class Watch(Followed):
    """An async iterator of groups of records; a group is what one commit made durable.

    An empty group says that there is no news yet (a heartbeat). `aclose` lets the task go on unwatched; it must be
    called whether or not anything was read. Raises GatewayError(OVERLOADED) when the reader was too slow.

    `first` is the task as it stands, or a Message that is all there is; without it, the task's own creation is
    still to come. `history_length` trims what is shown of a whole task. `until_pause` ends the watch when the task
    asks for input: the answer to a message is a turn, a subscription lasts until the task does (A2A §3.1.2, §3.1.6;
    docs/adr). With a lease the watch ends when that does.
    """

    def __init__(
        self,
        subscription: Subscription | None,
        first: Record | None,
        *,
        until_pause: bool = False,
        history_length: int | None = None,
    ) -> None:
        super().__init__(subscription)
        self._first = first
        self._until_pause = until_pause
        self._history_length = history_length
        self._seen = 0
        self._over = False

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Sequence[Record]:
        if self._first is not None and self._may_go_on():
            first, self._first = self._first, None
            self._seen = first.seq
            self._over = isinstance(first.event, Task) and first.event.status.state.terminal
            return (self._view(first),)
        while not self._over and self._subscription is not None and self._may_go_on():
            news = await self._subscription.next()
            if news is None or not self._may_go_on():
                break
            # What was written between listening and reading is in both; history entries are not for the wire.
            group = [record for record in news if record.seq > self._seen and not isinstance(record.event, Message)]
            self._over = any(self._ends(record) for record in group)
            if group or not news:
                return [self._view(record) for record in group] if self._history_length is not None else group
        raise StopAsyncIteration

    def _view(self, record: Record) -> Record:
        """Never more history than asked for (§3.2.4)."""
        if self._history_length is None or not isinstance(record.event, Task):
            return record
        task = record.event.trimmed(self._history_length)
        return Record(record.seq, task, envelope(task))

    def _ends(self, record: Record) -> bool:
        if not isinstance(record.event, Task | StatusUpdate):
            return False
        state = record.event.status.state
        return state.terminal or (self._until_pause and state is TaskState.INPUT_REQUIRED)


class Replay(Followed):
    """A task's whole log, as groups of records like a `Watch`: first what is written, then what comes, its history
    entries included, until the task rests (terminal, or waiting for somebody)."""

    def __init__(self, agent: str, subscription: Subscription, written: Sequence[Record]) -> None:
        super().__init__(subscription)
        self.agent = agent
        self._news = subscription
        self._written = written
        self._seen = written[-1].seq if written else 0
        self._over = _rests(written)

    def __aiter__(self) -> Replay:
        return self

    async def __anext__(self) -> Sequence[Record]:
        if self._written and self._may_go_on():
            written, self._written = self._written, ()
            return written
        while not self._over and self._may_go_on():
            news = await self._news.next()
            if news is None or not self._may_go_on():
                break
            group = [record for record in news if record.seq > self._seen]
            self._over = _rests(group)
            if group or not news:
                return group
        raise StopAsyncIteration


def _rests(records: Sequence[Record]) -> bool:
    """Whether the task rests after these; without a word about its state it goes on as it did."""
    for record in reversed(records):
        if isinstance(record.event, Task | StatusUpdate):
            state = record.event.status.state
            return state.terminal or state.interrupted
    return False
