"""The long way for JSON-RPC: whatever is not one well-formed call goes through jsonrpcserver.

The only module that knows the library. Used as it is sound (parsed objects, one dispatch per element so that one
bad element spoils nothing else, wrapped methods so that no exception text leaves), see docs/adr/0005.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from jsonrpcserver import JsonRpcError, Success
from jsonrpcserver import async_dispatch_to_serializable as dispatch
from jsonrpcserver.result import Result

from gateway.dialects import jsonrpc
from gateway.dialects.a2a import NO_SUCH_METHOD
from gateway.dialects.a2a_v1.errors import jsonrpc_error
from gateway.model.errors import GatewayError, Reason
from gateway.server.incident import known

MAX_BATCH = 50  # elements; each may be a whole call
AT_ONCE = 8  # of them in hand at the same time

# A method of a dialect: its name and by-name parameters in, the finished bytes of the result out.
Method = Callable[[str, dict[str, Any]], Awaitable[bytes]]


async def answer(tree: Any, names: Mapping[str, object], method: Method) -> bytes | None:
    """The response to a batch, notification or malformed request; None when there is nothing to say."""
    if not isinstance(tree, list):
        return await _element(tree, names, method)
    if not tree:
        return _refusal(None, "A batch must not be empty")
    if len(tree) > MAX_BATCH:
        return _refusal(None, f"A batch has at most {MAX_BATCH} elements")
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(element: Any) -> bytes | None:
        async with limit:
            return await _element(element, names, method)

    answers = [body for body in await asyncio.gather(*map(one, tree)) if body is not None]
    return b"[" + b",".join(answers) + b"]" if answers else None


async def _element(element: Any, names: Mapping[str, object], method: Method) -> bytes | None:
    if isinstance(element, list):
        return _refusal(None, "A batch must not stand inside a batch")
    table = {name: _wrapped(name, method) for name in names}
    response: Any = await dispatch(element, table, deserializer=lambda parsed: parsed)
    if response is None:
        return None
    if "result" in response:
        return jsonrpc.result(response["id"], bytes(response["result"]))
    error = response["error"]
    if error["code"] == -32601:
        body = jsonrpc_error(GatewayError(Reason.METHOD_NOT_FOUND, NO_SUCH_METHOD))
    elif isinstance(error.get("data"), _Written):
        body = error["data"].body
    else:
        return _refusal(_readable_id(element), "Not a JSON-RPC 2.0 request: it has jsonrpc, method, params and id")
    return jsonrpc.error(response["id"], body)


class _Written:
    """An error object that we wrote; anything else in `data` is the library's own text and never leaves."""

    def __init__(self, body: bytes) -> None:
        self.body = body


def _wrapped(name: str, method: Method) -> Callable[..., Awaitable[Result]]:
    async def call(*positional: Any, **params: Any) -> Result:
        try:
            if positional:
                raise GatewayError(Reason.INVALID_PARAMS, "Parameters are given by name, as an object")
            return Success(await method(name, params))
        except Exception as error:
            body = jsonrpc_error(known(error))
        raise JsonRpcError(0, "", _Written(body))

    return call


def _refusal(id: jsonrpc.Id, message: str) -> bytes:
    return jsonrpc.error(id, jsonrpc_error(GatewayError(Reason.INVALID_REQUEST, message)))


def _readable_id(element: Any) -> jsonrpc.Id:
    """A malformed request is answered under its id where one can be read (JSON-RPC 2.0 §5)."""
    id = element.get("id") if isinstance(element, dict) else None
    return id if isinstance(id, str) or type(id) is int else None


__all__ = ["MAX_BATCH", "Method", "answer"]
