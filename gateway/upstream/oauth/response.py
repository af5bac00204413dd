"""A person's answer comes back as a URL: whether it belongs to what we asked, and from whom it is (RFC 9207)."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from gateway.model.errors import GatewayError, Reason, invalid
from gateway.model.value import value
from gateway.upstream.oauth.client import Client
from gateway.upstream.oauth.metadata import Server
from gateway.upstream.oauth.proofs import ProofKey

# A person reads, logs in and decides within that time.
PENDING_MS = 600_000
_ERROR = re.compile(r"[a-z_]{1,64}")


@value
class Pending:
    """What was asked, remembered until the answer comes: the issuer above all. Times are epoch milliseconds."""

    server: Server
    client: Client
    resource: str
    scopes: tuple[str, ...]
    verifier: str
    since: int
    key: ProofKey | None = None
    nonce: str = ""  # of OpenID Connect, at an identity provider


def parameters(url: str) -> dict[str, str]:
    """Of the query, each once: of two `code` or `iss`, two readers could take different ones."""
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise invalid("response", "has a parameter twice")
    return found


def code(found: dict[str, str], pending: Pending) -> str:
    """The authorization code. Raises GatewayError(UPSTREAM_FAILED) for an answer of another issuer, and for a no."""
    iss = found.get("iss")
    if iss is None and pending.server.says_iss:
        raise _failed("The answer does not say which authorization server it is from, although this one always does")
    if iss is not None and iss != pending.server.issuer:
        # Simple string comparison (RFC 9207 §2.4), and not a word of what else such an answer says.
        raise _failed("The answer is from another authorization server than the one that was asked")
    if (error := found.get("error")) is not None:
        raise _failed(f"The authorization was refused ({error if _ERROR.fullmatch(error) else 'no known reason'})")
    if not found.get("code"):
        raise _failed("The answer holds no code")
    return found["code"]


def _failed(sentence: str) -> GatewayError:
    return GatewayError(Reason.UPSTREAM_FAILED, sentence)
