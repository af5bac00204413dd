"""Where clients read which issuers' tokens are taken: metadata of each protected resource (RFC 9728)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.scopes import ScopesInUse
from gateway.dialects.oauth2.metadata import PROTECTED_RESOURCE, protected_resource
from gateway.model.errors import GatewayError, Reason
from gateway.server.auth import resource_path

CACHE = "public, max-age=300"


class ProtectedResources:
    """`scopes` are those that every token needs, `used` what rules ask for beside them."""

    def __init__(
        self,
        public_url: str,
        issuers: Sequence[str],
        scopes: Sequence[str],
        used: ScopesInUse,
        proofs: Sequence[str] = (),
        *,
        bound: bool = False,
    ) -> None:
        self._url = public_url
        self._prefix = urlsplit(public_url).path
        self._issuers = issuers
        self._scopes = scopes
        self._used = used
        self._proofs = proofs
        self._bound = bound

    def routes(self) -> list[Route]:
        return [
            Route(PROTECTED_RESOURCE, self.metadata, methods=["GET"]),
            Route(PROTECTED_RESOURCE + "/{resource:path}", self.metadata, methods=["GET"]),
        ]

    async def metadata(self, request: Request) -> Response:
        """Open to everybody, and the same for agents that are there, hidden or missing."""
        path = "/" + request.path_params.get("resource", "")
        if f"{path}/".startswith(f"{self._prefix}/"):  # the whole path of the resource (RFC 9728 §3.1)
            path = path.removeprefix(self._prefix)
        resource = resource_path(path)
        if path.rstrip("/") != resource:
            raise GatewayError(Reason.NOT_FOUND, "There is no protected resource at this path")
        scopes = sorted(self._of(resource).union(self._scopes))
        body = protected_resource(self._url + resource, self._issuers, scopes, self._proofs, bound=self._bound)
        return Response(body, media_type="application/json", headers={"cache-control": CACHE})

    def _of(self, resource: str) -> frozenset[str]:
        kind, _, id = resource.removeprefix("/").partition("/")
        if kind == "agents":
            return self._used.of_agent(id)
        return self._used.of_mount(id) if kind == "mcp" else self._used.whole()
