"""All approvals that something may still come of, and whoever waits for one.

In memory first, as long as this process alone writes the store; what is durable is in the store, and a compare on the
revision there keeps one approval from being used twice.

For a door: `ask` says whether a call is released, and files it if nobody has asked for it yet; `wait` waits for the
decision; a released call is made with `approval.arguments`, and `spend` is written in the commit of its intent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from gateway.core.approvals.grounds import OTHER_RULES, Grounds
from gateway.core.approvals.notices import Notices
from gateway.core.audit import Ticket
from gateway.core.policy.approvers import approvers
from gateway.core.policy.engine import Policy
from gateway.model.approval import Approval, ApprovalState, Asked, Outdated, Terms
from gateway.model.audit import AuditEntry, Decision
from gateway.model.changes import Change, PutApproval
from gateway.model.errors import GatewayError, Reason
from gateway.model.ports import Store
from gateway.model.principal import Principal
from gateway.model.tool import Tree

log = logging.getLogger(__name__)

MAX_WAITING = 200  # of one caller: who asks for more is asked to wait for those
MAX_RECENT = 1_000  # ended ones that are remembered, so that who waited hears how it went
RETRY_SECONDS = 2.0  # between tries while the store or an agent cannot be had
LATEST_SECONDS = 60.0  # a limit that is used up until tonight may be another one in a minute
TOO_LATE = "nobody answered in time"
LONGEST_SLEEP = 3_600.0  # seconds; timers of months are not exact

Then: TypeAlias = Callable[[Approval, Approval], Coroutine[Any, Any, None]]
"""What is to be done when one has run out: takes it as it was and as it shall be."""

Given = TypeVar("Given")


class Approvals:
    def __init__(
        self, store: Store, policy: Policy, notices: Notices, now: Callable[[], int], new_id: Callable[[], str]
    ) -> None:
        self._store = store
        self._notices = notices
        self._policy = policy
        self._now = now
        self._new_id = new_id
        self._loop = asyncio.get_running_loop()
        self._open: dict[str, Approval] = {}
        self._recent: OrderedDict[str, Approval] = OrderedDict()
        self._by_digest: dict[str, str] = {}
        self._filing: dict[str, asyncio.Task[None]] = {}  # those that are on their way to the disk
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._writing: set[asyncio.Task[Any]] = set()  # what is not left half done
        self._retries: set[asyncio.TimerHandle] = set()
        self.page = ""  # the URL of the page where people answer, without the id; "" where nobody can log in
        self.then: Then | None = None  # whoever ends what has run out, or cannot be approved any more
        self.grounds: Grounds | None = None  # what they stand on, once there is somebody who knows what calls are for
        policy.changed.append(self._ruled)

    async def start(self) -> None:
        for approval in await self._store.approvals.open():
            self.took(approval)
        self._look()
        self._ruled()

    async def aclose(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        for timer in self._retries:
            timer.cancel()
        for task in self._work:
            task.cancel()
        if self._work:
            await asyncio.wait(self._work)
        if written := {*self._filing.values(), *self._writing}:
            await asyncio.wait(written)

    # For doors.

    def asked(
        self, who: Principal, verb: str, target: str, arguments: Tree, decision: Decision, task: str = ""
    ) -> Asked:
        """A call that `decision` has stopped, as an approval has it."""
        assert self.grounds is not None
        return self.grounds.asked(who, verb, target, arguments, decision, task)

    async def ask(
        self,
        asked: Asked,
        decision: Decision,
        *,
        ticket: Ticket,
        id: str = "",
        agent: str = "",
        tasks: tuple[str, ...] = (),
    ) -> Approval:
        """The approval of exactly this call: APPROVED, then it may be made; else how it stands. Filed now, and so
        recorded with `ticket`, if it waits for none yet. `id` is what the caller was told before.

        Raises PERMISSION_DENIED when `id` is for another call, which is void then; OVERLOADED."""
        if id and (again := await self._again(id, asked)) is not None:
            return again
        while (known := self.of(asked)) is not None and (not known.state.open or self._stands(known)):
            if (filing := self._filing.get(known.id)) is None:
                return known
            await asyncio.wait({filing})  # nobody is told of one that may yet come to nothing
        approval = self.draft(asked, decision, ticket=ticket, agent=agent, tasks=tasks)
        self.took(approval)
        filing = self._filing[approval.id] = self._loop.create_task(self._file(approval, ticket))
        await asyncio.shield(filing)  # its caller may go, but then it is on disk all the same
        return approval

    async def _file(self, approval: Approval, ticket: Ticket) -> None:
        try:
            record = ticket.outcome(self._now(), ApprovalState.WAITING.value, change=created(approval))
            await self._store.commit(*self.filed(approval), records=(record,))
        except BaseException:
            self._forget(approval)
            raise
        finally:
            del self._filing[approval.id]
        self._notices.wake()

    async def wait(self, id: str, seconds: float | None = None) -> Approval | None:
        """The approval once it is decided; or as it stands after so many seconds. None: there is none."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (held := self._open.get(id)) is not None and held.state is ApprovalState.WAITING:
                    waiter = self._loop.create_future()
                    self._waiters.setdefault(id, []).append(waiter)
                    try:
                        await waiter
                    finally:
                        self._left(id, waiter)
        return await self.find(id)

    def spend(self, approval: Approval) -> tuple[PutApproval, ...]:
        """What goes with the commit by which the call is made. From here on nobody else can use it. Raises Outdated."""
        held = self._open.get(approval.id)
        if held is None or not self._stands(held):
            raise Outdated(approval.id)
        used = held.moved(ApprovalState.USED)
        self.took(used)
        return (PutApproval(used, held.revision),)

    def of_task(self, tenant: str, task_id: str) -> Approval | None:
        """What a task waits for."""
        for held in self._open.values():
            if held.state is ApprovalState.WAITING and task_id in held.tasks and held.tenant == tenant:
                return held
        return None

    async def find(self, id: str) -> Approval | None:
        return self._open.get(id) or self._recent.get(id) or await self._store.approvals.find(id)

    def forget(self, before: int) -> None:
        """Of ended ones whose time was over before then, nothing is remembered."""
        for held in [each for each in self._recent.values() if each.until < before]:
            del self._recent[held.id]
            self._drop_digests(held)

    def all(self) -> Iterable[Approval]:
        return tuple(self._open.values())

    def waited_for(self, approval: Approval) -> bool:
        """Whether somebody here goes on by itself as soon as it is decided."""
        return approval.id in self._waiters

    # For those who decide.

    def draft(
        self,
        asked: Asked,
        decision: Decision,
        *,
        ticket: Ticket,
        agent: str = "",
        tasks: tuple[str, ...] = (),
        held: bool = False,
    ) -> Approval:
        """A new one, which has yet to be written. Raises OVERLOADED when its caller waits for too many."""
        who = asked.principal
        waiting = sum(1 for each in self._open.values() if (each.tenant, each.owner) == (who.tenant, who.owner))
        if waiting >= MAX_WAITING:
            message = f"{waiting} of your calls wait for an approval already; wait for those"
            raise GatewayError(Reason.OVERLOADED, message, retry_after=60)
        terms, now = decision.terms or Terms(), self._now()
        id = self._new_id()
        return Approval(
            id,
            asked,
            asked.digest,
            decision.rule,
            decision.reason,
            terms,
            now,
            now + terms.within_ms,
            approvers=approvers(self._policy.rules, asked.target),
            sites=() if self.grounds is None else self.grounds.sites.of(asked.verb, asked.target, who),
            tasks=tasks,
            agent=agent,
            held=held,
            request=ticket.request_id,
            page=f"{self.page}{id}" if self.page else "",
        )

    def took(self, approval: Approval) -> None:
        """It is written, or about to be."""
        self._notices.wake()
        if approval.state.open:
            self._open[approval.id] = approval
            for digest in {approval.digest, approval.released}:
                self._by_digest[digest] = approval.id
            self._arm()
        else:
            self._forget(approval)
            self._recent[approval.id] = approval
            if approval.asked.task and approval.state is ApprovalState.REJECTED:
                self._by_digest[approval.digest] = approval.id  # the same work does not ask the same again
            if len(self._recent) > MAX_RECENT:
                self._drop_digests(self._recent.popitem(last=False)[1])
        if approval.state is not ApprovalState.WAITING:
            for waiter in self._waiters.get(approval.id, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def put(
        self, before: Approval, after: Approval, *changes: Change, records: tuple[AuditEntry, ...] = ()
    ) -> None:
        """The next revision, in one commit with what goes with it. Raises Outdated."""

        async def written() -> None:
            await self._store.commit(*changes, *self.follows(before, after), records=records)
            self.took(after)

        await self.whole(written())

    async def whole(self, work: Coroutine[Any, Any, Given]) -> Given:
        """What it gives. Whoever waits for it may go, or be canceled: what is written is then known here all the same,
        and what follows from it follows."""
        task = self._loop.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waits for it has it; nobody may be left

    async def void(self, approval: Approval, why: str) -> None:
        """It comes to nothing, whatever is said in this moment; unless it has ended or is used already."""
        while approval.state.open:
            try:
                await self.put(approval, approval.moved(ApprovalState.VOID, why=why))
            except Outdated:
                found = await self._store.approvals.find(approval.id)
                if found is None or found.revision == approval.revision:
                    raise
                approval = found
            else:
                return

    def filed(self, approval: Approval) -> tuple[Change, ...]:
        """What a commit writes of a new one."""
        return (PutApproval(approval), *self._notices.of(None, approval))

    def follows(self, before: Approval, after: Approval) -> tuple[Change, ...]:
        """And of the next revision."""
        return (PutApproval(after, before.revision), *self._notices.of(before, after))

    def lost(self, approval: Approval) -> str:
        """Why it does not stand any more; "" while it does."""
        return "" if self.grounds is None else self.grounds.lost(approval)

    def keep(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Do it in the background; what fails is looked at again at the next start."""

        async def kept() -> None:
            try:
                await work
            except Exception:
                log.exception("approval: %s", what)

        task = self._loop.create_task(kept())
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    def later(self, work: Callable[[], Coroutine[Any, Any, None]], what: str, seconds: float | None = None) -> None:
        """Try it in a moment, or after so many seconds: something stands in the way."""
        wait = min(max(RETRY_SECONDS, seconds or 0.0), LATEST_SECONDS)

        def go() -> None:
            self._retries.discard(timer)
            self.keep(work(), what)

        timer = self._loop.call_later(wait, go)
        self._retries.add(timer)

    def of(self, asked: Asked) -> Approval | None:
        """The approval that exactly this call waits for, or has been given."""
        id = self._by_digest.get(asked.digest)
        return None if id is None else self._open.get(id) or self._recent.get(id)

    async def _again(self, id: str, asked: Asked) -> Approval | None:
        """None: it is the same call, which other rules stop now, or which would go somewhere else; it needs an approval
        for that."""
        found = await self.find(id)
        who = asked.principal
        if found is None or (found.tenant, found.asked.principal.id) != (who.tenant, who.id):
            raise GatewayError(Reason.NOT_FOUND, f"There is no approval {id[:80]!r} of yours")
        if found.state.open and found.until <= self._now():
            await self._end(found, ApprovalState.EXPIRED, TOO_LATE)
            found = await self.find(id) or found
        lost = self.lost(found) if found.state.open else ""
        if asked.digest in (found.digest, found.released) and not lost:
            return found
        same = replace(asked, ground=found.asked.ground, site=found.asked.site).digest in (found.digest, found.released)
        if found.state.open:
            why = (lost or OTHER_RULES) if same else "it came back with another call"
            await self._end(found, ApprovalState.VOID, why)
        if same:
            return None
        raise GatewayError(Reason.PERMISSION_DENIED, f"Approval {id} is for another call; this one needs its own")

    # Time, and other rules.

    def _arm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._open:
            first = min(each.until for each in self._open.values())
            wait = min(LONGEST_SLEEP, max(0.0, (first - self._now()) / 1000))
            self._alarm = self._loop.call_later(wait, self._look)

    def _ruled(self) -> None:
        """Other rules hold: what does not stand under them comes to its end, the rest says who is asked now."""
        for held in tuple(self._open.values()):
            if self._stands(held) and self.grounds is not None and (renewed := self.grounds.renewed(held)) is not None:
                self.keep(self._renew(held, renewed), f"{held.id} is asked of others")

    def placed(self) -> None:
        """Where calls go may have changed: what was approved for another place comes to its end."""
        for held in tuple(self._open.values()):
            if self.grounds is not None and self.grounds.sites.moved(held):
                self._stands(held)

    def _stands(self, held: Approval) -> bool:
        """Whether it holds now. Its time may be over before the timer says so: a machine that slept has not counted."""
        if held.until <= self._now():
            self.keep(self._end(held, ApprovalState.EXPIRED, TOO_LATE), f"{held.id} expires")
            return False
        why = self.lost(held)
        if why:
            self.keep(self._end(held, ApprovalState.VOID, why), f"{held.id} ends")
        return not why

    async def _renew(self, held: Approval, renewed: Approval) -> None:
        with suppress(Outdated):  # decided in this moment
            await self.put(held, renewed)

    def _look(self) -> None:
        """What has run out comes to its end."""
        now = self._now()
        for held in tuple(self._open.values()):
            if held.until <= now:
                self.keep(self._end(held, ApprovalState.EXPIRED, TOO_LATE), f"{held.id} expires")
        self._alarm = None
        left = [held.until for held in self._open.values() if held.until > now]
        if left:
            self._alarm = self._loop.call_later(min(LONGEST_SLEEP, (min(left) - now) / 1000), self._look)

    async def _end(self, held: Approval, state: ApprovalState, why: str) -> None:
        try:
            after = held.moved(state, why=why)
            await (self.put(held, after) if self.then is None else self.then(held, after))
        except Outdated:
            return  # decided in this moment
        except GatewayError as error:
            log.warning("approval %s: %s", held.id, error.message)
            self.later(lambda: self._end(held, state, why), f"{held.id} ends")

    def _forget(self, approval: Approval) -> None:
        self._open.pop(approval.id, None)
        self._drop_digests(approval)

    def _drop_digests(self, approval: Approval) -> None:
        for digest in {approval.digest, approval.released}:
            if self._by_digest.get(digest) == approval.id:
                del self._by_digest[digest]

    def _left(self, id: str, waiter: asyncio.Future[None]) -> None:
        waiting = self._waiters.get(id, [])
        if waiter in waiting:
            waiting.remove(waiter)
        if not waiting:
            self._waiters.pop(id, None)


def created(approval: Approval) -> dict[str, Any]:
    return {"after": approval.shown(), "before": None}


def changed(before: Approval, after: Approval) -> dict[str, Any]:
    return {"after": after.shown(), "before": before.shown()}
