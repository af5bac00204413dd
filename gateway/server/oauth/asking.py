"""A request to the authorization server with everything that a decision about it needs, and a client as authlib sees
one. What has to be waited for is here before authlib is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import field
from typing import Any

from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import OAuth2Request
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload

from gateway.dialects.oauth2.access_token import Rules, Verified
from gateway.dialects.oauth2.dpop import Proof
from gateway.dialects.oauth2.forms import BASIC, FORM
from gateway.dialects.oauth2.redirects import matches
from gateway.model.clients import AUTHORIZATION_CODE, ClientRecord
from gateway.model.people import GrantRecord
from gateway.model.value import value


class InvalidTarget(OAuth2Error):  # type: ignore[misc]
    """RFC 8707 §2."""

    error = "invalid_target"


class InvalidProof(OAuth2Error):  # type: ignore[misc]
    """RFC 9449 §5."""

    error = "invalid_dpop_proof"


@value
class Subject:
    """Whom a subject token (RFC 8693 §2.1) is about: the name as our own tokens have it, who acts for them already, the
    latest one first, and until when the token is good (seconds since the epoch). `client` is the one of ours that the
    token was given to, `parts` of the gateway all that it is for, if not for the whole."""

    name: str
    scopes: tuple[str, ...]
    until: float
    actors: tuple[str, ...] = ()
    may_act: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict)  # what goes on into the new token, as roles do
    client: str | None = None
    parts: frozenset[str] | None = None


def subject_of(found: Verified, claims: Mapping[str, Any], ours: Rules) -> Subject:
    """Whom a token that is known to be good is about. Our own subjects keep their short names; those of another issuer
    have it in front, as people who have logged in there do."""
    principals = [found.principal]
    while (behind := principals[-1].on_behalf_of) is not None:
        principals.append(behind)
    names = [principal.name.removeprefix(f"{ours.known_as}#") for principal in principals]
    root = principals[-1]
    kept: dict[str, Any] = {}
    own = found.rules is ours
    if own and "sid" in claims:
        kept["sid"] = claims["sid"]  # what ends the grant ends this token too
    if root.roles:
        kept["roles"] = sorted(root.roles)
    if root.tenant:
        kept["tenant"] = root.tenant
    return Subject(
        names[-1],
        tuple(sorted(found.principal.scopes)),
        found.until,
        tuple(names[:-1]),
        None if found.may_act is None else found.may_act.removeprefix(f"{ours.issuer}#"),
        kept,
        str(claims["client_id"]) if own else None,
        None if found.meant_for_all else found.audiences,
    )


class Asking(OAuth2Request):  # type: ignore[misc]
    """A form with its headers. authlib's own refuses a URL that is neither https nor loopback.

    `finish` is what is left to do when the answer is yes: it writes, and makes the answer's body. `amends` is a grant
    that must end because of what was tried with it, `revoking` the `jti` of a token and its end (milliseconds)."""

    def __init__(self, url: str, headers: Mapping[str, str], form: Mapping[str, str]) -> None:
        super().__init__("POST", url, headers=headers)
        self.payload = BasicOAuth2Payload(dict(form))
        self.grant: GrantRecord | None = None
        self.subject: Subject | None = None
        self.subject_problem = ""
        self.proof: Proof | None = None
        self.finish: Callable[[], Awaitable[dict[str, Any]]] | None = None
        self.amends: str | None = None
        self.revoking: tuple[str, int] | None = None

    @property
    def key(self) -> str | None:
        """The thumbprint of the key that was proven."""
        return None if self.proof is None else self.proof.key

    @property
    def form(self) -> Mapping[str, str]:
        fields: Mapping[str, str] = self.payload.data
        return fields


class Client:
    """A client as authlib sees it."""

    def __init__(self, record: ClientRecord) -> None:
        self.record = record
        self.id = record.id
        self.scopes = record.scopes

    def get_client_id(self) -> str:
        return self.id

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "none" if self.record.public else method in (BASIC, FORM)

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.record.grants

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and AUTHORIZATION_CODE in self.record.grants

    def check_redirect_uri(self, uri: str) -> bool:
        return matches(uri, self.record.redirects)

    def get_default_redirect_uri(self) -> str | None:
        """OAuth 2.1 §4.1.1: it may be left out where there is one."""
        return self.record.redirects[0] if len(self.record.redirects) == 1 else None

    def get_allowed_scope(self, scope: str | None) -> str:
        """Narrowed later, by what the server lets people be asked for (`AuthorizationServer.asked`)."""
        return scope or ""
