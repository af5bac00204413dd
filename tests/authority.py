"""An authorization server and a tool server behind it, written from the RFCs: for honest and other days."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit

import httpx2

from tests.upstream.loopback import Request, Script, answer, serve

Tree = dict[str, Any]
RESOURCE_METADATA = "/.well-known/oauth-protected-resource/mcp"
SERVER_METADATA = "/.well-known/oauth-authorization-server"
MOVED = "302 Found"


@dataclass
class Authority:
    """RFC 6749, 7591, 7636, 8414, 8707, 9207. The fields below are what a test changes; `forms` and the like are what
    it has seen. `metadata` replaces members of the document, None takes one out."""

    port: int = 0
    metadata: Tree = field(default_factory=dict)
    life: Any = 3600
    rotates: bool = True
    refreshable: bool = True
    iss: str | None = None  # None: the issuer itself; "": none
    token_type: str = "Bearer"
    instead: dict[str, bytes | Script] = field(default_factory=dict)  # path -> other answer
    grants: str | None = None  # the scopes that are given, whatever was asked for
    registered: list[Tree] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    tokens: dict[str, str] = field(default_factory=dict)  # valid access token -> scope
    refreshes: dict[str, str] = field(default_factory=dict)
    revoked: list[tuple[str, list[str]]] = field(default_factory=list)  # kind of token, and who gave it back
    person: str = ""  # whoever says yes
    people: dict[str, str] = field(default_factory=dict)  # code or token -> who said yes
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _made: int = 0

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def secrets(self) -> list[str]:
        """Everything that nobody else may ever see."""
        return [
            *self.tokens,
            *self.refreshes,
            *self._codes,
            *(each.get("code_verifier", "-" * 9) for each in self.forms),
        ]

    def document(self) -> Tree:
        made = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "registration_endpoint": f"{self.issuer}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }
        return {name: value for name, value in made.items() if value is not None}

    def revoke(self) -> None:
        """Every access token there is."""
        self.tokens.clear()

    async def script(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, query = _parts(request)
        if (other := self.instead.get(path)) is not None:
            if isinstance(other, bytes):
                writer.write(other)
            else:
                await other(request, reader, writer)
            return
        writer.write(self._answer(path, query, request))

    def _answer(self, path: str, query: dict[str, str], request: Request) -> bytes:
        if path == SERVER_METADATA:
            return said(self.document())
        if path == "/register":
            asked = json.loads(request.body)
            self.registered.append(asked)
            made = {"client_id": f"client-{len(self.registered)}", "client_secret": "s3cret/+&"}
            return said({**asked, **made}, "201 Created")
        if path == "/authorize":
            return self._authorize(query)
        if path == "/token":
            return self._token(dict(parse_qsl(request.body.decode())), request.headers.get("authorization"))
        if path == "/revoke":
            return self._revoke(dict(parse_qsl(request.body.decode())), request.headers.get("authorization"))
        return answer(b"", "404 Not Found")

    def takes_back(self) -> None:
        """From now on it says that it revokes tokens (RFC 7009)."""
        self.metadata["revocation_endpoint"] = f"{self.issuer}/revoke"

    def _revoke(self, form: dict[str, str], authorization: str | None) -> bytes:
        """A token that is unknown is no error (§2.2)."""
        self.revoked.append((form["token_type_hint"], basic(authorization)))
        self.tokens.pop(form["token"], None)
        self.refreshes.pop(form["token"], None)
        return answer(b"")

    def _authorize(self, query: dict[str, str]) -> bytes:
        self.asked.append(query)
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = self._word("code")
        self._codes[code] = query
        self.people[code] = self.person
        iss = self.issuer if self.iss is None else self.iss
        back = {"code": code, "state": query["state"], **({"iss": iss} if iss else {})}
        return answer(b"", MOVED, location=f"{query['redirect_uri']}?{urlencode(back)}")

    def _token(self, form: dict[str, str], authorization: str | None) -> bytes:
        self.forms.append(form)
        self.authorizations.append(authorization)
        scope = ""
        if form["grant_type"] == "authorization_code":
            asked = self._codes.pop(form["code"], None)
            challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
            if asked is None or asked["code_challenge"] != challenge.decode().rstrip("="):
                return said({"error": "invalid_grant"}, "400 Bad Request")
            assert (asked["redirect_uri"], asked["resource"]) == (form["redirect_uri"], form["resource"])
            scope = asked.get("scope", "")
        elif form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self.refreshes:
                return said({"error": "invalid_grant", "error_description": "<b>no</b>"}, "400 Bad Request")
            scope = self.refreshes[form["refresh_token"]]
            if self.rotates:
                del self.refreshes[form["refresh_token"]]
        else:
            scope = form.get("scope", "")
        return said(self._made_token(self.grants if self.grants is not None else scope, form))

    def _made_token(self, scope: str, form: dict[str, str]) -> Tree:
        access = self._word("access")
        self.tokens[access] = scope
        who = self.people[access] = self.people.get(form.get("code") or form.get("refresh_token") or "", "")
        made: Tree = {"access_token": access, "token_type": self.token_type, "expires_in": self.life}
        if self.refreshable and form["grant_type"] != "client_credentials" and (self.rotates or "code" in form):
            made["refresh_token"] = self._word("refresh")
            self.refreshes[made["refresh_token"]] = scope
            self.people[made["refresh_token"]] = who
        return made

    def _word(self, kind: str) -> str:
        self._made += 1
        return f"{kind}-canary-{self._made}-{self.port}"


@dataclass
class Guarded:
    """A tool server of 2026-07-28 that wants a token of `authority` (RFC 6750, 9728). `needs`: the scope for a call."""

    authority: Authority
    port: int = 0
    metadata: Tree = field(default_factory=dict)
    challenge: str | None = None  # the whole header; None: an honest one
    needs: str = ""
    scopes: list[str] | None = None
    refuses: bool = False  # every token
    instead: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    sent: list[dict[str, str]] = field(default_factory=list)
    tools: dict[str, list[Tree]] = field(default_factory=dict)  # person -> what they see, if it is something else
    files: dict[str, Tree] = field(default_factory=dict)  # person -> their lists of the other kinds, by method

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def document(self) -> Tree:
        scopes = {} if self.scopes is None else {"scopes_supported": self.scopes}
        return {"resource": self.url, "authorization_servers": [self.authority.issuer], **scopes, **self.metadata}

    async def script(self, request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, _ = _parts(request)
        if path in self.instead:
            writer.write(self.instead[path])
        elif path == RESOURCE_METADATA:
            writer.write(said(self.document()))
        elif path == "/mcp":
            self.sent.append(request.headers)
            writer.write(self._answer(request))
        else:
            writer.write(answer(b"", "404 Not Found"))

    def _answer(self, request: Request) -> bytes:
        body = json.loads(request.body)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.refuses or token not in self.authority.tokens:
            return answer(b"", "401 Unauthorized", www_authenticate=self.challenge or self._said())
        if body["method"] == "tools/call" and self.needs not in ("", *self.authority.tokens[token].split()):
            said = self._said() + f', error="insufficient_scope", scope="{self.needs}"'
            return answer(b"", "403 Forbidden", www_authenticate=said)
        person = self.authority.people.get(token, "")
        lists = {"tools/list": {"tools": self.tools.get(person, [HELLO])}, **self.files.get(person, {})}
        return _result(body, self.calls, lists)

    def _said(self) -> str:
        return f'Basic realm="x, y", Bearer resource_metadata="http://127.0.0.1:{self.port}{RESOURCE_METADATA}"'


HELLO: Tree = {"name": "hello", "inputSchema": {"type": "object"}}


def _result(body: Tree, calls: list[str], lists: Tree) -> bytes:
    caching = {"resultType": "complete", "ttlMs": 60_000, "cacheScope": "public"}
    offered: Tree = {method.partition("/")[0]: {} for method in lists}
    result: Tree = {"supportedVersions": ["2026-07-28"], "capabilities": offered, **caching}
    if body["method"] in lists:
        result = {**lists[body["method"]], **caching}
    if body["method"] == "tools/call":
        calls.append(body["params"]["name"])
        result = {"resultType": "complete", "content": [{"type": "text", "text": "hello"}]}
    return said({"jsonrpc": "2.0", "id": body["id"], "result": result})


def said(tree: Tree, status: str = "200 OK", **headers: str) -> bytes:
    return answer(json.dumps(tree).encode(), status, content_type="application/json", **headers)


def basic(authorization: str | None) -> list[str]:
    """The client id and secret of an Authorization header, as RFC 6749 §2.3.1 has a server read them."""
    assert authorization is not None
    pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
    return [unquote_plus(each) for each in pair.split(":")]


async def browse(url: str) -> str:
    """What a person's browser does who says yes: where it ends up."""
    async with httpx2.AsyncClient(trust_env=False, timeout=10) as browser:
        met = await browser.get(url)
    assert met.status_code == 302, met.text
    return met.headers["location"]


def _parts(request: Request) -> tuple[str, dict[str, str]]:
    parts = urlsplit(request.line.split()[1])
    return parts.path, dict(parse_qsl(parts.query))


@asynccontextmanager
async def authority(**settings: Any) -> AsyncIterator[Authority]:
    made = Authority(**settings)
    async with serve(made.script) as upstream:
        made.port = upstream.port
        yield made


@asynccontextmanager
async def guarded(by: Authority, **settings: Any) -> AsyncIterator[Guarded]:
    made = Guarded(by, **settings)
    async with serve(made.script) as upstream:
        made.port = upstream.port
        yield made
