"""A gateway for the program to talk to: a real HTTP server on loopback that plays the admin API and the A2A door."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Json = dict[str, Any]

TOKEN = "local-credential"


@dataclass(frozen=True)
class Reply:
    body: Any = None
    status: int = 200


@dataclass(frozen=True)
class Stream:
    """Server-sent events. Then the stream ends, breaks (the connection is reset) or hangs until the test is over."""

    events: tuple[Json, ...]
    then: str = "end"


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: Json


@dataclass
class FakeGateway:
    """`answers` maps `GET /admin/tasks`, or `SendMessage echo` for JSON-RPC, to what is answered; of a list, one
    after the other and the last one again and again."""

    answers: dict[str, Reply | Stream | list[Reply | Stream]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    token: str = TOKEN
    over: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def answer(self, name: str) -> Reply | Stream:
        planned = self.answers.get(name)
        if isinstance(planned, list):
            return planned.pop(0) if len(planned) > 1 else planned[0]
        return planned or refused(404, "NOT_FOUND", f"Nothing at {name}")

    def calls(self, method: str) -> list[Json]:
        """The params of every JSON-RPC call of this method."""
        return [seen.body["params"] for seen in self.seen if seen.body.get("method") == method]

    @contextmanager
    def running(self) -> Iterator[FakeGateway]:
        server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": self}))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            self.over.set()
            server.shutdown()
            thread.join()
            server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in the middle is what some tests are about; anything else is a fault of the test."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeGateway

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        target = urlsplit(self.path)
        body = json.loads(raw) if raw else {}
        self.fake.seen.append(
            Seen(self.command, target.path, dict(parse_qsl(target.query)), dict(self.headers.items()), body)
        )
        if self.headers.get("Authorization") != f"Bearer {self.fake.token}":
            return self._reply(refused(401, "UNAUTHENTICATED", "Who are you?"))
        rpc = body.get("jsonrpc") == "2.0"
        name = f"{body['method']} {target.path.split('/')[-1]}" if rpc else f"{self.command} {target.path}"
        planned = self.fake.answer(name)
        if isinstance(planned, Stream):
            return self._stream(planned, rpc)
        if rpc and planned.status == 200:
            planned = Reply({"jsonrpc": "2.0", "id": body["id"], "result": planned.body})
        return self._reply(planned)

    do_GET = do_POST = do_DELETE = _handle

    def _reply(self, planned: Reply) -> None:
        content = b"" if planned.body is None else json.dumps(planned.body).encode()
        if isinstance(planned.body, str):
            content = planned.body.encode()
        self.send_response(planned.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, planned: Stream, rpc: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(b": keep-alive\n\n")
        for event in planned.events:
            whole = {"jsonrpc": "2.0", "id": 1, "result": event} if rpc else event
            # Not ASCII-escaped: what Unicode calls a line end must not end a line of the stream.
            self._chunk(b"data: " + json.dumps(whole, ensure_ascii=False).encode() + b"\n\n")
        if planned.then == "hang":
            self.fake.over.wait(20)
        if planned.then == "end":
            self._chunk(b"")
        else:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _chunk(self, content: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass


def refused(status: int, name: str, message: str) -> Reply:
    return Reply({"error": {"code": status, "status": name, "message": message, "details": []}}, status)


# A2A values


def message(text: str, id: str = "m-agent", **more: Any) -> Json:
    return {"messageId": id, "role": "ROLE_AGENT", "parts": [{"text": text}], **more}


def task(state: str = "WORKING", said: str | None = None, *, id: str = "t-1", **more: Any) -> Json:
    return {"id": id, "contextId": "c-1", "status": _status(state, said), **more}


def moved(state: str, said: str | None = None, **more: Any) -> Json:
    """A status update."""
    return {"statusUpdate": {"taskId": "t-1", "contextId": "c-1", "status": {**_status(state, said), **more}}}


def made(*parts: Json, id: str = "a-1", append: bool = False, **more: Any) -> Json:
    """An artifact update."""
    artifact = {"artifactId": id, "parts": list(parts), **more}
    return {"artifactUpdate": {"taskId": "t-1", "contextId": "c-1", "artifact": artifact, "append": append}}


def text(words: str) -> Json:
    return {"text": words}


def _status(state: str, said: str | None) -> Json:
    status: Json = {"state": f"TASK_STATE_{state}", "timestamp": "2026-11-21T08:00:00.000Z"}
    return status | ({"message": message(said, f"m-{state}-{said}")} if said is not None else {})
