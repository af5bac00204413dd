"""An OpenID provider on loopback, written from the specification: it lets in whoever comes, as who a test says."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.issuer import SigningKey, compact
from tests.upstream import loopback

CLIENT, SECRET = "the-gateway", "s3cret/+&"


@dataclass
class OpenId:
    """`claims` change the ID token (`...` takes one out), `header` its header, `back` what the person comes back with;
    `forged` signs with a key that is not published; a path in `down` answers nothing."""

    url: str = ""
    key: SigningKey = field(default_factory=lambda: SigningKey.make("one"))
    forged: SigningKey | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    back: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    asked: dict[str, str] = field(default_factory=dict)
    forms: list[dict[str, str]] = field(default_factory=list)

    async def play(self, request: loopback.Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(request.line.split()[1])
        if parts.path in self.down:
            writer.close()
        elif parts.path == "/authorize":
            self.asked = dict(parse_qsl(parts.query))
            told = {"code": "a-code", "state": self.asked["state"], "iss": self.url, **self.back}
            where = f"{self.asked['redirect_uri']}?{urlencode({k: v for k, v in told.items() if v})}"
            writer.write(loopback.answer(b"", "302 Found", location=where))
        elif parts.path == "/token":
            writer.write(self._token(request))
        else:
            writer.write(
                _json({"/.well-known/oauth-authorization-server": self._about(), "/jwks": self._keys()}[parts.path])
            )

    def _about(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }

    def _keys(self) -> dict[str, Any]:
        return {"keys": [self.key.jwk(use="sig", alg=self.key.alg)]}

    def _token(self, request: loopback.Request) -> bytes:
        form = dict(parse_qsl(request.body.decode()))
        self.forms.append(form)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode()
        basic = base64.b64encode(f"{CLIENT}:s3cret%2F%2B%26".encode()).decode()
        shown = request.headers.get("authorization"), form.get("client_id"), form.get("client_secret")
        by_form = self.metadata.get("token_endpoint_auth_methods_supported") == ["client_secret_post"]
        if shown != ((None, CLIENT, SECRET) if by_form else (f"Basic {basic}", None, None)):
            return _json({"error": "invalid_client"}, "401 Unauthorized")
        if form["code"] != "a-code" or challenge.rstrip("=") != self.asked["code_challenge"]:
            return _json({"error": "invalid_grant"}, "400 Bad Request")
        now = int(time.time())
        said = {
            "iss": self.url, "aud": CLIENT, "sub": "248289", "nonce": self.asked["nonce"], "iat": now, "exp": now + 300,
            "email": "ada@example.com", **self.claims,
        }  # fmt: skip
        said = {name: value for name, value in said.items() if value is not ...}
        header = {"alg": self.key.alg, "kid": self.key.kid, **self.header}
        token = compact(self.forged or self.key, json.dumps(header).encode(), json.dumps(said).encode())
        return _json({"access_token": "theirs", "token_type": "Bearer", "id_token": token})


def _json(tree: Any, status: str = "200 OK") -> bytes:
    return loopback.answer(json.dumps(tree).encode(), status, content_type="application/json")


@asynccontextmanager
async def openid() -> AsyncIterator[OpenId]:
    provider = OpenId()
    async with loopback.serve(provider.play) as server:
        provider.url = server.url
        yield provider
