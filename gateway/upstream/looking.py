"""A task that goes on elsewhere: it is looked at until it ends, and what is said when nobody can tell how it did."""

from __future__ import annotations

from collections.abc import Awaitable

from gateway.dialects.paths import Unaddressable
from gateway.model.agent import Context
from gateway.model.errors import GatewayError, Reason
from gateway.model.login import LoginNeeded
from gateway.model.task import Event, Task

# So many looks in a row may fail (27 s in all) before the task fails: a restart of the agent is survived.
MAX_FAILURES = 8


class Looks:
    """At one task of an agent, which calls it a `noun`."""

    def __init__(self, noun: str = "task") -> None:
        self._noun = noun
        self._failures = 0

    async def take(self, look: Awaitable[Task]) -> Task | None:
        """The task as it is now; None when that could not be told, and may be the next time. Raises UPSTREAM_FAILED
        when it never will be, and Unaddressable."""
        try:
            task = await look
        except LoginNeeded as needed:
            needed.following = True
            raise
        except Unaddressable:
            raise
        except GatewayError as error:
            self._failures += 1
            if error.reason is Reason.TASK_NOT_FOUND or self._failures > MAX_FAILURES:
                raise self._lost(error) from error
            return None
        self._failures = 0
        return task

    def _lost(self, error: GatewayError) -> GatewayError:
        if error.reason is Reason.TASK_NOT_FOUND:
            what = f"The agent no longer knows this {self._noun}; how it ended is not known"
        else:
            what = f"Contact with the agent was lost; how the {self._noun} ends is not known ({error.message})"
        return GatewayError(Reason.UPSTREAM_FAILED, what)


def unknown(context: Context, error: GatewayError) -> Event:
    """The end of a task whose message was sent, once, and never answered: it is not sent again, and a repeat of it
    finds this."""
    said = f"{error.message}; whether the agent did the work is not known"
    return context.failed(said, reason="unknown-outcome")
