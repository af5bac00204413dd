"""An authorization server, an identity provider and a tool server that believe nobody.

Every signed word that reaches them is checked from its signature to its last claim, with bare cryptography: the gateway
makes them with joserfc, and what both got wrong alike would not show if they were checked with it too.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlencode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.authority import Authority, Guarded, Tree, _parts, basic, said
from tests.issuer import SigningKey, b64, compact
from tests.upstream.loopback import Request, answer, serve

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
BEARER_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

CLOCKS = 30
"""Seconds that clocks may differ."""


class Refused(Exception):
    """The error of RFC 6749 §5.2, and for the test what was wrong."""

    def __init__(self, error: str, why: str) -> None:
        super().__init__(why)
        self.error = error


# --- Signed words. -----------------------------------------------------------------------------------------


def pem(key: SigningKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    made: bytes = key.private.private_bytes(serialization.Encoding.PEM, form, plain)
    return made.decode()


def private_jwk(key: SigningKey) -> str:
    numbers = key.private.private_numbers() if key.alg.startswith("ES") else None
    d = key.private.private_bytes_raw() if numbers is None else numbers.private_value.to_bytes(32, "big")
    return json.dumps({**key.jwk(), "d": b64(d)})


def word(key: SigningKey, claims: Tree, typ: str | None = "JWT", **header: Any) -> str:
    head = {"alg": key.alg, **({} if typ is None else {"typ": typ}), **header}
    return compact(key, json.dumps(head).encode(), json.dumps(claims).encode())


@dataclass
class Checker:
    """`now` gives seconds. A `jti` is good once."""

    now: Callable[[], float]
    seen: set[str] = field(default_factory=set)

    def read(self, text: str, key: Any, alg: str, error: str, typ: str | None = None) -> tuple[Tree, Tree]:
        """Header and claims, if the signature is `key`'s; `key` None: the one in the header."""
        parts = text.split(".")
        if len(parts) != 3:
            raise Refused(error, "no JWS")
        head, claims = (_tree(each, error) for each in parts[:2])
        if head.get("alg") != alg or (typ is not None and head.get("typ") != typ) or "crit" in head:
            raise Refused(error, f"header {head}")
        public = key if key is not None else _public(head.get("jwk"), error)
        if not _verifies(public, ".".join(parts[:2]).encode(), _raw(parts[2])):
            raise Refused(error, "signature")
        return head, claims

    def check(self, claims: Tree, error: str, expected: Mapping[str, Any], longest: int = 300) -> None:
        """The claims are as `expected`, the times are good, and the word was not here before."""
        for name, wanted in expected.items():
            if claims.get(name) != wanted:
                raise Refused(error, f"{name}: {claims.get(name)!r} and not {wanted!r}")
        until, since, jti = claims.get("exp"), claims.get("iat"), claims.get("jti")
        if not isinstance(until, int) or not isinstance(since, int):
            raise Refused(error, "times")
        if until <= self.now() - CLOCKS or since > self.now() + CLOCKS or until - since > longest:
            raise Refused(error, "too old, too new, or for too long")
        self.once(jti, error)

    def once(self, jti: object, error: str) -> None:
        if not isinstance(jti, str) or len(jti) < 16 or jti in self.seen:
            raise Refused(error, "jti")
        self.seen.add(jti)

    def proof(self, proofs: str | None, url: str, method: str, error: str, token: str | None, nonce: str | None) -> str:
        """RFC 9449 §4.3; the thumbprint of the key."""
        if proofs is None or "," in proofs:
            raise Refused(error, "no proof, or several")
        head, claims = self.read(proofs, None, "ES256", error, "dpop+jwt")
        jwk = head["jwk"]
        if "d" in jwk or not isinstance(claims.get("iat"), int) or abs(claims["iat"] - self.now()) > CLOCKS:
            raise Refused(error, "key or time")
        ath = None if token is None else b64(hashlib.sha256(token.encode()).digest())
        for name, wanted in {"htm": method, "htu": url, "ath": ath}.items():
            if claims.get(name) != wanted:
                raise Refused(error, f"{name}: {claims.get(name)!r} and not {wanted!r}")
        if nonce is not None and claims.get("nonce") != nonce:
            raise Refused("use_dpop_nonce", "nonce")
        self.once(claims.get("jti"), error)
        members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
        return b64(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())


