"""What one run of the program uses: flag > environment > file > default."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from gateway.config.problems import ConfigError, Problem
from gateway.config.sections import Config
from gateway.config.values import UNIX, is_host, resolved_store, sqlite_url

HOST = "127.0.0.1"
PORT = 8080

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line says. None is "not said", so that the next source is asked."""

    config: Path | None = None
    host: str | None = None
    port: int | None = None
    data: Path | None = None
    store: str | None = None
    anonymous: bool | None = None
    grpc_port: int | None = None


@dataclass(frozen=True, slots=True)
class AdminListener:
    """Where /admin is served when it has a listener of its own: an address, or the path of a socket."""

    host: str
    port: int
    path: Path | None = None

    @classmethod
    def of(cls, text: str) -> AdminListener:
        if text.startswith(UNIX):
            return cls("", 0, Path(text.removeprefix(UNIX)))
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        return self.path is not None or is_loopback(self.host)

    def url(self, *, tls: bool) -> str:
        if self.path is not None:
            return f"{UNIX}{self.path}"
        url = local_url(self.host, self.port)
        return url.replace("http:", "https:", 1) if tls else url


@dataclass(frozen=True, slots=True)
class Settings:
    """What this run uses; nothing in it is undecided."""

    config: Config
    host: str
    port: int
    data: Path
    store: str
    anonymous: bool
    public_url: str
    default_agent: str | None
    grpc_port: int | None = None  # None: no gRPC
    admin: AdminListener | None = None  # None: /admin is where everything is

    def grpc_url(self, port: int) -> str:
        """The `host:port` that gRPC clients use, once it is known which port that is."""
        host = urlsplit(self.public_url).netloc.rpartition("@")[2]
        host = host[: host.rfind(":")] if re.search(r":\d+$", host) else host
        return self.config.server.grpc_url or f"{host}:{port}"

    @property
    def admin_url(self) -> str | None:
        """Where /admin is, if it has a listener of its own. On this machine it needs no certificate."""
        if self.admin is None:
            return None
        return self.admin.url(tls=not self.admin.local and self.config.server.tls is not None)

    def bound(self, port: int, admin_port: int = 0) -> Settings:
        """The same once the sockets are open: with port 0 the system chose, and our own URL follows."""
        own = self.public_url == local_url(self.host, self.port)
        admin = None if self.admin is None else replace(self.admin, port=admin_port)
        return replace(self, port=port, public_url=local_url(self.host, port) if own else self.public_url, admin=admin)


def config_path(flags: Flags, environ: Mapping[str, str]) -> Path | None:
    """Which file to load: --config, else GATEWAY_CONFIG, else None."""
    named = environ.get("GATEWAY_CONFIG")
    return flags.config or (Path(named) if named else None)


def settle(config: Config, flags: Flags, environ: Mapping[str, str], *, cwd: Path | None = None) -> Settings:
    """Settings by precedence. ConfigError names every rule that a combination of sources breaks."""
    cwd = cwd or Path.cwd()
    host = _first(flags.host, HOST)
    port = _first(flags.port, PORT)
    anonymous = _first(flags.anonymous, config.auth.anonymous)
    admin = None if config.server.admin is None else AdminListener.of(config.server.admin)
    data = data_folder(flags, environ, cwd)
    store, refusals = _store(config, flags, data or Path(), cwd)
    problems = [
        *_listening(config, host, port, flags.grpc_port),
        *_admin(config, admin, host, port, anonymous=anonymous),
        *_anonymous(config, flags, host, anonymous),
        *refusals,
        *([] if data else [_flag("--data", "no folder to keep data in: HOME is not set", "say --data DIR")]),
    ]
    if problems or data is None:
        raise ConfigError(problems)
    return Settings(
        config, host, port, data, store, anonymous,
        config.server.public_url or local_url(host, port), config.default_agent,
        config.server.grpc_port if flags.grpc_port is None else flags.grpc_port, admin,
    )  # fmt: skip


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect. A name other than localhost may mean anything, so it is not."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.casefold() == "localhost"  # RFC 6761 §6.3
    return address.is_loopback


