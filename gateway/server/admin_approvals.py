"""The admin API about approvals: what waits for a person, and what people say to it."""

from __future__ import annotations

from typing import TypedDict

from gateway.core.gateway import Gateway
from gateway.model.approval import (
    Approval,
    ApprovalCall,
    ApprovalPage,
    ApprovalState,
    ApproveCall,
    EditCall,
    ListApprovals,
    RejectCall,
    ShowApproval,
)
from gateway.model.base import timestamp
from gateway.model.principal import Principal
from gateway.server.admin_fields import Field, number, text, tree, truth
from gateway.server.admin_operation import Asked, Moment, Operation, Tree

MAX_PAGE = 1000  # approvals of one answer


class Word(TypedDict):
    by: str
    said: str
    at: Moment
    reason: str


class Place(TypedDict):
    """Where a call goes: `at` is where the operator says it is, `leads` are the URLs that the card there names, `hash`
    is that of the card, without its signatures, or of the tool's definition."""

    at: str
    leads: list[str]
    hash: str


class Shown(TypedDict):
    """`arguments` are those that the call may be made with, `asked` those that were asked for, where they differ.
    `released` is the digest of the call as it may be made, for `seen` of a yes: `digest` until somebody edits it.
    `needed` people have to agree, and `missing` of them have not yet. `page` is where people who log in answer it.
    `goesTo` is for those who may approve it; whoever only asked for it is not told."""

    id: str
    state: ApprovalState
    caller: str
    chain: list[str]
    action: str
    target: str
    goesTo: list[Place]
    arguments: Tree
    asked: Tree | None
    task: str | None
    rule: str
    reason: str
    approvers: list[str]
    byCaller: bool
    needed: int
    missing: int
    words: list[Word]
    created: Moment
    until: Moment
    policy: str
    digest: str
    released: str
    why: str
    page: str | None


class Approvals(TypedDict):
    """`before`, given back as that parameter, is where the next page begins."""

    approvals: list[Shown]
    before: str | None


class AdminApprovals:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def operations(self) -> tuple[Operation, ...]:
        one = "/admin/approvals/{id}"
        reason = text("reason", "Why, for the record.", required=False, default="")
        about = "The `released` of the call that you have seen: a yes to it is none to what somebody has edited since."
        seen = text("seen", about, required=False, default="")
        query = (
            truth("all", "Whether the decided ones are shown, too."),
            Field("before", "The `before` of the answer before.", {"type": "string"}, str, default=""),
            number("limit", "Approvals of one answer.", 100, least=1, most=MAX_PAGE),
        )
        arguments = tree("arguments", "What the call may be made with.")
        return (
            Operation(
                "GET",
                "/admin/approvals",
                ListApprovals.verb,
                "List the calls that wait for a person",
                self.page,
                Approvals,
                query=query,
            ),
            Operation(
                "POST",
                one + ":approve",
                ApproveCall.verb,
                "Let a call be made, once",
                self.approve,
                Shown,
                body=(reason, seen),
            ),
            Operation(
                "POST",
                one + ":edit",
                EditCall.verb,
                "Let a call be made with other arguments, once",
                self.edit,
                Shown,
                body=(arguments, reason),
            ),
            Operation("POST", one + ":reject", RejectCall.verb, "Refuse a call", self.reject, Shown, body=(reason,)),
            Operation("GET", one, ShowApproval.verb, "Show a call that waits", self.show, Shown),
        )

    async def page(self, asked: Asked, who: Principal) -> Approvals:
        query = asked.query
        call = ListApprovals(query["all"], query["limit"], query["before"])
        found: ApprovalPage = await self._gateway.handle(call, who)
        return {"approvals": [shown(each) for each in found.approvals], "before": found.before}

    async def show(self, asked: Asked, who: Principal) -> Shown:
        return await self._answer(ShowApproval(asked.path["id"]), who)

    async def approve(self, asked: Asked, who: Principal) -> Shown:
        return await self._answer(ApproveCall(asked.path["id"], asked.body["reason"], asked.body["seen"]), who)

    async def edit(self, asked: Asked, who: Principal) -> Shown:
        body = asked.body
        return await self._answer(EditCall(asked.path["id"], body["arguments"], body["reason"]), who)

    async def reject(self, asked: Asked, who: Principal) -> Shown:
        return await self._answer(RejectCall(asked.path["id"], asked.body["reason"]), who)

    async def _answer(self, call: ApprovalCall, who: Principal) -> Shown:
        return shown(await self._gateway.handle(call, who))


def shown(approval: Approval) -> Shown:
    asked, who = approval.asked, approval.asked.principal
    chain, behalf = [who.id], who.on_behalf_of
    while behalf is not None:
        chain.append(behalf.id)
        behalf = behalf.on_behalf_of
    return {
        "id": approval.id,
        "state": approval.state,
        "caller": chain[0],
        "chain": chain[1:],
        "action": asked.verb,
        "target": asked.target,
        "goesTo": [{"at": site.at, "leads": list(site.leads), "hash": site.hash} for site in approval.sites],
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
