"""`/oauth/connections`: where people see what they let the gateway use in their own name, end it (core/kept.py), and
begin what they could have besides.

Like the page of a link (connect.py) it takes whoever has logged in at the browser, or asks for the caller's own
credential, in a form; nothing is kept of it. What it then shows has a form for each connection, with a sealed word that
removes this one and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.core.kept import KeptConnections
from gateway.dialects.oauth2 import forms
from gateway.model.base import timestamp
from gateway.model.errors import GatewayError, Reason
from gateway.model.login import Connection, Ending
from gateway.model.principal import Principal
from gateway.server.auth import Authenticator
from gateway.server.connect import Logins, failed
from gateway.server.incident import known
from gateway.server.pages import page, sentence

PATH = "/oauth/connections"
TITLE = "Your connections"

_SAID = {
    Ending.REVOKED: "The server that gave the authorization has taken it back.",
    Ending.NO_ENDPOINT: "The server that gave the authorization takes none back: end it there, too, if somebody else "
    "may have seen it.",
    Ending.FAILED: "The server that gave the authorization did not take it back: end it there, too, if somebody else "
    "may have seen it.",
    Ending.UNASKED: "The server that gave the authorization was not told.",
}


class OwnConnections:
    """`logins` is None where nobody can log in."""

    def __init__(self, kept: KeptConnections, auth: Authenticator, logins: Logins | None = None) -> None:
        self._logins = logins
        self._kept = kept
        self._auth = auth

    def routes(self) -> list[Route]:
        return [Route(PATH, self.ask, methods=["GET"]), Route(PATH, self.use, methods=["POST"])]

    async def ask(self, request: Request) -> Response:
        if self._logins is None:
            return _asking()
        found = self._logins.who(request)
        if found is None or "credential" in request.query_params:
            return _asking(login=_LOGIN)
        try:
            return await self._shown(found[0], found[1])
        except Exception as error:
            return failed(known(error))

    async def _shown(self, who: Principal, person: str = "") -> Response:
        found = await self._kept.own(who)
        return _listing(found, self._kept.others(who, [each for each, _ in found]), person)

    async def use(self, request: Request) -> Response:
        try:
            form = forms.read_form(await request.body())
            if "ticket" in form:
                ending = await self._kept.remove_own(form["ticket"])
                return sentence("Removed", f"The gateway has forgotten it. {_SAID[ending]}")
            credential = form.get("credential", "").strip()
            who = await self._auth.principal({b"authorization": b"Bearer " + credential.encode()}, "/mcp")
            return await self._shown(who)
        except forms.BadForm as refused:
            return sentence("That did not work", str(refused), 400)
        except GatewayError as error:
            login = "" if self._logins is None else _LOGIN
            return _asking("This credential is not known here.", login) if error.reason is _UNKNOWN else failed(error)
        except Exception as error:
            return failed(known(error))


_UNKNOWN = Reason.UNAUTHENTICATED


_LOGIN = "visit?to=connections"


def _asking(problem: str = "", login: str = "") -> Response:
    """`login` is where people log in instead, if they can."""
    instead = f'<p><a class="button" href="{login}">Log in</a></p>' if login else ""
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return page(
        TITLE,
        f'<p>Show who you are, with the key or token that your client uses.</p>{alert}<form method="post" '
        'action="connections"><label for="credential">Your credential of this gateway</label><input id="credential" '
        'name="credential" type="password" autocomplete="off" required autofocus><button class="first">Go on</button>'
        f"</form>{instead}",
        403 if problem else 200,
    )


def _listing(found: Sequence[tuple[Connection, str]], others: Sequence[tuple[str, str]], person: str) -> Response:
    """`person` is who has logged in at the browser, if it is them."""
    own = "".join(_one(connection, word) for connection, word in found)
    links = "".join(f'<p><a class="button" href="{escape(url)}">Connect {escape(name)}</a></p>' for name, url in others)
    end = ""
    if person:
        end = (
            f'<p>You are logged in as <strong>{escape(person)}</strong>. <a href="{_LOGIN}&amp;other=yes">Log in as '
            'somebody else</a>, or <a href="connections?credential=own">show a key or token</a>.</p>'
        )
    return page(TITLE, (own or "<p>The gateway uses nothing in your name.</p>") + links + end)


def _one(connection: Connection, word: str) -> str:
    name = connection.place.partition("/")[2]
    facts = {
        "Given by": connection.issuer,
        "For": " ".join(connection.scopes),
        "Since": None if connection.since is None else timestamp(connection.since),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(fact)}</dd>" for name, fact in facts.items() if fact)
    return (
        f'<section><h2>{escape(name)}</h2><dl>{rows}</dl><form method="post" action="connections"><input type="hidden" '
        f'name="ticket" value="{escape(word)}"><button>Remove {escape(name)}</button></form></section>'
    )
