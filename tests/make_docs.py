"""Writes the pages of docs/reference that follow from the code: `python -m tests.make_docs`.

`tests/test_docs.py` compares them with what stands there, so a new error, limit or state cannot be forgotten.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import io
import itertools
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

from gateway.checks.detectors import GROUPS as DETECTORS
from gateway.checks.measure import MAX_SCHEMAS, MAX_WORK
from gateway.complying import REACH
from gateway.config import compliance_tables, policy_tables
from gateway.core.policy.actions import GROUPS
from gateway.dialects import tasks
from gateway.dialects.a2a_v03 import paths as paths_v03
from gateway.dialects.a2a_v03 import requests as requests_v03
from gateway.dialects.a2a_v1 import paths, requests
from gateway.dialects.a2a_v1.errors import CODES
from gateway.dialects.acp.errors import CODES as ACP_CODES
from gateway.dialects.mcp.errors import Code, code_of, status_of
from gateway.dialects.paths import Table
from gateway.model.compliance import Place
from gateway.model.errors import GatewayError, Reason
from gateway.model.task import INTERRUPTED, MOVES, TERMINAL, TaskState
from gateway.model.tool import Era
from gateway.server.a2a_jsonrpc import STATUS
from gateway.server.head import EdgeLimits
from tests import audit_events

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
MADE = "<!-- Made by `python -m tests.make_docs`; a test keeps it current. -->"

# --- Errors. -----------------------------------------------------------------------------------------------

# When it happens, and what the caller can do about it.
WHAT_TO_DO: dict[Reason, str] = {
    Reason.TASK_NOT_FOUND: "No task of yours has this id on this agent. Another owner's task looks the same.",
    Reason.TASK_NOT_CANCELABLE: "The task has ended, or its agent refused to stop. Read it with GetTask.",
    Reason.PUSH_NOTIFICATION_NOT_SUPPORTED: "The agent's card says that it offers none. Subscribe or poll instead.",
    Reason.UNSUPPORTED_OPERATION: "The task or agent cannot do that now; the message says why.",
    Reason.CONTENT_TYPE_NOT_SUPPORTED: "Send `application/json`, and parts of the types on the agent's card.",
    Reason.INVALID_AGENT_RESPONSE: "The remote agent answered with something that is not A2A. Tell its operator.",
    Reason.EXTENDED_AGENT_CARD_NOT_CONFIGURED: "The agent has no extended card.",
    Reason.EXTENSION_SUPPORT_REQUIRED: "List the extension that the message names in `A2A-Extensions`.",
    Reason.VERSION_NOT_SUPPORTED: "Send `A2A-Version: 1.0` or `0.3`. No header at all means 0.3.",
    Reason.PARSE_ERROR: "The body is not strict JSON; the message says where or why.",
    Reason.INVALID_REQUEST: "JSON, but not a request: a member is missing, or a batch is empty, too long or nested.",
    Reason.METHOD_NOT_FOUND: "Check the method's name; A2A 1.0 writes `SendMessage`, not `message/send`.",
    Reason.INVALID_PARAMS: "`fieldViolations` name each wrong field; a messageId used for another message is one.",
    Reason.INTERNAL_ERROR: "A fault of the gateway. The log has the whole story under the incident number.",
    Reason.UNAUTHENTICATED: "Send `Authorization: Bearer …` with a credential that this gateway gave out, or with "
    "an access token of an issuer that it trusts; the message says what is wrong with a token.",
    Reason.PERMISSION_DENIED: "Your credential is good, but no rule allows this, or one forbids it (`rule` and "
    "`verdict` in the metadata name it), or a token lacks scopes: "
    "`scope` in the metadata and the challenge name all that the call needs.",
    Reason.NOT_FOUND: "No such agent, key or path for you. Hidden and missing are the same.",
    Reason.ALREADY_EXISTS: "An agent of this id is registered already; choose another id.",
    Reason.OVERLOADED: "The agent's queue is full, a limit of the policy is used up (`limit` in the metadata names it),"
    " or a stream was read too slowly. Wait for `Retry-After`.",
    Reason.UNAVAILABLE: "The agent's card was not read yet, the store cannot write, a token's issuer cannot be "
    "asked, or the gateway is stopping.",
    Reason.EGRESS_REFUSED: "The gateway may not connect there; the message names the setting that would allow it.",
    Reason.UPSTREAM_FAILED: "The remote agent or webhook refused or broke off.",
    Reason.UPSTREAM_TIMEOUT: "The remote agent did not answer in time.",
    Reason.UPSTREAM_TOO_LARGE: "The remote agent sent more than the gateway takes; see limits.",
    Reason.OUTDATED: "What you have seen was changed meanwhile: an approval was edited. Look at it again.",
}
FAULT = {"client": "caller", "gateway": "gateway", "upstream": "agent"}


def _early() -> str:
    """The statuses of the edge and of what stands in front of every route."""
    sources = [(ROOT / "gateway" / "server" / name).read_text(encoding="utf-8") for name in ("head.py", "front.py")]
    found = sorted(set(re.findall(r"(?:Refused|_refusal)\((\d{3})", "".join(sources))) | {"404"})
    return f"{', '.join(found[:-1])} and {found[-1]}"


def _mcp_rows() -> list[str]:
    """The reasons that occur at the MCP door, those of tasks and cards left out."""
    rows = []
    for reason in MCP_REASONS:
        error = GatewayError(reason, "")
        rows.append(f"| `{reason}` | {int(code_of(error))} | {status_of(error, Era.MODERN)} | {MCP_REASONS[reason]} |")
    return rows + [f"| {what} | {code.value} | {status} | {todo} |" for what, code, status, todo in MCP_OWN]


def _acp_rows() -> list[str]:
    return [
        f"| `{reason}` | `{code.code}` | {code.http} |" for reason, code in ACP_CODES.items() if reason in ACP_REASONS
    ]


# Those that an ACP client meets. No request of ACP's can be about cards, versions or webhooks.
ACP_REASONS = frozenset(Reason) - {
    Reason.PUSH_NOTIFICATION_NOT_SUPPORTED,
    Reason.EXTENDED_AGENT_CARD_NOT_CONFIGURED,
    Reason.VERSION_NOT_SUPPORTED,
    Reason.ALREADY_EXISTS,
    Reason.OUTDATED,
}

# Errors that only MCP has: what is wrong, the code, the status, and what to do.
MCP_OWN: tuple[tuple[str, Code, int, str], ...] = (
    ("header and body differ", Code.HEADER_MISMATCH, 400, "The `Mcp-` headers repeat what the body says."),
    ("a capability is missing", Code.MISSING_CAPABILITY, 400, "`data.requiredCapabilities`: declare them, if you can."),
    ("revision not spoken", Code.UNSUPPORTED_VERSION, 400, "`data.supported` says which are."),
    ("resource not found, in a session", Code.LEGACY_NOT_FOUND, 200, "-32602 in 2026-07-28."),
)


MCP_REASONS: dict[Reason, str] = {
    Reason.PARSE_ERROR: "The body is not strict JSON.",
    Reason.INVALID_REQUEST: "JSON, but no message of MCP.",
    Reason.METHOD_NOT_FOUND: "The revision has no such method.",
    Reason.INVALID_PARAMS: "`data.violations` name each wrong field.",
    Reason.NOT_FOUND: "No such tool, prompt or template for you. Hidden and missing are the same.",
    Reason.UNAUTHENTICATED: "Send `Authorization: Bearer …`.",
    Reason.PERMISSION_DENIED: "A grant allows other arguments, or the tool waits for approval; the message says which.",
    Reason.OVERLOADED: "Too many requests, sessions or subscriptions are open. Wait for `Retry-After`.",
    Reason.UNAVAILABLE: "The server failed again and again and rests, or the gateway is stopping.",
    Reason.EGRESS_REFUSED: "The gateway may not connect there.",
    Reason.UPSTREAM_FAILED: "The server could not be reached or understood.",
    Reason.UPSTREAM_TIMEOUT: "The server did not answer in time; see `timeout` of the server.",
    Reason.UPSTREAM_TOO_LARGE: "The server sent more than the gateway takes; see limits.",
    Reason.INTERNAL_ERROR: "A fault of the gateway; the message has the incident's number.",
}


def errors() -> str:
    rows = []
    for reason, code in CODES.items():
        error = GatewayError(reason, "")
        over_rpc = STATUS.get(reason, 200)
        rows.append(
            f"| `{reason}` | {code.jsonrpc} | {over_rpc} | {code.http} `{code.status}` | {FAULT[error.fault]} "
            f"| {'yes' if error.retryable else 'no'} | {WHAT_TO_DO[reason]} |"
        )
    return f"""# Errors

