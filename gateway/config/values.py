"""The kinds of word a setting may hold: names, URLs, hosts, paths. Each says what it wants."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError

from gateway.config.problems import Loc

# First segments of paths the server owns (`/admin`, `/mcp` …): a name like that would take their requests.
RESERVED = frozenset(
    (
        "agents",
        "mcp",
        "acp",
        "admin",
        "oauth",
        "console",
        "tasks",
        "message",
        "livez",
        "readyz",
        "metrics",
        "v1",
    )
)

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_IMPORT = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_PRINCIPAL = re.compile(r"[!-~]{1,128}")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,128}")  # RFC 6749 §3.3
_DNS_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a configuration came from: its name in messages, the base of paths, the lines of values."""

    name: str = "configuration"
    base: Path = Path()
    lines: Mapping[Loc, int] = field(default_factory=dict)

    def line(self, loc: Loc) -> int | None:
        """The line of the value, or of the nearest thing around it that was written down."""
        around = (loc[:end] for end in range(len(loc), -1, -1))
        return next((self.lines[part] for part in around if part in self.lines), None)


def refuse(reason: str, hint: str = "") -> PydanticCustomError:
    """A refusal that keeps reason and hint apart on their way through pydantic."""
    return PydanticCustomError("refused", "{reason}", {"reason": reason, "hint": hint})


def folded(name: str) -> str:
    """The form in which two names must differ: what looks the same to a reader is the same (UAX #15, #31)."""
    return unicodedata.normalize("NFKC", name).casefold()


def _name(text: str) -> str:
    if not _LABEL.fullmatch(text):
        meant = folded(text).replace("_", "-")
        raise refuse(
            "must be a name of a-z, 0-9 and '-', at most 63 long, without '-' at either end",
            f"did you mean '{meant}'?" if _LABEL.fullmatch(meant) else "",
        )
    if text in RESERVED:
        raise refuse("is a reserved name", "choose another: the gateway's own paths start with it")
    return text


def _import_string(text: str) -> str:
    if not _IMPORT.fullmatch(text):
        raise refuse("must be an import string, module:attribute", 'for example "agents.echo:Echo"')
    return text


def _principal(text: str) -> str:
    if not _PRINCIPAL.fullmatch(text):
        raise refuse("must be the name of a principal: 1 to 128 visible ASCII characters, no spaces")
    return text


def is_host(text: str) -> bool:
    """An IP address without brackets, or a DNS name. `127.1` is neither: resolvers disagree about it."""
    try:
        ipaddress.ip_address(text)
        return True
    except ValueError:
        labels = text.removesuffix(".").split(".")
        named = len(text) <= 253 and all(map(_DNS_LABEL.fullmatch, labels))
        return named and not labels[-1].isdigit()


def is_host_port(text: str) -> bool:
    """`host`, `host:port`, `[v6]:port` or a bare IPv6 address."""
    if is_host(text):
        return True
    if not (parts := _HOST_PORT.fullmatch(text)):
        return False
    v6, name, port = parts.groups()
    return is_host(v6 or name) and 0 < int(port or 1) < 65536


def _url(text: str) -> str:
    shown = "must be an http:// or https:// URL"
    if not all("!" <= character <= "~" for character in text) or "\\" in text:
        raise refuse(shown, "it may hold visible ASCII characters only, no spaces or backslashes")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise refuse(shown, "the host or port cannot be read") from None
    if parts.scheme not in ("http", "https") or not host or not is_host(host) or port == 0:
        raise refuse(shown, "for example https://agent.example/path")
    if "@" in parts.netloc:
        # A URL is logged and shown in cards; a password in it would be too.
        raise refuse("must not hold a user name or password")
    if "#" in text:
        raise refuse("must not have a fragment", "leave out '#' and what follows")
    return text


def _base_url(text: str) -> str:
    if "?" in _url(text):
        raise refuse("must not have a query", "leave out '?' and what follows")
    return text.rstrip("/")


def _issuer(text: str) -> str:
    """RFC 8414 §2. Compared as text with what tokens say, so it stays as it is written."""
    parts = urlsplit(_url(text))
    if "?" in text:
        raise refuse("must not have a query", "leave out '?' and what follows")
    if parts.scheme != "https" and not _is_local(parts.hostname or ""):
        raise refuse("must be https", "keys that travel in the clear can be anybody's")
    return text


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _scope(text: str) -> str:
    if not _SCOPE.fullmatch(text):
        raise refuse("must be a scope: visible ASCII characters without quotes, backslashes and spaces")
    return text


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _web_origin(text: str) -> str:
    if text == "*":
        raise refuse("must name an origin; '*' would let every web page in", "list the origins, one by one")
    parts = urlsplit(_url(text))
    origin = f"{parts.scheme}://{parts.netloc}"
    if text != origin.lower():
        # Browsers send exactly this form (RFC 6454 §6.2), and it is compared as text.
        meant = f"did you mean '{origin.lower()}'?"
        raise refuse("must be an origin, scheme://host[:port] in lower case", meant)
    return text


