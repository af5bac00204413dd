"""The admin API about approvals: what waits for a person, and what people say to it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.core.gateway import Gateway
from gateway.model.approval import (
    Approval,
    ApprovalCall,
    ApprovalPage,
    ApproveCall,
    EditCall,
    ListApprovals,
    RejectCall,
    ShowApproval,
)
from gateway.model.base import timestamp
from gateway.model.errors import invalid
from gateway.model.principal import Principal
from gateway.server.admin_json import json_answer, json_object, text

MAX_PAGE = 1000  # approvals of one answer


class AdminApprovals:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def page(self, request: Request, who: Principal) -> Response:
        query = request.query_params
        limit = query.get("limit", "100")
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 5 and 1 <= int(limit) <= MAX_PAGE):
            raise invalid("limit", f"must be a whole number of 1 to {MAX_PAGE}")
        every = query.get("all", "false")
        if every not in ("true", "false"):
            raise invalid("all", "must be true or false")
        call = ListApprovals(every == "true", int(limit), query.get("before", ""))
        found: ApprovalPage = await self._gateway.handle(call, who)
        return json_answer({"approvals": [shown(each) for each in found.approvals], "before": found.before})

    async def show(self, request: Request, who: Principal) -> Response:
        return await self._answer(ShowApproval(request.path_params["id"]), who)

    async def approve(self, request: Request, who: Principal) -> Response:
        return await self._answer(ApproveCall(request.path_params["id"], await _reason(request)), who)

    async def edit(self, request: Request, who: Principal) -> Response:
        body = await json_object(request, "arguments", "reason")
        arguments = body.get("arguments")
        if not isinstance(arguments, dict):
            raise invalid("arguments", "must be an object")
        return await self._answer(EditCall(request.path_params["id"], arguments, _said(body)), who)

    async def reject(self, request: Request, who: Principal) -> Response:
        return await self._answer(RejectCall(request.path_params["id"], await _reason(request)), who)

    async def _answer(self, call: ApprovalCall, who: Principal) -> Response:
        return json_answer(shown(await self._gateway.handle(call, who)))


async def _reason(request: Request) -> str:
    return _said(await json_object(request, "reason")) if await request.body() else ""


def _said(body: dict[str, Any]) -> str:
    return text(body, "reason", required=False) or ""


def shown(approval: Approval) -> dict[str, Any]:
    """`arguments` are those that the call may be made with, `asked` those that were asked for, where they differ."""
    asked, who = approval.asked, approval.asked.principal
    chain, behalf = [who.id], who.on_behalf_of
    while behalf is not None:
        chain.append(behalf.id)
        behalf = behalf.on_behalf_of
    return {
        "id": approval.id,
        "state": approval.state.value,
        "caller": chain[0],
        "chain": chain[1:],
        "action": asked.verb,
        "target": asked.target,
        "arguments": approval.arguments,
        "asked": None if approval.edited is None else asked.arguments,
        "task": approval.tasks[0] if approval.tasks else None,
        "rule": approval.rule,
        "reason": approval.reason,
        "approvers": list(approval.approvers),
        "byCaller": approval.terms.caller,
        "needed": approval.terms.persons,
        "missing": approval.missing,
        "words": [
            {"by": word.by, "said": word.said.value, "at": timestamp(word.at), "reason": word.reason}
            for word in approval.words
        ],
        "created": timestamp(approval.created),
        "until": timestamp(approval.until),
        "policy": asked.policy,
        "digest": approval.digest,
        "released": approval.released,
        "why": approval.why,
        "page": approval.page or None,
    }
