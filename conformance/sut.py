"""An agent on a2a-sdk's own server: the remote agent behind the gateway in a conformance run.

The point is that nobody here wrote this server. Ours is the executor alone, and it plays, message by message,
what the official kit asks of the system it tests: the beginning of the messageId names the behaviour.

    .venv/bin/python -m conformance.sut --port 9181
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from a2a.helpers.proto_helpers import new_data_part, new_raw_part, new_text_part, new_url_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import (
    BasePushNotificationSender,
    InMemoryPushNotificationConfigStore,
    InMemoryTaskStore,
    TaskUpdater,
)
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Message,
    Part,
    Role,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette

PORT = 9181

# The kit's longest scenario outlives the two seconds after which it may give up on a silent stream, twice.
LONG_PAUSE = 4.0


@dataclass(frozen=True)
class Status:
    state: TaskState
    text: str = ""


@dataclass(frozen=True)
class Chunk:
    """One artifact, or one piece of one when `more` or `append` says so."""

    part: Part
    append: bool = False
    more: bool = False


@dataclass(frozen=True)
class Reply:
    """A Message instead of a task."""

    text: str


@dataclass(frozen=True)
class Pause:
    seconds: float


Step = Status | Chunk | Reply | Pause

WORKING = Status(TaskState.TASK_STATE_WORKING)
DONE = Status(TaskState.TASK_STATE_COMPLETED)
FILE = new_raw_part(b"tck", media_type="text/plain", filename="output.txt")
FILE_URL = new_url_part("https://example.com/output.txt", media_type="text/plain", filename="output.txt")


def _text(text: str) -> Chunk:
    return Chunk(new_text_part(text))


SCENES: dict[str, tuple[Step, ...]] = {
    "tck-complete-task": (Status(TaskState.TASK_STATE_COMPLETED, "Hello from TCK"),),
    "tck-artifact-text": (_text("Generated text content"), DONE),
    "tck-artifact-file": (Chunk(FILE), DONE),
    "tck-artifact-file-url": (Chunk(FILE_URL), DONE),
    "tck-artifact-data": (Chunk(new_data_part({"key": "value", "count": 42})), DONE),
    "tck-message-response": (Reply("Direct message response"),),
    "tck-input-required": (Status(TaskState.TASK_STATE_INPUT_REQUIRED, "More, please"),),
    "tck-reject-task": (Status(TaskState.TASK_STATE_REJECTED, "rejected"),),
    "tck-stream-001": (WORKING, _text("Stream hello from TCK"), DONE),
    "tck-stream-002": (DONE,),
    "tck-stream-003": (WORKING, _text("Stream task lifecycle"), DONE),
    "tck-stream-ordering-001": (WORKING, _text("Ordered output"), DONE),
    "tck-stream-artifact-text": (WORKING, _text("Streamed text content"), DONE),
    "tck-stream-artifact-file": (WORKING, Chunk(FILE), DONE),
    "tck-stream-artifact-chunked": (
        WORKING,
        Chunk(new_text_part("chunk-1 "), more=True),
        Chunk(new_text_part("chunk-2"), append=True),
        DONE,
    ),
    "test-resubscribe-message-id": (WORKING, Pause(LONG_PAUSE), DONE),
}
# `tck-artifact-file` begins `tck-artifact-file-url` too: the longest name wins.
_BY_LENGTH = sorted(SCENES, key=len, reverse=True)


def scene(message_id: str) -> tuple[Step, ...]:
    """What to play for this messageId; a task that completes at once if it names nothing."""
    name = next((prefix for prefix in _BY_LENGTH if message_id.startswith(prefix)), None)
    return SCENES[name] if name else (DONE,)


class Player(AgentExecutor):
    """Plays a scene. Everything about protocols happens in the SDK around it."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        message = context.message
        assert message is not None
        assert context.task_id
        assert context.context_id
        steps = scene(message.message_id)
        if isinstance(steps[0], Reply):
            await event_queue.enqueue_event(_reply(context.context_id, steps[0]))
            return
        if context.current_task is None:
            # The SDK refuses a status before it has seen the task.
            await event_queue.enqueue_event(_submitted(context.task_id, context.context_id, message))
        # The SDK gives a message that carries only a taskId a fresh contextId and then fails on it. Nothing
        # here mends that: a client in front, such as the gateway, must always send both.
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        for step in steps:
            await _play(step, updater)

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.task_id
        assert context.context_id
        await TaskUpdater(event_queue, context.task_id, context.context_id).cancel()


async def _play(step: Step, updater: TaskUpdater) -> None:
    match step:
        case Status(state, text):
            parts = [new_text_part(text)]
            await updater.update_status(state, updater.new_agent_message(parts) if text else None)
        case Chunk(part, append, more):
            await updater.add_artifact([part], artifact_id="output", append=append, last_chunk=not more)
        case Pause(seconds):
            await asyncio.sleep(seconds)
        case Reply():
            raise AssertionError("a reply stands alone")


def _reply(context_id: str, reply: Reply) -> Message:
    return Message(
        message_id=f"reply-{context_id}",
        context_id=context_id,
        role=Role.ROLE_AGENT,
        parts=[new_text_part(reply.text)],
    )


def _submitted(task_id: str, context_id: str, message: Message) -> Task:
    status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
    status.timestamp.GetCurrentTime()
    return Task(id=task_id, context_id=context_id, status=status, history=[message])


def card(base: str, *, push: bool, version: str = "1.0") -> AgentCard:
    modes = ["text/plain", "application/json"]
    skill = AgentSkill(id="play", name="Play", description="Plays the scene a message names.", tags=["test"])
    return AgentCard(
        name="Remote player",
        description="Plays the behaviours that the A2A compatibility kit asks for.",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=f"{base}/", protocol_binding="JSONRPC", protocol_version=version),
            AgentInterface(url=base, protocol_binding="HTTP+JSON", protocol_version=version),
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=push),
        default_input_modes=modes,
        default_output_modes=modes,
        skills=[skill],
    )


def build(base: str, *, push: bool, version: str = "1.0") -> Starlette:
    """The SDK's server. Without `push` all notifications that a client gets are the gateway's own work. In 0.3 its card
    offers nothing else."""
    described, older = card(base, push=push, version=version), version == "0.3"
    webhooks = httpx.AsyncClient(timeout=10)
    configs = InMemoryPushNotificationConfigStore() if push else None
    handler = DefaultRequestHandler(
        agent_executor=Player(),
        task_store=InMemoryTaskStore(),
        agent_card=described,
        push_config_store=configs,
        push_sender=BasePushNotificationSender(webhooks, configs) if configs else None,
        validate_input_modes=True,
    )

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with webhooks:
            yield
            await handler.aclose()

    routes = [
        *create_agent_card_routes(described, cache_control="public, max-age=60"),
        *create_jsonrpc_routes(handler, "/", enable_v0_3_compat=older),
        *create_rest_routes(handler, enable_v0_3_compat=older),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def main() -> None:
    parser = argparse.ArgumentParser(description="A remote agent on a2a-sdk for conformance runs.")
    parser.add_argument("--port", type=int, default=PORT, help="loopback port (default %(default)s)")
    parser.add_argument("--push", action="store_true", help="let the SDK send push notifications itself")
    parser.add_argument("--version", choices=("1.0", "0.3"), default="1.0", help="what it speaks (default %(default)s)")
    options = parser.parse_args()
    app = build(f"http://127.0.0.1:{options.port}", push=options.push, version=options.version)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