def _verifies(public: Any, signed: bytes, signature: bytes) -> bool:
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, signed)
        else:
            if len(signature) != 64:
                return False
            r, s = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
            public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _public(jwk: Any, error: str) -> Any:
    if not isinstance(jwk, dict) or (jwk.get("kty"), jwk.get("crv")) != ("EC", "P-256"):
        raise Refused(error, "no key")
    x, y = (int.from_bytes(_raw(jwk[name]), "big") for name in ("x", "y"))
    return ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()


def _tree(part: str, error: str) -> Tree:
    try:
        tree = json.loads(_raw(part))
    except ValueError:
        raise Refused(error, "no JSON") from None
    if not isinstance(tree, dict):
        raise Refused(error, "no object")
    return tree


def _raw(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


# --- Servers. ----------------------------------------------------------------------------------------------


@dataclass
class Stern(Authority):
    """An authorization server that knows one client, `client_id`, by its key or its secret; `key` None: by its id
    alone. It gives a token for a word of `workloads` (issuer, subject, key), or for an ID-JAG of `provider`."""

    client_id: str = "gateway"
    key: SigningKey | None = None
    secret: str | None = None
    workloads: tuple[str, str, SigningKey] | None = None
    provider: Provider | None = None
    resource: str = ""
    proofs: bool = False
    nonce: str | None = None
    now: Callable[[], float] = lambda: 1_000.0
    why: list[str] = field(default_factory=list)  # what was wrong with what was refused
    bound: dict[str, str] = field(default_factory=dict)  # token -> thumbprint
    subjects: dict[str, str] = field(default_factory=dict)  # token -> for whom
    renewals: dict[str, str] = field(default_factory=dict)  # refresh token -> thumbprint
    challenges: dict[str, str] = field(default_factory=dict)  # code -> thumbprint

    def __post_init__(self) -> None:
        self.checker = Checker(lambda: self.now())
        methods = ["private_key_jwt"] if self.key is not None else ["client_secret_basic"] if self.secret else ["none"]
        self.metadata = {
            "token_endpoint_auth_methods_supported": methods,
            "registration_endpoint": None,
            **({"token_endpoint_auth_signing_alg_values_supported": [self.key.alg]} if self.key is not None else {}),
            **({"dpop_signing_alg_values_supported": ["ES256"]} if self.proofs else {}),
            **self.metadata,
        }

    def _answer(self, path: str, query: dict[str, str], request: Request) -> bytes:
        if path != "/token":
            return super()._answer(path, query, request)
        form = dict(parse_qsl(request.body.decode()))
        self.forms.append(form)
        self.authorizations.append(request.headers.get("authorization"))
        nonce = {} if self.nonce is None else {"DPoP-Nonce": self.nonce}
        try:
            key = self._proved(request)
            self._authenticate(form, request.headers.get("authorization"))
            made = self._given(form, key)
        except Refused as refused:
            self.why.append(str(refused))
            status = "401 Unauthorized" if refused.error == "invalid_client" else "400 Bad Request"
            return said({"error": refused.error}, status, **nonce)
        return said(made, **nonce)

    def _proved(self, request: Request) -> str | None:
        proof = request.headers.get("dpop")
        if not self.proofs:
            assert proof is None, "a proof that nobody asked for"
            return None
        if proof is None:
            return None
        url = f"{self.issuer}/token"
        return self.checker.proof(proof, url, "POST", "invalid_dpop_proof", None, self.nonce)

    def _authenticate(self, form: dict[str, str], authorization: str | None) -> None:
        if self.key is None:
            shown = basic(authorization) if self.secret else [form.get("client_id")]
            if shown != ([self.client_id, self.secret] if self.secret else [self.client_id]):
                raise Refused("invalid_client", f"client {shown}")
            return
        if authorization is not None or "client_secret" in form:
            raise Refused("invalid_client", "a secret beside the assertion")
        if form.get("client_assertion_type") != BEARER_ASSERTION:
            raise Refused("invalid_client", "type of assertion")
        public = self.key.private.public_key()
        _, claims = self.checker.read(form["client_assertion"], public, self.key.alg, "invalid_client")
        ourselves = {"iss": self.client_id, "sub": self.client_id, "aud": self.issuer}
        self.checker.check(claims, "invalid_client", ourselves, longest=120)

    def _given(self, form: dict[str, str], key: str | None) -> Tree:
        grant, subject = form["grant_type"], self.client_id
        if grant == "authorization_code":
            asked = self._codes.pop(form["code"], None)
            verifier = b64(hashlib.sha256(form["code_verifier"].encode()).digest())
            if asked is None or asked["code_challenge"] != verifier or asked.get("dpop_jkt") != key:
                raise Refused("invalid_grant", "code")
            subject = "a person"
        elif grant == "refresh_token":
            if self.renewals.get(form["refresh_token"], "none") != (key or ""):
                raise Refused("invalid_grant", "refresh token")
        elif grant == JWT_BEARER:
            subject = self._believed(form)
        elif grant != "client_credentials":
            raise Refused("unsupported_grant_type", grant)
        made = self._made_token(form.get("scope", ""), form)
        token = made["access_token"]
        self.subjects[token] = subject
        if key is not None:
            made["token_type"], self.bound[token] = "DPoP", key
        if "refresh_token" in made:
            self.renewals[made["refresh_token"]] = key or ""
        if grant == JWT_BEARER:
            self.refreshes.pop(made.pop("refresh_token", ""), None)
        return made

    def _believed(self, form: dict[str, str]) -> str:
        if self.provider is not None:
            public, alg = self.provider.key.private.public_key(), self.provider.key.alg
            _, claims = self.checker.read(form["assertion"], public, alg, "invalid_grant", "oauth-id-jag+jwt")
            expected = {
                "iss": self.provider.issuer,
                "aud": self.issuer,
                "client_id": self.client_id,
                "resource": self.resource,
            }
            self.checker.check(claims, "invalid_grant", expected)
            return str(claims["sub"])
        if self.workloads is None:
            raise Refused("unauthorized_client", "nobody is believed here")
        issuer, subject, key = self.workloads
        public = key.private.public_key()
        _, claims = self.checker.read(form["assertion"], public, key.alg, "invalid_grant")
        self.checker.check(claims, "invalid_grant", {"iss": issuer, "sub": subject, "aud": self.issuer}, longest=3600)
        return subject


@dataclass
class Provider:
    """An identity provider (OpenID Connect). Whoever comes with a browser is `person`; `allowed` are the authorization
    servers for which it gives ID-JAGs, with the client id that the gateway has there."""

    client_id: str = "gateway-at-idp"
    secret: str = "idp/secret"
    person: str = "ann"
    renewed_as: str | None = None  # another person, after a refresh
    port: int = 0
    key: SigningKey = field(default_factory=lambda: SigningKey.make("idp"))
    allowed: dict[str, str] = field(default_factory=dict)
    changed: Tree = field(default_factory=dict)  # claims of the ID-JAG; "typ" is its type
    nonce: str | None = None  # instead of the one that was asked for
    life: int = 300
    now: Callable[[], float] = lambda: 1_000.0
    issued: str = ID_JAG
    why: list[str] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)
    refreshes: dict[str, str] = field(default_factory=dict)
    takes_back: bool = False  # refresh tokens (RFC 7009)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _made: int = 0

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def document(self) -> Tree:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "scopes_supported": ["openid", "offline_access"],
            "authorization_response_iss_parameter_supported": True,
            **({"revocation_endpoint": f"{self.issuer}/revoke"} if self.takes_back else {}),
        }

    def id_token(self, person: str | None = None, **changed: Any) -> str:
        now = int(self.now())
        claims = {"iss": self.issuer, "sub": person or self.person, "aud": self.client_id, "iat": now}
        return word(self.key, {**claims, "exp": now + self.life, **changed})

    async def script(self, request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path, query = _parts(request)
        if path == "/.well-known/openid-configuration":
            writer.write(said(self.document()))
        elif path == "/authorize":
            self.asked.append(query)
            code = f"idp-code-{len(self.asked)}"
            self._codes[code] = query
            back = urlencode({"code": code, "state": query["state"], "iss": self.issuer})
            writer.write(answer(b"", "302 Found", location=f"{query['redirect_uri']}?{back}"))
        elif path == "/token":
            form = dict(parse_qsl(request.body.decode()))
            self.forms.append(form)
            try:
                if basic(request.headers.get("authorization")) != [self.client_id, self.secret]:
                    raise Refused("invalid_client", "client")
                writer.write(said(self._given(form)))
            except Refused as refused:
                self.why.append(str(refused))
                writer.write(said({"error": refused.error}, "400 Bad Request"))
        elif path == "/revoke" and basic(request.headers.get("authorization")) == [self.client_id, self.secret]:
            self.refreshes.pop(dict(parse_qsl(request.body.decode()))["token"], None)
            writer.write(answer(b""))
        else:
            writer.write(answer(b"", "404 Not Found"))

    def _given(self, form: dict[str, str]) -> Tree:
        match form["grant_type"]:
            case "authorization_code":
                asked = self._codes.pop(form["code"], None)
                if asked is None or asked["code_challenge"] != b64(
                    hashlib.sha256(form["code_verifier"].encode()).digest()
                ):
                    raise Refused("invalid_grant", "code")
                return self._logged_in(self.person, nonce=self.nonce or asked["nonce"])
            case "refresh_token":
                person = self.refreshes.pop(form["refresh_token"], None)
                if person is None:
                    raise Refused("invalid_grant", "refresh token")
                return self._logged_in(self.renewed_as or person)
            case "urn:ietf:params:oauth:grant-type:token-exchange":
                return self._id_jag(form)
        raise Refused("unsupported_grant_type", form["grant_type"])

    def _logged_in(self, person: str, **claims: Any) -> Tree:
        self._made += 1
        refresh = f"idp-refresh-canary-{self._made}"
        self.refreshes[refresh] = person
        token = self.id_token(person, **claims)
        return {"access_token": "of-no-use", "token_type": "Bearer", "id_token": token, "refresh_token": refresh}

    def _id_jag(self, form: dict[str, str]) -> Tree:
        if (form.get("requested_token_type"), form.get("subject_token_type")) != (ID_JAG, ID_TOKEN):
            raise Refused("invalid_request", "types")
        checker = Checker(self.now)
        _, who = checker.read(form["subject_token"], self.key.private.public_key(), self.key.alg, "invalid_grant")
        if (who["iss"], who["aud"]) != (self.issuer, self.client_id) or who["exp"] <= self.now():
            raise Refused("invalid_grant", "ID token")
        client = self.allowed.get(form.get("audience", ""))
        if client is None:
            raise Refused("access_denied", "policy")
        self._made += 1
        now = int(self.now())
        claims = {
            "iss": self.issuer, "sub": who["sub"], "aud": form["audience"], "resource": form["resource"],
            "client_id": client, "jti": f"id-jag-of-the-provider-{self._made}", "iat": now, "exp": now + 300,
            **self.changed,
        }  # fmt: skip
        typ = claims.pop("typ", "oauth-id-jag+jwt")
        return {"access_token": word(self.key, claims, typ), "token_type": "N_A", "issued_token_type": self.issued}


@dataclass
class Bound(Guarded):
    """A tool server that takes only tokens that are bound to a key, with a proof for each request (RFC 9449 §7)."""

    nonce: str | None = None
    thumbprints: set[str] = field(default_factory=set)
    why: list[str] = field(default_factory=list)

    def _answer(self, request: Request) -> bytes:
        by = self.authority
        assert isinstance(by, Stern)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        error = None
        if token:
            try:
                if scheme != "DPoP" or token not in by.tokens:
                    raise Refused("invalid_token", f"{scheme} token")
                key = by.checker.proof(
                    request.headers.get("dpop"), self.url, "POST", "invalid_dpop_proof", token, self.nonce
                )
                if by.bound.get(token) != key:
                    raise Refused("invalid_token", "bound to another key")
                self.thumbprints.add(key)
            except Refused as refused:
                self.why.append(str(refused))
                error = refused.error
        if not token or error is not None:
            metadata = f"http://127.0.0.1:{self.port}/.well-known/oauth-protected-resource/mcp"
            told = f'DPoP algs="ES256", resource_metadata="{metadata}"' + (f', error="{error}"' if error else "")
            nonce = {} if self.nonce is None else {"DPoP-Nonce": self.nonce}
            return answer(b"", "401 Unauthorized", **{"www-authenticate": told, **nonce})
        plain = Request(request.line, {**request.headers, "authorization": f"Bearer {token}"}, request.body)
        return super()._answer(plain)


@asynccontextmanager
async def stern(**settings: Any) -> AsyncIterator[Stern]:
    made = Stern(**settings)
    async with serve(made.script) as upstream:
        made.port = upstream.port
        yield made


@asynccontextmanager
async def provider(**settings: Any) -> AsyncIterator[Provider]:
    made = Provider(**settings)
    async with serve(made.script) as upstream:
        made.port = upstream.port
        yield made


@asynccontextmanager
async def bound(by: Stern, **settings: Any) -> AsyncIterator[Bound]:
    made = Bound(by, **settings)
    async with serve(made.script) as upstream:
        made.port = upstream.port
        yield made