{MADE}

An error is a reason for machines and a sentence for people. The reason travels in a `google.rpc.ErrorInfo`, on
JSON-RPC in `error.data`, on HTTP+JSON in `error.details`. Program against the reason, show the sentence.

On JSON-RPC an error comes in HTTP 200, except where HTTP itself has something to do about it (the third column).
In a batch it is always 200.

| reason | JSON-RPC code | its HTTP status | HTTP+JSON | whose fault | try again | what to do |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

What is refused before any dialect is known has the form of HTTP+JSON without details, and a status as RFC 9110 means
it: {_early()}. The ones to know are 413 (a body over the limit) and 421 (a `Host` that this gateway does not go by).

## At the MCP door

MCP has numbers of its own. The reason of those that are the gateway's, outside of what MCP reserves, is in
`error.data`; an error that a server behind the gateway answered keeps its code, message and data. The status is for a
request of 2026-07-28; in a session an error comes in 200, except for what could not be read as a message.

| reason | code | HTTP status | |
|---|---|---|---|
{chr(10).join(_mcp_rows())}

## At the ACP door

ACP has three codes of its own; the reason is in `data.reason`, except for a run that is not found, whose `data` is
null, so that a run of somebody else's looks like none. A run that fails is no error: it is answered, and says so
itself.

