"""What stands in the audit log, as the page docs/reference/audit.md has it; `tests/test_docs.py` holds it against the
code: every name that an entry can have as its action is in this table, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.core.gateway import changes
from gateway.core.policy.actions import VERBS

ROOT = Path(__file__).parent.parent

BOTH = "begun, then how it ended"
ONE = "one"
WITH = "one, in the transaction that changes it"

_TOOLS = "`request.digest`, `request.length`, `upstream.hash`, `marks`"
_CHANGE = "`change` with `before` and `after`"
_SHARED = "of a task that is shared with the caller: `task`, and `decision.reason` with its owner"
_OWN = "the gateway itself (`local:gateway`)"

# The action: when, how many entries, and which fields it has beside those of every entry.
EVENTS: dict[str, tuple[str, str, str]] = {
    # Calls of agents.
    "SendMessage": (
        "a message is accepted, and its task rests or its answer is there",
        BOTH,
        f"`task`, {_TOOLS}",
    ),
    "CancelTask": ("a task is to be stopped", BOTH, "`task`"),
    "GetTask": ("a task, its result or its log is read", ONE, _SHARED),
    "ListTasks": ("tasks are listed", ONE, ""),
    "SubscribeToTask": ("a task's events are followed, once per stream", ONE, _SHARED),
    "ShareTask": ("somebody else may read a task, or up to another time", WITH, _CHANGE),
    "UnshareTask": ("they may not any more", WITH, _CHANGE),
    "ListShares": ("who may read a task is listed", ONE, ""),
    "GetAgentCard": ("never: the question whether a card may be seen leaves no entry", "none", ""),
    "GetExtendedAgentCard": ("the card for those who are known is read", ONE, "`upstream.hash`"),
    "CreateTaskPushNotificationConfig": ("a webhook is to be told of a task", WITH, _CHANGE),
    "GetTaskPushNotificationConfig": ("a webhook's configuration is read", ONE, ""),
    "ListTaskPushNotificationConfigs": ("a task's webhooks are listed", ONE, ""),
    "DeleteTaskPushNotificationConfig": (
        "a webhook is not told any more; or it has answered 410 (`gone`)",
        WITH,
        _CHANGE,
    ),
    "PullTasks": ("a worker takes tasks", ONE, ""),
    "SubmitResult": ("a worker gives a result", ONE, ""),
    # Calls of tools.
    "tools/call": ("a tool is called, by a client or by an agent", BOTH, _TOOLS),
    "prompts/get": ("a prompt is read", BOTH, _TOOLS),
    "resources/read": ("a resource is read", BOTH, _TOOLS),
    "completion/complete": ("an argument is completed", BOTH, _TOOLS),
    "tasks/get": ("a task of a tool is asked after", BOTH, ""),
    "tasks/update": ("a task of a tool gets an answer", BOTH, ""),
    "tasks/cancel": ("a task of a tool is to be stopped", BOTH, ""),
    "tools/list": ("tools are listed", ONE, ""),
    "prompts/list": ("prompts are listed", ONE, ""),
    "resources/list": ("resources are listed", ONE, ""),
    "resources/templates/list": ("templates are listed", ONE, ""),
    "server/discover": ("a client asks what a mount offers", ONE, ""),
    "subscriptions/listen": ("a client listens for changes, once per stream", ONE, ""),
    # The operator.
    "AddAgent": ("an agent is registered", BOTH, _CHANGE),
    "ChangeAgent": ("servers or keys of an agent are changed", BOTH, _CHANGE),
    "RemoveAgent": ("an agent is taken out", WITH, _CHANGE),
    "ListAgents": ("agents are listed", ONE, ""),
    "ShowCard": ("a card is shown with what was found", ONE, ""),
    "VerifyCard": ("a card is fetched and verified", BOTH, ""),
    "AcceptCard": ("what a changed card says is accepted", BOTH, _CHANGE),
    "RefreshCard": (
        "a card was read again and says something else (`changed`), or is not taken (`refused`)",
        ONE,
        _CHANGE,
    ),
    "AddKey": ("an API key is made", WITH, _CHANGE),
    "ListKeys": ("keys are listed", ONE, ""),
    "RevokeKey": ("a key is taken back", WITH, _CHANGE),
    "AddClient": ("an OAuth client is made", WITH, _CHANGE),
    "InviteClient": ("an invitation for a client is made, before it is shown", ONE, ""),
    "ListClients": ("clients are listed", ONE, ""),
    "RotateClient": ("a client gets another secret", WITH, _CHANGE),
    "RevokeClient": ("a client is taken back, and all that it was given", WITH, _CHANGE),
    "AddUser": ("a person gets a password", WITH, _CHANGE),
    "ListUsers": ("people are listed", ONE, ""),
    "RemoveUser": ("a person is taken out", WITH, _CHANGE),
    "SetPassword": ("a person gets another password", WITH, _CHANGE),
    "ListGrants": ("what people have allowed clients is listed", ONE, ""),
    "RemoveGrant": ("it is ended", WITH, _CHANGE),
    "ListConnections": ("what callers have authorized elsewhere is listed, by an operator or by its owner", ONE, ""),
    "RemoveConnection": ("it is ended, by an operator or by its owner", BOTH, _CHANGE),
    "ListServers": ("tool servers are listed", ONE, ""),
    "ApproveTools": ("tools are let out of quarantine", WITH, _CHANGE),
    "ReloadTools": (
        "tools, mounts and grants of the file are read again",
        BOTH,
        "`change` with the grants that are gone and those that are new",
    ),
    "ListApprovals": ("calls that wait for a person are listed", ONE, ""),
    "ShowApproval": ("one of them is shown", ONE, ""),
    "ApproveCall": ("a call that waits is approved", WITH, "`object` is what is called"),
    "EditCall": ("a call that waits is approved with other arguments", WITH, "`object` is what is called"),
    "RejectCall": ("a call that waits is rejected", WITH, "`object` is what is called"),
    "BeginLogin": ("an authorization at a tool server is asked for", BOTH, ""),
    "FinishLogin": ("it is there", BOTH, ""),
    "ForgetLogin": ("it is forgotten", BOTH, ""),
    "ShowPushes": ("what webhooks wait for is shown", ONE, ""),
    "ListDeadPushes": ("pushes that were given up are listed", ONE, ""),
    "ReplayPushes": ("pushes that were given up are tried again", WITH, ""),
    "ShowPolicy": ("the policy is shown", ONE, ""),
    "ExplainPolicy": ("a decision is explained", ONE, ""),
    "ShadePolicy": ("the policy that is tried out is looked at", ONE, ""),
    "ReplayPolicy": ("entries are decided again by other rules", ONE, ""),
    "ReloadPolicy": (
        f"the policy's file is read again, because the operator says so ({BOTH}) or because it has changed "
        f"({ONE}, by {_OWN}; `INVALID_REQUEST` when it is wrong)",
        BOTH,
        "`decision.policy`; of a change that the operator asked for `change` with the hash of the rules",
    ),
    "ShowCompliance": ("the compliance profile is shown", ONE, ""),
    "ReloadCompliance": (
        "the compliance profile is read again, like the policy's file",
        BOTH,
        "`decision.policy`, the hash of the profile, where the file had changed; of one that the operator asked for "
        "`change` with that hash and the rules' names",
    ),
    "ListFrozen": ("what is frozen is listed", ONE, ""),
    "Freeze": ("an agent or a principal is stopped", WITH, _CHANGE),
    "Thaw": ("it may go on", WITH, _CHANGE),
    "ReadAudit": ("the audit log is read; following it is one entry", ONE, ""),
    "ReplayTask": ("a task's past is shown", ONE, ""),
    "EraseSubject": ("a person is forgotten", BOTH, "`object` of the first is the pseudonym, of the second `gateway`"),
    "RotateAuditKey": ("new keys sign", BOTH, "`change` with the keys, and what the old ones signed about the new"),
    "ShowAdminApi": ("the description of the admin API is read", ONE, ""),
    "RotateVaultKey": ("others' tokens are sealed with a new key", BOTH, ""),
    # The door, and the gateway's own authorization server.
    "Authenticate": (
        "somebody is turned away at the door (401); of a flood the first twenty, and how many more",
        ONE,
        "",
    ),
    "IssueToken": ("a token is given out or refused, before it is sent", ONE, ""),
    "RevokeToken": ("a token is given back", ONE, ""),
    "IntrospectToken": ("a token is asked about", ONE, ""),
    "AuthorizeDevice": ("a device gets a code", ONE, ""),
    "RegisterClient": ("a client registers itself", ONE, ""),
    "LogIn": ("a person logs in, or fails to", ONE, ""),
    "Consent": ("a person says yes or no to a client, before the client hears of it", ONE, "`object` is the client"),
    "ConnectServer": ("a person goes to a tool server's login", ONE, ""),
    "ConnectedServer": ("the person comes back with an authorization", ONE, ""),
    "ConnectAgent": ("a person goes to a remote agent's login", ONE, ""),
    "ConnectedAgent": ("the person comes back with an authorization", ONE, ""),
    # Nobody asked.
    "DeliverPush": (f"a webhook has taken an event, or was given up; by {_OWN}", ONE, "`task`"),
    "RenewCertificate": (
        "the files of a certificate have changed and are used from now on, or cannot be used (`INVALID_REQUEST`); "
        f"by {_OWN}",
        ONE,
        "`object` is where they are named: `server.tls`, `agents.NAME.credentials`",
    ),
    "PinTools": (f"the tools of a server are seen for the first time and trusted with it; by {_OWN}", ONE, ""),
    "QuarantineTool": (f"a tool is new, changed or unfit and is not offered; by {_OWN}", ONE, "`decision.reason`"),
}

# Those that are asked of a server in MCP's own words, beside `VERBS`.
MCP_METHODS = frozenset(
    {"completion/complete", "tasks/get", "tasks/update", "tasks/cancel", "tools/list", "prompts/list"}
    | {"resources/list", "resources/templates/list", "server/discover", "subscriptions/listen"}
)

_RECORDERS = frozenset({"Ticket", "note", "_note", "_ticket", "_record", "_answer"})
_VERB = re.compile(r"[A-Z][a-z]+[A-Za-z]*")

HEAD = """# What is in the audit log

