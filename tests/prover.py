"""A client that proves with each request that it holds a key (RFC 9449), with bare cryptography."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any

from tests.issuer import SigningKey, b64, compact

_counter = iter(range(1, 1_000_000))


@dataclass
class Prover:
    key: SigningKey = field(default_factory=lambda: SigningKey.make("proof"))

    @property
    def jwk(self) -> dict[str, Any]:
        found = self.key.jwk()
        del found["kid"]
        return found

    @property
    def thumbprint(self) -> str:
        """RFC 7638: the required members in lexical order."""
        members = {name: self.jwk[name] for name in sorted({"crv", "e", "kty", "n", "x", "y"} & self.jwk.keys())}
        return b64(hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest())

    def proof(self, method: str, url: str, token: str | None = None, *, header: Any = None, **changed: Any) -> str:
        """A good proof, unless something is changed: `...` leaves a claim or header parameter out."""
        head = {"typ": "dpop+jwt", "alg": self.key.alg, "jwk": self.jwk, **(header or {})}
        said = {"jti": f"p{next(_counter)}", "htm": method, "htu": url, "iat": int(time.time())}
        if token is not None:
            said["ath"] = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
        said |= changed
        first, second = ({name: value for name, value in each.items() if value is not ...} for each in (head, said))
        return compact(self.key, json.dumps(first).encode(), json.dumps(second).encode())

    def headers(self, method: str, url: str, token: str, **changed: Any) -> dict[str, str]:
        return {"Authorization": f"DPoP {token}", "DPoP": self.proof(method, url, token, **changed)}
