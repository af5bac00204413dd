"""What a person sees of the authorization server: the way from a client's request to a yes or a no (RFC 6749 §4.1,
RFC 8628 §3.3). Every answer to a client names the issuer (RFC 9207)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import quote, urlencode

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749.errors import AccessDeniedError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.attempts import Attempts
from gateway.core.audit import Recorder, Ticket
from gateway.dialects.oauth2 import forms
from gateway.dialects.oauth2.client_metadata import BadClient
from gateway.model.audit import Decision, Verdict
from gateway.model.clients import ClientRecord
from gateway.model.errors import GatewayError
from gateway.model.people import Person
from gateway.model.principal import ANONYMOUS, Kind, Principal
from gateway.server.oauth import pages
from gateway.server.oauth.approval import APPROVAL, ApprovalPages
from gateway.server.oauth.asking import Asking
from gateway.server.oauth.authorization_server import AuthorizationServer
from gateway.server.oauth.browser import Browser, Browsers, Visit
from gateway.server.oauth.codes import Asked
from gateway.server.oauth.provider import LoginFailed, Provider
from gateway.server.pages import sentence
from gateway.server.proxies import Proxies

VISIT = "/oauth/visit"
ERRANDS = frozenset({"connect", "connections"})

LONGEST_STATE = 2048
"""Characters of a client's `state`; it travels through the pages and back."""

_GONE = "This page is too old, or was made for another browser. Go back to the program and begin again."
_OLD = "This page is too old, or was made for another browser. Open the link again."
_WRONG = "The name or the password is wrong."


