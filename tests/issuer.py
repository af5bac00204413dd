"""An identity provider on loopback that does what a test says, and tokens made with bare cryptography.

The gateway checks signatures with joserfc; what both got wrong alike would not show if they were made with it too.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.upstream import loopback

_numbers = itertools.count(1)
_RSA = rsa.generate_private_key(65537, 2048)  # one for all: making it takes longer than most tests


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class SigningKey:
    kid: str
    alg: str
    private: Any

    @classmethod
    def make(cls, kid: str, alg: str = "ES256") -> SigningKey:
        makers: dict[str, Callable[[], Any]] = {
            "RS256": lambda: _RSA,
            "PS256": lambda: _RSA,
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
            "Ed25519": ed25519.Ed25519PrivateKey.generate,
        }
        return cls(kid, alg, makers[alg]())

    def sign(self, message: bytes, alg: str = "") -> bytes:
        match alg or self.alg:
            case "RS256":
                return bytes(self.private.sign(message, padding.PKCS1v15(), hashes.SHA256()))
            case "PS256":
                pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
                return bytes(self.private.sign(message, pss, hashes.SHA256()))
            case "ES256" | "ES384":
                size = self.private.key_size // 8
                digest = hashes.SHA256() if size == 32 else hashes.SHA384()
                r, s = decode_dss_signature(self.private.sign(message, ec.ECDSA(digest)))
                return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        return bytes(self.private.sign(message))

    def der(self, message: bytes) -> bytes:
        return bytes(self.private.sign(message, ec.ECDSA(hashes.SHA256())))

    def jwk(self, **more: Any) -> dict[str, Any]:
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            of = public.public_numbers()
            key = {"kty": "RSA", "n": number(of.n), "e": number(of.e)}
        elif isinstance(public, ec.EllipticCurvePublicKey):
            at, size = public.public_numbers(), public.key_size // 8
            key = {"kty": "EC", "crv": f"P-{size * 8}", "x": number(at.x, size), "y": number(at.y, size)}
        else:
            key = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
        return {**key, "kid": self.kid, **more}


@dataclass
class Clock:
    """The gateway's clock: the machine's, moved forward by a test."""

    ahead: float = 0.0

    def now(self) -> int:
        return time.time_ns() // 1_000_000 + int(self.ahead * 1000)


Reply = tuple[bytes, str]


@dataclass
class Issuer:
    """`keys` are published, the first signs. `replies` take the place of its documents, by path; a request for a
    path in `hangs` waits for `go`, or until the test is over; `hanging` is set when one does."""

    url: str = ""
    keys: list[SigningKey] = field(default_factory=lambda: [SigningKey.make("first")])
    published: list[dict[str, Any]] = field(default_factory=list)
    replies: dict[str, Reply] = field(default_factory=dict)
    hangs: set[str] = field(default_factory=set)
    up: bool = True
    active: dict[str, dict[str, Any]] = field(default_factory=dict)  # introspection: what is said of which token
    asked: list[loopback.Request] = field(default_factory=list)
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    def fetched(self, path: str) -> int:
        return sum(request.line.split()[1] == path for request in self.asked)

    def claims(self, audience: str, **claims: Any) -> dict[str, Any]:
        now = int(time.time())
        whole = {
            "iss": self.url, "aud": audience, "sub": "alice", "client_id": "app", "jti": f"t{next(_numbers)}",
            "iat": now, "exp": now + 300, **claims,
        }  # fmt: skip
        return {name: value for name, value in whole.items() if value is not ...}

    def token(self, audience: str, key: SigningKey | None = None, header: Any = None, **claims: Any) -> str:
        """A good token, unless something is changed: `...` leaves a claim or header parameter out."""
        key = key or self.keys[0]
        parameters = {"alg": key.alg, "typ": "at+jwt", "kid": key.kid, **(header or {})}
        parameters = {name: value for name, value in parameters.items() if value is not ...}
        return compact(key, json.dumps(parameters).encode(), json.dumps(self.claims(audience, **claims)).encode())

    @property
    def documents(self) -> dict[str, Reply]:
        about = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "introspection_endpoint": f"{self.url}/introspect",
        }
        keys = [key.jwk(use="sig", alg=key.alg) for key in self.keys] + self.published
        return {
            "/.well-known/oauth-authorization-server": (json.dumps(about).encode(), "200 OK"),
            "/jwks": (json.dumps({"keys": keys}).encode(), "200 OK"),
            **self.replies,
        }

    async def play(self, request: loopback.Request, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.close()
            return
        self.asked.append(request)
        path = request.line.split()[1]
        if path in self.hangs:
            self.hanging.set()
            await self.go.wait()
        if path == "/introspect" and path not in self.replies:
            (token,) = parse_qs(request.body.decode())["token"]
            body, status = json.dumps(self.active.get(token, {"active": False})).encode(), "200 OK"
        else:
            body, status = self.documents.get(path, (b"{}", "404 Not Found"))
        writer.write(loopback.answer(body, status, content_type="application/json"))


def compact(key: SigningKey, header: bytes, payload: bytes, alg: str = "") -> str:
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(key.sign(signed.encode(), alg))}"


@asynccontextmanager
async def issuing(**about: Any) -> AsyncIterator[Issuer]:
    issuer = Issuer(**about)
    async with loopback.serve(issuer.play) as server:
        issuer.url = server.url
        yield issuer


@contextmanager
def issuing_aside() -> Iterator[Issuer]:
    """The same on a loop of its own, for tests that wait for real processes."""
    made, over = list[Issuer](), list[Callable[[], object]]()
    begun = threading.Event()

    async def issue() -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        async with issuing() as issuer:
            made.append(issuer)
            over.append(lambda: loop.call_soon_threadsafe(ended.set))
            begun.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(issue()))
    thread.start()
    begun.wait()
    try:
        yield made[0]
    finally:
        over[0]()
        thread.join()
