"""Proofs of possession (DPoP, RFC 9449): a client shows with each request that it holds the key that its token is bound
to. Who has only read the token cannot use it. It brings joserfc, as signature.py does."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from gateway.dialects.oauth2.signature import ALGORITHMS, SignKey, proof_key
from gateway.dialects.strict_json import JSON, read
from gateway.model.errors import GatewayError
from gateway.model.value import value

MAX_PROOF = 4096
"""Bytes. A key of 4096 bits and its signature have 1.5 KiB."""

MAX_JTI = 256
"""Characters of a proof's id."""

WINDOW = 60.0
"""Seconds that a proof may be old, or ahead; so long it is remembered (§11.1)."""

ACCEPTED = tuple(sorted(ALGORITHMS))
TYP = "dpop+jwt"

_COMPACT = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_PORTS = {"http": ":80", "https": ":443"}


class BadProof(Exception):
    """The proof is refused. The sentence is for whoever sent it, and quotes nothing of it."""


@value
class Proof:
    """A proof that is right: the thumbprint of its key (RFC 7638), what it is remembered by, and when it was made
    (seconds since the epoch)."""

    key: str
    jti: str
    made: float


def check(proof: bytes, *, method: str, url: str, token: bytes | None, now: float) -> Proof:
    """§4.3, all but the replay. `token` is None at the token endpoint; `now` is seconds since the epoch. Raises
    BadProof."""
    parts = _COMPACT.fullmatch(proof) if len(proof) <= MAX_PROOF else None
    if parts is None:
        raise BadProof("The proof is malformed")
    head, body, signature = parts.groups()
    header, claims = _object(head), _object(body)
    alg, jwk = header.get("alg"), header.get("jwk")
    if header.get("typ") != TYP or not isinstance(alg, str) or alg not in ALGORITHMS or "crit" in header:
        raise BadProof("The proof's type or algorithm is not accepted")
    key = proof_key(jwk, alg) if isinstance(jwk, dict) else None
    if key is None:
        raise BadProof("The proof has no public key that can be used")
    if not key.verifies(alg, head + b"." + body, _decoded(signature)):
        raise BadProof("The proof's signature is wrong")
    _check_claims(claims, method, url, token, now)
    return Proof(str(key.jose.thumbprint()), str(claims["jti"]), float(claims["iat"]))  # type: ignore[arg-type]


def prove(
    key: SignKey, *, jti: str, method: str, url: str, now: float, token: str | None = None, nonce: str | None = None
) -> str:
    """A proof for one request (§4.2). `token` is None at the token endpoint; `nonce` is what that server wants to see
    in it (§8)."""
    claims = {"jti": jti, "htm": method, "htu": url.partition("#")[0].partition("?")[0], "iat": int(now)}
    if token is not None:
        claims["ath"] = _digest(token.encode())
    if nonce is not None:
        claims["nonce"] = nonce
    return key.sign(TYP, claims, {"jwk": key.bare})


def _check_claims(claims: Mapping[str, JSON], method: str, url: str, token: bytes | None, now: float) -> None:
    jti, issued = claims.get("jti"), claims.get("iat")
    if not isinstance(jti, str) or not 0 < len(jti) <= MAX_JTI:
        raise BadProof("The proof has no id")
    if isinstance(issued, bool) or not isinstance(issued, int | float) or abs(now - issued) > WINDOW:
        raise BadProof("The proof was not made just now")
    if claims.get("htm") != method or _plain(claims.get("htu")) != _plain(url):
        raise BadProof("The proof is for another request")
    if token is not None and claims.get("ath") != _digest(token):
        raise BadProof("The proof is for another token")


def _digest(token: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token).digest()).rstrip(b"=").decode()


def _plain(url: object) -> str | None:
    """Without query and fragment, in the one form that means the same (§4.3; RFC 3986 §6.2.2, §6.2.3)."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        return None
    if parts is None:
        return None
    scheme = parts.scheme.lower()
    return f"{scheme}://{parts.netloc.lower().removesuffix(_PORTS.get(scheme, ' '))}{unquote(parts.path) or '/'}"


def _object(segment: bytes) -> dict[str, JSON]:
    try:
        tree: Any = read(_decoded(segment))
    except GatewayError:
        tree = None
    if not isinstance(tree, dict):
        raise BadProof("The proof is malformed")
    return tree


def _decoded(segment: bytes) -> bytes:
    if len(segment) % 4 == 1:
        raise BadProof("The proof is malformed")
    return base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