class Consent:
    """`users` is whether people with a password here may log in, `provider` where others do, `proxies` who says whose
    guesses these are."""

    def __init__(
        self,
        server: AuthorizationServer,
        browsers: Browsers,
        recorder: Recorder,
        attempts: Attempts,
        *,
        users: bool,
        provider: Provider | None,
        approvals: ApprovalPages,
        proxies: Proxies,
    ) -> None:
        self._server = server
        self._browsers = browsers
        self._recorder = recorder
        self._attempts = attempts
        self._users = users
        self._provider = provider
        self._approvals = approvals
        self._proxies = proxies

    def routes(self) -> list[Route]:
        there = [
            ("/oauth/authorize", self._authorize, ["GET", "POST"]),
            ("/oauth/login", self._login, ["POST"]),
            ("/oauth/consent", self._answer, ["POST"]),
            ("/oauth/device", self._device, ["GET", "POST"]),
            (APPROVAL, self._approval, ["GET", "POST"]),
            (VISIT, self._visit, ["GET"]),
        ]
        if self._provider is not None:
            there += [("/oauth/provider", self._to_provider, ["GET"]), ("/oauth/callback", self._callback, ["GET"])]
        return [Route(path, _page(use), methods=methods) for path, use, methods in there]

    # From a client.

    async def _authorize(self, request: Request) -> Response:
        form = await _fields(request)
        client = await self._server.known(form.get("client_id", ""))
        asking = Asking(self._server.url + "/oauth/authorize", {}, form)
        try:
            redirect_uri = self._server.get_consent_grant(asking).redirect_uri
        except OAuth2Error as error:
            if not error.redirect_uri:
                # Whoever made this link is not the client it names: nothing goes back to them (RFC 6749 §4.1.2.1).
                return sentence("This request cannot be used", error.description or str(error.error), 400)
            return self._back(error.redirect_uri, dict(error.get_body()))
        state = form.get("state")
        try:
            if state is not None and len(state) > LONGEST_STATE:
                raise forms.BadForm(f"state has more than {LONGEST_STATE} characters")
            asked = self._server.asked(client, form.get("scope"), form.get("resource"))
        except (OAuth2Error, forms.BadForm) as error:
            code = error.error if isinstance(error, OAuth2Error) else "invalid_request"
            return self._back(redirect_uri, {"error": str(code), "state": (state or "")[:LONGEST_STATE]})
        visit = Visit(asked, redirect_uri, state, form["code_challenge"], form.get("dpop_jkt"))
        browser = self._browsers.of(request)
        return browser.send(await self._next(browser, visit, client))

    def _peer(self, request: Request) -> str:
        peer = str((request.scope.get("client") or ("unknown",))[0])
        return self._proxies.caller(peer, ",".join(request.headers.getlist("x-forwarded-for")))

    # From a person.

    async def _login(self, request: Request) -> Response:
        form, browser = await _fields(request), self._browsers.of(request)
        visit = browser.visit("login", form.get("visit", ""))
        if visit is None or not self._users:
            return sentence("Begin again", _GONE, 403)
        client = await self._client(visit)
        name = form.get("name", "")
        try:
            person = await self._server.people.login(name, form.get("password", ""), self._peer(request))
        except GatewayError as error:
            await self._record("LogIn", None, "OVERLOADED")
            said = {"problem": error.message, "name": name, "status": 429, "retry_after": error.retry_after}
            return browser.send(self._ask_login(browser, visit, client, **said))
        await self._record("LogIn", person, "ok" if person else "access_denied")
        if person is None:
            return browser.send(self._ask_login(browser, visit, client, problem=_WRONG, name=name, status=403))
        browser.log_in(person)
        return browser.send(await self._ask(browser, visit, client, person))

    async def _answer(self, request: Request) -> Response:
        form, browser = await _fields(request), self._browsers.of(request)
        visit, person = browser.visit("consent", form.get("visit", "")), browser.person
        if visit is None or person is None or not self._server.people.is_here(person):
            return sentence("Begin again", _GONE, 403)
        client = await self._server.known(visit.asked.client)
        answer = form.get("answer")
        if answer == "other":
            browser.log_out()
            return browser.send(self._ask_login(browser, visit, client))
        allowed = answer == "allow"
        await self._record("Consent", person, "ok" if allowed else "access_denied", visit.asked)
        return self._told_device(visit, person, allowed) if visit.user_code else self._told(visit, person, allowed)

    def _told(self, visit: Visit, person: Person, allowed: bool) -> Response:
        if not allowed:
            return self._back(visit.redirect_uri, {"error": AccessDeniedError.error, "state": visit.state or ""})
        code = self._server.codes.make(visit.asked, person, visit.redirect_uri, visit.challenge, visit.key)
        return self._back(visit.redirect_uri, {"code": code, "state": visit.state or ""})

    def _told_device(self, visit: Visit, person: Person, allowed: bool) -> Response:
        device = self._server.devices.waiting(visit.user_code)
        if device is None:
            return sentence("Too late", "The code has ended. Begin again on the device.", 403)
        if not allowed:
            device.denied = True
            return sentence("Not allowed", "The device gets nothing. You can close this page.")
        device.person = person
        return sentence("Done", "Go back to your device; it goes on there. You can close this page.")

    # Devices.

    async def _device(self, request: Request) -> Response:
        """RFC 8628 §3.3. A code in the link is only written into the field: the person says yes to it themselves."""
        form, browser = await _fields(request), self._browsers.of(request)
        nothing = Visit(Asked("", (), ""))
        typed = form.get("user_code", "")
        again = browser.form("device", nothing)
        if request.method == "GET":
            return browser.send(pages.device(again, typed=typed[:16]))
        if browser.visit("device", form.get("visit", "")) is None:
            return sentence("Begin again", _GONE, 403)
        peer = self._peer(request)
        try:
            self._attempts.check("a device", peer)
        except GatewayError as error:
            return browser.send(
                pages.device(again, typed=typed[:16], problem=error.message, status=429, retry=error.retry_after)
            )
        device = self._server.devices.waiting(typed)
        if device is None:
            self._attempts.failed("a device", peer)
            problem = "No device waits with this code. It may have ended; begin again on the device."
            return browser.send(pages.device(again, typed=typed[:16], problem=problem, status=403))
        client = await self._server.known(device.asked.client)
        return browser.send(await self._next(browser, Visit(device.asked, user_code=device.user_code), client))

    # Calls that wait for somebody.

    async def _approval(self, request: Request) -> Response:
        form, browser = await _fields(request), self._browsers.of(request)
        if request.method != "POST":
            visit = Visit(Asked("", (), ""), approval=form.get("id", "")[:100])
            return browser.send(await self._next(browser, visit, None))
        here, person = browser.visit("approval", form.get("visit", "")), browser.person
        if here is None or person is None or not self._server.people.is_here(person):
            return sentence("Begin again", _OLD, 403)
        if form.get("answer") == "other":
            browser.log_out()
            return browser.send(self._ask_login(browser, here, None))
        return browser.send(await self._approvals.answer(browser, here, person, form))

    # Pages that want to know who somebody is.

    async def _visit(self, request: Request) -> Response:
        """The login, and from there to one of `ERRANDS`; with `other`, whoever has logged in before."""
        form, browser = await _fields(request), self._browsers.of(request)
        to, ticket = form.get("to", ""), form.get("ticket", "")
        if to not in ERRANDS:
            return sentence("Nothing is here", "Open the link again.", 404)
        visit = Visit(Asked("", (), ""), errand=f"{to}?ticket={quote(ticket)}" if ticket else to)
        if "other" not in form:
            return browser.send(await self._next(browser, visit, None))
        browser.log_out()
        return browser.send(self._ask_login(browser, visit, None))

    # People of an identity provider.

    async def _to_provider(self, request: Request) -> Response:
        form, browser = await _fields(request), self._browsers.of(request)
        visit = browser.visit("login", form.get("visit", ""))
        if visit is None or self._provider is None:
            return sentence("Begin again", _GONE, 403)
        state = browser.form("provider", visit)
        try:
            url = await self._provider.url(state, browser.word("nonce", state), browser.word("verifier", state))
        except LoginFailed as error:
            client = await self._client(visit)
            return browser.send(self._ask_login(browser, visit, client, problem=str(error), status=503))
        return browser.send(_see(url))

    async def _callback(self, request: Request) -> Response:
        form, browser = await _fields(request), self._browsers.of(request)
        state = form.get("state", "")
        visit = browser.visit("provider", state)
        if visit is None or self._provider is None:
            return sentence("Begin again", _GONE, 403)
        client = await self._client(visit)
        try:
            person = await self._provider.person(form, browser.word("nonce", state), browser.word("verifier", state))
        except LoginFailed as error:
            await self._record("LogIn", None, "access_denied")
            return browser.send(self._ask_login(browser, visit, client, problem=str(error), status=403))
        await self._record("LogIn", person, "ok")
        browser.log_in(person)
        return browser.send(await self._ask(browser, visit, client, person))

    async def _client(self, visit: Visit) -> ClientRecord | None:
        """Who has sent the person, if it was a client. Raises BadClient, GatewayError."""
        return None if visit.approval or visit.errand else await self._server.known(visit.asked.client)

    # The pages.

    async def _next(self, browser: Browser, visit: Visit, client: ClientRecord | None) -> Response:
        person = browser.person
        if person is not None and self._server.people.is_here(person):
            return await self._ask(browser, visit, client, person)
        return self._ask_login(browser, visit, client)

    async def _ask(self, browser: Browser, visit: Visit, client: ClientRecord | None, person: Person) -> Response:
        if visit.errand:
            return _see(visit.errand)
        if client is None:
            return await self._approvals.ask(browser, visit, person)
        return self._ask_consent(browser, visit, client, person)

    def _ask_login(self, browser: Browser, visit: Visit, client: ClientRecord | None, **more: object) -> Response:
        provider = "" if self._provider is None else self._provider.name
        form = browser.form("login", visit)
        why = "A page of this gateway wants to know who you are." if visit.errand else pages.APPROVAL_WAITS
        return pages.login(form, client, why=why, users=self._users, provider=provider, **more)  # type: ignore[arg-type]

    def _ask_consent(self, browser: Browser, visit: Visit, client: ClientRecord, person: Person) -> Response:
        part = visit.asked.audience.removeprefix(self._server.url).strip("/")
        resource = f"{part} at {self._server.url}" if part else f"everything that you may use at {self._server.url}"
        return pages.consent(browser.form("consent", visit, person), visit, client, person, resource)

    def _back(self, redirect_uri: str, parameters: Mapping[str, str]) -> Response:
        """To the client, with `state` as it came and `iss` (RFC 9207 §2)."""
        told = {name: text for name, text in parameters.items() if text} | {"iss": self._server.url}
        return _see(f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{urlencode(told)}")

    async def _record(self, verb: str, person: Person | None, outcome: str, asked: Asked | None = None) -> None:
        known_as = self._server.issuer.rules.known_as
        who = ANONYMOUS if person is None else Principal(Kind.OAUTH, f"{known_as}#{person.subject}", person.tenant)
        good = outcome == "ok"
        decision = Decision(Verdict.PASS if good else Verdict.BLOCK, "authorization-server", "RFC 6749")
        target = "gateway" if asked is None else f"client:{asked.client}"
        await self._recorder.keep(Ticket(who, verb, target, decision, self._server.new_id()), outcome)


def _see(url: str) -> Response:
    """303: whatever was sent here is not sent there (RFC 9700 §4.12)."""
    headers = {"location": url, "cache-control": "no-store", "referrer-policy": "no-referrer"}
    return Response(status_code=303, headers=headers)


def _page(use: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Errors as pages: it is a person who reads them."""

    async def endpoint(request: Request) -> Response:
        try:
            return await use(request)
        except BadClient as error:
            return sentence("This request cannot be used", str(error), 400)
        except forms.BadForm as error:
            return sentence("This request cannot be used", str(error), 400)
        except GatewayError as error:
            return sentence("Not now", error.message, 503, retry_after=error.retry_after or 5)

    return endpoint


async def _fields(request: Request) -> dict[str, str]:
    """The query of a GET, the form of a POST. Raises BadForm."""
    if request.method in ("GET", "HEAD"):
        return forms.read_form(request.scope["query_string"])
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != forms.MEDIA_TYPE:
        raise forms.BadForm(f"Send Content-Type: {forms.MEDIA_TYPE}")
    return forms.read_form(await request.body())
