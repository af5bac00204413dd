"""Tasks in AUTH_REQUIRED that go on by themselves once the caller has been where the link leads (A2A §7.6).

While the gateway runs, so does the agent: it waits where it stands, and nothing that it did before is done twice. After
a restart the run is gone, and the task goes on from the caller's message, where that does no harm: at a remote agent
which never got it, with a local one that has done nothing yet or says that it may be repeated.

What waits for what is written nowhere but in the link itself: it is sealed, names the task, and stands in its status.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from gateway.core.audit import Ticket
from gateway.core.connections import OWN, Connections, ConnectNeeded, owner_of, remote_agent
from gateway.core.registry import Registered
from gateway.core.runner import Runner, last_asked
from gateway.core.services import Services
from gateway.core.turn import Turn
from gateway.model.call import SendMessage
from gateway.model.errors import GatewayError
from gateway.model.login import LoginNeeded
from gateway.model.principal import Principal
from gateway.model.rows import TaskQuery, TaskRow
from gateway.model.task import TaskState

log = logging.getLogger(__name__)

# Runs that wait in memory, a few kB each. The one that waits longest is let go first, and goes on as after a restart.
MAX_RESTING = 1_000
PAGE = 100  # tasks of one owner that are read at a time
REASON = "authorization"


class Revive(Protocol):
    async def revive(self, row: TaskRow, entry: Registered, ticket: Ticket, *, follow: bool = False) -> None: ...


class Resting:
    """`connections` and `find` are given once they are there; without them nobody is sent anywhere."""

    def __init__(self, services: Services, runner: Runner, engine: Revive) -> None:
        self._services = services
        self._runner = runner
        self._engine = engine
        self._connections: Connections | None = None
        self._find: Callable[[str], Registered | None] = lambda agent: None
        self._waiting: dict[asyncio.Future[None], tuple[str, str, Turn]] = {}  # for which place, and whose
        runner.log_in = self.log_in

    def use(self, connections: Connections, find: Callable[[str], Registered | None]) -> None:
        self._connections, self._find = connections, find
        connections.heard.append(self.connected)

    async def log_in(self, turn: Turn, error: LoginNeeded) -> None:
        """Returns once the caller has authorized the gateway at the remote agent. Raises `error` where nobody can."""
        if self._connections is None or turn.ticket is None:
            raise error
        place, owner = remote_agent(turn.entry.id), owner_of(turn.ticket.principal)
        again = not error.following
        await self._rest(turn, self._link(turn, place, owner, error.why, again=again))

    async def connect(self, turn: Turn, needed: ConnectNeeded) -> None:
        """The same for what an agent of ours was about to use."""
        if self._connections is None:
            raise needed
        again = not turn.went_out or _resumable(turn.entry)
        await self._rest(turn, self._link(turn, needed.place, needed.owner, needed.why, again=again))

    def _link(self, turn: Turn, place: str, owner: str, why: str, *, again: bool) -> ConnectNeeded:
        """`again` is whether the agent may be given the message once more."""
        assert self._connections is not None
        return self._connections.needed(place, owner, why, t=turn.task_id, a=again)

    async def _rest(self, turn: Turn, needed: ConnectNeeded) -> None:
        until = asyncio.get_running_loop().create_future()
        self._waiting[until] = (needed.place, needed.owner, turn)
        if len(self._waiting) > MAX_RESTING:
            self._let_go(next(iter(self._waiting)))
        text = f"{needed.why} of your own: open {needed.url} in a browser. The task then goes on by itself."
        try:
            async with self._runner.pause(turn, TaskState.AUTH_REQUIRED, text, url=needed.url, reason=REASON):
                await until
        finally:
            self._waiting.pop(until, None)
        if turn.ticket is not None and not turn.pauses:
            # What follows is recorded as what it is: a second part, with an end of its own.
            turn.renew(self._services.new_id())
            await self._services.store.commit(records=(turn.ticket.intent(self._services.now(), turn.task_id),))

    def _let_go(self, until: asyncio.Future[None]) -> None:
        _, _, turn = self._waiting.pop(until)
        self._runner.keep(self._stopped(turn))

    async def _stopped(self, turn: Turn) -> None:
        await self._runner.stop(turn)

    async def connected(self, place: str, who: Principal) -> None:
        """Set going what waits for this. `who` has just shown who it is."""
        owner = owner_of(who)
        for until, (where, whose, _) in tuple(self._waiting.items()):
            if (where, whose) == (place, owner) and not until.done():
                until.set_result(None)
        after: tuple[int, str] | None = None
        while True:
            query = TaskQuery(who.tenant, who.owner, None, PAGE, state=TaskState.AUTH_REQUIRED, after=after)
            page = await self._services.store.tasks(query)
            for row in page.rows:
                await self._resumed(row, place, owner)
            if not page.rows or not (page.cut or len(page.rows) == PAGE):
                return
            after = (page.rows[-1].updated, page.rows[-1].id)

    async def _resumed(self, row: TaskRow, place: str, owner: str) -> None:
        assert self._connections is not None
        said = row.task.status.message
        claims = self._connections.claims((said.metadata or {}).get("url") if said is not None else None)
        entry = self._find(row.agent)
        ours = (claims.get("s"), claims.get("o"), claims.get("t")) == (place, owner, row.id)
        if not ours or entry is None or self._runner.turn(row.tenant, row.id) is not None:
            return
        ticket = self._ticket(self._services.today(row.asker), row.agent)
        try:
            if claims["a"] or entry.kind == "remote" or _resumable(entry):
                await self._engine.revive(row, entry, ticket, follow=not claims["a"] and entry.kind == "remote")
            else:
                await self._lost(row, entry, ticket)
        except GatewayError as error:
            log.warning("task %s does not go on: %s", row.id, error.message)

    async def _lost(self, row: TaskRow, entry: Registered, ticket: Ticket) -> None:
        text = "The gateway was restarted while the agent waited for your authorization, in the middle of its work"
        turn = Turn.of(self._services, entry, ticket, row, last_asked(row))
        turn.push = True  # whether there are configurations is for the store to see
        turn.status(TaskState.FAILED, f"{text}; what it had done by then is not known", reason="unknown-outcome")
        await turn.flush()

    def _ticket(self, who: Principal, agent: str) -> Ticket:
        return Ticket(who, SendMessage.verb, agent, OWN, self._services.new_id())


def _resumable(entry: Registered) -> bool:
    return entry.agent is not None and entry.agent.resumable
