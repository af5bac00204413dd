"""Request -> principal. The same object for every protocol; any failed credential is refused, nothing falls through."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import inf
from typing import Protocol
from urllib.parse import quote

from gateway.core.audit import traced
from gateway.core.keys import PREFIX, KeyRing, fingerprint
from gateway.core.policy.refusals import Insufficient
from gateway.dialects.oauth2.access_token import (
    BAD_AUDIENCE,
    EXPIRED,
    NEEDS_KEY,
    NEEDS_PROOF,
    UNBOUND,
    WRONG_KEY,
    BadToken,
    Verified,
    needs_scopes,
)
from gateway.dialects.oauth2.metadata import PROTECTED_RESOURCE
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import ANONYMOUS, Principal
from gateway.model.trail import HOPS
from gateway.server.certificates import Certificates
from gateway.server.request import Headers

# RFC 6750 §3, RFC 9449 §7.1.
BEARER, DPOP = "Bearer", "DPoP"
REALM = 'realm="gateway"'
"""It names no host and no product version."""

# The parts of the gateway that are resources of their own: each agent, all tools, each mount of tools, with what is
# below them. A token may be for one of them alone (RFC 8707). Only names as ids are: it goes into headers.
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_RESOURCE = re.compile(rf"/(?:agents/{_LABEL}|mcp(?:/{_LABEL})?)(?=/|\Z)")

_OURS = PREFIX.encode()
_HOPS = HOPS.lower().encode()
MAX_COUNTED = 99  # hops that a header may claim; calls end long before


class TokenVerifier(Protocol):
    """Access tokens of trusted issuers, by the fingerprint of the token."""

    def known(self, mark: bytes) -> Verified | None:
        """What is remembered of the token. Raises BadToken."""
        ...

    async def verify(self, mark: bytes, token: bytes) -> Verified:
        """Raises BadToken; GatewayError when it cannot be found out."""
        ...

    def prove(self, proof: bytes, method: str, url: str, token: bytes) -> str:
        """The thumbprint of the key that made this proof for this request (RFC 9449 §4.3). Raises BadToken."""
        ...

    def needed(self, who: Principal) -> frozenset[str]:
        """The scopes that every token must hold that says of somebody that it is `who`."""
        ...


class Challenged(GatewayError):
    """A refusal with the challenge that belongs to it: 401, or 403 for want of a scope."""

    def __init__(self, reason: Reason, message: str, challenge: str) -> None:
        super().__init__(reason, message)
        self.challenge = challenge


def resource_path(path: str) -> str:
    """The protected resource that a request's path belongs to: `/agents/{id}`, or "" for the gateway as a whole."""
    found = _RESOURCE.match(path)
    return found[0] if found else ""


