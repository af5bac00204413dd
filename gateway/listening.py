"""Where the gateway listens: its socket, its certificate, the names it answers to."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config import AdminListener, Config, ConfigError, Settings, Tls, is_loopback
from gateway.model.problems import BadCertificate, Problem, StartError

_HINT = "choose another with --host and --port, or stop what listens there"


def listen(host: str, port: int, hint: str = _HINT) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named protocol: asyncio switches Nagle off only where it sees TCP, and accepted sockets inherit it.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = f"cannot listen: {error.strerror or error}"
        raise StartError(Problem(f"{host}:{port}", reason, hint)) from error
    listener.setblocking(False)
    return listener


def listen_admin(admin: AdminListener) -> socket.socket:
    """The listener of /admin alone. A socket in the file system is for its owner only."""
    if admin.path is None:
        return listen(admin.host, admin.port, "choose another with server.admin, or stop what listens there")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(admin.path)
        mask = os.umask(0o177)
        try:
            listener.bind(str(admin.path))
        finally:
            os.umask(mask)
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = f"cannot listen: {error.strerror or error}"
        hint = "its folder has to be there and be yours; choose another with server.admin"
        raise StartError(Problem(str(admin.path), reason, hint)) from error
    listener.setblocking(False)
    return listener


def _remove_stale(path: Path) -> None:
    """What a gateway left behind that was killed. One that answers stays, and is in the way."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except FileNotFoundError:
            pass
        else:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate that the gateway shows, and whom it lets connect: what the files said when they were read. The
    same twice, since gRPC takes PEM. With `client_ca` only who shows a certificate of these authorities connects."""

    context: ssl.SSLContext
    cert: bytes
    key: bytes
    client_ca: bytes | None


def read_certificate(tls: Tls) -> Shown:
    """What the files say now, tried out. Raises BadCertificate."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.cert, tls.key, password=_nobody_to_ask)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        asked = None if tls.client_ca is None else tls.client_ca.read_bytes()
        return Shown(context, tls.cert.read_bytes(), tls.key.read_bytes(), asked)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        raise BadCertificate(f"cannot be used: {reason}") from error


def _nobody_to_ask() -> str:
    """The password of a key that has one. Without this OpenSSL would ask at the terminal, and everybody would wait."""
    return ""


def certificate(config: Config) -> Shown | None:
    """What the gateway shows at its start. Raises ConfigError."""
    if config.server.tls is None:
        return None
    try:
        return read_certificate(config.server.tls)
    except BadCertificate as error:
        hint = "give PEM files that belong together"
        raise ConfigError([config.problem(("server", "tls"), str(error), hint)]) from error


def hosts(settings: Settings) -> set[str]:
    """The names under which callers may know us, with their ports (security.md T3)."""
    public = urlsplit(settings.public_url)
    names = {public.netloc, *settings.config.server.allowed_hosts, *_own(settings.host, settings.port)}
    default = {"http": 80, "https": 443}.get(public.scheme)
    return names | {f"{host}:{default}" for host in names if host.rpartition(":")[2].isdigit() is False and default}


def admin_hosts(settings: Settings, admin: AdminListener) -> set[str]:
    """The same for the listener of /admin. Who connects to a socket in the file system has no name for it."""
    if admin.path is not None:
        return {"localhost"}
    return {*settings.config.server.allowed_hosts, *_own(admin.host, admin.port)}


def _own(host: str, port: int) -> set[str]:
    if is_loopback(host):
        return {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    return {f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
