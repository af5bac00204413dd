"""What the handlers of the admin API have in common: queries and bodies in, bodies out."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.dialects.strict_json import read
from gateway.model.errors import GatewayError, Reason, invalid
from gateway.server.request import Request as DoorRequest


async def json_object(request: Request, *fields: str) -> dict[str, Any]:
    """The body. Raises INVALID_PARAMS for a field that is none of `fields`: one that is misspelled would be left undone
    without a word, a pin of keys for example."""
    body = read(await request.body())
    if not isinstance(body, dict):
        raise GatewayError(Reason.INVALID_REQUEST, "The body must be a JSON object")
    if (unknown := next((name for name in body if name not in fields), None)) is not None:
        raise invalid(unknown[:100], f"is no field here; there are {', '.join(fields)}")
    return body


def check_query(request: Request, *names: str) -> None:
    """Raises INVALID_PARAMS for a parameter that is none of `names`, or is there twice: a filter that is misspelled
    would show what was not asked for without a word."""
    asked = DoorRequest.of(request.scope, request.receive).query
    if (unknown := next((name for name in asked if name not in names), None)) is not None:
        raise invalid(unknown[:100], f"is no parameter here; there are {', '.join(names) or 'none'}")


def text(body: dict[str, Any], name: str, *, required: bool = True) -> Any:
    value = body.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value:
        raise invalid(name, "must be a text")
    return value


def json_bytes(value: Any) -> bytes:
    return orjson.dumps(value)


def json_answer(value: Any, status: int = 200) -> Response:
    return Response(json_bytes(value), status, {"cache-control": "no-store"}, "application/json")
