"""What an agent is, and what it may do while it works.

An agent of your own is a class with `run`, or a plain `async def`, named in the configuration:

    async def hello(context: Context, message: Message) -> str:
        return f"Hello, {message.text}"

`run(context, message)` yields events made by the context (`context.working("reading…")`,
`context.artifact("42", name="answer.txt")`, `context.completed("Done")`). Returning normally completes the
task; raising fails it; cancelling the task cancels the coroutine. A single `context.reply("…")` as first and
only event answers with a Message and leaves no task (A2A §3.1.1 leaves that choice to the agent).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from gateway.model.base import timestamp
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Artifact, Message, Part, Role
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate, Task, TaskState, TaskStatus
from gateway.model.tool import ToolRequest, ToolResult
from gateway.model.value import value

Content: TypeAlias = str | Part | Sequence[Part]
Ask: TypeAlias = Callable[[str, Message], Awaitable[Task | Message]]
UseTool: TypeAlias = Callable[[str, ToolRequest], Awaitable[ToolResult]]
Answer: TypeAlias = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

MAX_ROUNDS = 8  # questions of one tool call, one after the other; a wizard has five steps


@value
class Upstream:
    """Where the work really happens: the remote agent's own ids for our task, and the interface that gave them."""

    url: str
    task_id: str | None = None
    context_id: str | None = None


async def _nobody(agent: str, message: Message) -> Task | Message:
    raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This context reaches no other agent")


async def _no_tools(name: str, request: ToolRequest) -> ToolResult:
    raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This context reaches no tools")


