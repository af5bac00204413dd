"""What policy is asked: who wants to do what, to what, with what, and where things stand meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NamedTuple

from gateway.core.policy.actions import AGENT_VERBS
from gateway.core.policy.patterns import AGENTS
from gateway.model.principal import Principal
from gateway.model.value import value


class Target(NamedTuple):
    """What a call is about, as far as rules look at it."""

    id: str
    public: bool = False
    worker: str | None = None  # the id of the principal that may report for this agent
    permissions: frozenset[str] = frozenset()  # what a caller must hold besides a grant (tools)
    skill: str = ""  # of an agent, where a message names one
    destructive: bool = False  # a tool that says so of itself


def address(verb: str, target: Target) -> str:
    """The target as rules write it: `agents/NAME`, `agents/NAME/SKILL`, `server/tool`, `gateway`."""
    return "/".join(place(verb, target)) if verb in AGENT_VERBS else target.id


def place(verb: str, target: Target) -> tuple[str, str]:
    """What stands before the first slash of the address, and behind it."""
    if verb not in AGENT_VERBS:
        server, _, name = target.id.partition("/")
        return server, name
    return AGENTS, f"{target.id}/{target.skill}" if target.skill else target.id


@value
class Situation:
    """Where things stand: the time (milliseconds since the epoch), the conversation and the labels that it has
    gathered, and how much of a limit is used (its name -> 0 … 1)."""

    at: int = 0
    labels: frozenset[str] = frozenset()
    conversation: str = ""
    used: Callable[[str, Question], float] = field(default=lambda limit, question: 0.0, hash=False)


class Question(NamedTuple):
    who: Principal
    verb: str
    target: Target
    arguments: Mapping[str, Any]
    situation: Situation

    @property
    def address(self) -> str:
        return address(self.verb, self.target)
