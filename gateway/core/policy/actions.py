"""Everything that can be done, by the names that rules and the audit use, and words for groups of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from gateway.model.approval import Answering
from gateway.model.call import Call, PullTasks, SubmitResult
from gateway.model.sharing import SharingCall
from gateway.model.toolcall import OperatorCall

SHARE = frozenset(each.verb for each in get_args(SharingCall))
# What only ever touches one agent and the caller's own tasks there.
USE = frozenset(
    {
        "GetAgentCard",
        "SendMessage",
        "GetTask",
        "ListTasks",
        "CancelTask",
        "SubscribeToTask",
        "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig",
        "ListTaskPushNotificationConfigs",
        "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
        *SHARE,
    }
)
WORK = frozenset({SubmitResult.verb, PullTasks.verb})
AGENT_VERBS = USE | WORK
SERVER_VERBS = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Completion belongs to what it completes and is decided as that; `tasks/*` belong to the tool that made the task."""

ANSWERS = frozenset(each.verb for each in get_args(Answering))
"""What is said to a call that waits for an approval. Its target is that call's: `agents/NAME`, `server/tool`."""

CALLS = frozenset({"SendMessage", "tools/call"})
WAITING = CALLS | SERVER_VERBS
"""What waits where a rule says ESCALATE; anything else is refused then."""


def _verbs(*unions: Any) -> Iterable[str]:
    return (each.verb for union in unions for each in get_args(union))


OPERATE = frozenset(_verbs(Call, OperatorCall)) - AGENT_VERBS
VERBS = AGENT_VERBS | SERVER_VERBS | OPERATE

DELEGATE = "delegate"
"""A call that an agent makes on somebody's behalf: the verbs of `call`, one hop or more from the first caller."""

GROUPS: Mapping[str, frozenset[str]] = {
    "call": CALLS,
    DELEGATE: CALLS,
    "use": USE | SERVER_VERBS,
    "share": SHARE,
    "work": WORK,
    "register": frozenset({"AddAgent", "ChangeAgent", "RemoveAgent"}),
    "approve": frozenset({"ApproveTools", *ANSWERS}),
    "administer": OPERATE,
}
