"""What somebody owns, where a call names a task and no agent: policy and limits are asked about the agent that the task
is at, once it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.core.audit import Ticket
from gateway.core.policy import Policy
from gateway.core.policy.refusals import refused
from gateway.core.policy.rules import HOPEFUL
from gateway.core.registry import Registered, Registry
from gateway.model.errors import GatewayError, task_not_found
from gateway.model.principal import Principal
from gateway.model.rows import TaskRow


class Owned:
    """`may_see` says whether somebody may know of an agent: tasks at one that they may not are as good as missing."""

    def __init__(self, registry: Registry, policy: Policy, may_see: Callable[[Principal, Registered], bool]) -> None:
        self._registry = registry
        self._policy = policy
        self._may_see = may_see

    def enter(self, ticket: Ticket, agent: str, task_id: str) -> None:
        """Raises what keeps the call from the task: a rule, or a limit."""
        if (refusal := self.refusal(ticket, agent, task_id)) is not None:
            raise refusal
        self.charge(ticket, agent)

    def refusal(self, ticket: Ticket, agent: str, task_id: str) -> GatewayError | None:
        """Why policy keeps the task from its owner. TASK_NOT_FOUND where its agent does not exist for them."""
        who, verb, entry = ticket.principal, ticket.verb, self._entry(agent)
        decision = self._policy.decide(who, verb, entry.target)
        if decision.allowed:
            return None
        seen = decision.verdict in HOPEFUL or bool(decision.scopes) or self._may_see(who, entry)
        return refused(decision, who, verb) if seen else task_not_found(task_id)

    def among(self, ticket: Ticket, rows: Iterable[TaskRow]) -> list[TaskRow]:
        """Those that policy leaves. Raises GatewayError when a limit on one of their agents has not enough."""
        left = [row for row in rows if self.refusal(ticket, row.agent, row.id) is None]
        for agent in dict.fromkeys(row.agent for row in left):
            self.charge(ticket, agent)
        return left

    def charge(self, ticket: Ticket, agent: str) -> None:
        """What the call takes of limits on the agent. Raises GatewayError when there is not enough."""
        if ticket.charge is not None:
            ticket.charge.admit(ticket.principal, ticket.verb, self._entry(agent).target)

    def _entry(self, agent: str) -> Registered:
        """Rules go on speaking of an agent that is gone."""
        return self._registry.get(agent) or self._registry.unknown(agent)