<!-- Made by `python -m tests.make_docs`; a test keeps it current. -->

One line of canonical JSON (RFC 8785) for each entry; [prove what happened](../how-to/prove-what-happened.md) says how to read
and verify them. A call that reaches outside has two: one before anything leaves the gateway (`phase` is `intent`,
`outcome` is `begun`), one when it has ended. One that was cut off by the end of the process gets its end from the next start: `unknown`, with the
same `request.id`; a message whose task goes on then ends as the task does. So an intent without an end is a call that goes on, or
whose gateway was not started since. Others have one; what
an operator changes is written in the same transaction as its entry, or not at all. A webhook that is asked whether it agrees
(`push.challenge`), and more dead pushes than one transaction takes, have two as well. What is refused has one, with the reason, whatever it was.

## Each entry has

| field | what it is |
|---|---|
| `v` | 2; entries of older releases keep their form: 1 has no `log_id`, `replica`, `mono`, `iss` and `client`, those \
of the first have no `v` and other names |
| `log_id` | the log's name, which its checkpoints bear too: an entry of another log is told by it |
| `replica` | which life of the gateway wrote it; each start is a new one |
| `mono` | microseconds since that replica began, when the entry was written down; they only grow, so that what stands \
twice or in another order is told by it |
| `at` | milliseconds since the epoch, when it was decided; the index is the order |
| `actor` | `sub`, who did it, and `chain`, on whose behalf, the nearest first; people are pseudonyms. For callers \
with an access token `iss`, the issuer that vouches for the one at the outer end (`gateway`: its own authorization \
server), and `client`, the OAuth client that the token was given to (`client_id`, or else `azp`). A client is a program \
and stands there by its id; one that asks for itself by the pseudonym that `sub` or `chain` has. A task goes on with the \
client of its newest message, also after a restart |
| `action` | what: the names below |
| `object` | on what: an agent, `SERVER/TOOL`, `gateway`, a path at the door |
| `decision` | `effect` (PASS, FLAG, BLOCK, ESCALATE, HALT), `rule`, `policy` (the hash of the rules), `reason` where it was not PASS, or by which approval it was, or which limit stopped it all the same |
| `phase`, `outcome` | `intent`, `outcome`, or `finding` for what compliance found on the way; a task's state, `ok`, `reply`, `repeated`, `unknown`, an error's reason, or what was found |
| `request` | `id`; `digest` (SHA-256) and `length` of what was asked, never its content; how to compute them is said below |
| `tenant` | whose it is |

