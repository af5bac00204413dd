"""Tasks in the admin API: the caller's own, across agents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypedDict

import orjson
from starlette.responses import Response

from gateway.core.gateway import Gateway
from gateway.dialects.a2a_v1 import requests
from gateway.dialects.a2a_v1.errors import http_error
from gateway.dialects.sse import frame
from gateway.model.base import milliseconds, timestamp
from gateway.model.call import CancelTask, GetTask, ListTasks, SubscribeToTask, TaskPage
from gateway.model.errors import GatewayError
from gateway.model.principal import Principal
from gateway.model.rows import Record, TaskRow
from gateway.model.sharing import ListShares, Share, ShareTask, UnshareTask
from gateway.model.task import Task
from gateway.server.admin_fields import ABSENT, Field, Wrong, text, word
from gateway.server.admin_operation import Asked, Events, Moment, Operation, Tree
from gateway.server.request import STREAM_HEADERS, Stream
from gateway.server.request import Request as DoorRequest


class Listed(TypedDict):
    """`task` is as A2A 1.0 writes a Task."""

    agent: str
    task: Tree


class Tasks(TypedDict):
    """`nextPageToken` is "" on the last page."""

    tasks: list[Listed]
    nextPageToken: str
    totalSize: int


class Shared(TypedDict):
    """`reader` may read the task, `by` said so."""

    reader: str
    owner: str
    by: str
    created: Moment
    until: Moment | None


class Shares(TypedDict):
    shares: list[Shared]


class AdminTasks:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def operations(self) -> tuple[Operation, ...]:
        path = "/admin/tasks/{id}"
        agent = word("agent", "The agent; all of them without it.")
        return (
            Operation(
                "GET",
                "/admin/tasks",
                ListTasks.verb,
                "List your tasks across agents",
                self.page,
                Tasks,
                query=(agent, *_filters()),
            ),
            Operation("POST", path + ":cancel", CancelTask.verb, "Cancel a task of yours", self.cancel, Listed),
            Operation(
                "GET",
                path + ":watch",
                GetTask.verb,
                "Follow a task of yours; of an ended one the task is the one event",
                self.watch,
                Events(Tree),
                id="WatchTask",
            ),
            Operation(
                "POST",
                path + ":share",
                ShareTask.verb,
                "Let somebody read a task of yours; the machine's own credential lets them read anybody's",
                self.share,
                Shared,
                body=(_READER, _until()),
            ),
            Operation(
                "POST",
                path + ":unshare",
                UnshareTask.verb,
                "Let them read it no more; their streams of it end",
                self.unshare,
                body=(_READER,),
            ),
            Operation("GET", path + "/shares", ListShares.verb, "List who may read a task", self.shares, Shares),
            Operation("GET", path, GetTask.verb, "Show a task of yours", self.show, Listed),
        )

    async def page(self, asked: Asked, who: Principal) -> Tasks:
        query = {**asked.query}
        agent = query.pop("agent")
        call = requests.decode("ListTasks", query, "")
        assert isinstance(call, ListTasks)
        page: TaskPage = await self._gateway.handle(replace(call, agent=agent), who)
        return {
            "tasks": [_listed(row.agent, row.task) for row in page.tasks],
            "nextPageToken": page.next_page_token,
            "totalSize": page.total_size,
        }

    async def show(self, asked: Asked, who: Principal) -> Listed:
        row = await self._row(asked.path["id"], who)
        return _listed(row.agent, row.task)

    async def cancel(self, asked: Asked, who: Principal) -> Listed:
        id = asked.path["id"]
        task = await self._gateway.handle(CancelTask(None, id), who)
        return _listed((await self._gateway.tasks.row(who, id, None)).agent, task)

    async def share(self, asked: Asked, who: Principal) -> Shared:
        call = ShareTask(asked.path["id"], asked.body["reader"], asked.body["until"])
        return _shared(await self._gateway.handle(call, who))

    async def unshare(self, asked: Asked, who: Principal) -> None:
        await self._gateway.handle(UnshareTask(asked.path["id"], asked.body["reader"]), who)

    async def shares(self, asked: Asked, who: Principal) -> Shares:
        return {"shares": [_shared(each) for each in await self._gateway.handle(ListShares(asked.path["id"]), who)]}

    async def watch(self, asked: Asked, who: Principal) -> Response:
        """Like SubscribeToTask, but an ended task is shown too: its one event is the task."""
        id, scope = asked.path["id"], asked.request.scope
        row = await self._row(id, who)
        if not row.task.status.state.terminal:
            try:
                events = await self._gateway.open(SubscribeToTask(None, id), who)
                return _StreamResponse(Stream(events, DoorRequest.of(scope, asked.request.receive), _frame, _broken))
            except GatewayError:
                row = await self._row(id, who)
                if not row.task.status.state.terminal:
                    raise  # and not because it has ended meanwhile
        body = frame(b'{"task":' + row.task.wire() + b"}")
        return Response(body, headers={name.decode(): value.decode() for name, value in STREAM_HEADERS})

    async def _row(self, id: str, who: Principal) -> TaskRow:
        """A task with its agent, once it is decided that the caller may read it."""
        await self._gateway.handle(GetTask(None, id), who)
        return await self._gateway.tasks.row(who, id, None)


class _StreamResponse(Response):
    """A stream of the doors as a Starlette response."""

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._stream(send)


def _frame(record: Record) -> bytes:
    return frame(record.body)


def _broken(error: GatewayError) -> bytes:
    return frame(http_error(error)[1], event="error")


def _listed(agent: str, task: Task) -> Listed:
    return {"agent": agent, "task": orjson.Fragment(task.wire())}


def _shared(share: Share) -> Shared:
    return {
        "reader": share.principal,
        "owner": share.owner,
        "by": share.granted_by,
        "created": timestamp(share.created),
        "until": None if share.until is None else timestamp(share.until),
    }


_READER = text("reader", "Who, as rules name one principal: bob, user:NAME, client:NAME, oauth:…, spiffe://….")


def _until() -> Field:
    def read(sent: Any) -> int | None:
        found = milliseconds(sent) if isinstance(sent, str) else None
        if sent is not None and found is None:
            raise Wrong("must be a time, for example 2026-11-21T08:00:00Z")
        return found

    schema = {"type": ["string", "null"], "format": "date-time"}
    return Field("until", "When it ends; when it is taken back, without it.", schema, read)


_ABOUT = {
    "contextId": "The context; all of them without it.",
    "status": "The state, such as TASK_STATE_WORKING; all of them without it.",
    "pageSize": "Tasks of one answer; 50 without it.",
    "pageToken": "The nextPageToken of the answer before.",
    "historyLength": "Messages of each task's history; all of them without it.",
    "statusTimestampAfter": "The time from which on a state must be.",
    "includeArtifacts": "Whether the tasks are shown with their artifacts.",
}


def _filters() -> tuple[Field, ...]:
    """The parameters of ListTasks: its own decoder reads them, as at the door of A2A."""
    return tuple(
        Field(name, _ABOUT[name], schema, lambda sent: sent, default=ABSENT)
        for name, schema in requests.list_tasks().items()
    )
