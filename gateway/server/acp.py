"""ACP at `/acp/…`: agents, runs, events, sessions. A run is a task of ours, its id the task's, a session a context.

The log of a task is durable, so a run's events are read from it each time: whole, as a stream, or from the event on
after which a stream broke (`Last-Event-ID`, with `Accept: text/event-stream` on a run's events).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, ClassVar

import orjson
from starlette.types import Receive, Scope, Send

from gateway.core.gateway import Gateway
from gateway.core.logs import TaskLog
from gateway.core.registry import Registered
from gateway.core.watch import Replay
from gateway.dialects.a2a_v1.requests import canonical
from gateway.dialects.acp import paths, requests
from gateway.dialects.acp.errors import error_tree, http_error
from gateway.dialects.acp.ids import plain, uuid
from gateway.dialects.acp.manifests import manifest
from gateway.dialects.acp.messages import read_input, session_of, tree_of
from gateway.dialects.acp.requests import Beside, Mode
from gateway.dialects.acp.runs import CANCELLING, RunLog
from gateway.dialects.paths import Operation
from gateway.dialects.sse import frame
from gateway.dialects.strict_json import read
from gateway.model.call import CancelTask, FollowLog, ReadContext, ReadLog, SendMessage
from gateway.model.card import AgentCard
from gateway.model.errors import GatewayError, Reason, invalid, task_not_found
from gateway.model.message import Message
from gateway.model.principal import Principal
from gateway.model.rows import Record, TaskRow
from gateway.model.task import Task
from gateway.server.auth import Authenticator
from gateway.server.incident import known
from gateway.server.request import JSON_HEADERS, STREAM_HEADERS, Answer, Headers, Reply, Request, Stream, retry_after

MAX_PAGE = 1000  # agents in one answer, as many as ACP lets a client ask for
MAX_SESSION = 500  # runs of one session that its history is read from, the newest; each costs a read of its log
NO_STORE: Headers = ((b"cache-control", b"no-store"),)

Use = Callable[["AcpDoor", Request, str, Principal], Awaitable[Answer]]


class AcpDoor:
    """An ASGI application. `public_url` has no slash at its end."""

    def __init__(self, gateway: Gateway, auth: Authenticator, *, public_url: str, new_id: Callable[[], str]) -> None:
        self._gateway = gateway
        self._auth = auth
        self._url = public_url + paths.PREFIX
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request.of(scope, receive)
        try:
            answer = await self._answer(request)
        except Exception as error:
            answer = self._failure(request, known(error))
        await answer(send)

    async def _answer(self, request: Request) -> Answer:
        who = await self._auth.principal(request.headers, request.path, request.method, request.peer)
        found = paths.match(request.method, request.path.removeprefix(paths.PREFIX))
        if isinstance(found, Operation):
            return await self._uses[found.name](self, request, found.ids.get("id", ""), who)
        if found is None:
            raise GatewayError(Reason.NOT_FOUND, "There is nothing at this path")
        allowed = ", ".join(sorted(found))
        refusal = self._failure(request, GatewayError(Reason.METHOD_NOT_FOUND, f"This path takes {allowed}"))
        return Reply(refusal.status, refusal.body, (*refusal.headers, (b"allow", allowed.encode())))

    def _failure(self, request: Request, error: GatewayError) -> Reply:
        status, body = http_error(error)
        challenge = self._auth.challenge(error, request.path)
        return Reply(status, body, (*JSON_HEADERS, *challenge, *retry_after(error)))

    # Agents.

    async def _ping(self, request: Request, id: str, who: Principal) -> Answer:
        return _json({})

    async def _agents(self, request: Request, id: str, who: Principal) -> Answer:
        """Without a limit all of them, as ACP's own server does: its client never asks for a second page."""
        limit, offset = _number(request, "limit", 1, MAX_PAGE, MAX_PAGE), _number(request, "offset", 0, 2**31, 0)
        entries = [entry for entry in self._gateway.registry.all() if self._gateway.may_see(who, entry)]
        known = [entry for entry in entries if entry.card is not None]
        return _json(
            {"agents": [_manifest(entry, self._gateway.card(who, entry)) for entry in known[offset : offset + limit]]}
        )

    async def _agent(self, request: Request, id: str, who: Principal) -> Answer:
        entry = self._gateway.find(id, who)
        if entry.card is None:
            entry.ready()
            raise GatewayError(Reason.UNAVAILABLE, f"The card of agent {id} was not read yet", retry_after=5)
        return _json(_manifest(entry, self._gateway.card(who, entry)))

    # Runs.

    async def _create(self, request: Request, id: str, who: Principal) -> Answer:
        asked = requests.create(await _body(request))
        named = {} if asked.session_id is None else {"context_id": await self._context(asked.session_id, who)}
        message = read_input(asked.messages, message_id=self._new_id(), session=asked.session, **named)
        run = await self._send(asked.agent, message, requests.beside(asked.messages[0]), asked.mode, who)
        return await self._ran(request, run, asked.mode, who, after=0)

    async def _resume(self, request: Request, id: str, who: Principal) -> Answer:
        before = await self._log(id, who)
        asked = requests.resume(await _body(request))
        run, told = _told(before)
        message = read_input([asked.message], message_id=self._new_id(), task_id=plain(id))
        if run.run["await_request"] is None:
            raise GatewayError(Reason.UNSUPPORTED_OPERATION, "This run has no await request; it is not waiting")
        task = await self._send(before.agent, message, requests.beside(asked.message), asked.mode, who)
        return await self._ran(request, task, asked.mode, who, after=len(told))

    async def _send(self, agent: str, message: Message, beside: Beside, mode: Mode, who: Principal) -> Task:
        entry = self._gateway.registry.get(agent)
        said = canonical(tree_of(message))
        call = SendMessage(
            agent,
            message,
            sha256(said).digest(),
            size=len(said),
            return_immediately=mode != "sync",
            accepted_output_modes=beside.accepted_output_modes,
            metadata=beside.metadata,
            extensions=beside.extensions,
            stream=mode == "stream" and entry is not None and entry.streaming,
            as_task=True,
        )
        answer: Task | Message = await self._gateway.handle(call, who)
        if isinstance(answer, Message):
            raise invalid("input", "this message came by A2A before, and its answer left no run")
        return answer

    async def _ran(self, request: Request, task: Task, mode: Mode, who: Principal, *, after: int) -> Answer:
        """The answer to a run that has begun, or goes on; the first `after` events are known to the client."""
        run_id = ((b"run-id", (uuid(task.id) or task.id).encode()),)
        if mode == "stream":
            return _streamed(request, await self._gateway.logs.answering(who, task.id), after, run_id)
        run, _ = _told(await self._gateway.logs.answer(who, task.id))
        return _json(run.run, 200 if mode == "sync" else 202, run_id)

    async def _run(self, request: Request, id: str, who: Principal) -> Answer:
        return _json(_told(await self._shared(id, who))[0].run)

    async def _events(self, request: Request, id: str, who: Principal) -> Answer:
        if "text/event-stream" in (request.header(b"accept") or ""):
            last = request.header(b"last-event-id") or "0"
            if not last.isdecimal() or len(last) > 9:
                raise invalid("Last-Event-ID", "must be the id of an event of this run")
            return await self._stream(request, plain(id), who, int(last))
        _, told = _told(await self._shared(id, who))
        return Reply(200, b'{"events":[%s]}' % b",".join(told), (*JSON_HEADERS, *NO_STORE))

    async def _cancel(self, request: Request, id: str, who: Principal) -> Answer:
        agent = (await self._log(id, who)).agent
        await self._gateway.handle(CancelTask(agent, plain(id)), who)
        run, _ = _told(await self._gateway.logs.answer(who, plain(id)))
        if run.run["finished_at"] is None:
            run.run["status"] = CANCELLING  # the agent has taken note, and ends it by itself
        return _json(run.run, 202)

    async def _stream(self, request: Request, task_id: str, who: Principal, after: int) -> Stream:
        return _streamed(request, await self._gateway.follow(FollowLog(task_id, shared=True), who), after)

    async def _log(self, id: str, who: Principal) -> TaskLog:
        log: TaskLog = await self._gateway.handle(ReadLog(plain(id)), who)
        return log

    async def _shared(self, id: str, who: Principal) -> TaskLog:
        """For those who only look: also what its owner lets them see."""
        log: TaskLog = await self._gateway.handle(ReadLog(plain(id), shared=True), who)
        return log

    # Sessions.

    async def _context(self, session_id: str, who: Principal) -> str:
        """The context that a session is. One that an A2A client named with dashes keeps them."""
        dashed = uuid(session_id)
        if dashed and await self._gateway.handle(ReadContext(dashed, 1), who):
            return dashed
        return session_id

    async def _session(self, request: Request, id: str, who: Principal) -> Answer:
        context = await self._context(plain(id), who)
        rows: list[TaskRow] = await self._gateway.handle(ReadContext(context, MAX_SESSION), who)
        if not rows:
            raise GatewayError(Reason.NOT_FOUND, "Session not found")
        history, state = dict[str, None](), None
        for row in rows:
            brought = _brought(row.task)
            history |= dict.fromkeys(brought.get("history", ()))
            state = brought.get("state") or state
            if row.task.status.state.terminal:
                run, _ = _told(await self._log(row.id, who))
                name = uuid(row.id) or row.id
                history |= dict.fromkeys(f"{self._url}/resources/{name}.{n}" for n in range(len(run.messages)))
        return _json({"id": uuid(context), "history": list(history), "state": state})

    async def _resource(self, request: Request, id: str, who: Principal) -> Answer:
        """One message of a run, by its place."""
        name, _, place = id.rpartition(".")
        messages = _told(await self._shared(name, who))[0].messages
        if not place.isdecimal() or len(place) > 9 or int(place) >= len(messages):
            raise task_not_found(name)
        return _json(messages[int(place)])

    _uses: ClassVar[dict[str, Use]] = {
        "ping": _ping,
        "agents": _agents,
        "agent": _agent,
        "create": _create,
        "run": _run,
        "resume": _resume,
        "cancel": _cancel,
        "events": _events,
        "session": _session,
        "resource": _resource,
    }


