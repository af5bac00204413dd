"""The admin API about push notifications: what waits for webhooks, what was given up, and another try."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.gateway import Gateway
from gateway.core.push.hosts import HostState
from gateway.core.push.letters import PushState
from gateway.model.base import timestamp
from gateway.model.call import ListDeadPushes, ReplayPushes, ShowPushes
from gateway.model.errors import invalid
from gateway.model.ports import DeadDelivery, PushQueue
from gateway.model.principal import Principal
from gateway.server.admin_json import json_answer

MAX_PAGE = 1000  # rows of one answer
_LARGEST = 2**63 - 1


class AdminPush:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def show(self, request: Request, who: Principal) -> Response:
        state: PushState = await self._gateway.handle(ShowPushes(_number(request, "limit", 100, MAX_PAGE)), who)
        return json_answer(
            {"queues": [_queue(each) for each in state.queues], "hosts": [_host(each) for each in state.hosts]}
        )

    async def dead(self, request: Request, who: Principal) -> Response:
        call = ListDeadPushes(_number(request, "after", 0, _LARGEST), _number(request, "limit", 100, MAX_PAGE))
        letters: list[DeadDelivery] = await self._gateway.handle(call, who)
        return json_answer({"dead": [_letter(each) for each in letters]})

    async def replay(self, request: Request, who: Principal) -> Response:
        id = request.path_params.get("id")
        return json_answer({"replayed": await self._gateway.handle(ReplayPushes(id), who)})


def _number(request: Request, name: str, default: int, largest: int) -> int:
    said = request.query_params.get(name)
    if said is None:
        return default
    if not (said.isascii() and said.isdecimal() and len(said) < 20 and int(said) <= largest):
        raise invalid(name, f"must be a whole number of at most {largest}")
    return int(said)


def _queue(queue: PushQueue) -> dict[str, Any]:
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


def _host(state: HostState) -> dict[str, Any]:
    rests = state.rests_until
    return {
        "host": state.host,
        "inHand": state.in_hand,
        "failures": state.failures,
        "restsUntil": None if rests is None else timestamp(rests),
    }


def _letter(letter: DeadDelivery) -> dict[str, Any]:
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
