"""A2A over HTTP+JSON: `/agents/{id}/message:send`, `/agents/{id}/tasks/…`, the same after `/v1` for 0.3, and all of it
at the root."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from gateway.core.gateway import Gateway
from gateway.core.watch import Watch
from gateway.dialects import a2a
from gateway.dialects.face import HttpJson
from gateway.dialects.paths import Operation
from gateway.dialects.sse import frame
from gateway.dialects.strict_json import read
from gateway.model.call import GetExtendedCard, SendMessage, SubscribeToTask
from gateway.model.card import VERSION
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.server.auth import Authenticator
from gateway.server.cards import Cards
from gateway.server.extensions import active
from gateway.server.incident import known
from gateway.server.request import JSON_HEADERS, STREAM_HEADERS, Answer, Headers, Reply, Request, Stream, retry_after

MEDIA_TYPES = frozenset({"application/json", "application/a2a+json"})
# Every answer is for its caller alone; GET must not leave it in a cache on the way (§8.6, §13.3).
NO_STORE: Headers = ((b"cache-control", b"no-store"),)

# Operations that answer with events, under 1.0's names, which the paths of every revision lead to.
STREAMING = frozenset({"SendStreamingMessage", "SubscribeToTask"})
_PROTO_NAMES = {"taskId": "task_id"}  # of the ids that stand in paths


class HttpJsonDoor:
    def __init__(self, gateway: Gateway, auth: Authenticator, cards: Cards) -> None:
        self._gateway = gateway
        self._auth = auth
        self._cards = cards

    async def answer(
        self, request: Request, agent: str, tenant: str | None, face: HttpJson, operation: Operation
    ) -> Answer:
        """The answer to one operation on `agent`; `tenant` is the one in the path."""
        try:
            who = await self._auth.principal(request.headers, request.path, request.method, request.peer)
            if request.has_content and request.media_type not in MEDIA_TYPES:
                return Reply(*face.error(_unsupported(), HTTPStatus.UNSUPPORTED_MEDIA_TYPE))
            if tenant is not None and tenant not in self._gateway.find(agent, who).tenants:
                raise GatewayError(Reason.NOT_FOUND, "There is nothing at this path")
            params = await self._params(request, operation, tenant)
            asked = request.header(b"a2a-version") or request.query.get("A2A-Version")
            if asked != face.version:
                a2a.agree(face.version, asked, "such path")
            named = a2a.extensions(request.header(b"a2a-extensions"))
            older = a2a.extensions(request.header(b"x-a2a-extensions")) if face.older_extensions else ()
            call = face.decode(operation.name, params, agent, named + older)
            headers = active(self._gateway.registry.get(agent), named, older) if named or older else ()
            if operation.name in STREAMING:
                assert isinstance(call, SendMessage | SubscribeToTask)
                events = await self._gateway.open(call, who)
                return _stream(face, events, request, headers)
            result = await self._gateway.handle(call, who)
            if isinstance(call, GetExtendedCard):
                result = self._cards.extended(result, who, older=face.version != VERSION)
            body = face.encode(call, result)
        except Exception as error:
            return self._failure(request, face, known(error))
        return Reply(200, body, (*_success_type(face, request), *NO_STORE, *headers))

    def _failure(self, request: Request, face: HttpJson, error: GatewayError) -> Reply:
        status, body = face.error(error, None)
        challenge = self._auth.challenge(error, request.path)
        return Reply(status, body, (*JSON_HEADERS, *challenge, *retry_after(error)))

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


def _stream(face: HttpJson, events: Watch, request: Request, headers: Headers) -> Stream:
    written = face.event
    return Stream(
        events,
        request,
        lambda record: frame(written(record)),
        lambda error: frame(face.error(error, None)[1], event="error"),
        (*STREAM_HEADERS, *headers),
        face.ends,
    )


def _success_type(face: HttpJson, request: Request) -> Headers:
    """The revision's own (§11.2) unless the caller accepts plain JSON only."""
    accept = request.header(b"accept") or "*/*"
    if "application/json" in accept and "a2a+json" not in accept and "*/*" not in accept:
        return JSON_HEADERS
    return ((b"content-type", face.media_type.encode()),)


def _unsupported() -> GatewayError:
    """415 of RFC 9110 §15.5.16: the HTTP request itself has the wrong type. (A2A's 400 is for a part's type.)"""
    message = "Send Content-Type: application/a2a+json or application/json"
    return GatewayError(Reason.CONTENT_TYPE_NOT_SUPPORTED, message)
