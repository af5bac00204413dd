"""States and roles: 1.0's words, and the two ways in which 0.3 writes them (0.3.0 §6.3, §6.4; a2a.proto of 0.3.0)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.model.message import Role
from gateway.model.task import TaskState

# JSON-RPC writes the words of types.ts. 0.3's `unknown` has no twin: a task of which nobody can say how it stands is
# no task that a state machine can hold, so it is refused where a state is validated.
STATES: Mapping[str, str] = {state: state.removeprefix("TASK_STATE_").lower().replace("_", "-") for state in TaskState}
ROLES: Mapping[str, str] = {Role.USER: "user", Role.AGENT: "agent"}

# HTTP+JSON writes those of a2a.proto, which spells one state otherwise than 1.0.
PROTO_STATES: Mapping[str, str] = {state: state for state in TaskState} | {
    TaskState.CANCELED: "TASK_STATE_CANCELLED",
}
PROTO_ROLES: Mapping[str, str] = {role: role for role in Role}


def word(table: Mapping[str, str], value: Any) -> Any:
    """The other version's word; what the table does not know stays, for validation to refuse."""
    return str(table.get(value, value)) if isinstance(value, str) else value


def reversed_words(table: Mapping[str, str]) -> dict[str, str]:
    return {theirs: str(ours) for ours, theirs in table.items()}
