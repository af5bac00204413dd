"""A2A over HTTP+JSON: `/agents/{id}/message:send`, `/agents/{id}/tasks/…`, and the same at the root."""

from __future__ import annotations

from typing import Any

from gateway.core.gateway import Gateway
from gateway.dialects.a2a_v1 import requests, responses, version
from gateway.dialects.a2a_v1.errors import http_error, unsupported_media_type
from gateway.dialects.a2a_v1.paths import Operation
from gateway.dialects.sse import frame
from gateway.dialects.strict_json import read
from gateway.model.call import GetExtendedCard, SendMessage, SubscribeToTask
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.ports import Record
from gateway.server.auth import Authenticator, challenge
from gateway.server.cards import Cards
from gateway.server.incident import known
from gateway.server.request import JSON_HEADERS, STREAM_HEADERS, Answer, Headers, Reply, Request, Stream, retry_after

MEDIA_TYPES = frozenset({"application/json", "application/a2a+json"})
# Every answer is for its caller alone; GET must not leave it in a cache on the way (§8.6, §13.3).
NO_STORE: Headers = ((b"cache-control", b"no-store"),)
A2A_HEADERS: Headers = ((b"content-type", b"application/a2a+json"), *NO_STORE)
PLAIN_HEADERS: Headers = (*JSON_HEADERS, *NO_STORE)

_PROTO_NAMES = {"taskId": "task_id"}  # of the ids that stand in paths


class HttpJsonDoor:
    def __init__(self, gateway: Gateway, auth: Authenticator, cards: Cards) -> None:
        self._gateway = gateway
        self._auth = auth
        self._cards = cards

    async def answer(self, request: Request, agent: str, tenant: str | None, operation: Operation) -> Answer:
        """The answer to one operation on `agent`; `tenant` is the one in the path."""
        try:
            who = await self._auth.principal(request.headers, request.path)
            if request.has_content and request.media_type not in MEDIA_TYPES:
                return Reply(*unsupported_media_type("Send Content-Type: application/a2a+json or application/json"))
            if tenant is not None and tenant not in self._gateway.find(agent, who).tenants:
                raise GatewayError(Reason.NOT_FOUND, "There is nothing at this path")
            params = await self._params(request, operation, tenant)
            version.select(request.header(b"a2a-version") or request.query.get("A2A-Version"))
            activated = version.extensions(request.header(b"a2a-extensions"))
            call = requests.decode(operation.name, params, agent, activated)
            headers = self._extensions(agent, activated)
            if operation.name in requests.STREAMING:
                assert isinstance(call, SendMessage | SubscribeToTask)
                events = await self._gateway.open(call, who)
                return Stream(events, request, _frame, _error_frame, (*STREAM_HEADERS, *headers))
            result = await self._gateway.handle(call, who)
            if isinstance(call, GetExtendedCard):
                result = self._cards.extended(result)
        except Exception as error:
            return _failure(known(error))
        return Reply(200, responses.encode(call, result), (*_success_type(request), *headers))

    async def _params(self, request: Request, operation: Operation, tenant: str | None) -> dict[str, Any]:
        """Body or query, with what the path says on top; the two must agree."""
        params: dict[str, Any]
        if request.method == "POST":
            body = await request.body()
            tree: Any = read(body) if body else {}
            if not isinstance(tree, dict):
                raise GatewayError(Reason.INVALID_REQUEST, "The body must be a JSON object")
            params = tree
        else:
            params = {name: value for name, value in request.query.items() if name != "A2A-Version"}
        for name, value in operation.ids.items():
            for spelled in {name, _PROTO_NAMES.get(name, name)}:
                if params.pop(spelled, None) not in (None, "", value):
                    raise invalid(name, "differs from the one in the path")
            params[name] = value
        if (params.get("tenant") or None) not in (None, tenant):
            raise invalid("tenant", "differs from the one in the path")
        return params

    def _extensions(self, agent: str, asked: tuple[str, ...]) -> Headers:
        entry = self._gateway.registry.get(agent) if asked else None
        offered = entry.card.extensions if entry is not None and entry.card is not None else ()
        active = ",".join(uri for uri in asked if uri in offered)
        return ((b"a2a-extensions", active.encode("latin-1")),) if active else ()


def _frame(record: Record) -> bytes:
    return frame(record.body)


def _error_frame(error: GatewayError) -> bytes:
    return frame(http_error(error)[1], event="error")


def _success_type(request: Request) -> Headers:
    """`application/a2a+json` (§11.2) unless the caller accepts plain JSON only."""
    accept = request.header(b"accept") or "*/*"
    plain = "application/json" in accept and "a2a+json" not in accept and "*/*" not in accept
    return PLAIN_HEADERS if plain else A2A_HEADERS


def _failure(error: GatewayError) -> Reply:
    status, body = http_error(error)
    return Reply(status, body, (*JSON_HEADERS, *challenge(error), *retry_after(error)))
