"""The sections about MCP: which servers there are, how they are shown, and who may use them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from gateway.config.principals import GRANTED, WORDS
from gateway.config.problems import Loc, did_you_mean
from gateway.config.values import File, Items, Name, Url, refuse

_PATTERN = re.compile(r"[a-z0-9*?-]{1,63}(/[^\s/][^\s]{0,255})?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")
_SECURE = re.compile(r"https://|http://(127\.0\.0\.1|localhost|\[::1\])(:|/|$)", re.IGNORECASE)
_PERMISSION = re.compile(r"[!-~]{1,128}")


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Value(Section):
    """A text, or where to read one: secrets stand in a file or in the gateway's environment, never here."""

    text: str | None = Field(None, description="The text itself; for what is no secret.")
    file: File | None = Field(None, description="File with the value, read at each use.")
    variable: str | None = Field(None, description="Variable of the gateway's own environment.")
    before: str = Field("", description="What goes in front of it, such as 'Bearer '.")

    @model_validator(mode="after")
    def _one(self) -> Value:
        if sum(each is not None for each in (self.text, self.file, self.variable)) != 1:
            raise refuse("must be a text, or have exactly one of file and variable")
        return self


def _value(given: object) -> object:
    return {"text": given} if isinstance(given, str) else given


class _OrText:
    """Says in the schema what `_value` accepts."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"type": "string"}, handler(core)]}


AnyValue = Annotated[Value, BeforeValidator(_value), _OrText]


def check_headers(names: Iterable[str]) -> None:
    _check(names, _HEADER, "is no name of a header")


def _check_secret(name: str, found: Value | None) -> None:
    if found is not None and (found.text is not None or found.before):
        raise refuse(f"{name} must have file or variable", "a secret never stands in this file")


class IdentityProviderEntry(Section):
    """Whom an authorization server believes about people (enterprise-managed authorization)."""

    issuer: Url = Field(description="Its issuer URL.")
    client_id: str = Field(description="The gateway's id there.")
    client_secret: Value | None = Field(None, description="The secret that belongs to it: file or variable.")
    client_key: Value | None = Field(
        None, description="Instead of a secret, the gateway's private key there: file or variable with PEM or a JWK."
    )
    subject: Value | None = Field(
        None,
        description="ID token of the one person whose calls all of them are: file or variable; else people log in.",
    )

    @model_validator(mode="after")
    def _checked(self) -> IdentityProviderEntry:
        for name in ("client_secret", "client_key", "subject"):
            _check_secret(name, getattr(self, name))
        if self.client_secret is not None and self.client_key is not None:
            raise refuse("client_secret and client_key exclude each other", "keep client_key, which never travels")
        if not _SECURE.match(self.issuer):
            raise refuse("issuer must be an https URL")
        return self


class OAuthEntry(Section):
    """How the gateway gets the tokens for a tool server; the server itself says where."""

    grant: Literal["authorization_code", "client_credentials", "jwt_bearer", "id_jag"] = Field(
        "authorization_code",
        description="A person authorizes it (gateway tools login); or it is known by itself, by what its platform says "
        "(jwt_bearer), or by what an identity provider says of people (id_jag).",
    )
    login: Literal["operator", "caller"] = Field(
        "operator", description="Whose authorization goes with a call: one for all callers, or each caller's own."
    )
    registration: Literal["preregistered", "cimd", "dynamic"] | None = Field(
        None, description="How the authorization server knows the gateway; follows from the other settings if not set."
    )
    client_id: str | None = Field(None, description="The gateway's id there, if it was registered by hand.")
    client_secret: Value | None = Field(None, description="The secret that belongs to it: file or variable.")
    client_key: Value | None = Field(
        None, description="The gateway's private key there (private_key_jwt): file or variable with PEM or a JWK."
    )
    assertion: Value | None = Field(None, description="What the platform signs for jwt_bearer: file or variable.")
    identity_provider: IdentityProviderEntry | None = Field(None, description="Who knows the people, for id_jag.")
    dpop: Literal["offered", "required", "off"] = Field(
        "offered", description="Tokens bound to a key (RFC 9449): where both servers have them, always, or never."
    )
    client_metadata: Url | None = Field(None, description="https URL of the gateway's client ID metadata document.")
    issuer: Url | None = Field(None, description="The one authorization server to go to; else the server names it.")
    scopes: Items[str] = Field((), description="Scopes to ask for; those that the server names if not set.")

    @model_validator(mode="after")
    def _checked(self) -> OAuthEntry:
        for name in ("client_secret", "client_key", "assertion"):
            _check_secret(name, getattr(self, name))
        if self.client_secret is not None and self.client_id is None:
            raise refuse("client_secret belongs to a client_id")
        if self.client_secret is not None and self.client_key is not None:
            raise refuse("client_secret and client_key exclude each other", "keep client_key, which never travels")
        if self.client_key is not None and self.client_id is None and self.client_metadata is None:
            raise refuse("client_key belongs to a client_id, or to client_metadata")
        if (self.assertion is not None) is not (self.grant == "jwt_bearer"):
            raise refuse("grant: jwt_bearer and assertion belong together")
        if (self.identity_provider is not None) is not (self.grant == "id_jag"):
            raise refuse("grant: id_jag and identity_provider belong together")
        if self.client_metadata is not None and not re.fullmatch(r"https://[^/]+/.+", self.client_metadata):
            raise refuse("client_metadata must be an https URL with a path", "it is the client id itself")
        if self.registration not in (None, self.implied):
            raise refuse(f"registration: {self.registration} does not fit", _FITTING[str(self.registration)])
        provider = self.identity_provider
        alone = self.grant in ("client_credentials", "jwt_bearer") or (provider is not None and provider.subject)
        if alone and self.login == "caller":
            raise refuse("login: caller needs a person who says yes", f"leave out {_ALONE[self.grant]}")
        bare = self.client_id is not None and self.client_secret is None and self.client_key is None
        if self.grant == "client_credentials" and bare:
            raise refuse("client_credentials need a client_secret or a client_key")
        _check(self.scopes, _SCOPE, "is no scope")
        return self

    @property
    def implied(self) -> str:
        """The order is MCP's: registered by hand, then a metadata document, then dynamic registration."""
        if self.client_id is not None:
            return "preregistered"
        return "cimd" if self.client_metadata is not None else "dynamic"


