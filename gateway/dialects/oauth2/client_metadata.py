"""What a client says about itself: dynamic registration (RFC 7591 §2), and the document at the URL that is its id
(OAuth Client ID Metadata Document). Every word of it is a stranger's."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from gateway.dialects.oauth2.forms import BASIC, FORM
from gateway.dialects.oauth2.redirects import MOST, refusal
from gateway.dialects.strict_json import JSON, read
from gateway.model.clients import AUTHORIZATION_CODE, DEVICE_CODE, REFRESH_TOKEN
from gateway.model.errors import GatewayError
from gateway.model.value import value

LARGEST = 16 * 1024
"""Bytes of a client's metadata. The longest seen has 2 KiB; the draft advises 5."""

LONGEST_NAME = 80
"""Characters of a client's name that people are shown."""

NONE = "none"

# What a stranger may register for. Credentials of its own would make a client of anybody, with no person behind it.
GRANTS = frozenset({AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE})

_CLIENT_ID = re.compile(r"https://[!#$%&()*+\-./0-9:=?@A-Z\[\]_a-z~]{1,1000}")
_DOTS = re.compile(r"/\.{1,2}(/|\Z)|%2e", re.IGNORECASE)
# What moves the cursor, reorders or hides text: a name is shown beside a button.
_UNSAFE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202f\u2060-\u206f\ufeff\ufff9-\ufffd\ud800-\udfff]"
)


class BadClient(Exception):
    """RFC 7591 §3.2.2: `error` is its code, the sentence says why."""

    def __init__(self, sentence: str, error: str = "invalid_client_metadata") -> None:
        super().__init__(sentence)
        self.error = error


@value
class ClientMetadata:
    """What of it counts. `method` is how the client authenticates at the token endpoint."""

    name: str
    redirects: tuple[str, ...]
    grants: tuple[str, ...]
    method: str


def registration(body: bytes) -> ClientMetadata:
    """A request of RFC 7591 §3.1. Raises BadClient."""
    return _metadata(_tree(body), (NONE, BASIC, FORM), default=BASIC)


def document(body: bytes, url: str) -> ClientMetadata:
    """The document of the client whose id is `url`. Raises BadClient; also when it speaks for another."""
    tree = _tree(body)
    if tree.get("client_id") != url:
        raise BadClient("The document's client_id is not its own URL")
    if "client_secret" in tree:
        raise BadClient("The document holds a secret, which everybody can read")
    return _metadata(tree, (NONE,), default=NONE)


def is_client_id(url: str) -> bool:
    """Whether the URL may be a client's id: https with a path, in the one form that it has."""
    if not _CLIENT_ID.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and parts.path not in ("", "/") and not _DOTS.search(parts.path) and _plain(url, parts)


def _plain(url: str, parts: Any) -> bool:
    return "@" not in parts.netloc and "#" not in url and parts.netloc == parts.netloc.lower()


def _tree(body: bytes) -> dict[str, JSON]:
    if len(body) > LARGEST:
        raise BadClient(f"The metadata has more than {LARGEST} bytes")
    try:
        tree = read(body)
    except GatewayError as error:
        raise BadClient(f"The metadata is not strict JSON: {error.message}") from None
    if not isinstance(tree, dict):
        raise BadClient("The metadata is no JSON object")
    return tree


def _metadata(tree: dict[str, JSON], methods: tuple[str, ...], *, default: str) -> ClientMetadata:
    method = tree.get("token_endpoint_auth_method", default)
    if method not in methods:
        raise BadClient(f"token_endpoint_auth_method must be {' or '.join(methods)}")
    grants = _texts(tree, "grant_types", (AUTHORIZATION_CODE,))
    kept = tuple(grant for grant in dict.fromkeys(grants) if grant in GRANTS)
    redirects = tuple(dict.fromkeys(_texts(tree, "redirect_uris", ())))
    if AUTHORIZATION_CODE in kept and not redirects:
        raise BadClient("redirect_uris must name at least one", "invalid_redirect_uri")
    if len(redirects) > MOST:
        raise BadClient(f"redirect_uris must be at most {MOST}", "invalid_redirect_uri")
    for uri in redirects:
        if (why := refusal(uri)) is not None:
            raise BadClient(f"A redirect URI {why}", "invalid_redirect_uri")
    if not {AUTHORIZATION_CODE, DEVICE_CODE} & set(kept):
        raise BadClient("grant_types must have authorization_code or the device grant")
    if "code" not in _texts(tree, "response_types", ("code",)) and AUTHORIZATION_CODE in kept:
        raise BadClient("response_types must have code")
    return ClientMetadata(_name(tree.get("client_name")), redirects, kept, str(method))


def _texts(tree: dict[str, JSON], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    found = tree.get(name)
    if found is None:
        return default
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise BadClient(f"{name} must be a list of texts")
    return tuple(str(each) for each in found)


def _name(found: JSON) -> str:
    return " ".join(_UNSAFE.sub("", found).split())[:LONGEST_NAME] if isinstance(found, str) else ""
