"""What the outside needs of push notifications: the keys that check ours, and where remote agents ring.

A ring is known by the secret that the gateway gave to the agent for this one task. Its body is not read: it only says
that there is news (core/push/bells.py).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.push.bells import Bells
from gateway.model.errors import GatewayError, Reason

RING = "/webhooks"  # with two segments behind it no path of a tenant called so: no agent is called tasks or v1
KEYS = "/.well-known/webhook-jwks.json"
MAX_AGE_SECONDS = 3600  # keys are published a day before they sign, so an hour old is fresh


def routes(
    published: Callable[[], Awaitable[bytes]], bells: Bells, refused: Callable[[str], None] = lambda path: None
) -> list[Route]:
    """`published` gives the JWK set (RFC 7517 §5); `refused` is told the path of each ring that is nobody's."""

    async def keys(request: Request) -> Response:
        headers = {"cache-control": f"public, max-age={MAX_AGE_SECONDS}"}
        return Response(await published(), headers=headers, media_type="application/jwk-set+json")

    async def ring(request: Request) -> Response:
        words = request.path_params
        if not bells.ring(words["agent"], words["task_id"], _secrets(request)):
            refused(request.scope["path"])
            raise GatewayError(Reason.UNAUTHENTICATED, "This webhook is for the agent that was given its secret")
        return Response(status_code=204)

    return [Route(KEYS, keys, methods=["GET"]), Route(RING + "/{agent}/{task_id}", ring, methods=["POST"])]


def _secrets(request: Request) -> list[str]:
    """As agents send what they were given: as credentials (§4.3.3), or as the token of 0.3."""
    scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
    token = request.headers.get("x-a2a-notification-token", "")
    return [credentials if scheme.lower() == "bearer" else "", token]