@dataclass(slots=True)
class Context:
    """One run of one agent on one task. Makes the agent's events and opens its only ways out.

    `task` is the task as it stands when the run begins (None for a new one), `deadline_ms` the moment
    (milliseconds since the epoch) at which the gateway ends the run. `upstream` is for agents that delegate:
    what they put there is stored with the task and is given back after a restart.
    """

    agent: str
    task_id: str
    context_id: str
    now: Callable[[], int]
    new_id: Callable[[], str]
    deadline_ms: int = 0
    task: Task | None = None
    upstream: Upstream | None = None
    stream: bool = False
    accepted_output_modes: tuple[str, ...] = ()
    extensions: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None
    caller: str = ""
    tenant: str = ""  # of the caller
    hops: int = 0  # agents that asked each other to get here
    traceparent: str | None = None  # the caller's trace (W3C Trace Context)
    ask_agent: Ask = field(default=_nobody)
    use_tool: UseTool = field(default=_no_tools)

    @property
    def remaining(self) -> float:
        """Seconds until the deadline, never negative."""
        return max(0.0, (self.deadline_ms - self.now()) / 1000)

    @property
    def resume(self) -> Any:
        """What `need_input(resume=…)` put aside in the turn before; None in a first turn."""
        if self.task is None:
            return None
        last = self.task.status.message
        said = (*(self.task.history or ()), *(() if last is None else (last,)))
        for message in reversed(said):
            # Progress may have been reported since; what counts is the newest message that put something aside.
            if message.role is Role.AGENT and message.metadata and "resume" in message.metadata:
                return message.metadata["resume"]
        return None

    async def ask(self, agent: str, content: Content | Message) -> Task | Message:
        """Ask another registered agent, under this task's owner, policy, audit and limits."""
        message = content if isinstance(content, Message) else self.message(content, role=Role.USER)
        return await self.ask_agent(agent, message)

    async def call_tool(
        self, name: str, arguments: dict[str, Any] | None = None, *, answer: Answer | None = None
    ) -> ToolResult:
        """Call a tool of an MCP server, `server/tool`, as this agent and on behalf of its caller.

        The agent needs a grant (`to: agent:NAME`). Raises GatewayError when it has none, when the arguments are not
        granted, and when the server cannot be reached or refuses; a tool that ran and failed says so in the result.

        A tool may ask before it goes on. `answer` is given each question, `{"method": "elicitation/create", "params":
        {"message": …, "requestedSchema": …}}`, and gives its result, `{"action": "accept", "content": {…}}` or
        `{"action": "decline"}`. Without it a tool that asks is told that nobody can answer."""
        sent = arguments or {}
        if answer is None:
            return await self.use_tool(name, ToolRequest(sent))
        result = await self.use_tool(name, ToolRequest(sent, asks=True))
        for _ in range(MAX_ROUNDS):
            if not result.unfinished:
                return result
            answers = {key: await answer(each) for key, each in result.questions.items()}
            result = await self.use_tool(name, ToolRequest(sent, True, answers, result.tree.get("requestState")))
        raise GatewayError(Reason.UPSTREAM_FAILED, f"{name} asked more than {MAX_ROUNDS} times")

    # Events. Each carries this task's ids, a new message id and the time.

    def working(self, content: Content | None = None, **metadata: Any) -> StatusUpdate:
        return self.status(TaskState.WORKING, content, **metadata)

    def completed(self, content: Content | None = None, **metadata: Any) -> StatusUpdate:
        return self.status(TaskState.COMPLETED, content, **metadata)

    def failed(self, content: Content, **metadata: Any) -> StatusUpdate:
        return self.status(TaskState.FAILED, content, **metadata)

    def rejected(self, content: Content, **metadata: Any) -> StatusUpdate:
        return self.status(TaskState.REJECTED, content, **metadata)

    def canceled(self, content: Content | None = None, **metadata: Any) -> StatusUpdate:
        return self.status(TaskState.CANCELED, content, **metadata)

    def need_input(self, question: Content, *, schema: Any = None, resume: Any = None) -> StatusUpdate:
        """Ask back. `schema` says what an answer looks like; `resume` comes back as `context.resume`."""
        metadata = {k: v for k, v in (("schema", schema), ("resume", resume)) if v is not None}
        return self.status(TaskState.INPUT_REQUIRED, question, **metadata)

    def need_auth(self, question: Content, **metadata: Any) -> StatusUpdate:
        return self.status(TaskState.AUTH_REQUIRED, question, **metadata)

    def status(self, state: TaskState, content: Content | None = None, **metadata: Any) -> StatusUpdate:
        fields: dict[str, Any] = {"state": state, "timestamp": timestamp(self.now())}
        if content is not None:
            fields["message"] = self.message(content, **metadata)
        return StatusUpdate.of(task_id=self.task_id, context_id=self.context_id, status=TaskStatus.of(**fields))

    def artifact(
        self,
        content: Content,
        *,
        id: str | None = None,
        name: str | None = None,
        description: str | None = None,
        append: bool = False,
        last: bool = True,
        metadata: dict[str, Any] | None = None,
    ) -> ArtifactUpdate:
        """A result. To stream one, give the same `id` with `append=True`, and `last=False` until its end."""
        optional = {"name": name, "description": description, "metadata": metadata}
        artifact = Artifact(
            artifact_id=id or self.new_id(),
            parts=(),
            **{k: v for k, v in optional.items() if v is not None},  # type: ignore[arg-type]
        )
        return ArtifactUpdate.of(
            task_id=self.task_id,
            context_id=self.context_id,
            artifact=artifact.model_copy(update={"parts": parts(content)}),
            append=append,
            last_chunk=last,
        )

    def reply(self, content: Content, **metadata: Any) -> Message:
        """A direct answer: as first and only event it leaves no task."""
        fields: dict[str, Any] = {"metadata": metadata} if metadata else {}
        return Message.of(
            message_id=self.new_id(),
            role=Role.AGENT,
            parts=parts(content),
            context_id=self.context_id,
            **fields,
        )

    def message(self, content: Content, *, role: Role = Role.AGENT, **metadata: Any) -> Message:
        """A message that belongs to this task."""
        fields: dict[str, Any] = {"metadata": metadata} if metadata else {}
        if role is Role.AGENT:
            fields |= {"context_id": self.context_id, "task_id": self.task_id}
        return Message.of(message_id=self.new_id(), role=role, parts=parts(content), **fields)


def parts(content: Content) -> tuple[Part, ...]:
    """Raises TypeError for what an agent cannot say."""
    if isinstance(content, str):
        return (Part.of(text=content),)
    made = (content,) if isinstance(content, Part) else tuple(content)
    for part in made:
        if not isinstance(part, Part):
            raise TypeError(f"content is a text, a Part or a list of Parts, not {type(part).__name__}")
    return made


class Agent(Protocol):
    """The port behind which every agent stands: local, remote, older dialects, teams.

    `resumable` says that a run which died may be repeated from its message without harm.
    """

    resumable: bool

    def run(self, context: Context, message: Message) -> AsyncIterator[Event]:
        """Work on `message`. Yields events of `context.task_id`, or a Message, or a Task (the whole as the
        upstream sees it, under our ids). Raises GatewayError for a refusal that the caller should see."""
        ...

    def follow(self, context: Context) -> AsyncIterator[Event]:
        """After a restart: go on receiving what `context.upstream` still does, to its true end.
        Raises GatewayError(UNSUPPORTED_OPERATION) when there is nothing to follow."""
        ...

    async def cancel(self, context: Context) -> Event | None:
        """Tell the upstream to stop. Returns what it answered, None if there is nobody to tell.
        Raises GatewayError(TASK_NOT_CANCELABLE) when it refuses."""
        ...

    async def aclose(self) -> None: ...
