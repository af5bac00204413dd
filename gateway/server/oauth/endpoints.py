"""The authorization server's paths: `/oauth/token`, `/oauth/revoke`, `/oauth/introspect`, metadata and keys.

Open to whoever reaches them, as clients have nothing else to show than what they send there. Each answer of the first
three is recorded, and no answer may be kept (RFC 6749 §5.1).
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
from authlib.oauth2 import OAuth2Error
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.audit import Recorder, Ticket
from gateway.dialects.oauth2 import forms
from gateway.dialects.oauth2.metadata import AUTHORIZATION_SERVER, authorization_server
from gateway.model.audit import Decision, Verdict
from gateway.model.principal import ANONYMOUS, Kind, Principal
from gateway.server.oauth.authorization_server import METHODS, AuthorizationServer

KEYS = "/.well-known/jwks.json"
CACHE = "public, max-age=300"
_PRIVATE = {"cache-control": "no-store", "pragma": "no-cache"}


# What authlib's core makes of a request: status, body and headers.
Decide = Callable[..., tuple[int, object, dict[str, str]]]


class Endpoints:
    def __init__(self, server: AuthorizationServer, recorder: Recorder, new_id: Callable[[], str]) -> None:
        self._server = server
        self._recorder = recorder
        self._new_id = new_id

    def routes(self) -> list[Route]:
        return [
            Route(AUTHORIZATION_SERVER, self.metadata, methods=["GET"]),
            Route(KEYS, self.keys, methods=["GET"]),
            Route("/oauth/token", self.token, methods=["POST"]),
            Route("/oauth/revoke", self.revoke, methods=["POST"]),
            Route("/oauth/introspect", self.introspect, methods=["POST"]),
        ]

    async def metadata(self, request: Request) -> Response:
        body = authorization_server(self._server.url, METHODS)
        return Response(body, media_type="application/json", headers={"cache-control": CACHE})

    async def keys(self, request: Request) -> Response:
        return Response(self._server.keys.published(), media_type="application/json", headers={"cache-control": CACHE})

    async def token(self, request: Request) -> Response:
        """RFC 6749 §4.4, with resource indicators (RFC 8707)."""
        return await self._answer(request, "IssueToken", self._server.create_token_response)

    async def revoke(self, request: Request) -> Response:
        """RFC 7009."""
        return await self._answer(
            request, "RevokeToken", lambda asked: self._server.create_endpoint_response("revocation", asked)
        )

    async def introspect(self, request: Request) -> Response:
        """RFC 7662."""
        return await self._answer(
            request, "IntrospectToken", lambda asked: self._server.create_endpoint_response("introspection", asked)
        )

    async def _answer(
        self, request: Request, verb: str, decide: Callable[..., tuple[int, object, dict[str, str]]]
    ) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != forms.MEDIA_TYPE:
            return _error(415, "invalid_request", f"Send Content-Type: {forms.MEDIA_TYPE}")
        try:
            form = forms.read_form(await request.body())
            asked = self._server.request(request.scope["path"], request.headers, form)
        except forms.BadForm as refused:
            return _error(400, "invalid_request", str(refused))
        except OAuth2Error as refused:
            return _error(400, "invalid_request", refused.description)
        status, body, _ = decide(asked)
        revoking, self._server.revoking = self._server.revoking, None
        if revoking is not None:
            await self._server.clients.revoke_token(*revoking)
        self._record(verb, asked.client, status, body)
        headers = dict(_PRIVATE)
        if status == 401:  # RFC 6749 §5.2
            headers["www-authenticate"] = 'Basic realm="gateway"'
        return Response(orjson.dumps(body), status, headers, "application/json")

    def _record(self, verb: str, client: object, status: int, body: object) -> None:
        id = getattr(client, "id", None)
        who = ANONYMOUS if id is None else Principal(Kind.OAUTH, f"{self._server.issuer.rules.known_as}#{id}")
        good = status == 200
        decision = Decision(Verdict.PASS if good else Verdict.BLOCK, "authorization-server", "RFC 6749")
        outcome = "ok" if good else str(body.get("error") if isinstance(body, dict) else status)
        self._recorder.note(Ticket(who, verb, "gateway", decision, self._new_id()), outcome)


def _error(status: int, code: str, sentence: str) -> Response:
    body = orjson.dumps({"error": code, "error_description": sentence})
    return Response(body, status, _PRIVATE, "application/json")
