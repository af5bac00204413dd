"""Requests to servers that are in flight, so that they can be called back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from gateway.model.errors import GatewayError
from gateway.model.principal import Principal


class Flight:
    """`with` it around the request: whoever calls it back makes it end with that error."""

    __slots__ = ("_flights", "_task", "address", "called_back", "who")

    def __init__(self, flights: Flights, who: Principal, address: str) -> None:
        self._flights = flights
        self._task: asyncio.Task[object] | None = None
        self.who = who
        self.address = address
        self.called_back: GatewayError | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        self._flights.there.add(self)

    def call_back(self, error: GatewayError) -> None:
        if self._task is not None and self.called_back is None:
            self.called_back = error
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._flights.there.discard(self)
        if self.called_back is None or self._task is None or not isinstance(error, asyncio.CancelledError):
            return
        if self._task.uncancel() == 0:  # nobody else wanted it canceled
            raise self.called_back from None


class Flights:
    def __init__(self) -> None:
        self.there: set[Flight] = set()

    def begin(self, who: Principal, address: str) -> Flight:
        return Flight(self, who, address)

    def call_back(self, chosen: Callable[[Flight], bool], error: Callable[[], GatewayError]) -> None:
        for flight in [each for each in self.there if chosen(each)]:
            flight.call_back(error())
