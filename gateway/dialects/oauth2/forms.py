"""What clients send to an authorization server: forms, and their own credentials (RFC 6749 §2.3.1, §3.2)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote_plus, unquote_plus, urlencode

BASIC, FORM = "client_secret_basic", "client_secret_post"
MEDIA_TYPE = "application/x-www-form-urlencoded"

MAX_FORM = 16 * 1024
"""Bytes of a form: a token of the largest size twice, once escaped."""

MAX_FIELDS = 32
"""Fields of a form. The longest request of the family has a dozen."""


class BadForm(Exception):
    """RFC 6749 §5.2 invalid_request; the sentence says why."""


def read_form(body: bytes) -> dict[str, str]:
    """Raises BadForm: too large, not readable, or a field twice (RFC 6749 §3.2). Empty fields are left out (§3.1)."""
    if len(body) > MAX_FORM:
        raise BadForm(f"The form has more than {MAX_FORM} bytes")
    try:
        pairs = parse_qsl(body.decode("ascii"), strict_parsing=bool(body), max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise BadForm("The form cannot be read") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise BadForm("A field is given twice")
    return form


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Client id and secret of `Authorization: Basic …`, both form-encoded inside; empty when there are none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        id, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (unquote_plus(id), unquote_plus(secret)) if colon else ("", "")


def authenticated(form: Mapping[str, str], id: str, secret: str, offered: object) -> tuple[bytes, str]:
    """A form as a client with a secret sends it, and the `Authorization` that goes with it, "" where the secret is in
    the form: that is what the less good way of the two is for, where a server takes no other (RFC 6749 §2.3.1).
    `offered` is what its metadata lists; without a list it takes Basic (RFC 8414 §2)."""
    if isinstance(offered, list) and FORM in offered and BASIC not in offered:
        return urlencode({**form, "client_id": id, "client_secret": secret}).encode(), ""
    pair = f"{quote_plus(id)}:{quote_plus(secret)}".encode()
    return urlencode(form).encode(), "Basic " + base64.b64encode(pair).decode()
