"""The admin API: what the command line (and later the console) works with. JSON in and out, the same two doors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.gateway import Gateway
from gateway.model.call import ShowAdminApi
from gateway.model.principal import Principal
from gateway.server.admin_agents import AdminAgents
from gateway.server.admin_approvals import AdminApprovals
from gateway.server.admin_audit import AdminAudit
from gateway.server.admin_cards import AdminCards
from gateway.server.admin_keys import AdminKeys
from gateway.server.admin_operation import Asked, Operation, Tree
from gateway.server.admin_people import AdminPeople
from gateway.server.admin_policy import AdminPolicy
from gateway.server.admin_push import AdminPush
from gateway.server.admin_tasks import AdminTasks
from gateway.server.admin_tools import AdminTools
from gateway.server.auth import Authenticator
from gateway.server.cards import Cards
from gateway.server.openapi import About, OpenApi
from gateway.server.request import peer_of


class Admin:
    """What there is of it is one table, `operations`."""

    def __init__(self, gateway: Gateway, auth: Authenticator, cards: Cards, about: About) -> None:
        self._gateway = gateway
        self._auth = auth
        self.operations: tuple[Operation, ...] = (
            Operation(
                "GET",
                "/admin/openapi.json",
                ShowAdminApi.verb,
                "Show what the admin API takes and answers, as OpenAPI 3.1",
                self._show,
                Tree,
            ),
            *AdminAgents(gateway, cards).operations(),
            *AdminCards(gateway, cards).operations(),
            *AdminKeys(gateway).operations(),
            *AdminTools(gateway).operations(),
            *AdminPeople(gateway).operations(),
            *AdminPolicy(gateway).operations(),
            *AdminPush(gateway).operations(),
            *AdminAudit(gateway).operations(),
            *AdminApprovals(gateway).operations(),
            *AdminTasks(gateway).operations(),
        )
        self._openapi = OpenApi(self.operations, about)

    def routes(self) -> list[Route]:
        return [Route(each.path, self._guard(each), methods=[each.method]) for each in self.operations]

    def _guard(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            scope = request.scope
            who = await self._auth.principal(dict(scope["headers"]), scope["path"], scope["method"], peer_of(scope))
            return await operation(request, who)

        return endpoint

    async def _show(self, asked: Asked, who: Principal) -> Response:
        await self._gateway.handle(ShowAdminApi(), who)
        return Response(
            await self._openapi.document(), headers={"cache-control": "no-store"}, media_type="application/json"
        )