_ALONE = {
    "client_credentials": "grant: client_credentials",
    "jwt_bearer": "grant: jwt_bearer",
    "id_jag": "identity_provider.subject",
}

_FITTING = {
    "preregistered": "it needs a client_id",
    "cimd": "it needs client_metadata, and no client_id",
    "dynamic": "leave out client_id and client_metadata",
}


class LimitsEntry(Section):
    """The most that a command may take of this machine; null: no limit."""

    memory: int | None = Field(512, ge=16, le=1_048_576, description="MiB of memory, of all its processes together.")
    files: int | None = Field(1024, ge=16, le=1_048_576, description="Files that each of its processes may have open.")
    processes: int | None = Field(64, ge=1, le=65_536, description="Processes, those it starts included.")
    file_size: int | None = Field(1024, ge=1, le=1_048_576, description="MiB that a file may have which it writes.")


class ToolServerEntry(Section):
    """One MCP server, of any revision: at a URL, or as a command that runs on this machine."""

    url: Url | None = Field(None, description="URL of a server that is reached over HTTP.")
    command: Items[str] | None = Field(None, description="Program (absolute path) and its arguments; no shell.")
    headers: dict[str, AnyValue] = Field(default_factory=dict, description="Headers for the URL: credentials, mostly.")
    oauth: OAuthEntry | None = Field(None, description="Tokens for the URL, got by OAuth.")
    env: dict[str, AnyValue] = Field(
        default_factory=dict, description="Variables for the command, beside PATH and HOME."
    )
    folder: File | None = Field(None, description="Folder that the command starts in; DATA/tools/NAME if not set.")
    sandbox: Items[str] = Field((), description="Words in front of the command: bwrap (absolute path) and its options.")
    limits: LimitsEntry | None = Field(None, description="What the command may take; these defaults if not set.")
    shared: bool = Field(False, description="Whether all callers share one process of the command.")
    # A server works on some requests at once; more of them only wait inside it.
    concurrency: int = Field(32, ge=1, le=256, description="Requests at the same time.")
    queue: int = Field(256, ge=0, le=100_000, description="Requests that may wait for a place; more are refused.")
    timeout: float = Field(300.0, gt=0, le=86_400, description="Seconds that one request may take.")
    quarantine: Literal["changed", "new", "off"] = Field(
        "changed", description="What waits for approval: changes after the first sight, everything, or nothing."
    )
    requires: dict[str, Items[str]] = Field(
        default_factory=dict, description="Tool names or patterns, and the permissions a caller must hold for them."
    )

    @model_validator(mode="after")
    def _checked(self) -> ToolServerEntry:
        if (self.url is None) is (self.command is None):
            raise refuse("has exactly one of url and command", "say how it is reached")
        if self.command is not None:
            if not self.command or not self.command[0].startswith("/"):
                raise refuse(
                    "command must begin with an absolute path", "gateway tools add finds it and writes it down"
                )
            if self.sandbox and not self.sandbox[0].startswith("/"):
                raise refuse("sandbox must begin with an absolute path", "for example /usr/bin/bwrap")
            if self.headers:
                raise refuse("headers are for a url", "a command takes env")
            if self.oauth is not None:
                raise refuse("oauth is for a url", "a command takes env")
        elif self.env or self.folder is not None or self.sandbox or self.shared or self.limits is not None:
            raise refuse("env, folder, sandbox, limits and shared are for a command", "a url takes headers")
        if self.oauth is not None and not _SECURE.match(self.url or ""):
            raise refuse("oauth needs an https URL", "a token must not cross a network in clear text (RFC 6750 §5.2)")
        if self.oauth is not None and any(name.lower() == "authorization" for name in self.headers):
            raise refuse("oauth and an Authorization header exclude each other")
        check_headers(self.headers)
        _check(self.env, _VARIABLE, "is no name of a variable")
        for names in self.requires.values():
            _check(names, _PERMISSION, "must be visible ASCII characters, no spaces")
        return self


