"""A place on this machine where a browser brings the answer of an authorization (RFC 8252 §7.3)."""

from __future__ import annotations

import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType
from urllib.parse import parse_qs

# A person reads, logs in and decides within that time; the gateway forgets its question then, too.
WAIT_SECONDS = 600.0
PATH = "/callback"
_PAGE = b"<!doctype html><title>gateway</title><p>The answer has arrived. You may close this window."


class Redirect:
    """Listens on 127.0.0.1, on a port that nobody could know before."""

    def __init__(self, seconds: float = WAIT_SECONDS) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._seconds = seconds

    def __enter__(self) -> Redirect:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.server_close()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{PATH}"

    def answer(self, state: str) -> str | None:
        """The whole URL that the browser called, with our `state` in it; None when nobody came in time. Any page in
        the browser can call this port, so whatever knows less is no answer."""
        self._server.state = state
        until = time.monotonic() + self._seconds
        while self._server.query is None and (left := until - time.monotonic()) > 0:
            self._server.timeout = left
            self._server.handle_request()
        return None if self._server.query is None else f"{self.uri}?{self._server.query}"


class _Server(HTTPServer):
    state = ""
    query: str | None = None

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that goes away is no news; a traceback could hold the code."""


class _Handler(BaseHTTPRequestHandler):
    timeout = 5  # seconds for a connection that says nothing: browsers open some on suspicion
    server: _Server

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        found = path == PATH and parse_qs(query).get("state") == [self.server.state]
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(_PAGE) if found else 0))
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if found:
            self.server.query = query
            self.wfile.write(_PAGE)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the line would hold the code."""
