"""Is it alive, is it ready?"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def routes(not_ready: Callable[[], str | None]) -> list[Route]:
    """`/livez`: the process answers. `/readyz`: the store is open, recovery is done and no shutdown has begun;
    otherwise 503 with the reason that `not_ready` gives."""

    async def livez(request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})

    async def readyz(request: Request) -> JSONResponse:
        reason = not_ready()
        body = {"status": "ok"} if reason is None else {"status": "unavailable", "reason": reason}
        return JSONResponse(body, 200 if reason is None else 503, headers={"cache-control": "no-store"})

    return [Route("/livez", livez), Route("/readyz", readyz)]
