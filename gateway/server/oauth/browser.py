"""The browser in front of which a person sits: two cookies, and forms that only it can send back.

Nothing about a stranger is kept here. What a page will need when its form comes back is sealed into the form, together
with the hash of the browser's own cookie: a form that was made for one browser opens nothing in another, so neither a
page elsewhere nor an attacker's own login can finish what somebody else began (security.md C7).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.keys import random_word
from gateway.model.people import Person
from gateway.model.value import value
from gateway.server.mcp.seal import Seal
from gateway.server.oauth.codes import Asked

VISIT_SECONDS = 600
"""From the first page to the last click."""

LOGIN_SECONDS = 3600
"""How long somebody who has logged in is not asked for the password again. What a client gets is asked each time."""


@value
class Visit:
    """Why the person is here: what a client asks for, and where the answer goes: back to a redirect URI, or to the
    device with this `user_code`. Or a call that waits for an `approval`, of which they have `seen` this digest. Or a
    page beside this one that wants to know who they are (`errand`, relative to it)."""

    asked: Asked
    redirect_uri: str = ""
    state: str | None = None
    challenge: str = ""
    key: str | None = None
    user_code: str = ""
    approval: str = ""
    seen: str = ""
    errand: str = ""


class Browsers:
    """`secret` seals, `secure` is whether the gateway is reached over https. `now` gives milliseconds."""

    def __init__(self, secret: bytes, now: Callable[[], int], *, secure: bool) -> None:
        self._secret = secret
        self._forms = Seal(secret, b"oauth-form")
        self._logins = Seal(secret, b"oauth-login")
        self._now = now
        self._secure = secure
        # The prefix makes browsers refuse the cookie from anybody but this very host, over https (RFC 6265bis §4.1.3).
        prefix = "__Host-" if secure else ""
        self._browser, self._login = f"{prefix}gateway-browser", f"{prefix}gateway-login"

    def of(self, request: Request) -> Browser:
        return Browser(self, request.cookies.get(self._browser, ""), request.cookies.get(self._login, ""))

    def _sealed(self, seal: Seal, seconds: int, tree: dict[str, Any]) -> str:
        return seal.seal({**tree, "until": self._now() // 1000 + seconds})

    def _opened(self, seal: Seal, text: str) -> dict[str, Any] | None:
        tree = seal.open(text)
        return tree if tree is not None and tree["until"] > self._now() // 1000 else None


class Browser:
    """One request's browser. A cookie that it does not have yet, or that changes, goes out with `send`."""

    def __init__(self, browsers: Browsers, word: str, login: str) -> None:
        self._all = browsers
        self._known = self._word = word if 32 <= len(word) <= 64 else ""
        self._login = login
        self._logged_in: str | None = None

    @property
    def mark(self) -> str:
        """What forms are bound to."""
        if not self._word:
            self._word = random_word()
        return hashlib.sha256(self._word.encode()).hexdigest()

    def word(self, purpose: str, text: str) -> str:
        """43 characters that only this browser's cookie and the gateway together can say again."""
        data = f"{purpose}\0{self._word}\0{text}".encode()
        digest = hmac.digest(self._all._secret, data, "sha256")
        return digest.hex()[:43]

    # Forms.

    def form(self, step: str, visit: Visit, person: Person | None = None) -> str:
        """What a form for this step carries."""
        tree = {"step": step, "browser": self.mark, "visit": asdict(visit), "subject": person and person.subject}
        return self._all._sealed(self._all._forms, VISIT_SECONDS, tree)

    def visit(self, step: str, form: str) -> Visit | None:
        """The visit of a form that came back; None for one of another browser, step or hour."""
        tree = self._all._opened(self._all._forms, form)
        if tree is None or tree["step"] != step or not self._known or tree["browser"] != self.mark:
            return None
        person = self.person
        if tree["subject"] is not None and (person is None or person.subject != tree["subject"]):
            return None
        about = tree["visit"]
        asked = about.pop("asked")
        return Visit(Asked(asked["client"], tuple(asked["scopes"]), asked["audience"]), **about)

    # Who sits there.

    @property
    def person(self) -> Person | None:
        tree = self._all._opened(self._all._logins, self._login) if self._login else None
        if tree is None or tree["browser"] != self.mark:
            return None
        return Person(
            tree["subject"], tuple(tree["roles"]), tree["name"], tree.get("stamp", ""), tree.get("tenant", "")
        )

    def log_in(self, person: Person) -> None:
        """A new cookie for the browser too: whoever planted the old one is left behind."""
        self._word = random_word()
        tree = {"browser": self.mark, **asdict(person)}
        self._login = self._logged_in = self._all._sealed(self._all._logins, LOGIN_SECONDS, tree)
        self._known = ""

    def log_out(self) -> None:
        self._login = self._logged_in = ""

    def send(self, response: Response) -> Response:
        """The response with the cookies that it needs."""
        if self._word and self._word != self._known:
            self._set(response, self._all._browser, self._word)
        if self._logged_in is not None:
            self._set(response, self._all._login, self._logged_in)
        return response

    def _set(self, response: Response, name: str, word: str) -> None:
        # Lax: the person comes back from an identity provider by a link (OpenID Connect Core §3.1.2.5).
        response.set_cookie(name, word, path="/", secure=self._all._secure, httponly=True, samesite="lax")
