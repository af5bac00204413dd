"""A gateway where people log in, a client that asks them, and the shortest ways through."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2

from tests.issuer import Clock, Issuer
from tests.person import PASSWORD, Person, somebody
from tests.serving import A2A, ROOT, Gateway, running

ECHO = f"{{run: 'agents.echo:Echo', card: {ROOT}/agent_cards/echo.json, public: true}}"
AGENTS = f"agents:\n  echo: {ECHO}\n  other: {ECHO}\n"
BACK = "https://app.example/back"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"


@asynccontextmanager
async def town(
    data: Path, settings: str = "", more: str = "", *, issuers: Sequence[Issuer] = ()
) -> AsyncIterator[tuple[Gateway, Clock]]:
    """A gateway with the user ada (`app` makes its clients)."""
    clock = Clock()
    trusted = ", ".join(f"{{issuer: '{issuer.url}'}}" for issuer in issuers)
    text = f"""
auth:
  issuers: [{trusted}]
  authorization_server: {{users: true, scopes: [read, write]{settings}}}
{AGENTS}{more}"""
    async with running(data, text, now=clock.now) as gateway:
        await admin(gateway, "users", name="ada", password=PASSWORD, roles=["clerk"])
        yield gateway, clock


async def admin(gateway: Gateway, path: str, **body: Any) -> dict[str, Any]:
    answer = await gateway.client.post(f"/admin/{path}", json=body, headers=gateway.bearer(None))
    assert answer.status_code in (201, 204), answer.text
    made: dict[str, Any] = answer.json() if answer.content else {}
    return made


async def app(gateway: Gateway, id: str = "app", **more: Any) -> App:
    """A client that the operator has made."""
    about = {
        "public": True,
        "grants": ["authorization_code", "refresh_token", "device_code"],
        "redirects": [BACK],
        "scopes": ["read", "write"],
        **more,
    }
    made = await admin(gateway, "clients", id=id, **about)
    return App(gateway, id, made["secret"] or "")


def challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


@dataclass
class App:
    """A program that sends people to the gateway. `verifier` is its PKCE secret."""

    gateway: Gateway
    id: str
    secret: str = ""
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def link(self, **changed: str | None) -> str:
        asked = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": BACK,
            "state": "a state",
            "scope": "read",
            "code_challenge": challenge(self.verifier),
            "code_challenge_method": "S256",
            **changed,
        }
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return f"{self.gateway.url}/oauth/authorize?{query}"

    async def form(self, path: str, **form: str) -> httpx2.Response:
        known = {"client_id": self.id, **({"client_secret": self.secret} if self.secret else {})}
        return await self.gateway.client.post(path, data={**known, **form})

    async def token(self, grant: str, **form: str) -> httpx2.Response:
        return await self.form("/oauth/token", grant_type=grant, **form)

    async def redeem(self, code: str, **changed: str) -> httpx2.Response:
        form = {"code": code, "redirect_uri": BACK, "code_verifier": self.verifier, **changed}
        return await self.token("authorization_code", **form)

    async def refresh(self, word: str, **more: str) -> httpx2.Response:
        return await self.token("refresh_token", refresh_token=word, **more)

    async def code(self, person: Person, **asked: str) -> str:
        """A code by way of the pages; the person logs in if they are asked to."""
        await person.get(self.link(**asked))
        if "password" in person.page.labels:
            await person.log_in()
        await person.submit("allow")
        return person.answer["code"]

    async def tokens(self, person: Person | None = None, **asked: str) -> dict[str, Any]:
        if person is None:
            async with somebody(self.gateway.url) as person:
                return await self.tokens(person, **asked)
        answer = await self.redeem(await self.code(person, **asked))
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made


async def opens(gateway: Gateway, token: str, agent: str = "echo") -> bool:
    answer = await gateway.client.get(f"/agents/{agent}/tasks", headers={**A2A, **gateway.bearer(token)})
    assert answer.status_code in (200, 401), answer.text
    return answer.status_code == 200


def claims(token: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    return found


def error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]