class MountEntry(Section):
    """One endpoint, /mcp/NAME, with some of the tools."""

    tools: Items[str] = Field((), description="Servers, or SERVER/PATTERN; all servers if not set.")
    naming: Literal["prefix", "identity", "alias"] = Field(
        "prefix", description="server__tool, the one server's own names, or the names in aliases."
    )
    search: bool = Field(False, description="Whether it lists three tools to find, see and call the others with.")
    aliases: dict[str, str] = Field(
        default_factory=dict, description="Name on the mount, and the SERVER/TOOL it means."
    )

    @model_validator(mode="after")
    def _checked(self) -> MountEntry:
        _check(self.tools, _PATTERN, "must be a server or SERVER/PATTERN")
        if self.naming == "identity" and (len(self.tools) != 1 or "/" in self.tools[0] or "*" in self.tools[0]):
            raise refuse("identity names need tools with exactly one server", "two servers may use the same name")
        if (self.naming == "alias") is not bool(self.aliases):
            raise refuse("naming: alias and aliases belong together", "set both or neither")
        if self.naming == "alias" and self.tools:
            raise refuse("tools and aliases exclude each other", "aliases say which tools there are")
        for name, address in self.aliases.items():
            if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
                raise refuse(f"{name!r} is no name that every client takes", "1 to 64 of A-Z a-z 0-9 _ . -")
            if not re.fullmatch(r"[a-z0-9-]{1,63}/.{1,128}", address):
                raise refuse(f"{address!r} is no SERVER/TOOL")
        return self


