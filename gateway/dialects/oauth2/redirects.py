"""Redirect URIs: which ones a client may name, and which one of them a request means (RFC 6749 §3.1.2, RFC 8252)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

LONGEST = 2000
"""Characters of a redirect URI; it goes into a header, with a code and a state behind it."""

MOST = 10
"""Redirect URIs of one client."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

# Schemes that a browser runs or reads instead of handing them to a program. `http` is for loopback alone.
_RUN = frozenset(
    {"javascript", "data", "vbscript", "blob", "file", "filesystem", "view-source", "about", "ftp", "ws", "wss"}
)
# Visible ASCII without what could end a header, a quoted attribute or an entry of a content security policy.
_URI = re.compile(r"([a-z][a-z0-9+.-]*):/[!#$%&()*+\-./0-9:=?@A-Z\[\]_a-z~]+", re.IGNORECASE)


def refusal(uri: object) -> str | None:
    """Why no client may have this redirect URI; None when one may."""
    if not isinstance(uri, str) or len(uri) > LONGEST or (found := _URI.fullmatch(uri)) is None:
        return f"must be an absolute URI of visible ASCII, at most {LONGEST} characters"
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "cannot be read"
    scheme = found[1].lower()
    # A program's own scheme that is a reversed domain name needs no host behind it (RFC 8252 §7.1).
    if not (host or "." in scheme) or "@" in parts.netloc or "#" in uri:
        return "must have a host, and neither a user nor a fragment"
    if scheme == "http" and host not in LOOPBACK:
        return "must be https, or http on loopback, or of a program's own scheme"
    return "is of a scheme that browsers run themselves" if scheme in _RUN else None


def matches(uri: str, registered: Iterable[str]) -> bool:
    """Character by character; only on loopback the port may be another, because a program takes the one that is free
    (RFC 8252 §7.3)."""
    known = tuple(registered)
    return uri in known or (_any_port(uri) is not None and _any_port(uri) in map(_any_port, known))


def _any_port(uri: str) -> str | None:
    if refusal(uri) is not None:
        return None
    parts = urlsplit(uri)
    if parts.scheme != "http" or parts.hostname not in LOOPBACK:
        return None
    return f"{parts.hostname} {parts.path}?{parts.query}"


def host_of(uri: str) -> str:
    """Where a redirect leads, as people are shown it."""
    parts = urlsplit(uri)
    if parts.scheme in ("http", "https"):
        return parts.netloc
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


def is_local(uri: str) -> bool:
    """Whether the redirect leads to the person's own machine, where any program can wait for it."""
    parts = urlsplit(uri)
    return parts.scheme not in ("http", "https") or parts.hostname in LOOPBACK


def policy_source(uri: str) -> str:
    """The redirect as a source of a content security policy (`form-action`): browsers hold redirects after a form to
    it. An address in brackets cannot be one (CSP3 §2.3.1), so its whole scheme is."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or "[" in parts.netloc:
        return f"{parts.scheme}:"
    return f"{parts.scheme}://{parts.netloc}"
