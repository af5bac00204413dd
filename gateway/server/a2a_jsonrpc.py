"""A2A over JSON-RPC: `POST /` and `POST /agents/{id}`, with the older `agents/tasks/*` messages beside it.

One well-formed call goes straight from the table to the gateway; streams are taken out before; everything else
(batches, notifications, malformed requests) goes the long way through jsonrpcserver (dispatch.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.core.gateway import Gateway
from gateway.core.results import Found
from gateway.dialects import a2a, jsonrpc, tasks
from gateway.dialects.a2a_v1.errors import jsonrpc_error
from gateway.dialects.face import JsonRpc
from gateway.dialects.sse import frame
from gateway.dialects.strict_json import read
from gateway.model.call import (
    Call,
    FetchResult,
    GetExtendedCard,
    PullTasks,
    SendMessage,
    SubmitResult,
    SubscribeToTask,
)
from gateway.model.card import VERSION
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.principal import Principal
from gateway.model.value import value
from gateway.server.auth import Authenticator
from gateway.server.cards import Cards
from gateway.server.extensions import active
from gateway.server.incident import known
from gateway.server.request import JSON_HEADERS, STREAM_HEADERS, Answer, Headers, Reply, Request, Stream, retry_after

METHODS = {**a2a.METHODS, **dict.fromkeys(tasks.METHODS)}

# JSON-RPC errors travel in HTTP 200, except where HTTP itself has something to do about it: ask for a credential,
# come back later, give up on the address.
STATUS: dict[Reason, int] = {
    Reason.UNAUTHENTICATED: 401,
    Reason.PERMISSION_DENIED: 403,
    Reason.NOT_FOUND: 404,
    Reason.OVERLOADED: 429,
    Reason.UNAVAILABLE: 503,
}


@value
class Endpoint:
    """What one request is addressed to: the endpoint's agent (None: the root), who asks, and the service
    parameters it sent."""

    agent: str | None
    default_agent: str | None
    who: Principal
    version: str | None
    extensions: tuple[str, ...]
    older_extensions: tuple[str, ...]  # under the name that 0.3 has for them
    left: Callable[[], Awaitable[None]]  # returns when the caller has gone

    @property
    def target(self) -> str:
        agent = self.default_agent if self.agent is None else self.agent
        if agent is None:
            raise GatewayError(Reason.NOT_FOUND, "No default agent is configured; use /agents/{id}")
        return agent


class JsonRpcDoor:
    def __init__(
        self,
        gateway: Gateway,
        auth: Authenticator,
        cards: Cards,
        default_agent: str | None,
        new_id: Callable[[], str],
    ) -> None:
        self._gateway = gateway
        self._auth = auth
        self._cards = cards
        self._default = default_agent
        self._new_id = new_id

    async def answer(self, request: Request, agent: str | None) -> Answer:
        """The answer to one POST on the endpoint of `agent`."""
        try:
            who = await self._auth.principal(request.headers, request.path, request.method, request.peer)
            if request.media_type != "application/json":
                # Looked at before the body is: what is not JSON cannot be a parse error.
                return _unsupported()
            asked = request.header(b"a2a-version") or request.query.get("A2A-Version")
            listed = a2a.extensions(request.header(b"a2a-extensions"))
            older = a2a.extensions(request.header(b"x-a2a-extensions"))
            endpoint = Endpoint(agent, self._default, who, asked, listed, older, request.left)
            tree: Any = read(await request.body())
        except Exception as error:
            return self._failure(request, None, known(error))
        if not jsonrpc.is_single_call(tree):
            return await self._long_way(tree, endpoint)
        if tree["method"] in a2a.STREAMING:
            return await self._stream(request, tree, endpoint)
        try:
            body = await self._call(tree["method"], tree.get("params") or {}, endpoint)
        except Exception as error:
            return self._failure(request, tree["id"], known(error))
        return Reply(200, jsonrpc.result(tree["id"], body), self._headers(endpoint, JSON_HEADERS))

    async def _call(self, method: str, params: dict[str, Any], endpoint: Endpoint) -> bytes:
        """One call of any dialect, to the bytes of its result."""
        if method in tasks.METHODS:
            return await self._older(method, params, endpoint)
        face = a2a.jsonrpc(method, endpoint.version)
        call = self._decode(face, method, params, endpoint)
        result = await self._gateway.handle(call, endpoint.who)
        if isinstance(call, GetExtendedCard):
            result = self._cards.extended(result, endpoint.who, older=face.version != VERSION)
        return b"null" if result is None else face.encode(call, result)

    def _decode(self, face: JsonRpc, method: str, params: dict[str, Any], endpoint: Endpoint) -> Call:
        if params.get("tenant"):
            self._check_tenant(params["tenant"], endpoint)
        extensions = endpoint.extensions
        if face.older_extensions:
            extensions += endpoint.older_extensions
        return face.decode(method, params, endpoint.target, extensions)

    def _check_tenant(self, tenant: Any, endpoint: Endpoint) -> None:
        """A routing word that the agent's configuration names; it says nothing about who owns what."""
        if tenant not in self._gateway.find(endpoint.target, endpoint.who).tenants:
            raise invalid("tenant", "is not a tenant of this agent; send the one of the card's interface, or none")

    async def _older(self, method: str, params: dict[str, Any], endpoint: Endpoint) -> bytes:
        call, wait = tasks.decode(method, params, endpoint.agent, self._new_id)
        if isinstance(call, PullTasks):
            return tasks.encode_pending(await self._pulled(call, endpoint))
        result = await self._gateway.handle(call, endpoint.who)
        if isinstance(call, SendMessage):
            fetch = FetchResult(call.agent, call.message.message_id, wait)
            found: Found = await self._gateway.handle(fetch, endpoint.who)
            return tasks.encode(fetch.message_id, found.agent, found.context_id, found.answer)
        if isinstance(call, FetchResult):
            return tasks.encode(call.message_id, result.agent, result.context_id, result.answer)
        assert isinstance(call, SubmitResult)
        return tasks.encode_receipt(call.task_id, call.state)

    async def _pulled(self, call: PullTasks, endpoint: Endpoint) -> list[dict[str, Any]]:
        """Work for a worker that is still there: what is handed out to one that has gone would be lost to others."""
        pulling = asyncio.ensure_future(self._gateway.handle(call, endpoint.who))
        gone = asyncio.ensure_future(endpoint.left())
        try:
            await asyncio.wait((pulling, gone), return_when=asyncio.FIRST_COMPLETED)
            work: list[dict[str, Any]] = await pulling if pulling.done() else []
            return work
        finally:
            pulling.cancel()
            gone.cancel()

    async def _stream(self, request: Request, tree: Any, endpoint: Endpoint) -> Answer:
        id, face = tree["id"], a2a.METHODS[tree["method"]]
        try:
            a2a.jsonrpc(tree["method"], endpoint.version)
            call = self._decode(face, tree["method"], tree.get("params") or {}, endpoint)
            assert isinstance(call, SendMessage | SubscribeToTask)
            events = await self._gateway.open(call, endpoint.who)
        except Exception as error:
            refusal = self._failure(request, id, known(error))
            if face.refuses_in_stream and refusal.status == 200:
                return Reply(200, frame(refusal.body), (*STREAM_HEADERS, *refusal.headers[1:]))
            return refusal
        written = face.event
        return Stream(
            events,
            request,
            # A step of the most frequent loop: what is written already takes no further call.
            (lambda record: frame(jsonrpc.result(id, record.body)))
            if written is None
            else (lambda record: frame(jsonrpc.result(id, written(record)))),
            lambda error: frame(jsonrpc.error(id, jsonrpc_error(error)), event="error"),
            self._headers(endpoint, STREAM_HEADERS),
            face.ends,
        )

    async def _long_way(self, tree: Any, endpoint: Endpoint) -> Answer:
        # Imported at first use: a gateway whose clients all send plain calls never needs the library.
        from gateway.server import dispatch

        async def method(name: str, params: dict[str, Any]) -> bytes:
            if name in a2a.STREAMING:
                raise GatewayError(Reason.INVALID_REQUEST, f"{name} answers with a stream; send it alone, with an id")
            return await self._call(name, params, endpoint)

        body = await dispatch.answer(tree, METHODS, method)
        return Reply(204, b"", ()) if body is None else Reply(200, body, self._headers(endpoint, JSON_HEADERS))

    def _failure(self, request: Request, id: jsonrpc.Id, error: GatewayError) -> Reply:
        headers = (*JSON_HEADERS, *self._auth.challenge(error, request.path), *retry_after(error))
        return Reply(STATUS.get(error.reason, 200), jsonrpc.error(id, jsonrpc_error(error)), headers)

    def _headers(self, endpoint: Endpoint, headers: Headers) -> Headers:
        """With the activated extensions, if the caller asked for some (docs/topics/extensions), under the name under
        which it asked."""
        if not (endpoint.extensions or endpoint.older_extensions):
            return headers
        entry = self._gateway.registry.get(endpoint.agent or self._default or "")
        return (*headers, *active(entry, endpoint.extensions, endpoint.older_extensions))


def _unsupported() -> Reply:
    error = GatewayError(Reason.CONTENT_TYPE_NOT_SUPPORTED, "Send Content-Type: application/json")
    return Reply(415, jsonrpc.error(None, jsonrpc_error(error)))
