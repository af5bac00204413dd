"""`X-Forwarded-Client-Cert`, as Envoy and others that end mTLS write it: whose certificate their client showed.

Anybody can send such a header. It means something only from a proxy that the operator trusts, and that takes it off
what comes from outside; whoever reads it has to look at the address of the connection first.
"""

from __future__ import annotations

import re

HEADER = b"x-forwarded-client-cert"

MAX_ID = 2048
"""Bytes of a SPIFFE ID (SPIFFE-ID §2.3)."""

_PAIR = re.compile(r'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^;,"]*))(;|\Z)')
_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})(/[A-Za-z0-9._-]+)+")


def spiffe_id(header: bytes) -> tuple[str, str] | None:
    """The SPIFFE ID of the one client that the header is about, and its trust domain; None for anything else: more
    than one hop, no URI or several (X509-SVID §2 has exactly one), or one that is none."""
    text, at = header.decode("latin-1"), 0
    uris = []
    while at < len(text):
        pair = _PAIR.match(text, at)
        if pair is None:
            return None  # a comma begins the next hop: somebody was in between
        at = pair.end()
        if pair[1].lower() == "uri":
            uris.append(pair[2] or pair[3])
    if len(uris) != 1 or len(uris[0]) > MAX_ID:
        return None
    found = _ID.fullmatch(uris[0])
    if found is None or {".", ".."} & set(uris[0].split("/")):
        return None
    return uris[0], found[1]
