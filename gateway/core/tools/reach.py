"""One request to one server, in its turn."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core.connections import Connections, owner_of, tool_server
from gateway.core.tools.agents import AgentTools
from gateway.core.tools.served import Served
from gateway.model.errors import GatewayError, Reason
from gateway.model.login import LoginNeeded
from gateway.model.principal import Principal
from gateway.model.tool import Caller, Tree, takes_tasks

# What a server may answer with a question (basic/patterns/mrtr, supported requests).
_MAY_ASK = frozenset({"tools/call", "prompts/get", "resources/read"})


class Reach:
    """`key` is what of the server is used, in its own names. What the server says counts for or against it."""

    def __init__(self, connections: Connections, now: Callable[[], int]) -> None:
        self._connections = connections
        self._now = now

    async def __call__(
        self, served: Served, key: str, who: Principal, method: str, params: Tree, caller: Caller
    ) -> Tree:
        if isinstance(served.server, AgentTools):
            return await served.server.request_as(who, method, {**params, "name": key}, caller)
        server = served.server if served.accounts is None else served.accounts.server(owner_of(who))
        served.gate.enter()
        try:
            async with served.gate:
                served.breaker.admit(self._now())
                try:
                    result = await server.request(method, params, caller)
                except GatewayError as error:
                    served.breaker.heard(error, self._now())
                    if served.accounts is not None and isinstance(error, LoginNeeded):
                        raise self._connections.needed(tool_server(served.id), owner_of(who), error.why) from error
                    raise
                except BaseException:
                    served.breaker.unknown()
                    raise
                served.breaker.worked()
                return _understood(result, method, caller)
        finally:
            served.gate.leave()


def _understood(result: Tree, method: str, caller: Caller) -> Tree:
    """A result whose type is unknown must not be taken for one that is known (basic/index, resultType)."""
    kind = result.get("resultType", "complete")
    known = kind == "complete" or (kind == "input_required" and method in _MAY_ASK)
    if not known and not (kind == "task" and method == "tools/call" and takes_tasks(caller.capabilities)):
        raise GatewayError(Reason.UPSTREAM_FAILED, f"The MCP server answered with a result of type {str(kind)[:40]!r}")
    return result
