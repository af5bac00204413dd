"""A2A 1.0 over JSON-RPC as a plain client writes it, and the moments of a request that others can wait for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import aiohttp

Json = dict[str, Any]

REQUEST_SENT = "request sent"
FIRST_BYTE = "first byte"
ANSWER_READ = "answer read"
EVENT_READ = "event read"

# Everything here is on loopback: what takes longer than this does not come.
TIMEOUT_S = 45.0


class Lost(Exception):
    """No whole answer came: the request may have been carried out or not."""


class Refused(Exception):
    """An error answer, with its reason."""

    def __init__(self, reason: str, message: str, status: int) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.status = status


class Signals:
    """Calls somebody back, at once and once, when the nth of an awaited moment comes."""

    def __init__(self) -> None:
        self._armed: tuple[str, int, Callable[[], None]] | None = None

    def arm(self, moment: str, nth: int, action: Callable[[], None]) -> None:
        self._armed = (moment, nth, action)

    def disarm(self) -> None:
        self._armed = None

    def fire(self, moment: str) -> None:
        if self._armed is None or self._armed[0] != moment:
            return
        _, nth, action = self._armed
        if nth > 1:
            self._armed = (moment, nth - 1, action)
            return
        self._armed = None
        action()


@asynccontextmanager
async def http(signals: Signals | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that tells `signals` when a request has left."""
    trace = aiohttp.TraceConfig()

    async def sent(*_: Any) -> None:
        # The callback comes just before the bytes are written, so the moment is the loop's next one.
        asyncio.get_running_loop().call_soon((signals or Signals()).fire, REQUEST_SENT)

    async def sent_traced(
        session: aiohttp.ClientSession,
        context: SimpleNamespace,
        params: aiohttp.TraceRequestChunkSentParams,
    ) -> None:
        await sent(session, context, params)

    trace.on_request_chunk_sent.append(sent_traced)
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None, connect=5)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trace_configs=[trace]) as session:
        yield session


class Caller:
    """One principal calling the agents of one gateway."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        credential: str | None,
        who: str,
        signals: Signals | None = None,
    ) -> None:
        self.who = who
        self.url = url
        self._session = session
        self._signals = signals or Signals()
        self._headers = {"A2A-Version": "1.0", "Content-Type": "application/json"}
        if credential is not None:
            self._headers["Authorization"] = f"Bearer {credential}"

    async def call(self, agent: str, method: str, params: Json, *, patience: float = TIMEOUT_S) -> Json:
        """The result member. Raises Refused or Lost; an impatient caller hangs up and has Lost."""
        try:
            async with asyncio.timeout(patience), self._post(agent, method, params) as response:
                self._signals.fire(FIRST_BYTE)
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Lost(f"{type(error).__name__}: {error}") from error
        self._signals.fire(ANSWER_READ)
        return _result(body, response.status)

    async def stream(
        self, agent: str, method: str, params: Json, *, patience: float = TIMEOUT_S
    ) -> AsyncIterator[Json]:
        """The StreamResponses as they come. Ends when the gateway ends the stream in good order."""
        try:
            async with self._post(agent, method, params) as response:
                self._signals.fire(FIRST_BYTE)
                if not response.headers.get("Content-Type", "").startswith("text/event-stream"):
                    _result(await response.read(), response.status)
                    raise Refused("NO_STREAM", f"the answer to {method} is no stream", response.status)
                async for line in _lines(response, patience):
                    if line.startswith(b"data:"):
                        self._signals.fire(EVENT_READ)
                        yield _result(line[5:], response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Lost(f"{type(error).__name__}: {error}") from error

    async def admin(self, verb: str, path: str, body: Json | None = None) -> Json:
        async with self._session.request(verb, self.url + path, json=body, headers=self._headers) as response:
            text = await response.read()
            if response.status >= 400:
                raise Refused(f"HTTP {response.status}", text.decode(errors="replace"), response.status)
            tree: Json = json.loads(text) if text else {}
            return tree

    def _post(self, agent: str, method: str, params: Json) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        return self._session.post(f"{self.url}/agents/{agent}", data=body, headers=self._headers)


async def _lines(response: aiohttp.ClientResponse, patience: float) -> AsyncIterator[bytes]:
    """Lines of an event stream, each of any length. `patience` is for silence."""
    rest = b""
    while True:
        async with asyncio.timeout(patience):
            chunk = await response.content.readany()
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r")


def _result(body: bytes, status: int) -> Json:
    try:
        tree = json.loads(body)
    except ValueError:
        raise Refused("GARBLED", body[:200].decode(errors="replace"), status) from None
    if isinstance(tree, dict) and isinstance(tree.get("result"), dict):
        result: Json = tree["result"]
        return result
    error = tree.get("error") if isinstance(tree, dict) else None
    if not isinstance(error, dict):
        raise Refused(f"HTTP {status}", body[:200].decode(errors="replace"), status)
    raise Refused(_reason(error) or f"HTTP {status}", str(error.get("message", "")), status)


def _reason(error: Json) -> str | None:
    details = error.get("data") or error.get("details")
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict) and isinstance(detail.get("reason"), str):
            return str(detail["reason"])
    return f"JSON-RPC {error['code']}" if "code" in error else None
