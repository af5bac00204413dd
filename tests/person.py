"""A person with a browser that knows no script: it keeps cookies, reads forms, sends them, follows redirects of one
site, and stops where a redirect leads to a program. It holds pages to their own security policy, as browsers do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2

PASSWORD = "correct horse battery"


@dataclass
class Form:
    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.labels: set[str] = set()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        if tag == "form":
            self.forms.append(Form(found["action"], found.get("method", "get")))
        elif tag == "input":
            self.forms[-1].fields[found["name"]] = found.get("value", "")
        elif tag == "button" and "name" in found:
            self.forms[-1].buttons.append((found["name"], found["value"]))
        elif tag == "a":
            self.links.append(found["href"])
        elif tag == "label":
            self.labels.add(found["for"])

    def handle_data(self, data: str) -> None:
        self.text += data


@dataclass
class Person:
    """`at` is the last answer. Redirects to other origins than `url`'s are kept in `sent_to`, unless in `visits`."""

    url: str
    http: httpx2.AsyncClient
    visits: tuple[str, ...] = ()
    at: httpx2.Response | None = None
    sent_to: str = ""

    @property
    def page(self) -> _Reader:
        assert self.at is not None
        reader = _Reader()
        reader.feed(self.at.text)
        return reader

    @property
    def answer(self) -> dict[str, str]:
        """What a program is told in the redirect."""
        return dict(parse_qsl(urlsplit(self.sent_to).query))

    async def get(self, url: str) -> httpx2.Response:
        return await self._arrived(await self.http.get(urljoin(self.url, url)), None)

    async def follow(self, link: str) -> httpx2.Response:
        """A link of the page."""
        assert self.at is not None
        return await self.get(urljoin(str(self.at.url), link))

    async def submit(self, button: str = "", **fields: str) -> httpx2.Response:
        """The page's one form, with these fields filled in and a button pressed."""
        assert self.at is not None
        (form,) = self.page.forms
        data = {**form.fields, **fields, **{name: value for name, value in form.buttons if value == button}}
        where = urljoin(str(self.at.url), form.action)
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(where))
        policy = self.at.headers.get("content-security-policy", "")
        answer = await self.http.request(form.method.upper(), where, data=data, headers={"origin": origin})
        return await self._arrived(answer, policy)

    async def log_in(self, name: str = "ada", password: str = PASSWORD) -> httpx2.Response:
        return await self.submit(name=name, password=password)

    async def _arrived(self, answer: httpx2.Response, policy: str | None) -> httpx2.Response:
        while answer.is_redirect:
            target = urljoin(str(answer.url), answer.headers["location"])
            if policy is not None:
                may_redirect(policy, str(answer.url), target)
            if not target.startswith((self.url, *self.visits)):
                self.sent_to = target
                break
            answer = await self.http.get(target)
        self.at = answer
        return answer


def may_redirect(policy: str, page: str, target: str) -> None:
    """CSP3 §6.4.2: what comes back for a form may only lead to where `form-action` says."""
    named = [part.split()[1:] for part in policy.split(";") if part.split()[:1] == ["form-action"]]
    if not named:
        return  # a site without such a policy
    (sources,) = named
    here, there = urlsplit(page), urlsplit(target)
    allowed = {f"{here.scheme}://{here.netloc}" if source == "'self'" else source for source in sources}
    assert {f"{there.scheme}://{there.netloc}", f"{there.scheme}:"} & allowed, f"{policy} does not let go to {target}"


@asynccontextmanager
async def somebody(url: str, *visits: str) -> AsyncIterator[Person]:
    async with httpx2.AsyncClient(timeout=10.0, trust_env=False) as http:
        yield Person(url, http, visits)