## What was asked

`digest` and `length` are those of JSON in UTF-8, with the keys of all objects sorted and without spaces; for a whole number, a text or a
list there is one way to write it. So whoever kept what was sent can show that it is what the entry is about:

```python
import hashlib, json

text = json.dumps(sent, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
print(hashlib.sha256(text).hexdigest(), len(text))
```

| action | `sent` is |
|---|---|
| `SendMessage` | the `message` of the request, as it was sent in A2A 1.0's form; from older clients as the gateway translates it |
| `SendMessage` by an agent here, or of a tool that is an agent | the message that the agent gets, without `contextId` and `taskId` where it begins a task |
| `SendMessage` that people let through | the message that goes on, with the ids of its task: as the task's history has it |
| `tools/call`, `prompts/get` and the like | the `params`, without `_meta` |

## And, where there is one

| field | what it is |
|---|---|
| `task` | the task |
| `correlation`, `cause` | the request at the outer end of the chain, and the one that made this one |
| `trace` | the caller's trace (W3C Trace Context), also that of a caller behind another gateway |
| `upstream` | `hash` of the card or the tool's definition that was in force |
| `change` | what an operator changed, `before` and `after`, without secrets |
| `marks` | compliance rules that found something in what passed, in any chunk of a stream, and what they did; each finding has an entry of its own as well, with the verdict of its rule |

