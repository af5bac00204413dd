"""Where the gateway listens: its socket, its certificate, the names it answers to."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from gateway.config import Config, ConfigError, Settings, is_loopback
from gateway.model.problems import Problem, StartError


def listen(host: str, port: int) -> socket.socket:
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
        hint = "choose another with --host and --port, or stop what listens there"
        raise StartError(Problem(f"{host}:{port}", reason, hint)) from error
    listener.setblocking(False)
    return listener


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
    names = {public.netloc, *settings.config.server.allowed_hosts}
    if is_loopback(settings.host):
        names |= {f"{name}:{settings.port}" for name in ("127.0.0.1", "localhost", "[::1]")}
    else:
        names.add(f"{settings.host}:{settings.port}")
    default = {"http": 80, "https": 443}.get(public.scheme)
    return names | {f"{host}:{default}" for host in names if host.rpartition(":")[2].isdigit() is False and default}