def _told(log: TaskLog) -> tuple[RunLog, list[bytes]]:
    """A run as its log tells it, and its events."""
    run = RunLog(log.agent)
    return run, [event for record in log.records for event in run.feed(record)]


def _streamed(request: Request, replay: Replay, after: int, headers: Headers = ()) -> Stream:
    """The events of a run after its first `after` ones, each under its number."""
    run = RunLog(replay.agent)

    def framed(record: Record) -> bytes:
        told = run.feed(record)
        first = run.count - len(told) + 1
        return b"".join(frame(event, id=str(n)) for n, event in enumerate(told, first) if n > after)

    def broken(error: GatewayError) -> bytes:
        return frame(orjson.dumps({"type": "error", "error": error_tree(error)}))

    return Stream(replay, request, framed, broken, (*STREAM_HEADERS, *headers))


def _manifest(entry: Registered, card: AgentCard) -> dict[str, Any]:
    return manifest(entry.id, card, entry.changed)


def _brought(task: Task) -> dict[str, Any]:
    """What the client brought along of the session, if it did."""
    history = task.history or ()
    return (session_of(history[0]) if history else None) or {}


async def _body(request: Request) -> Any:
    """ACP's own client sends no Content-Type."""
    if request.media_type not in ("", "application/json"):
        raise GatewayError(Reason.CONTENT_TYPE_NOT_SUPPORTED, "Send Content-Type: application/json, or none")
    return read(await request.body())


def _number(request: Request, name: str, least: int, most: int, usual: int) -> int:
    text = request.query.get(name)
    if text is None:
        return usual
    if not text.isdecimal() or len(text) > 10 or not least <= int(text) <= most:
        raise invalid(name, f"must be {least} to {most}")
    return int(text)


def _json(tree: Any, status: int = 200, headers: Headers = ()) -> Reply:
    return Reply(status, orjson.dumps(tree), (*JSON_HEADERS, *NO_STORE, *headers))
