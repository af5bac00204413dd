"""Where the gateway listens: its socket, its certificate, the names it answers to."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from gateway.config import AdminListener, Config, ConfigError, Settings, is_loopback
from gateway.model.problems import Problem, StartError

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


def certificate(config: Config) -> tuple[str, str] | None:
    """Certificate and key files, tried out. Raises ConfigError."""
    tls = config.server.tls
    if tls is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        reason = f"cannot be used: {getattr(error, 'reason', None) or error.strerror or error}"
        raise ConfigError([config.problem(("server", "tls"), reason, "give PEM files that belong together")]) from error
    return str(tls.cert), str(tls.key)


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
