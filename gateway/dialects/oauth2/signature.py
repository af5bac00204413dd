"""Keys and signatures (RFC 7515, 7517, 7518). It brings joserfc, so it is imported only where `auth` asks for it.

A key says which algorithms it may be used with, and a token is checked with the key's algorithm or not at all: what
the token's header claims only picks from what the operator and the key allow (RFC 8725 §3.1).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from joserfc import jwk
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from gateway.dialects.strict_json import JSON, read
from gateway.model.errors import GatewayError
from gateway.model.value import value

# (kty, crv) -> the algorithms that fit. No symmetric key ever comes out of a document that others can read, so
# HS256 with somebody's public key is not even a word here.
FITS: Mapping[tuple[str, str | None], frozenset[str]] = {
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),  # RFC 9864 calls the same thing by its full name
}
ALGORITHMS = frozenset().union(*FITS.values())

MAX_KEYS = 64  # issuers have two to five; each costs memory and a look
MAX_KID = 256  # characters of a key's id; thumbprints have 43, certificates' 59
MIN_RSA_BITS = 2048  # RFC 7518 §3.3


class BadKeys(Exception):
    """A key set that cannot be used; the sentence says why."""


@value
class VerifyKey:
    """A public key, and the algorithms it may check."""

    kid: str | None
    algorithms: frozenset[str]
    jose: Any

    def verifies(self, alg: str, message: bytes, signature: bytes) -> bool:
        """Whether `signature` over `message` is this key's. False for every kind of wrong."""
        if alg not in self.algorithms:
            return False
        model = JWSRegistry.algorithms[alg]
        try:
            model.check_key(self.jose)
            return bool(model.verify(message, signature, self.jose))
        except (JoseError, ValueError):
            return False


class VerifyKeys:
    """The keys of one issuer, by (kid, algorithm)."""

    def __init__(self, keys: list[VerifyKey]) -> None:
        self._keys = keys

    @property
    def kids(self) -> frozenset[str | None]:
        return frozenset(key.kid for key in self._keys)

    @property
    def marks(self) -> frozenset[tuple[str | None, str]]:
        """What tells these keys from others: an id may be used again."""
        return frozenset((key.kid, str(key.jose.thumbprint())) for key in self._keys)

    def knows(self, kid: str | None) -> bool:
        return kid is None or kid in self.kids

    def find(self, kid: str | None, alg: str) -> VerifyKey | None:
        """The key with this id; without one, the only key that fits. Two that fit are none: a guess is no check."""
        fitting = [key for key in self._keys if alg in key.algorithms and kid in (None, key.kid)]
        return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None


