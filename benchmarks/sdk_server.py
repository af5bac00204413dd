"""a2a-sdk's own server doing the jobs that we measure ourselves with, as its documentation builds one.

python -m benchmarks.sdk_server --port 9000 --answer task --database tasks.db
"""

from __future__ import annotations

import argparse
import asyncio
from importlib import import_module

import grpc
import uvicorn
from a2a.helpers.proto_helpers import new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.request_handlers.grpc_handler import GrpcHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore, TaskStore, TaskUpdater
from a2a.types.a2a_pb2 import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Message,
    Role,
    Task,
    TaskState,
    TaskStatus,
)
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from starlette.applications import Starlette

CHUNKS = {"task": 1, "stream": 8}


class Worker(AgentExecutor):
    """Answers a Message, or makes a task with one artifact in so many chunks."""

    def __init__(self, answer: str) -> None:
        self._chunks = CHUNKS.get(answer, 0)

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        assert context.task_id
        assert context.context_id
        if not self._chunks:
            reply = Message(message_id=f"r-{context.message.message_id}", context_id=context.context_id)
            reply.role = Role.ROLE_AGENT
            reply.parts.append(new_text_part("Hello World"))
            await event_queue.enqueue_event(reply)
            return
        status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
        task = Task(id=context.task_id, context_id=context.context_id, status=status, history=[context.message])
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, context.task_id, context.context_id)
        for n in range(self._chunks):
            last = n == self._chunks - 1
            await updater.add_artifact([new_text_part(f"chunk {n}")], artifact_id="a", append=n > 0, last_chunk=last)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        raise NotImplementedError


def card(port: int) -> AgentCard:
    interface = AgentInterface(url=f"http://127.0.0.1:{port}/", protocol_binding="JSONRPC", protocol_version="1.0")
    return AgentCard(
        name="worker",
        description="Does the jobs of the benchmark.",
        version="1.0.0",
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="work", name="Work", description="Works.", tags=["benchmark"])],
        supported_interfaces=[interface],
    )


def store(database: str | None) -> TaskStore:
    if database is None:
        return InMemoryTaskStore()
    # Only there when sqlalchemy and aiosqlite are, which this project has no other use for.
    engine = import_module("sqlalchemy.ext.asyncio").create_async_engine(f"sqlite+aiosqlite:///{database}")
    stored: TaskStore = import_module("a2a.server.tasks").DatabaseTaskStore(engine)
    return stored


async def over_grpc(handler: DefaultRequestHandler, port: int) -> None:
    server = grpc.aio.server()
    add_A2AServiceServicer_to_server(GrpcHandler(handler), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    parser = argparse.ArgumentParser(description="a2a-sdk's own server for the benchmarks.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", choices=("message", "task", "stream"), required=True)
    parser.add_argument("--database", metavar="FILE", help="keep tasks in SQLite (default: in memory)")
    parser.add_argument("--grpc", action="store_true", help="serve gRPC at that port instead")
    options = parser.parse_args()
    described = card(options.port)
    handler = DefaultRequestHandler(
        agent_executor=Worker(options.answer), task_store=store(options.database), agent_card=described
    )
    if options.grpc:
        asyncio.run(over_grpc(handler, options.port))
        return
    routes = [*create_agent_card_routes(described), *create_jsonrpc_routes(handler, "/")]
    app = Starlette(routes=routes)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
