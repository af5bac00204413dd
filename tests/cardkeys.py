"""Keys that sign cards, with a2a-sdk: nobody here wrote what these signatures are made with."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
from a2a.client.card_resolver import parse_agent_card
from a2a.utils.signing import create_agent_card_signer, create_signature_verifier
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

Tree = dict[str, Any]


class CardKey:
    """One private key. `sdk` signs as a2a-sdk does, `jws` signs any bytes under any protected header."""

    def __init__(self, kid: str = "k1", alg: str = "ES256") -> None:
        self.kid = kid
        self.alg = alg
        self.private: Any = (
            ec.generate_private_key(ec.SECP256R1()) if alg == "ES256" else ed25519.Ed25519PrivateKey.generate()
        )

    @property
    def public(self) -> Tree:
        to_jwk: Any = ECAlgorithm.to_jwk if self.alg == "ES256" else OKPAlgorithm.to_jwk
        jwk: Tree = to_jwk(self.private.public_key(), as_dict=True)
        return {**jwk, "kid": self.kid, "use": "sig", "alg": self.alg}

    def sdk(self, card: Tree, jku: str | None = None) -> Tree:
        """The card with a signature of a2a-sdk's beside what it had."""
        header: Any = {"kid": self.kid, "alg": self.alg, "typ": "JOSE", **({"jku": jku} if jku else {})}
        signed = create_agent_card_signer(self.private, header)(parse_agent_card(json.loads(json.dumps(card))))
        made = {"protected": signed.signatures[-1].protected, "signature": signed.signatures[-1].signature}
        return {**card, "signatures": [*card.get("signatures", ()), made]}

    def jws(self, payload: bytes, **header: Any) -> Tree:
        """A signature over `payload`; members of the header that are None are left out."""
        named = {"alg": self.alg, "kid": self.kid, "typ": "JOSE", **header}
        protected = encoded(json.dumps({k: v for k, v in named.items() if v is not None}).encode())
        algorithm: Any = jwt.get_algorithm_by_name(self.alg)
        signature = algorithm.sign(f"{protected}.{encoded(payload)}".encode(), self.private)
        return {"protected": protected, "signature": encoded(signature)}


def jwks(*keys: CardKey) -> Tree:
    return {"keys": [key.public for key in keys]}


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sdk_verifies(card: Tree, keys: Tree, *, jku: str | None = None) -> None:
    """a2a-sdk's own verdict on a card as its client reads it. Raises what a2a-sdk raises."""
    known = {key["kid"]: jwt.PyJWK(key) for key in keys["keys"]}

    def key(kid: str | None, asked: str | None) -> jwt.PyJWK:
        assert jku is None or asked == jku
        assert kid is not None
        return known[kid]

    verify = create_signature_verifier(key, ["ES256", "EdDSA"])
    verify(parse_agent_card(json.loads(json.dumps(card))))
