"""What somebody owns, where a call names a task and no agent: policy is asked about the agent that the task is at."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.registry import Registered, Registry
from gateway.model.errors import GatewayError, Reason, task_not_found
from gateway.model.principal import Principal

Judge = Callable[[Principal, str, Registered], GatewayError | None]
"""Why a caller may not use a verb on an agent: NOT_FOUND where the agent does not exist for them."""


class Owned:
    def __init__(self, registry: Registry, judge: Judge) -> None:
        self._registry = registry
        self._judge = judge

    def refusal(self, who: Principal, verb: str, agent: str, task_id: str) -> GatewayError | None:
        """Why the task is not for its owner. TASK_NOT_FOUND where its agent does not exist for them."""
        entry = self._registry.get(agent)
        error = None if entry is None else self._judge(who, verb, entry)
        if entry is None or (error is not None and error.reason is Reason.NOT_FOUND):
            return task_not_found(task_id)
        return error