class GrantEntry(Section):
    """What one principal may use. Without a grant nobody but this machine's own credential may use any tool."""

    to: str = Field(
        description="Key name, agent:NAME, client:NAME (gateway clients), user:NAME (gateway users), "
        "oauth:ISSUER#SUBJECT, spiffe://DOMAIN/PATH (a workload by its certificate), role:NAME of an access "
        "token, anonymous, or * for everybody with a credential."
    )
    tools: Items[str] = Field((), description="Servers, or SERVER/PATTERN.")
    prompts: Items[str] = Field((), description="The same for prompts.")
    resources: Items[str] = Field((), description="The same for resources; the pattern is matched with the URI.")
    permissions: Items[str] = Field((), description="What tools with requires ask for.")
    arguments: dict[str, Items[JsonValue]] = Field(
        default_factory=dict, description="Arguments of the tools, and the only values they may have."
    )

    @model_validator(mode="after")
    def _checked(self) -> GrantEntry:
        if not GRANTED.fullmatch(self.to):
            raise refuse(f"to must be {WORDS}, role:NAME, anonymous or *")
        for patterns in (self.tools, self.prompts, self.resources):
            _check(patterns, _PATTERN, "must be a server or SERVER/PATTERN")
        _check(self.permissions, _PERMISSION, "must be visible ASCII characters, no spaces")
        return self


Tools = dict[Name, ToolServerEntry]
Mounts = dict[Name, MountEntry]

# Sections whose entries have keys of their own, for hints about misspelled ones. The number is the length of the
# location of a key of the entry; two more lead to a Value in it.
ENTRIES: Mapping[str, type[BaseModel]] = {"tools": ToolServerEntry, "mounts": MountEntry, "grants": GrantEntry}


_PARTS: Mapping[str, type[BaseModel]] = {"oauth": OAuthEntry, "limits": LimitsEntry}


def owner(loc: Loc) -> type[BaseModel]:
    """The section that a key in one of ENTRIES belongs to."""
    if len(loc) == 4 and loc[2] in _PARTS:
        return _PARTS[str(loc[2])]
    if len(loc) == 5 and loc[3] == "identity_provider":
        return IdentityProviderEntry
    return Value if len(loc) > 4 else ENTRIES[str(loc[0])]


def cross_checks(data: Mapping[str, Any], demo: Sequence[str]) -> Iterator[tuple[Loc, str, str]]:
    """Names that nobody has: a slip here would silently give or show less, or more, than was meant. A file that has no
    agents may stand in the data folder, beside the agents of the `demo`."""
    tools, agents = data.get("tools"), data.get("agents")
    servers = list(tools) if isinstance(tools, dict) else []
    for name, agent in agents.items() if isinstance(agents, dict) else ():
        if isinstance(agent, dict):
            yield from _known(("agents", name, "tools"), agent.get("tools"), servers)
    mounts = data.get("mounts")
    for name, mount in mounts.items() if isinstance(mounts, dict) else ():
        if isinstance(mount, dict):
            yield from _known(("mounts", name, "tools"), mount.get("tools"), servers)
            aliases = mount.get("aliases")
            yield from _known(("mounts", name, "aliases"), aliases, servers)
    grants = data.get("grants")
    for index, grant in enumerate(grants if isinstance(grants, list) else ()):
        if not isinstance(grant, dict):
            continue
        for key in ("tools", "prompts", "resources"):
            yield from _known(("grants", index, key), grant.get(key), servers)
        to = grant.get("to")
        if isinstance(to, str) and to.startswith("agent:"):
            names = (list(agents) if isinstance(agents, dict) else []) or list(demo)
            if to.removeprefix("agent:") not in names:
                yield ("grants", index, "to"), f"there is no agent '{to[6:]}'", did_you_mean(to[6:], names)


def _known(loc: Loc, patterns: object, servers: list[str]) -> Iterator[tuple[Loc, str, str]]:
    items: Iterable[tuple[object, object]]
    if isinstance(patterns, dict):
        items = patterns.items()
    else:
        items = enumerate(patterns) if isinstance(patterns, list) else ()
    for key, pattern in items:
        server = pattern.partition("/")[0] if isinstance(pattern, str) else "*"
        if not set(server) & set("*?[") and server not in servers:
            hint = did_you_mean(server, servers) if servers else "there are no tools in this file"
            yield (*loc, key), f"there is no tool server '{server}'", hint


def _check(words: Iterable[str], pattern: re.Pattern[str], reason: str) -> None:
    for word in words:
        if not pattern.fullmatch(word):
            raise refuse(f"{word[:80]!r} {reason}")