def _tasks_url(text: str) -> str:
    try:
        return text if text == "pull" else _url(text)
    except PydanticCustomError as error:
        raise refuse("must be an http:// or https:// URL, or pull", (error.context or {})["hint"]) from None


def _host(text: str) -> str:
    if not is_host_port(text):
        raise refuse("must be a host or host:port", "for example gw.example or [2001:db8::1]:8443")
    return text.lower()


def _document_host(text: str) -> str:
    return text if text == "*" else _host(text)


def _network(text: str) -> str:
    if "/" not in text:
        return _host(text)
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        meant = str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise refuse("must be a host, host:port or CIDR network", "for example 10.0.0.0/8") from None
    # Host bits that are set are a slip in the address or in the length; a guess would open or shut too much.
    raise refuse("is not a network: the address has bits set beyond the prefix", f"did you mean '{meant}'?")


def _cidr(text: str) -> str:
    found = _network(text)
    try:
        return str(ipaddress.ip_network(found))
    except ValueError:
        raise refuse("must be an address or a CIDR network", "for example 10.0.0.0/8; a name can change") from None


def _path(value: object, info: ValidationInfo) -> object:
    if not isinstance(value, str):
        return value
    if not value or "\0" in value:
        raise refuse("must be a path")
    base = info.context.base if isinstance(info.context, Origin) else Path()
    return base / value


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def resolved_store(text: str, base: Path) -> str:
    """A store URL as given -> the same with its path made absolute from `base`."""
    if text == "memory:":
        return text
    scheme, _, path = text.partition(":///")
    if scheme != "sqlite" or not path or any(character in path for character in "?#\0"):
        raise refuse(
            "must be sqlite:///PATH or memory:",
            "for example sqlite:///gateway.db, or sqlite:////var/lib/gw.db",
        )
    return sqlite_url(base / path)


def _store(text: str, info: ValidationInfo) -> str:
    return resolved_store(text, info.context.base if isinstance(info.context, Origin) else Path())


T = TypeVar("T")

Items = Annotated[tuple[T, ...], Field(strict=False)]  # a YAML list; its items stay strict
NAME_SCHEMA: JsonSchemaValue = {
    "type": "string",
    "pattern": f"^{_LABEL.pattern}$",
    "not": {"enum": sorted(RESERVED)},
}
Name = Annotated[str, AfterValidator(_name), WithJsonSchema(NAME_SCHEMA)]
ImportString = Annotated[str, AfterValidator(_import_string)]
PrincipalName = Annotated[str, AfterValidator(_principal)]
Url = Annotated[str, AfterValidator(_url), WithJsonSchema({"type": "string", "format": "uri"})]
IssuerUrl = Annotated[str, AfterValidator(_issuer), WithJsonSchema({"type": "string", "format": "uri"})]
Scope = Annotated[str, AfterValidator(_scope)]
# One word, or a list of them.
Words = Annotated[
    tuple[str, ...],
    Field(strict=False),
    BeforeValidator(_one_or_more),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
BaseUrl = Annotated[str, AfterValidator(_base_url), WithJsonSchema({"type": "string", "format": "uri"})]
WebOrigin = Annotated[str, AfterValidator(_web_origin), WithJsonSchema({"type": "string", "format": "uri"})]
TasksUrl = Annotated[
    str,
    AfterValidator(_tasks_url),
    WithJsonSchema({"anyOf": [{"const": "pull"}, {"type": "string", "format": "uri"}]}),
]


def _listener(text: str) -> str:
    if text.startswith(UNIX):
        if not text.removeprefix(UNIX).startswith("/"):
            raise refuse("must be unix: and an absolute path", "for example unix:/run/gateway/admin.sock")
        return text
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host.replace(":", " ")
    if not is_host(host) or not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        raise refuse("must be HOST:PORT or unix:/PATH", "for example 127.0.0.1:9090")
    return text


UNIX = "unix:"
Listener = Annotated[str, AfterValidator(_listener)]
Host = Annotated[str, AfterValidator(_host)]
DocumentHost = Annotated[str, AfterValidator(_document_host)]
Network = Annotated[str, AfterValidator(_network)]
Cidr = Annotated[str, AfterValidator(_cidr)]
File = Annotated[Path, BeforeValidator(_path), WithJsonSchema({"type": "string", "format": "path"})]
StoreUrl = Annotated[
    str, AfterValidator(_store), WithJsonSchema({"type": "string", "pattern": "^(sqlite:///.+|memory:)$"})
]
