"""The authorization server's paths for clients: tokens, revocation, introspection, devices, registration, metadata and
keys.

Open to whoever reaches them, as clients have nothing else to show than what they send there. Each answer but the last
two is recorded, and none of those may be kept (RFC 6749 §5.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import orjson
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import UnauthorizedClientError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.audit import Recorder, Ticket
from gateway.dialects.oauth2 import forms
from gateway.dialects.oauth2.metadata import AUTHORIZATION_SERVER, authorization_server
from gateway.model.audit import Decision, Verdict
from gateway.model.clients import DEVICE_CODE, ClientRecord
from gateway.model.principal import ANONYMOUS, Kind, Principal
from gateway.server.oauth.asking import Asking, Client
from gateway.server.oauth.authorization_server import AuthorizationServer
from gateway.server.oauth.codes import DEVICE_SECONDS, INTERVAL, shown
from gateway.server.oauth.grants import ANY
from gateway.server.oauth.registration import Registration, RegistrationRefused

KEYS = "/.well-known/jwks.json"
CACHE = "public, max-age=300"
_PRIVATE = {"cache-control": "no-store", "pragma": "no-cache"}


# What authlib's core makes of a request: status, body and headers.
Decide = Callable[[Asking], tuple[int, dict[str, Any], dict[str, str]]]


class Endpoints:
    """`registration` is None where no client may register itself."""

    def __init__(
        self,
        server: AuthorizationServer,
        recorder: Recorder,
        new_id: Callable[[], str],
        registration: Registration | None,
    ) -> None:
        self._server = server
        self._recorder = recorder
        self._new_id = new_id
        self._registration = registration

    def routes(self) -> list[Route]:
        # RFC 8414 §3.1: the path of an issuer stands behind the well-known one.
        places = {AUTHORIZATION_SERVER, AUTHORIZATION_SERVER + urlsplit(self._server.url).path}
        routes = [
            *(Route(place, self.metadata, methods=["GET"]) for place in sorted(places)),
            Route(KEYS, self.keys, methods=["GET"]),
            Route("/oauth/token", self.token, methods=["POST"]),
            Route("/oauth/revoke", self.revoke, methods=["POST"]),
            Route("/oauth/introspect", self.introspect, methods=["POST"]),
        ]
        if self._server.logins:
            routes.append(Route("/oauth/device_authorization", self.device, methods=["POST"]))
        if self._registration is not None:
            routes.append(Route("/oauth/register", self.register, methods=["POST"]))
        return routes

    async def metadata(self, request: Request) -> Response:
        body = authorization_server(self._server.url, self._server.abilities)
        return Response(body, media_type="application/json", headers={"cache-control": CACHE})

    async def keys(self, request: Request) -> Response:
        return Response(self._server.keys.published(), media_type="application/json", headers={"cache-control": CACHE})

    async def token(self, request: Request) -> Response:
        """RFC 6749 §3.2, with resource indicators (RFC 8707)."""
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

    async def device(self, request: Request) -> Response:
        """RFC 8628 §3.1."""
        return await self._answer(request, "AuthorizeDevice", self._begin_device)

    async def register(self, request: Request) -> Response:
        """RFC 7591 §3."""
        assert self._registration is not None
        try:
            made = await self._registration.register(request.headers.get("authorization"), await request.body())
        except RegistrationRefused as refused:
            await self._record("RegisterClient", None, refused.status, {"error": refused.error})
            answer = _error(refused.status, refused.error, str(refused))
            if refused.status == 401:  # RFC 6750 §3
                answer.headers["www-authenticate"] = f'Bearer realm="gateway", error="{refused.error}"'
            return answer
        await self._record("RegisterClient", made.client, 200, {})
        return Response(orjson.dumps(made.answer), 201, _PRIVATE, "application/json")

    async def _answer(self, request: Request, verb: str, decide: Decide) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != forms.MEDIA_TYPE:
            return _error(415, "invalid_request", f"Send Content-Type: {forms.MEDIA_TYPE}")
        try:
            form = forms.read_form(await request.body())
            asked = await self._server.prepare(request.scope["path"], request.headers, form)
        except forms.BadForm as refused:
            return _error(400, "invalid_request", str(refused))
        except OAuth2Error as refused:
            return _error(400, refused.error or "invalid_request", refused.description)
        status, body, _ = decide(asked)
        status, body = await self._server.finish(asked, status, body)
        await self._record(verb, asked.client, status, body)
        headers = dict(_PRIVATE)
        if status == 401:  # RFC 6749 §5.2
            headers["www-authenticate"] = 'Basic realm="gateway"'
        return Response(orjson.dumps(body), status, headers, "application/json")

    def _begin_device(self, asked: Asking) -> tuple[int, dict[str, Any], dict[str, str]]:
        server = self._server
        try:
            asked.client = client = server.authenticate_client(asked, ANY)
            if not client.check_grant_type(DEVICE_CODE):
                raise UnauthorizedClientError("The client may not use the device grant.")
            wanted = server.asked(client.record, asked.form.get("scope"), asked.form.get("resource"))
        except OAuth2Error as error:
            return server.handle_error_response(asked, error)  # type: ignore[no-any-return]
        word, device = server.devices.make(wanted)
        place, typed = f"{server.url}/oauth/device", shown(device.user_code)
        body = {
            "device_code": word,
            "user_code": typed,
            "verification_uri": place,
            "verification_uri_complete": f"{place}?user_code={typed}",
            "expires_in": DEVICE_SECONDS,
            "interval": INTERVAL,
        }
        return 200, body, {}

    async def _record(self, verb: str, client: Client | ClientRecord | None, status: int, body: object) -> None:
        id = None if client is None else client.id
        known_as = self._server.issuer.rules.known_as
        who = ANONYMOUS if id is None else Principal(Kind.OAUTH, f"{known_as}#{id}", client=id)
        good = status == 200
        decision = Decision(Verdict.PASS if good else Verdict.BLOCK, "authorization-server", "RFC 6749")
        outcome = "ok" if good else str(body.get("error") if isinstance(body, dict) else status)
        await self._recorder.keep(Ticket(who, verb, "gateway", decision, self._new_id()), outcome)


def _error(status: int, code: str, sentence: str) -> Response:
    body = orjson.dumps({"error": code, "error_description": sentence})
    return Response(body, status, _PRIVATE, "application/json")
