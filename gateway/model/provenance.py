"""Where a card came from, and what its signatures are worth."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from gateway.model.value import value


class Standing(StrEnum):
    """What is known of a signature, or of a card by the best of its signatures."""

    VERIFIED = "verified"  # it fits the card, and the key is one that we have reason to believe
    UNSIGNED = "unsigned"
    UNKNOWN = "unknown-key"  # nobody whom we believe says what the key is: it may fit or not
    INVALID = "invalid"  # the key is known and the signature does not fit the card, or is no signature


@value
class Finding:
    """One signature of a card. `says` is a sentence; the rest is what its protected header claims.

    `form` is the spelling of the card that it fits (`dialects/a2a_v1/signing.py`), where it fits one.
    """

    verdict: Standing
    says: str
    kid: str | None = None
    alg: str | None = None
    jku: str | None = None
    form: str | None = None


@value
class CardKeys:
    """The keys that may sign a card, as the operator gave them: a JWK set, or the URL of one."""

    document: bytes | None = None
    url: str | None = None


@value
class CardRecord:
    """A card of a remote agent as it came, and what was made of it. Times are milliseconds since the epoch.

    `source` is where the answer came from in the end, `changed` when the card last said something else than before,
    and `changes` what that was, a sentence each.
    """

    agent: str
    card_url: str
    source: str
    fetched: int
    body: bytes
    verdict: Standing
    findings: tuple[Finding, ...] = ()
    changed: int = 0
    changes: tuple[str, ...] = ()


def best(findings: Sequence[Finding]) -> Standing:
    """The verdict on a card: one signature that fits is enough (§8.4.3), and one that does not is worse than none."""
    given = {finding.verdict for finding in findings}
    order = (Standing.VERIFIED, Standing.INVALID, Standing.UNKNOWN)
    return next((verdict for verdict in order if verdict in given), Standing.UNSIGNED)
