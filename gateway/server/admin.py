"""The admin API: what the command line (and later the console) works with. JSON in and out, the same two doors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.gateway import Gateway
from gateway.dialects.a2a_v1 import requests
from gateway.dialects.a2a_v1.errors import http_error
from gateway.dialects.sse import frame
from gateway.model.base import timestamp
from gateway.model.call import (
    AddKey,
    CancelTask,
    GetTask,
    ListKeys,
    ListTasks,
    RevokeKey,
    SubscribeToTask,
    TaskPage,
)
from gateway.model.errors import GatewayError
from gateway.model.ports import KeyRecord, Record, TaskRow
from gateway.model.principal import Kind, Principal
from gateway.model.task import Task
from gateway.server.admin_agents import AdminAgents
from gateway.server.admin_approvals import AdminApprovals
from gateway.server.admin_audit import FILTERS, AdminAudit
from gateway.server.admin_cards import AdminCards
from gateway.server.admin_json import check_query, json_answer, json_object, text
from gateway.server.admin_people import AdminPeople
from gateway.server.admin_policy import AdminPolicy
from gateway.server.admin_push import AdminPush
from gateway.server.admin_tools import AdminTools
from gateway.server.auth import Authenticator
from gateway.server.cards import Cards
from gateway.server.request import STREAM_HEADERS, Stream, peer_of
from gateway.server.request import Request as DoorRequest

Use = Callable[[Request, Principal], Awaitable[Response]]


class Admin:
    def __init__(self, gateway: Gateway, auth: Authenticator, cards: Cards) -> None:
        self._gateway = gateway
        self._auth = auth
        self._agents = AdminAgents(gateway, cards)
        self._tools = AdminTools(gateway)
        self._people = AdminPeople(gateway)
        self._policy = AdminPolicy(gateway)
        self._push = AdminPush(gateway)
        self._audit = AdminAudit(gateway)
        self._approvals = AdminApprovals(gateway)
        self._card_files = AdminCards(gateway, cards)

    def routes(self) -> list[Route]:
        return [
            Route("/admin/agents", self._guard(self._agents.list), methods=["GET"]),
            Route("/admin/agents", self._guard(self._agents.add), methods=["POST"]),
            Route("/admin/agents/{id}", self._guard(self._agents.change), methods=["PATCH"]),
            Route("/admin/agents/{id}", self._guard(self._agents.remove), methods=["DELETE"]),
            Route("/admin/cards:verify", self._guard(self._card_files.verify), methods=["POST"]),
            Route("/admin/cards/{id}:accept", self._guard(self._card_files.accept), methods=["POST"]),
            Route("/admin/cards/{id}", self._guard(self._card_files.show), methods=["GET"]),
            Route("/admin/keys", self._guard(self._keys), methods=["GET"]),
            Route("/admin/keys", self._guard(self._add_key), methods=["POST"]),
            Route("/admin/keys/{id}", self._guard(self._revoke_key), methods=["DELETE"]),
            Route("/admin/tools", self._guard(self._tools.servers), methods=["GET"]),
            Route("/admin/tools:approve", self._guard(self._tools.approve), methods=["POST"]),
            Route("/admin/tools:reload", self._guard(self._tools.reload), methods=["POST"]),
            Route("/admin/tools:login", self._guard(self._tools.login), methods=["POST"]),
            Route("/admin/tools:authorized", self._guard(self._tools.authorized), methods=["POST"]),
            Route("/admin/tools:logout", self._guard(self._tools.logout), methods=["POST"]),
            Route("/admin/tools:call", self._guard(self._tools.call), methods=["POST"]),
            Route("/admin/clients", self._guard(self._people.clients), methods=["GET"]),
            Route("/admin/clients", self._guard(self._people.add_client), methods=["POST"]),
            Route("/admin/clients:invite", self._guard(self._people.invite_client), methods=["POST"]),
            Route("/admin/clients:revoke", self._guard(self._people.revoke_any_client), methods=["POST"]),
            Route("/admin/clients/{id}", self._guard(self._people.revoke_client), methods=["DELETE"]),
            Route("/admin/users", self._guard(self._people.users), methods=["GET"]),
            Route("/admin/users", self._guard(self._people.add_user), methods=["POST"]),
            Route("/admin/users/{name}", self._guard(self._people.remove_user), methods=["DELETE"]),
            Route("/admin/users/{name}:password", self._guard(self._people.set_password), methods=["POST"]),
            Route("/admin/grants", self._guard(self._people.grants, "client", "person"), methods=["GET"]),
            Route("/admin/grants/{id}", self._guard(self._people.remove_grant), methods=["DELETE"]),
            Route("/admin/connections", self._guard(self._people.connections, "of", "at"), methods=["GET"]),
            Route("/admin/connections/{id}", self._guard(self._people.remove_connection), methods=["DELETE"]),
            Route("/admin/policy", self._guard(self._policy.show), methods=["GET"]),
            Route("/admin/policy/shadow", self._guard(self._policy.shadow), methods=["GET"]),
            Route("/admin/policy:explain", self._guard(self._policy.explain), methods=["POST"]),
            Route("/admin/policy:replay", self._guard(self._policy.replay), methods=["POST"]),
            Route("/admin/policy:reload", self._guard(self._policy.reload), methods=["POST"]),
            Route("/admin/compliance", self._guard(self._policy.compliance), methods=["GET"]),
            Route("/admin/compliance:reload", self._guard(self._policy.reload_compliance), methods=["POST"]),
            Route("/admin/push", self._guard(self._push.show, "limit"), methods=["GET"]),
            Route("/admin/push/dead", self._guard(self._push.dead, "after", "limit"), methods=["GET"]),
            Route("/admin/push/dead:replay", self._guard(self._push.replay), methods=["POST"]),
            Route("/admin/push/dead/{id:int}:replay", self._guard(self._push.replay), methods=["POST"]),
            Route("/admin/audit", self._guard(self._audit.page, *FILTERS), methods=["GET"]),
            Route("/admin/audit:watch", self._guard(self._audit.watch, *FILTERS), methods=["GET"]),
            Route("/admin/audit:rotate-key", self._guard(self._audit.rotate), methods=["POST"]),
            Route("/admin/vault:rotate-key", self._guard(self._audit.rotate_vault), methods=["POST"]),
            Route("/admin/audit:erase", self._guard(self._audit.erase), methods=["POST"]),
            Route("/admin/audit/{index}", self._guard(self._audit.entry), methods=["GET"]),
            Route("/admin/frozen", self._guard(self._policy.frozen), methods=["GET"]),
            Route("/admin/frozen", self._guard(self._policy.freeze), methods=["POST"]),
            Route("/admin/frozen/{kind}/{name}", self._guard(self._policy.thaw), methods=["DELETE"]),
            Route("/admin/approvals", self._guard(self._approvals.page, "all", "before", "limit"), methods=["GET"]),
            Route("/admin/approvals/{id}:approve", self._guard(self._approvals.approve), methods=["POST"]),
            Route("/admin/approvals/{id}:edit", self._guard(self._approvals.edit), methods=["POST"]),
            Route("/admin/approvals/{id}:reject", self._guard(self._approvals.reject), methods=["POST"]),
            Route("/admin/approvals/{id}", self._guard(self._approvals.show), methods=["GET"]),
            Route("/admin/tasks", self._guard(self._tasks, "agent", *requests.LIST_TASKS), methods=["GET"]),
            Route("/admin/tasks/{id}:cancel", self._guard(self._cancel), methods=["POST"]),
            Route("/admin/tasks/{id}:watch", self._guard(self._watch), methods=["GET"]),
            Route("/admin/tasks/{id}:replay", self._guard(self._audit.replay, "event", "at"), methods=["GET"]),
            Route("/admin/tasks/{id}", self._guard(self._task), methods=["GET"]),
        ]

    def _guard(self, use: Use, *query: str) -> Callable[[Request], Awaitable[Response]]:
        """`query` are the parameters that there may be in it."""

        async def endpoint(request: Request) -> Response:
            scope = request.scope
            who = await self._auth.principal(dict(scope["headers"]), scope["path"], scope["method"], peer_of(scope))
            if who.kind is not Kind.ANONYMOUS:  # who is nobody is told that, and nothing else
                check_query(request, *query)
            return await use(request, who)

        return endpoint

    # Keys.

    async def _keys(self, request: Request, who: Principal) -> Response:
        return json_answer({"keys": [_key(record) for record in await self._gateway.handle(ListKeys(), who)]})

    async def _add_key(self, request: Request, who: Principal) -> Response:
        made = await self._gateway.handle(AddKey(text(await json_object(request, "name"), "name") or ""), who)
        return json_answer({**_key(made.record), "key": made.secret}, 201)

    async def _revoke_key(self, request: Request, who: Principal) -> Response:
        await self._gateway.handle(RevokeKey(request.path_params["id"]), who)
        return Response(status_code=204)

    # Tasks, across agents.

    async def _tasks(self, request: Request, who: Principal) -> Response:
        query = dict(request.query_params)
        agent = query.pop("agent", None)
        call = requests.decode("ListTasks", query, "")
        assert isinstance(call, ListTasks)
        page: TaskPage = await self._gateway.handle(_across(call, agent), who)
        tasks = [{"agent": row.agent, "task": orjson.Fragment(row.task.wire())} for row in page.tasks]
        return json_answer({"tasks": tasks, "nextPageToken": page.next_page_token, "totalSize": page.total_size})

    async def _task(self, request: Request, who: Principal) -> Response:
        row = await self._row(request.path_params["id"], who)
        return _listed(row.agent, row.task)

    async def _cancel(self, request: Request, who: Principal) -> Response:
        id = request.path_params["id"]
        task = await self._gateway.handle(CancelTask(None, id), who)
        return _listed((await self._gateway.tasks.row(who, id, None)).agent, task)

    async def _watch(self, request: Request, who: Principal) -> Response:
        """Like SubscribeToTask, but an ended task is shown too: its one event is the task."""
        id = request.path_params["id"]
        row = await self._row(id, who)
        if not row.task.status.state.terminal:
            try:
                events = await self._gateway.open(SubscribeToTask(None, id), who)
                return _StreamResponse(Stream(events, DoorRequest.of(request.scope, request.receive), _frame, _broken))
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


def _across(call: ListTasks, agent: str | None) -> ListTasks:
    return ListTasks(
        agent,
        context_id=call.context_id,
        status=call.status,
        page_size=call.page_size,
        page_token=call.page_token,
        history_length=call.history_length,
        status_timestamp_after=call.status_timestamp_after,
        include_artifacts=call.include_artifacts,
    )


def _listed(agent: str, task: Task) -> Response:
    return json_answer({"agent": agent, "task": orjson.Fragment(task.wire())})


def _key(record: KeyRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": record.name,
        "prefix": record.prefix,
        "created": timestamp(record.created),
        "revoked": None if record.revoked is None else timestamp(record.revoked),
    }