| reason | code | HTTP status |
|---|---|---|
{chr(10).join(_acp_rows())}

What is not in these tables never leaves the gateway. An unknown failure is shown as `INTERNAL_ERROR` with an incident
number (a task that ends so has the number in its last message), and the log has it in full under that number.
"""


# --- Limits. -----------------------------------------------------------------------------------------------

# What the limits of a module are about: by the longest prefix, in this order.
ABOUT: dict[str, str] = {
    "gateway.server.head": "The HTTP edge",
    "gateway.dialects.strict_json": "JSON that comes in",
    "gateway.server.grpc": "The gRPC port",
    "gateway.server": "JSON-RPC batches",
    "gateway.dialects.oauth2": "Access tokens and the issuers behind them",
    "gateway.server.oauth": "Access tokens and the issuers behind them",
    "gateway.server.open_streams": "Access tokens and the issuers behind them",
    "gateway.core.clients": "Access tokens and the issuers behind them",
    "gateway.upstream.documents": "Access tokens and the issuers behind them",
    "gateway.dialects.tasks": "The older agents/tasks messages",
    "gateway.core": "Calls and tasks",
    "gateway.checks": "Compliance",
    "gateway.complying": "Compliance",
    "gateway.core.compliance": "Compliance",
    "gateway.watching": "Policy",
    "gateway.core.governance": "Policy",
    "gateway.core.halting": "Policy",
    "gateway.core.policy": "Policy",
    "gateway.config.policyfile": "Approvals",
    "gateway.core.approvals": "Approvals",
    "gateway.model.approval": "Approvals",
    "gateway.server.admin_approvals": "Approvals",
    "gateway.core.turn": "What one task may write",
    "gateway.core.live": "Streams that go out",
    "gateway.core.push": "Push notifications",
    "gateway.upstream.webhook": "Push notifications",
    "gateway.server.webhooks": "Push notifications",
    "gateway.server.admin_push": "Push notifications",
    "gateway.dialects.standard_webhooks": "Push notifications",
    "gateway.core.recovery": "The restart",
    "gateway.stores.auditlog": "The audit log",
    "gateway.stores.notary": "The audit log",
    "gateway.server.admin_audit": "The audit log",
    "gateway.verifier": "The audit log",
    "gateway.core.registry": "Cards of remote agents",
    "gateway.core.provenance": "Cards of remote agents",
    "gateway.dialects.a2a_v1.signing": "Cards of remote agents",
    "gateway.upstream.cards": "Cards of remote agents",
    "gateway.dialects.acp": "ACP",
    "gateway.server.acp": "ACP",
    "gateway.upstream.acp": "ACP",
    "gateway.model.agent": "MCP",
    "gateway.upstream.signatures": "Cards of remote agents",
    "gateway.core.finding": "Cards and catalogues that are served",
    "gateway.server.catalogs": "Cards and catalogues that are served",
    "gateway.server.published": "Cards and catalogues that are served",
    "gateway.dialects.mcp": "MCP",
    "gateway.core.tools": "MCP",
    "gateway.server.mcp": "MCP",
    "gateway.upstream.mcp": "MCP",
    "gateway.upstream.process": "Processes that serve tools",
    "gateway.upstream": "Other agents, and connections to them",
    "gateway.dialects": "Other agents, and connections to them",
    "gateway.stores": "The store",
    "gateway.config": "The configuration file",
    "gateway.cli": "The command line",
}
_A_LIMIT = re.compile(
    r"_?(MAX_\w+|\w*_?(LIMIT|LIMITS|SECONDS|MS|TIMEOUT|DEADLINE|PATIENCE|BATCH|ROOM|PIECE|KEEPALIVE|READERS|WAIT)"
    r"|AT_ONCE|CONNECTIONS_PER_HOST|PAUSES)"
)
_BYTES = re.compile(r"BYTES|BODY|PIECE|ANSWER_LIMIT|CARD_LIMIT|MAX_EVENT$|max_(target|head|body)$|buffer|linger_bytes")


@dataclass(frozen=True)
class Limit:
    where: str
    name: str
    value: object
    reason: str


def limits_of(module: str) -> list[Limit]:
    """The limits that a module holds as constants, each with the comment or docstring that says why."""
    path = ROOT / (module.replace(".", "/") + ".py")
    text = path.read_text(encoding="utf-8")
    tree, comments = ast.parse(text), _comments(text)
    loaded = None
    found = []
    for index, node in enumerate(tree.body):
        name = _name(node)
        if name is None or not _A_LIMIT.fullmatch(name):
            continue
        loaded = loaded or importlib.import_module(module)
        value = getattr(loaded, name)
        if isinstance(value, int | float) or (
            isinstance(value, tuple) and all(isinstance(each, int | float) for each in value)
        ):
            after = tree.body[index + 1] if index + 1 < len(tree.body) else None
            found.append(Limit(module, name, value, _reason(node, after, comments)))
    return found


def modules_with_limits() -> set[str]:
    """Every module of the gateway that holds one, the edge's class left out."""
    modules = (
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "gateway").rglob("*.py")
        if not path.stem.startswith("__")
    )
    return {module for module in modules if limits_of(module)}


