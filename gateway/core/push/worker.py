"""Telling webhooks: one worker that takes what is due from the outbox and delivers it.

Rows come into the outbox with the events they tell of, in the same commit, so nothing that happened is forgotten. What
is due for one task and webhook is given out one event at a time, in order, so a webhook that fails delays nobody but
itself. An event is tried at least once, and again after growing pauses until it is too old; then it is a dead letter,
and the next one has its turn. Of the tasks of a frozen principal nothing goes out until it is thawed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial

from gateway.core.audit import Ticket
from gateway.core.freezer import Freezer
from gateway.core.push.hosts import PER_HOST, Hosts
from gateway.model.audit import AuditEntry, Decision, Verdict
from gateway.model.call import DeletePushConfig
from gateway.model.changes import BuryDelivery, DropPushConfig, SettleDelivery
from gateway.model.errors import GatewayError, Reason
from gateway.model.governance import Cold, Frozen
from gateway.model.ports import Notifier, Store, Told
from gateway.model.principal import MACHINE, Principal
from gateway.model.rows import Delivery
from gateway.model.value import value

log = logging.getLogger(__name__)

FIRST_RETRY_MS = 1_000  # after the first failure; each further one doubles it
LAST_RETRY_MS = 3_600_000  # no pause is longer: what comes back is noticed within the hour
LEASE_MS = 60_000  # longer than an attempt may take (the sender's own timeout is 15 s)
AT_ONCE = 128  # deliveries in hand: enough for many slow hosts, few enough sockets
POLL_SECONDS = 1.0  # retries come due without anybody telling

_GONE = Decision(Verdict.PASS, "webhook-gone", "the webhook answered 410: it wants to hear nothing more")

_PUSHED = Decision(Verdict.PASS, "push", "the task's owner asked to be told there")


@value
class _Failure:
    """Why an attempt did not deliver. `alive` as `Hosts.leave` takes it, `after_ms` what the webhook asked for."""

    problem: str
    alive: bool | None
    after_ms: int = 0


class PushWorker:
    """`chance` gives numbers from 0 to 1, for pauses that do not all end together. `freezer` says whose webhooks are
    told nothing."""

    def __init__(
        self,
        store: Store,
        notifier: Notifier,
        now: Callable[[], int],
        new_id: Callable[[], str],
        chance: Callable[[], float],
        give_up_ms: int,
        freezer: Freezer,
    ) -> None:
        self._store = store
        self._notifier = notifier
        self._now = now
        self._new_id = new_id
        self._chance = chance
        self._give_up_ms = give_up_ms
        self._freezer = freezer
        freezer.changed.append(self.wake)
        freezer.stopping.append(self._stop)
        self.hosts = Hosts(now)
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._trying: dict[asyncio.Task[None], str] = {}  # whose task it is about
        self._in_hand: set[tuple[str, str, str]] = set()  # queues: tenant, task, configuration

    def start(self) -> None:
        self._due.set()  # an earlier life may have left some
        self._task = asyncio.create_task(self._forever(), name="push")

    async def aclose(self) -> None:
        tasks = {task for task in (self._task, *self._trying) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def wake(self) -> None:
        self._due.set()

    async def _forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._due.wait()
            self._due.clear()
            try:
                await self._take()
            except GatewayError as error:
                log.error("the push outbox cannot be read: %s", error.message)
            except Exception:
                log.exception("the push outbox cannot be read")  # and nothing may end this worker

    async def _take(self) -> None:
        """Begin what is due, as far as there is room; nobody waits for anybody else's webhook."""
        while room := AT_ONCE - len(self._trying):
            busy, silent = self.hosts.busy(), self._freezer.principals()
            deliveries = await self._store.due(self._now(), room, LEASE_MS, per_host=PER_HOST, busy=busy, silent=silent)
            for delivery in deliveries:
                # After a long sleep of the whole machine leases have ended, and what is in hand would go out twice.
                if _key(delivery)[:3] not in self._in_hand:
                    self._begin(delivery)
            if not deliveries:
                return

    def _begin(self, delivery: Delivery) -> None:
        queue = _key(delivery)[:3]
        self._in_hand.add(queue)
        self.hosts.enter(delivery.config.host)
        task = asyncio.create_task(self._try(delivery))
        self._trying[task] = delivery.owner
        task.add_done_callback(partial(self._tried, queue))

    def _tried(self, queue: tuple[str, str, str], task: asyncio.Task[None]) -> None:
        self._trying.pop(task, None)
        self._in_hand.discard(queue)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("how a push ended could not be written; it is made again", exc_info=error)
        self._due.set()  # there is room again, and that webhook's next event may be due

    def _stop(self, frozen: Frozen) -> None:
        """An attempt in hand is cut short, and does not count."""
        for task, owner in self._trying.items():
            if frozen.kind is Cold.PRINCIPAL and frozen.name == owner:
                task.cancel()

    async def _try(self, delivery: Delivery) -> None:
        alive: bool | None = None
        try:
            answer = await self._deliver(delivery)
            alive = answer.alive if isinstance(answer, _Failure) else True
            if isinstance(answer, _Failure):
                self._failed(delivery, answer)
            elif answer.status == 410:
                await self._remove(delivery)
            else:
                self._store.later(SettleDelivery(*_key(delivery)), records=[self._told(delivery, "ok")])
        finally:
            self.hosts.leave(delivery.config.host, alive)

    async def _deliver(self, delivery: Delivery) -> Told | _Failure:
        try:
            told = await self._notifier.deliver(delivery)
        except GatewayError as error:
            # What the gateway's own rules refuse says nothing about the host.
            return _Failure(error.message, None if error.reason is Reason.EGRESS_REFUSED else False)
        except Exception:
            incident = self._new_id()
            log.exception("incident %s: a push could not be made", incident)
            return _Failure(f"it could not be made; incident {incident}", None)
        if 200 <= told.status < 300 or told.status == 410:
            return told
        wait = min(round((told.retry_after or 0) * 1000), LAST_RETRY_MS)
        return _Failure(f"the webhook answered with status {told.status}", _works(told.status), wait)

    def _failed(self, delivery: Delivery, failure: _Failure) -> None:
        now = self._now()
        retry_at = now + max(pause_ms(delivery.attempts, self._chance()), failure.after_ms)
        dies = retry_at > delivery.queued + self._give_up_ms
        log.warning(
            "push of task %s event %d, attempt %d: %s%s",
            delivery.task_id,
            delivery.seq,
            delivery.attempts,
            failure.problem,
            "; given up" if dies else "",
        )
        key = _key(delivery)
        if dies:
            self._store.later(BuryDelivery(*key, failure.problem, now), records=[self._told(delivery, "given up")])
        else:
            self._store.later(SettleDelivery(*key, retry_at, failure.problem))

    def _told(self, delivery: Delivery, outcome: str) -> AuditEntry:
        """How a delivery ended, in the transaction that takes it out of the outbox: what a webhook was told and is not
        recorded stands in there and is told again."""
        target = f"webhook/{delivery.config.host}"
        ticket = Ticket(MACHINE, "DeliverPush", target, _PUSHED, self._new_id())
        return ticket.outcome(self._now(), outcome, delivery.task_id)

    async def _remove(self, delivery: Delivery) -> None:
        """410: the configuration goes, as if its maker had deleted it, and the record says why."""
        tenant, task_id, config_id, _ = _key(delivery)
        log.warning("push of task %s: the webhook answered 410, its configuration is removed", task_id)
        row = await self._store.task(tenant, task_id)
        records: tuple[AuditEntry, ...] = ()
        if row is not None:
            who = Principal.of(row.owner, tenant)
            ticket = Ticket(who, DeletePushConfig.verb, row.agent, _GONE, self._new_id())
            records = (ticket.outcome(self._now(), "gone", task_id),)
        self._store.later(DropPushConfig(tenant, task_id, config_id), records=records)


def pause_ms(attempts: int, chance: float) -> int:
    """Before the next attempt, after `attempts` that failed: up to half of it is left to chance."""
    whole = min(FIRST_RETRY_MS << min(attempts - 1, 32), LAST_RETRY_MS)
    return round(whole * (1 - chance / 2))


def _works(status: int) -> bool:
    """Whether a host that answers so works: what it says about one webhook is no word about the others."""
    return status < 500 and status != 429


def _key(delivery: Delivery) -> tuple[str, str, str, int]:
    assert delivery.config.id is not None
    return delivery.tenant, delivery.task_id, delivery.config.id, delivery.seq