## Actions

| action | when | entries | beside the fields of each |
|---|---|---|---|
"""  # noqa: E501

FOOT = """
## What is not in it

- What is turned away before it is clear what is asked: a malformed or oversized request, a wrong `Host`, too many connections.
  Metrics count them.
- What the gateway fetches to do its work: cards, keys of issuers, lists of tools, tokens for a call. The call that needs them
  is there.
- Each try of a push; its end is there.
- Contents.
"""  # noqa: E501


def page() -> str:
    rows = (f"| `{verb}` | {when} | {entries} | {fields} |" for verb, (when, entries, fields) in EVENTS.items())
    return HEAD + "\n".join(rows) + "\n" + FOOT


def in_the_code() -> set[str]:
    """Every action that the code can give to an entry."""
    return {*VERBS, *MCP_METHODS, *_named()}


def _named() -> Iterator[str]:
    """Names that stand in calls of what makes an entry, or in the table that such a call names."""
    for file in sorted((ROOT / "gateway").rglob("*.py")):
        tree = ast.parse(file.read_text("utf-8"))
        tables = {
            each.targets[0].id: each.value.values
            for each in tree.body
            if isinstance(each, ast.Assign)
            and isinstance(each.targets[0], ast.Name)
            and isinstance(each.value, ast.Dict)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _RECORDERS:
                given = [one for each in node.args[:3] for one in tables.get(getattr(each, "id", ""), [each])]
                said = (each.value for each in given if isinstance(each, ast.Constant))
                yield from (each for each in said if isinstance(each, str) and _VERB.fullmatch(each))


def changing() -> set[str]:
    """Those that change what an operator or a task's owner has set, or reach outside for them."""
    anything: Any = type("Anything", (), {"__getattr__": lambda self, name: None})()
    return {call.verb for call in changes(anything, anything, anything, anything, anything)}
