"""Several endpoints of one agent as one: who gets a new message, and who gets it when that one cannot be reached.

A message moves on to the next endpoint only when it certainly never left: once a byte of it is out, the work may have
been done, and doing it twice is worse than not knowing. Whoever has a task keeps it, and a conversation goes on where
it began, if that endpoint is there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from gateway.model.agent import Agent, Context
from gateway.model.errors import GatewayError
from gateway.model.message import Message
from gateway.model.rows import Balance
from gateway.model.task import Event

log = logging.getLogger(__name__)

# An endpoint that could not be reached is asked last for so long: a restart takes about that, and if all are down
# none is spared.
REST_SECONDS = 10.0


class Endpoint(Agent, Protocol):
    """An agent behind one interface, or several of them."""

    def serves(self, url: str) -> bool:
        """Whether tasks and contexts of this interface are its own."""
        ...


@dataclass(slots=True)
class _Place:
    endpoint: Endpoint
    running: int = 0
    rests_until: float = 0.0  # loop time


class Replicas:
    """`how` is None for endpoints in an order of preference: the first that can be reached."""

    resumable = False

    def __init__(self, endpoints: Sequence[Endpoint], how: Balance | None) -> None:
        self._places = [_Place(endpoint) for endpoint in endpoints]
        self._how = how
        self._turn = 0

    def serves(self, url: str) -> bool:
        return any(place.endpoint.serves(url) for place in self._places)

    async def run(self, context: Context, message: Message) -> AsyncGenerator[Event, None]:
        places = self._places_for(context)
        for place in places:
            began = False
            place.running += 1
            try:
                async with aclosing(_generator(place.endpoint.run(context, message))) as events:
                    async for event in events:
                        began = True
                        yield event
                return
            except GatewayError as error:
                if began or error.metadata.get("delivered") != "no":
                    raise
                place.rests_until = asyncio.get_running_loop().time() + REST_SECONDS
                if place is places[-1]:
                    raise
                log.warning("task %s goes to another endpoint: %s", context.task_id, error.message)
            finally:
                place.running -= 1

    def follow(self, context: Context) -> AsyncIterator[Event]:
        return self._owner(context).endpoint.follow(context)

    async def cancel(self, context: Context) -> Event | None:
        return await self._owner(context).endpoint.cancel(context)

    async def aclose(self) -> None:
        for place in self._places:
            await place.endpoint.aclose()

    def _owner(self, context: Context) -> _Place:
        """Where the task is; the first endpoint, if the one that gave it its id is no longer on any card."""
        return self._found(context) or self._places[0]

    def _found(self, context: Context) -> _Place | None:
        url = context.upstream.url if context.upstream is not None else ""
        return next((place for place in self._places if place.endpoint.serves(url)), None)

    def _places_for(self, context: Context) -> list[_Place]:
        """The endpoints that may get the message, in the order in which they are tried."""
        if context.upstream is not None and context.upstream.task_id is not None:
            return [self._owner(context)]
        now = asyncio.get_running_loop().time()
        home = self._found(context)
        ready = [place for place in self._places if place.rests_until <= now]
        tired = [place for place in self._places if place.rests_until > now]
        first = [home, *(place for place in ready if place is not home)] if home in ready else self._ordered(ready)
        return [*first, *sorted(tired, key=lambda place: place.rests_until)]

    def _ordered(self, places: list[_Place]) -> list[_Place]:
        if self._how is None or not places:
            return places
        self._turn += 1
        start = self._turn % len(places)
        turned = [*places[start:], *places[:start]]
        if self._how is Balance.ROUND_ROBIN:
            return turned
        return sorted(turned, key=lambda place: place.running)  # stable: equals take turns


async def _generator(events: AsyncIterator[Event]) -> AsyncGenerator[Event, None]:
    """What can be closed, whatever it is."""
    if isinstance(events, AsyncGenerator):
        async with aclosing(events):
            async for event in events:
                yield event
    else:
        async for event in events:
            yield event
