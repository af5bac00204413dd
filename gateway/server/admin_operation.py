"""One operation of the admin API: what routes it, checks what is sent and describes it (`openapi.py`) is one value."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, TypeAlias

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.strict_json import read
from gateway.model.errors import invalid
from gateway.model.principal import Kind, Principal
from gateway.model.value import value
from gateway.server.admin_fields import Field, json_object, known, one, taken
from gateway.server.request import Request as DoorRequest

# What a schema says beside what the type says, as pairs.
Moment: TypeAlias = Annotated[str, ("format", "date-time")]
Tree: TypeAlias = Annotated[Any, ("type", "object")]
"""JSON that is not the admin API's to interpret: a card, arguments, a definition."""


@value
class Asked:
    """What was sent, checked and read: by the names of its fields."""

    request: Request
    path: Mapping[str, Any]
    query: dict[str, Any]
    body: dict[str, Any]


@value
class Events:
    """An answer that is a stream: what each of its events holds."""

    each: Any


@value
class Operation:
    """`use` gives what is answered, a Response as it is and anything else as JSON. `verb` is what the policy is asked
    about and the audit calls it. `answer` is the type of what is answered, None for nothing (204)."""

    method: str
    path: str
    verb: str
    summary: str
    use: Callable[[Asked, Principal], Awaitable[Any]]
    answer: Any = None
    status: int = 200
    words: tuple[Field, ...] = ()
    query: tuple[Field, ...] = ()
    body: tuple[Field, ...] | None = None
    least: int = 0
    """How many fields a body must have, whichever they are."""
    id: str = ""
    """The operationId, where several operations are the same verb."""

    async def __call__(self, request: Request, who: Principal) -> Response:
        found = await self.use(await self._asked(request, who), who)
        if isinstance(found, Response):
            return found
        if self.answer is None:
            return Response(status_code=204)
        return Response(json_bytes(found), self.status, {"cache-control": "no-store"}, "application/json")

    async def _asked(self, request: Request, who: Principal) -> Asked:
        query = dict(request.query_params)
        if who.kind is not Kind.ANONYMOUS:  # who is nobody is told that, and nothing else
            query = DoorRequest.of(request.scope, request.receive).query
            known(self.query, query, "parameter")
        path = {**request.path_params}
        path |= {field.name: one(field, path[field.name]) for field in self.words}
        return Asked(request, path, taken(self.query, query), await self._body(request))

    async def _body(self, request: Request) -> dict[str, Any]:
        """None at all is an object without fields."""
        if self.body is None:
            return {}
        sent = await request.body()
        body = json_object(read(sent)) if sent else {}
        known(self.body, body, "field")
        if len(body) < self.least:
            raise invalid("body", f"names nothing to change; there are {', '.join(field.name for field in self.body)}")
        return taken(self.body, body)


def json_bytes(value: Any) -> bytes:
    return orjson.dumps(value)