class SignKey:
    """A key of our own: its private part never leaves this object but to be kept (`kept`)."""

    def __init__(self, alg: str, jose: Any, name: str | None = None) -> None:
        self.alg = alg
        self.kid: str = jose.thumbprint()
        self._jose = jose
        self._name = name

    @classmethod
    def of(cls, text: str) -> SignKey:
        """A key that somebody else has made: a private key in PEM without a passphrase, or as a JWK (RFC 7517). P-256
        signs with ES256, Ed25519 with EdDSA. Raises BadKeys."""
        try:
            jose = jwk.import_key(read(text.encode())) if text.startswith("{") else _of_pem(text)  # type: ignore[arg-type]
        except (GatewayError, JoseError, ValueError, TypeError):
            raise BadKeys("is no private key in PEM or as a JWK") from None
        alg = _SIGNS_WITH.get(getattr(jose, "curve_name", ""))
        if alg is None or not jose.is_private:
            raise BadKeys("is no private key for ES256 or EdDSA")
        name = jose.get("kid")
        return cls(alg, jose, name if isinstance(name, str) else None)

    @classmethod
    def make(cls, alg: str) -> SignKey:
        return cls(alg, _MAKERS[alg]())

    @classmethod
    def read(cls, kept: bytes) -> SignKey:
        """Raises BadKeys."""
        try:
            tree: Any = read(kept)
            return cls(str(tree.pop("alg")), jwk.import_key(tree))
        except (GatewayError, JoseError, ValueError, TypeError, KeyError, AttributeError):
            raise BadKeys("holds no signing key") from None

    def kept(self) -> bytes:
        return orjson.dumps({**self._jose.as_dict(private=True), "alg": self.alg})

    def public(self) -> dict[str, Any]:
        """As it is published (RFC 7517 §4)."""
        return {**self._jose.as_dict(private=False), "kid": self.kid, "use": "sig", "alg": self.alg}

    @property
    def named(self) -> dict[str, str]:
        """The header for whoever knows this key by the id that was given to it, or by none."""
        return {} if self._name is None else {"kid": self._name}

    @property
    def bare(self) -> dict[str, Any]:
        """The public key and nothing about it, as a proof shows it (RFC 9449 §4.2)."""
        return {name: each for name, each in self._jose.as_dict(private=False).items() if name in _PUBLIC}

    def verifier(self) -> VerifyKey:
        return VerifyKey(self.kid, frozenset({self.alg}), self._jose)

    def sign(self, typ: str, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """A compact JWS (RFC 7515 §3.1). `header` says how the key is found; its `kid`, if nothing else does."""
        found = {"kid": self.kid} if header is None else header
        signed = b".".join(map(_b64, (orjson.dumps({"alg": self.alg, **found, "typ": typ}), orjson.dumps(claims))))
        return b".".join((signed, _b64(self.signature(signed)))).decode()

    def signature(self, message: bytes) -> bytes:
        """The bare signature over a message."""
        return bytes(JWSRegistry.algorithms[self.alg].sign(message, self._jose))

    def detached(self, header: Mapping[str, str], payload: bytes) -> tuple[str, str]:
        """Protected header and signature of a JWS whose payload travels elsewhere (RFC 7515, appendix F)."""
        protected = _b64(orjson.dumps({"alg": self.alg, "kid": self.kid, **header}))
        signed = b".".join((protected, _b64(payload)))
        return protected.decode(), _b64(JWSRegistry.algorithms[self.alg].sign(signed, self._jose)).decode()


_SIGNS_WITH: Mapping[str, str] = {"P-256": "ES256", "Ed25519": "EdDSA"}


def _of_pem(text: str) -> Any:
    try:
        return jwk.import_key(text, "EC")
    except JoseError:
        return jwk.import_key(text, "OKP")


_MAKERS: Mapping[str, Callable[[], Any]] = {
    "ES256": lambda: jwk.generate_key("EC", "P-256", private=True),
    "EdDSA": lambda: jwk.generate_key("OKP", "Ed25519", private=True),
}


def _b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def read_keys(document: bytes, allowed: frozenset[str]) -> VerifyKeys:
    """The usable keys of a JWK set (RFC 7517 §5). Raises BadKeys.

    A key that we cannot use is passed over, as §5 says, so that an issuer may publish keys of a new kind before we
    know it: symmetric, private, for encryption, too short, of another curve, for an algorithm not in `allowed`.
    """
    try:
        tree = read(document)
    except GatewayError as error:
        raise BadKeys(f"is not strict JSON: {error.message}") from None
    listed = tree.get("keys") if isinstance(tree, dict) else None
    if not isinstance(listed, list):
        raise BadKeys("is not a JWK set: it has no list of keys")
    if len(listed) > MAX_KEYS:
        raise BadKeys(f"has more than {MAX_KEYS} keys")
    keys = [key for key in (_key(entry, allowed) for entry in listed) if key is not None]
    if not keys:
        raise BadKeys("has no key that can be used")
    return VerifyKeys(keys)


def _key(entry: JSON, allowed: frozenset[str]) -> VerifyKey | None:
    if not isinstance(entry, dict) or "d" in entry or entry.get("use", "sig") != "sig":
        return None
    kid, alg = entry.get("kid"), entry.get("alg")
    fits = FITS.get((str(entry.get("kty")), None if "crv" not in entry else str(entry["crv"])), frozenset())
    algorithms = fits & allowed & (fits if alg is None else frozenset({str(alg)}))
    if not algorithms or not (kid is None or (isinstance(kid, str) and len(kid) <= MAX_KID)):
        return None
    if entry["kty"] == "RSA" and _bits(entry.get("n")) < MIN_RSA_BITS:
        return None
    try:
        jose = jwk.import_key({name: str(value) for name, value in entry.items() if name in _PUBLIC})
        assert jose.raw_value  # reads the numbers, which importing alone does not
    except (JoseError, ValueError, TypeError):
        return None
    return VerifyKey(kid, algorithms, jose)


def proof_key(jwk: dict[str, JSON], alg: str) -> VerifyKey | None:
    """The public key that a proof brings along (RFC 9449 §4.2), for one algorithm; None for what is none."""
    if not _SECRET.isdisjoint(jwk):
        return None
    return _key({name: jwk[name] for name in _PUBLIC & jwk.keys()} | {"alg": alg}, frozenset({alg}))


# What makes up a private key; a proof that shows one is not taken.
_SECRET = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

# What makes up a public key (RFC 7518 §6, RFC 8037 §2); the rest of an entry is somebody's remarks.
_PUBLIC = frozenset({"kty", "n", "e", "crv", "x", "y"})


def _bits(modulus: JSON) -> int:
    try:
        return int.from_bytes(base64.urlsafe_b64decode(f"{modulus}==")).bit_length()
    except ValueError:
        return 0