def local_url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _first(*values: T | None) -> T:
    return next(value for value in values if value is not None)


def _flag(name: str, reason: str, hint: str) -> Problem:
    return Problem("command line", None, name, reason, hint)


def data_folder(flags: Flags, environ: Mapping[str, str], cwd: Path) -> Path | None:
    """Where data is kept: --data, else GATEWAY_DATA, else XDG's or the usual place; None without a home."""
    if named := flags.data or environ.get("GATEWAY_DATA"):
        return cwd / named
    shared = environ.get("XDG_DATA_HOME", "")
    if shared.startswith("/"):  # the XDG specification has a relative one ignored
        return Path(shared) / "gateway"
    home = environ.get("HOME")
    return Path(home) / ".local" / "share" / "gateway" if home else None


def _store(config: Config, flags: Flags, data: Path, cwd: Path) -> tuple[str, list[Problem]]:
    try:
        named = resolved_store(flags.store, cwd) if flags.store is not None else config.store.url
    except PydanticCustomError as error:
        context = error.context or {}
        return "", [_flag("--store", context["reason"], context["hint"])]
    return named or sqlite_url(data / "gateway.db"), []


def _listening(config: Config, host: str, port: int, grpc_port: int | None) -> Iterator[Problem]:
    if not is_host(host):
        # "" would listen on every interface
        yield _flag("--host", "must be an IP address without brackets, or a name", "for example 127.0.0.1")
    elif not is_loopback(host) and config.server.public_url is None:
        reason = f"is required to listen on {host}, beyond loopback"
        yield config.problem(("server", "public_url"), reason, "set it to the URL that clients use")
    elif config.server.tls is not None and config.server.public_url is None:
        yield config.problem(("server", "public_url"), "is required with tls", "set it to the name in the certificate")
    if is_host(host) and not is_loopback(host) and config.server.tls is None and not config.server.trusted_proxies:
        # Credentials would cross the network in the clear.
        reason = f"is required to listen on {host}, beyond loopback"
        hint = "set it, or server.trusted_proxies to the addresses of the proxy that ends TLS"
        yield config.problem(("server", "tls"), reason, hint)
    for name, number in (("--port", port), ("--grpc-port", grpc_port or 0)):
        if not 0 <= number <= 65535:
            yield _flag(name, "must be 0 to 65535", "0 lets the system choose")


def _admin(config: Config, admin: AdminListener | None, host: str, port: int, *, anonymous: bool) -> Iterator[Problem]:
    """The listener of /admin obeys the rules of the public one."""
    if admin is None:
        return
    at = ("server", "admin")
    if admin.path is None and admin.port == port != 0 and admin.host == host:
        yield config.problem(at, f"is where everything else is, {host}:{port}", "choose another, or leave it out")
    if admin.local:
        return
    if config.server.tls is None and not config.server.trusted_proxies:
        reason = f"is required to serve /admin on {admin.host}, beyond loopback"
        hint = "set it, or server.trusted_proxies to the addresses of the proxy that ends TLS"
        yield config.problem(("server", "tls"), reason, hint)
    if anonymous:
        reason = f"is refused with /admin on {admin.host}, beyond loopback"
        yield config.problem(at, reason, "leave anonymous access out, or serve /admin on 127.0.0.1 or a socket")


def _anonymous(config: Config, flags: Flags, host: str, anonymous: bool) -> Iterator[Problem]:
    if not anonymous or is_loopback(host):
        return
    reason = f"is refused on {host}: everyone who reaches it could use the public agents"
    hint = "leave it out, or listen on 127.0.0.1"
    if flags.anonymous:
        yield _flag("--anonymous", reason, hint)
    else:
        yield config.problem(("auth", "anonymous"), reason, hint)
