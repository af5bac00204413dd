"""The admin API about push notifications: what waits for webhooks, what was given up, and another try."""

from __future__ import annotations

from typing import TypedDict

from gateway.core.gateway import Gateway
from gateway.core.push.hosts import HostState
from gateway.core.push.letters import PushState
from gateway.model.base import timestamp
from gateway.model.operation import ListDeadPushes, ReplayPushes, ShowPushes
from gateway.model.principal import Principal
from gateway.model.rows import DeadDelivery, PushQueue
from gateway.server.admin_fields import number
from gateway.server.admin_operation import Asked, Moment, Operation

MAX_PAGE = 1000  # rows of one answer
_LARGEST = 2**63 - 1


class Queue(TypedDict):
    """What waits for one webhook of one task; all but `waiting` is about the first of it."""

    taskId: str
    configId: str
    host: str
    waiting: int
    since: Moment
    attempts: int
    next: Moment
    problem: str | None


class Host(TypedDict):
    host: str
    inHand: int
    failures: int
    restsUntil: Moment | None


class Pushes(TypedDict):
    queues: list[Queue]
    hosts: list[Host]


class Letter(TypedDict):
    """`event` is the number of what was to be told, `happened` when it was, `problem` what the last attempt met."""

    id: int
    taskId: str
    configId: str
    event: int
    host: str
    attempts: int
    problem: str
    happened: Moment
    givenUp: Moment


class Letters(TypedDict):
    dead: list[Letter]


class Again(TypedDict):
    replayed: int


class AdminPush:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def operations(self) -> tuple[Operation, ...]:
        limit = number("limit", "Rows of one answer.", 100, least=1, most=MAX_PAGE)
        after = number("after", "The number behind which the page begins.", 0, most=_LARGEST)
        again, dead = ReplayPushes.verb, "/admin/push/dead"
        return (
            Operation(
                "GET", "/admin/push", ShowPushes.verb, "Show what webhooks wait for", self.show, Pushes, query=(limit,)
            ),
            Operation(
                "GET",
                dead,
                ListDeadPushes.verb,
                "List pushes that were given up",
                self.dead,
                Letters,
                query=(after, limit),
            ),
            Operation("POST", dead + ":replay", again, "Try all that was given up again", self.replay, Again),
            Operation(
                "POST",
                dead + "/{id:int}:replay",
                again,
                "Try a push that was given up again",
                self.replay,
                Again,
                id="ReplayPush",
            ),
        )

    async def show(self, asked: Asked, who: Principal) -> Pushes:
        state: PushState = await self._gateway.handle(ShowPushes(asked.query["limit"]), who)
        return {"queues": [_queue(each) for each in state.queues], "hosts": [_host(each) for each in state.hosts]}

    async def dead(self, asked: Asked, who: Principal) -> Letters:
        call = ListDeadPushes(asked.query["after"], asked.query["limit"])
        letters: list[DeadDelivery] = await self._gateway.handle(call, who)
        return {"dead": [_letter(each) for each in letters]}

    async def replay(self, asked: Asked, who: Principal) -> Again:
        return {"replayed": await self._gateway.handle(ReplayPushes(asked.path.get("id")), who)}


def _queue(queue: PushQueue) -> Queue:
    return {
        "taskId": queue.task_id,
        "configId": queue.config_id,
        "host": queue.host,
        "waiting": queue.waiting,
        "since": timestamp(queue.queued),
        "attempts": queue.attempts,
        "next": timestamp(queue.due),
        "problem": queue.problem,
    }


def _host(state: HostState) -> Host:
    rests = state.rests_until
    return {
        "host": state.host,
        "inHand": state.in_hand,
        "failures": state.failures,
        "restsUntil": None if rests is None else timestamp(rests),
    }


def _letter(letter: DeadDelivery) -> Letter:
    return {
        "id": letter.id,
        "taskId": letter.task_id,
        "configId": letter.config_id,
        "event": letter.seq,
        "host": letter.host,
        "attempts": letter.attempts,
        "problem": letter.problem,
        "happened": timestamp(letter.queued),
        "givenUp": timestamp(letter.died),
    }
