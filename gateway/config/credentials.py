"""The section about what the gateway shows to a remote agent, so that it is let in."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gateway.config.tools import AnyValue, OAuthEntry, Section, Value, check_headers
from gateway.config.values import File, Url, refuse


class AgentOAuth(OAuthEntry):
    """How the gateway gets the tokens for an agent; the agent or its card says where, unless `issuer` does."""

    grant: Literal["client_credentials", "token_exchange", "authorization_code"] = Field(  # type: ignore[assignment]
        "client_credentials",
        description="As itself, on behalf of each caller (RFC 8693), or with each caller's own authorization.",
    )
    login: Literal["operator", "caller"] = Field("operator", description="caller means grant: authorization_code.")

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: object) -> object:
        """At an agent a person's authorization is always the caller's own."""
        if isinstance(given, dict) and given.get("login") == "caller" and "grant" not in given:
            return {**given, "grant": "authorization_code"}
        return given


class AgentCredentials(Section):
    """What a remote agent asks for; its card says where each of it goes. Only the agent's own origin gets any."""

    key: Value | None = Field(None, description="API key, bearer token or password: file or variable.")
    user: str | None = Field(None, min_length=1, description="Name that belongs to the password (HTTP Basic).")
    headers: dict[str, AnyValue] = Field(default_factory=dict, description="Headers, whatever the card says.")
    oauth: AgentOAuth | None = Field(None, description="Tokens, got by OAuth.")
    cert: File | None = Field(None, description="PEM file with the gateway's client certificate (mTLS).")
    cert_key: File | None = Field(None, description="PEM file with its private key.")
    ca: File | None = Field(
        None, description="PEM file with the authorities that vouch for the agent; the system's if not set."
    )
    origin: Url | None = Field(None, description="Where they may go; the origin of card_url if not set.")

    @model_validator(mode="after")
    def _checked(self) -> AgentCredentials:
        if self.key is not None and (self.key.text is not None or self.key.before):
            raise refuse("key must have file or variable", "a secret never stands in this file")
        if self.user is not None and self.key is None:
            raise refuse("user needs a key, the password")
        if (self.cert is None) != (self.cert_key is None):
            raise refuse("cert and cert_key belong together")
        check_headers(self.headers)
        return self