def _name(node: ast.stmt) -> str | None:
    target = (
        node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
    )
    return target.id if isinstance(target, ast.Name) and target.id.isupper() else None


def _comments(text: str) -> dict[int, tuple[str, bool]]:
    """Comment by line, and whether it stands alone there."""
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            found[token.start[0]] = (token.string.lstrip("# ").strip(), not token.line[: token.start[1]].strip())
    return found


def _reason(node: ast.stmt, after: ast.stmt | None, comments: dict[int, tuple[str, bool]]) -> str:
    trailing = comments.get(node.end_lineno or node.lineno)
    if trailing is not None:
        return _sentence(trailing[0])
    if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
        return _sentence(after.value.value)
    lines: list[str] = []
    at = node.lineno - 1
    while at in comments and comments[at][1]:
        lines.insert(0, comments[at][0])
        at -= 1
    return _sentence(" ".join(lines))


def _sentence(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text[:1].upper() + text[1:] + ("" if not text or text[-1] in ".)!" else ".")


def edge_limits() -> list[Limit]:
    path = ROOT / "gateway" / "server" / "head.py"
    (body,) = [
        node.body
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == "EdgeLimits"
    ]
    reasons = {}
    for node, after in itertools.pairwise(body):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            reasons[node.target.id] = _reason(node, after, {})
    values = EdgeLimits()
    return [
        Limit("gateway.server.head", field.name, getattr(values, field.name), reasons[field.name])
        for field in dataclasses.fields(EdgeLimits)
    ]


def all_limits() -> dict[str, list[Limit]]:
    """Limits by subject, in the order of ABOUT."""
    found: dict[str, list[Limit]] = {subject: [] for subject in ABOUT.values()}
    found[ABOUT["gateway.server.head"]] += edge_limits()
    for module in sorted(modules_with_limits()):
        prefix = max((known for known in ABOUT if module.startswith(known)), key=len)
        found[ABOUT[prefix]] += limits_of(module)
    return found


def _shown(limit: Limit) -> str:
    value = limit.value
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    if isinstance(value, int) and not isinstance(value, bool):
        if _BYTES.search(limit.name) and value % 1024 == 0:
            return f"{value // 1024 // 1024} MiB" if value % (1024 * 1024) == 0 else f"{value // 1024} KiB"
        return f"{value:,}".replace(",", " ")
    assert isinstance(value, int | float)
    return f"{value:g}"


def limits() -> str:
    sections = []
    for subject, found in all_limits().items():
        rows = "\n".join(f"| `{limit.name.lstrip('_')}` | {_shown(limit)} | {limit.reason} |" for limit in found)
        files = ", ".join(sorted({f"`{limit.where.replace('.', '/')}.py`" for limit in found}))
        sections.append(f"## {subject}\n\n{files}\n\n| limit | value | why this |\n|---|---|---|\n{rows}\n")
    return f"""# Limits

{MADE}

Every queue, body, page and wait has a size, and each size has its reason. Times are seconds where the name does not
say `MS` (milliseconds); sizes are bytes where no unit is shown. An agent's own limits (`concurrency`, `queue`,
`deadline`) are settings: see [configuration](configuration.md).

{chr(10).join(sections)}"""


# --- States. -----------------------------------------------------------------------------------------------


def _groups() -> list[list[TaskState]]:
    """States from which the same may follow, ended ones left out."""
    groups: dict[frozenset[TaskState], list[TaskState]] = {}
    for state, after in MOVES.items():
        if after:
            groups.setdefault(after, []).append(state)
    return list(groups.values())


def diagram() -> str:
    """MOVES as a picture. States that share their followers stand in one box, whose arrows are theirs all."""
    lines = ["stateDiagram-v2", f"    [*] --> {TaskState.SUBMITTED.name}"]
    boxes: dict[TaskState, str] = {}
    for group in _groups():
        if len(group) > 1:
            lines += ["    state begun {"]
            lines += [f"        {a.name} --> {b.name}" for a in group for b in group if a is not b and b in MOVES[a]]
            lines += ["    }"]
            boxes |= dict.fromkeys(group, "begun")
    for group in _groups():
        source = boxes.get(group[0], group[0].name)
        targets = [boxes.get(state, state.name) for state in TaskState if state in MOVES[group[0]]]
        lines += [f"    {source} --> {target}" for target in dict.fromkeys(targets) if target != source]
    lines += [f"    {state.name} --> [*]" for state in TaskState if state in TERMINAL]
    return "\n".join(lines)


MEANING: dict[TaskState, str] = {
    TaskState.SUBMITTED: "Accepted and durable; the agent has not reported yet.",
    TaskState.WORKING: "The agent is at work.",
    TaskState.INPUT_REQUIRED: "The agent has asked something. The next message of the task is the answer.",
    TaskState.AUTH_REQUIRED: "The agent needs an authorization from outside.",
    TaskState.COMPLETED: "Done; the artifacts are the result.",
    TaskState.FAILED: "It went wrong; the last message says why, its metadata has a `reason`.",
    TaskState.CANCELED: "Somebody who may do so canceled it.",
    TaskState.REJECTED: "The agent did not take it on.",
}


def states() -> str:
    head = " | ".join(state.name for state in TaskState)
    rows = []
    for before in TaskState:
        marks = " | ".join("yes" if after in MOVES[before] else "" for after in TaskState)
        rows.append(f"| **{before.name}** | {marks} |")
    meanings = []
    for state in TaskState:
        kind = "ended" if state in TERMINAL else "waits for somebody" if state in INTERRUPTED else "at work"
        meanings.append(f"| `{state}` | {kind} | `{tasks.STATUS[state]}` | {MEANING[state]} |")
    return f"""# States of a task

{MADE}

```mermaid
{diagram()}
```

| state | | older `agents/tasks` word | meaning |
|---|---|---|---|
{chr(10).join(meanings)}

A blocking call waits until the task has ended or waits for somebody. An ended task stays as it is: an event that comes
later is dropped and logged.

Which state (left) may become which (top); the table is `MOVES` in `gateway/model/task.py`, and the picture is drawn
from it. Repeating a state is how agents report progress.

| | {head} |
|---|{"---|" * len(TaskState)}
{chr(10).join(rows)}
"""


# --- Operations. -------------------------------------------------------------------------------------------


def operations() -> str:
    """The table of A2A operations in http.md."""
    rows = []
    for name in requests.DECODE:
        where = places(paths.TABLE, name)
        rows.append(f"| `{name}` | {where} | {'events' if name in requests.STREAMING else 'one answer'} |")
    return "\n".join([*HEAD, *rows, "", "The same in 0.3:", "", *HEAD, *older_operations()])


HEAD = ("| JSON-RPC method | HTTP+JSON, after the agent's address | answers with |", "|---|---|---|")


def older_operations() -> list[str]:
    """Those of 0.3, in the order of 1.0's; a list of tasks is HTTP+JSON's alone."""
    methods = {operation: method for method, (operation, _) in requests_v03.METHODS.items()}
    rows = []
    for name in requests.DECODE:
        method = f"`{methods[name]}`" if name in methods else "none"
        answers = "events" if name in requests.STREAMING else "one answer"
        rows.append(f"| {method} | {places(paths_v03.TABLE, name)} | {answers} |")
    return rows


def places(table: Table, name: str) -> str:
    """Where HTTP+JSON has an operation."""
    return ", ".join(
        f"`{verb} {re.sub(r'[(][^)]*[)]', '{id}', path)}`" for verb, path, known, _ in table.rows if known == name
    )


# --- Policy. -----------------------------------------------------------------------------------------------

GROUP_MEANS = {
    "call": "send a message to an agent, call a tool",
    "delegate": "the same, by an agent on somebody's behalf",
    "use": "everything about an agent and one's own tasks there, and about tools, prompts and resources",
    "share": "let somebody else read a task of one's own; a part of `use`",
    "work": "what the worker of an agent does",
    "register": "add, change and remove agents",
    "approve": "let tools out of quarantine",
    "administer": "everything that is the operator's",
}


def policy() -> str:
    groups = [
        f"| `{name}` | {GROUP_MEANS[name]} | {', '.join(f'`{verb}`' for verb in sorted(verbs))} |"
        for name, verbs in GROUPS.items()
    ]
    return f"""# The policy file

{MADE}

`policy.file` of the [configuration](configuration.md) names it; [write a policy](../how-to/write-a-policy.md) has
examples. The first rule that holds decides; where none does, the answer is no. The rules that hold without a file, and
the grants of the configuration, come after those of the file; `gateway policy show` prints them all.

{policy_tables()}
## Verdicts

| verdict | what happens |
|---|---|
| `PASS` | The call goes on. |
| `FLAG` | The call goes on and is marked: in the record, and in the metadata of the answer. |
| `BLOCK` | This call is refused; the task that it belongs to may go on. |
| `ESCALATE` | Messages and uses of tool servers wait for [an approval](../how-to/ask-a-person-first.md). |
| `HALT` | The call is refused, and the whole tree of tasks that it belongs to is canceled. |

## Actions

`do` takes the names of actions (the last column has them all), patterns such as `List*`, and these groups:

| group | what | actions |
|---|---|---|
{chr(10).join(groups)}
"""


PLACES = {
    Place.MESSAGE: (
        "what a caller says to an agent",
        "`agents`",
        "`parts`, `metadata`; by themselves the `metadata` of the request",
    ),
    Place.ANSWER: (
        "what an agent says: messages, artifacts, each chunk of a stream",
        "`agents`",
        "`parts`, `metadata`, of artifacts also `name` and `description`; by themselves the `metadata` of events",
    ),
    Place.ARGUMENTS: (
        "what a tool, prompt or resource is asked with",
        "`tools`",
        "the arguments; by themselves answers to its questions, a resource's `uri`, what is to be completed, `_meta`",
    ),
    Place.RESULT: (
        "what comes back from tools, prompts and resources, reports and questions on the way too",
        "`tools`",
        "MCP's result",
    ),
}


def compliance() -> str:
    places = [f"| `{place}` | {what} | {whose} | {content} |" for place, (what, whose, content) in PLACES.items()]
    detectors = [f"| `{group}` | {', '.join(f'`{name}`' for name in names)} |" for group, names in DETECTORS.items()]
    return f"""# The compliance profile

{MADE}

`compliance.file` of the [configuration](configuration.md) names it;
[keep secrets out](../how-to/keep-secrets-out.md) has examples. It is read again when it changes. Paths and modules in
it are looked for beside it.

{compliance_tables()}
## Places

| place | what passes there | whose | what a check sees |
|---|---|---|---|
{chr(10).join(places)}

An agent that is called as a tool is looked at as the agent it is. What is looked at by itself is nothing that `schema`
and `declared` are about. A resource's URI is never cut: `redact` refuses it, since what is left would be another
resource.

In a stream the end of a text waits for the next chunk as long as it could become something that a detector looks for.
Where a `pattern` or `run` is about an agent's answers, the last {REACH} characters wait; what such a rule looks for may
be cut where it is longer.

## Actions

| action | what happens | recorded as |
|---|---|---|
| `flag` | It passes, with `gateway/compliance` in `metadata` (A2A) or `_meta` (MCP) that names the rule. | FLAG |
| `redact` | It passes with `[redacted: …]` in place of what was found, and the same mark. | FLAG |
| `block` | It does not pass; whoever waits is told the rule, what was found and where, never the thing. | BLOCK |

## Detectors

| group | detectors |
|---|---|
{chr(10).join(detectors)}

Card numbers, IBANs and the like must have the right checksum. Passwords and names of people have no form by which they
could be told from other words; write a `pattern` or a check of your own for what yours look like.

## Schemas

`schema` and `declared` fetch nothing, and patterns in them run in linear time. A schema has at most {MAX_SCHEMAS}
schemas in it, may hold one value against at most {MAX_WORK} of them, and may not describe trees in which each level
doubles the work. A tool whose own schema is beyond that cannot be checked: see `on_failure`.
"""


PAGES = {
    "audit.md": audit_events.page,
    "compliance.md": compliance,
    "errors.md": errors,
    "limits.md": limits,
    "policy.md": policy,
    "states.md": states,
}
BEGIN, END = "<!-- operations: made by `python -m tests.make_docs` -->", "<!-- end -->"


def with_operations(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{operations()}\n\n{END}{after}"


def main() -> None:
    for name, page in PAGES.items():
        (REFERENCE / name).write_text(page(), encoding="utf-8")
    http = REFERENCE / "http.md"
    http.write_text(with_operations(http.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