class Authenticator:
    """Bearer credentials against the key ring, and against `tokens` where issuers are trusted; without one, the
    certificate that a trusted proxy has seen. `anonymous` lets a
    request without any credential in as nobody. `public_url` has no slash at its end. `proofs` are the algorithms of
    proofs (DPoP) that are taken, `bound` is whether every token must come with one. `frozen` says who may hear nothing
    any more."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        anonymous: bool,
        public_url: str = "",
        tokens: TokenVerifier | None = None,
        certificates: Certificates | None = None,
        refused: Callable[[str], None],
        proofs: Sequence[str] = (),
        bound: bool = False,
        frozen: Callable[[Principal], object] = lambda who: None,
    ) -> None:
        self._keys = keys
        self._frozen = frozen
        self._refused = refused
        self._anonymous = anonymous
        self._url = public_url
        self._tokens = tokens
        self._certificates = certificates
        self._algorithms = f'algs="{" ".join(proofs)}"'
        self._scheme = DPOP if bound else BEARER
        self.revocations = 0  # counts; who keeps a stream open looks whether it has changed

    async def principal(
        self, headers: dict[bytes, bytes], path: str = "/", method: str = "GET", peer: str = "", url: str = ""
    ) -> Principal:
        """Who asks for `path`, from the address `peer`; at `url`, where that is another than `path` has. Raises
        Challenged; UNAVAILABLE when an issuer cannot be reached. A credential that is wrong is never treated as none.
        Never waits for a key or for a token that was seen a moment ago."""
        traced(headers.get(b"traceparent"))
        who = self._by_key(headers) or await self._principal(headers, path, method, peer, url)
        hops = headers.get(_HOPS)
        return who if hops is None else who._replace(hops=max(who.hops, _counted(hops)))

    @property
    def timed(self) -> bool:
        """Whether there are credentials that end by themselves."""
        return self._tokens is not None

    async def good_until(self, headers: dict[bytes, bytes], peer: str, *, timed: bool) -> float | None:
        """Until when whoever sent a request that goes on may hear more, in seconds since the epoch; None: no more.
        Where nobody can say at this moment, a credential was good before and stays so: 0. Without `timed` one that
        nobody took back is good though its time is over."""
        authorization = headers.get(b"authorization")
        if authorization is None:  # nobody, or a certificate: the proxy's connection is the proof of it
            seen = None if self._certificates is None else self._certificates.principal(headers, peer)
            return self._unless_frozen(seen or ANONYMOUS, inf)
        secret = authorization.partition(b" ")[2]
        mark = fingerprint(secret)
        if (found := self._keys.known(mark)) is not None:
            return self._unless_frozen(found, inf)
        if self._tokens is None or secret.startswith(_OURS):
            return None
        try:
            verified = self._tokens.known(mark) or await self._tokens.verify(mark, secret)
        except BadToken as refused:
            return inf if not timed and str(refused) == EXPIRED else None
        except GatewayError:
            return 0
        return self._unless_frozen(verified.principal, verified.until)

    def _unless_frozen(self, who: Principal, until: float) -> float | None:
        return None if self._frozen(who) else until

    def challenge(self, error: GatewayError, path: str) -> Headers:
        """The `WWW-Authenticate` that goes with a refusal of `path`; nothing for any other error."""
        if isinstance(error, Challenged):
            said = error.challenge
        elif isinstance(error, Insufficient):
            # With those that no token is good without: whoever asks for these and no others gets one that will do.
            every = frozenset() if self._tokens is None else self._tokens.needed(error.who)
            said = self._insufficient(path, every.union(error.scopes))
        elif error.reason is Reason.UNAUTHENTICATED:
            said = self._written(path)
        else:
            return ()
        return ((b"www-authenticate", said.encode("latin-1")),)

    def _by_key(self, headers: dict[bytes, bytes]) -> Principal | None:
        """Whose key the credential is, if it is one as nearly everybody writes it."""
        authorization = headers.get(b"authorization", b"")
        return self._keys.known(fingerprint(authorization[7:])) if authorization.startswith(b"Bearer ") else None

    async def _principal(self, headers: dict[bytes, bytes], path: str, method: str, peer: str, url: str) -> Principal:
        authorization = headers.get(b"authorization")
        if authorization is None:
            return self._by_certificate(headers, path, peer)
        scheme, _, secret = authorization.partition(b" ")
        scheme = scheme.lower()
        if scheme not in (b"bearer", b"dpop"):
            raise self._unknown(path)
        mark = fingerprint(secret)
        found = self._keys.known(mark)
        if found is not None and scheme == b"bearer":
            return found
        if self._tokens is None or secret.startswith(_OURS):
            raise self._unknown(path)  # a key of ours that is wrong is nobody else's business
        try:
            verified = self._tokens.known(mark) or await self._tokens.verify(mark, secret)
            if verified.key is not None or scheme == b"dpop":
                self._proven(verified, scheme, headers, method, url or self._url + quote(path), secret)
            return self._judged(verified, path)
        except BadToken as refused:
            raise self._invalid(str(refused), path) from None

    def _by_certificate(self, headers: dict[bytes, bytes], path: str, peer: str) -> Principal:
        """Whom a trusted proxy has seen the certificate of, or nobody where that is allowed."""
        if self._certificates is not None:
            found = self._certificates.principal(headers, peer)
            if found is not None:
                return found
        if self._anonymous:
            return ANONYMOUS
        message = "Send a credential: Authorization: Bearer …"
        raise Challenged(Reason.UNAUTHENTICATED, message, self._challenge(path))

    def _proven(
        self, verified: Verified, scheme: bytes, headers: dict[bytes, bytes], method: str, url: str, token: bytes
    ) -> None:
        """RFC 9449 §7.1: a token that is bound to a key comes as DPoP, with a proof of that key. Raises BadToken."""
        if verified.key is None:
            raise BadToken(UNBOUND)
        proof = headers.get(b"dpop")
        if scheme != b"dpop" or proof is None:
            raise BadToken(NEEDS_PROOF)
        assert self._tokens is not None
        if self._tokens.prove(proof, method, url, token) != verified.key:
            raise BadToken(WRONG_KEY)

    def _judged(self, verified: Verified, path: str) -> Principal:
        """Every time, because a token that is good for one part of the gateway is not for another."""
        if not verified.meant_for_all:
            resource = resource_path(path)
            if not resource or self._url + resource not in verified.audiences:
                raise BadToken(BAD_AUDIENCE)
        if verified.lacks_scope:
            self._refused(path)
            raise Challenged(
                Reason.PERMISSION_DENIED,
                needs_scopes(verified.rules),
                self._insufficient(path, verified.rules.scopes),
            )
        return verified.principal

    def _invalid(self, sentence: str, path: str) -> Challenged:
        error = "invalid_dpop_proof" if sentence.startswith("The proof") else "invalid_token"
        parameters = (f'error="{error}"', f'error_description="{sentence}"')
        proof = error == "invalid_dpop_proof" or sentence in (NEEDS_PROOF, NEEDS_KEY, WRONG_KEY)  # RFC 9449 §7.1
        told = self._challenge(path, *parameters, scheme=DPOP if proof else self._scheme)
        return Challenged(Reason.UNAUTHENTICATED, sentence, told)

    def _unknown(self, path: str) -> Challenged:
        message = "This credential is not known here"
        return Challenged(Reason.UNAUTHENTICATED, message, self._challenge(path, 'error="invalid_token"'))

    def _challenge(self, path: str, *parameters: str, scheme: str = "") -> str:
        """For whoever was refused before it was clear who it is."""
        self._refused(path)
        return self._written(path, *parameters, scheme=scheme)

    def _insufficient(self, path: str, scopes: frozenset[str]) -> str:
        """RFC 6750 §3.1: all scopes that are needed, those that the token has among them."""
        return self._written(path, 'error="insufficient_scope"', f'scope="{" ".join(sorted(scopes))}"')

    def _written(self, path: str, *parameters: str, scheme: str = "") -> str:
        """RFC 6750 §3, and where to get a token, if anywhere (RFC 9728 §5.1); of a proof, how it may be signed."""
        scheme = scheme or self._scheme
        if scheme == DPOP:
            parameters = (*parameters, self._algorithms)
        if self._tokens is not None:
            where = f"{self._url}{PROTECTED_RESOURCE}{resource_path(path)}"
            parameters = (*parameters, f'resource_metadata="{where}"')
        return f"{scheme} {', '.join([REALM, *parameters])}"


def _counted(hops: bytes) -> int:
    """How long a chain another gateway says it is. What is no number is too long."""
    return min(int(hops), MAX_COUNTED) if hops.isdigit() and len(hops) <= 4 else MAX_COUNTED
