"""The pages of the login: a login, a question, a short code. Every word from outside is escaped here.

Where a form goes is said from where its page is, all of them being under `/oauth/`: the gateway's own URL may have a
path that a proxy takes off."""

from __future__ import annotations

from html import escape

import orjson
from starlette.responses import Response

from gateway.dialects.oauth2.redirects import host_of, is_local, policy_source
from gateway.model.approval import Approval, ApprovalState, chain
from gateway.model.base import timestamp
from gateway.model.clients import ClientRecord, Origin
from gateway.model.people import Person
from gateway.model.tool import Tree
from gateway.server.oauth.browser import Visit
from gateway.server.oauth.codes import shown
from gateway.server.pages import page

APPROVAL_WAITS = "A call waits for an approval. Log in to see it."


def login(
    form: str,
    client: ClientRecord | None,
    *,
    why: str,
    users: bool,
    provider: str = "",
    problem: str = "",
    name: str = "",
    status: int = 200,
    retry_after: float | None = None,
) -> Response:
    """`provider` is the name of the identity provider where people may log in too, if there is one. `why` they should
    is said where no `client` has sent them."""
    said = escape(why)
    if client is not None:
        said = f"<strong>{escape(_called(client))}</strong> wants to use this gateway in your name."
    parts = [f"<p>{said}</p>"]
    if problem:
        parts.append(f'<p role="alert">{escape(problem)}</p>')
    if users:
        parts.append(
            f'<form method="post" action="login">{_hidden(form)}'
            '<label for="name">Name</label>'
            f'<input id="name" name="name" value="{escape(name)}" autocomplete="username" autocapitalize="none" '
            f'spellcheck="false" required maxlength="63"{"" if name else " autofocus"}>'
            '<label for="password">Password</label>'
            '<input id="password" name="password" type="password" autocomplete="current-password" required '
            f'maxlength="256"{" autofocus" if name else ""}>'
            '<button class="first">Log in</button></form>'
        )
    if provider:
        link = f"provider?visit={escape(form)}"
        parts.append(f'<p><a class="button" href="{link}">Log in with {escape(provider)}</a></p>')
    return page("Log in", "".join(parts), status, retry_after=retry_after)


def consent(form: str, visit: Visit, client: ClientRecord, person: Person, resource: str) -> Response:
    """What the person is asked. Whatever the client says about itself is shown as its own words."""
    about = [("Logged in as", person.name), ("It may use", resource)]
    if visit.asked.scopes:
        about.append(("With the scopes", ", ".join(visit.asked.scopes)))
    if visit.user_code:
        about.append(("The device shows", shown(visit.user_code)))
    else:
        about.append(("The answer goes to", host_of(visit.redirect_uri)))
    if client.origin is not Origin.OPERATOR:
        about.append(("It is known by", client.id))
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in about)
    body = (
        f"<dl>{rows}</dl>{_warnings(client, visit)}"
        f'<form method="post" action="consent">{_hidden(form)}'
        '<button class="first" name="answer" value="allow">Allow</button>'
        '<button name="answer" value="deny">Do not allow</button>'
        '<button class="plain" name="answer" value="other">Log in as somebody else</button></form>'
    )
    leads_to = "" if visit.user_code else policy_source(visit.redirect_uri)
    return page(f"Allow {_called(client)}?", body, leads_to=leads_to)


def device(form: str, *, typed: str = "", problem: str = "", status: int = 200, retry: float | None = None) -> Response:
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    body = (
        "<p>Type the code that your device shows. Do it only if you have just begun this there yourself.</p>"
        f'{alert}<form method="post" action="device">{_hidden(form)}<label for="code">Code</label>'
        f'<input id="code" name="user_code" value="{escape(typed)}" autocomplete="off" autocapitalize="characters" '
        'spellcheck="false" required maxlength="16" autofocus><button class="first">Go on</button></form>'
    )
    return page("Connect a device", body, status, retry_after=retry)


MAX_SHOWN = 50_000
"""Characters of a call's arguments on the page; nobody reads more there, and what is not seen is not approved."""


def approval(
    form: str, asked: Approval, person: Person, *, problem: str = "", own: bool = False, status: int = 200
) -> Response:
    """A call that waits, whole, and what can be said to it. `own`: it is the person's, and for others to answer."""
    who, terms = asked.asked.principal, asked.terms
    people = ", ".join((*asked.approvers, *(["the caller"] if terms.caller else []))) or "nobody whom the policy names"
    about = [
        ("Logged in as", person.name),
        ("Who calls", who.id),
        ("On behalf of", ", ".join(chain(who))),
        ("What", f"{asked.asked.verb} on {asked.asked.target}"),
        ("Which is at", "; ".join(" ".join((site.at, *site.leads)) for site in asked.sites)),
        ("Stopped by the rule", f"{asked.rule}: {asked.reason}"),
        ("Waits for", f"{terms.persons} of {people}"),
        ("Said so far", "; ".join(f"{word.said.value} by {word.by}" for word in asked.words)),
        ("Waits until", timestamp(asked.until)),
        ("Its digest", asked.released),
    ]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(_visible(text))}</dd>" for name, text in about if text)
    whole = _visible(_indented(asked.arguments))
    shown = f"<h2>With</h2><pre>{escape(whole[:MAX_SHOWN])}</pre>"
    if asked.edited is not None:
        before = _visible(_indented(asked.asked.arguments))[:MAX_SHOWN]
        shown += f"<h2>It was asked for with</h2><pre>{escape(before)}</pre>"
    if len(whole) > MAX_SHOWN:
        problem = f"It is too long for this page: gateway approvals show {asked.id}"
    alert = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    return page("Let this call be made?", f"<dl>{rows}</dl>{shown}{alert}{_choices(form, asked, own, whole)}", status)


def _choices(form: str, asked: Approval, own: bool, whole: str) -> str:
    other = '<button class="plain" name="answer" value="other">Log in as somebody else</button></form>'
    begin = f'<form method="post" action="approval">{_hidden(form)}'
    if asked.state is not ApprovalState.WAITING:
        return f"<p>It is {asked.state.value}. {escape(asked.why)}</p>"
    if own:
        return f"<p>It is your own call. Somebody else has to answer.</p>{begin}{other}"
    allow = "" if len(whole) > MAX_SHOWN else '<button class="first" name="answer" value="approve">Approve</button>'
    return (
        f'{begin}<label for="reason">Why, for the record and for who asked</label>'
        f'<input id="reason" name="reason" maxlength="1000" autocomplete="off">{allow}'
        f'<button name="answer" value="reject">Reject</button>{other}'
    )


def _indented(tree: Tree) -> str:
    return orjson.dumps(tree, option=orjson.OPT_INDENT_2).decode()


def _visible(text: str) -> str:
    """What would not be seen, or would turn the letters around it, as its escape."""
    return "".join(each if each.isprintable() or each == "\n" else f"\\u{ord(each):04x}" for each in text)


def _called(client: ClientRecord) -> str:
    return client.name or client.id


def _warnings(client: ClientRecord, visit: Visit) -> str:
    said = []
    if client.origin is not Origin.OPERATOR:
        said.append("Nobody has checked who this client is: its name is its own word.")
    if not visit.user_code and is_local(visit.redirect_uri):
        said.append(
            "The answer goes to a program on your own machine. Allow it only if you have just begun this there."
        )
    return "".join(f"<p>{escape(each)}</p>" for each in said)


def _hidden(form: str) -> str:
    return f'<input type="hidden" name="visit" value="{escape(form)}">'
