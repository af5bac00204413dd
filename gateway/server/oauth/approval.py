"""`/oauth/approval`: a call that waits for a person, for whoever has logged in and may answer it.

Who may is what the desk says (core/approvals/desk.py), as everywhere; the page adds a browser. What it shows is what
can be approved: an edit in between makes the answer void.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from starlette.responses import Response

from gateway.model.approval import Approval, ApprovalCall, ApprovalState, ApproveCall, RejectCall, ShowApproval
from gateway.model.errors import GatewayError, Reason
from gateway.model.people import Person
from gateway.model.principal import Principal
from gateway.server.oauth import pages
from gateway.server.oauth.browser import Browser, Visit
from gateway.server.oauth.visitors import principal_of
from gateway.server.pages import sentence

APPROVAL = "/oauth/approval"
_STATUS = {
    Reason.NOT_FOUND: 404,
    Reason.PERMISSION_DENIED: 403,
    Reason.UNSUPPORTED_OPERATION: 409,
    Reason.OUTDATED: 409,
}


class Handle(Protocol):
    async def __call__(self, call: ApprovalCall, who: Principal) -> Any: ...


class ApprovalPages:
    """`known_as` is what the gateway calls its own issuer in principals."""

    def __init__(self, known_as: str) -> None:
        self._known_as = known_as
        self.handle: Handle | None = None  # the gateway, which is made after those who let people in

    @staticmethod
    def url(home: str) -> str:
        """Of the page, up to the id. `home` is the gateway's own URL."""
        return f"{home}{APPROVAL}?id="

    async def ask(
        self, browser: Browser, visit: Visit, person: Person, problem: str = "", status: int = 200
    ) -> Response:
        try:
            found = await self._said(ShowApproval(visit.approval), person)
        except GatewayError as error:
            return _refused(error)
        form = browser.form("approval", replace(visit, seen=found.released), person)
        own = found.owner == self._who(person).id and not found.terms.caller
        return pages.approval(form, found, person, problem=problem, own=own, status=status)

    async def answer(self, browser: Browser, visit: Visit, person: Person, form: Mapping[str, str]) -> Response:
        """What the person has said, of what the page had shown."""
        reason, answer = form.get("reason", "").strip()[:1000], form.get("answer")
        if answer not in ("approve", "reject"):
            return await self.ask(browser, visit, person)
        call: ApprovalCall = RejectCall(visit.approval, reason)
        if answer == "approve":
            call = ApproveCall(visit.approval, reason, visit.seen)
        try:
            found = await self._said(call, person)
        except GatewayError as error:
            return await self.ask(browser, visit, person, error.message, _STATUS.get(error.reason, 400))
        if found.state is ApprovalState.REJECTED:
            return sentence("Rejected", "The call is not made. You can close this page.")
        if found.missing:
            who = "person has" if found.missing == 1 else "people have"
            return sentence("Noted", f"{found.missing} more {who} to approve it. You can close this page.")
        return sentence("Approved", "The call may be made, once. You can close this page.")

    async def _said(self, call: ApprovalCall, person: Person) -> Approval:
        assert self.handle is not None
        found: Approval = await self.handle(call, self._who(person))
        return found

    def _who(self, person: Person) -> Principal:
        return principal_of(person, self._known_as)


def _refused(error: GatewayError) -> Response:
    """There may be no such call, or none for this person; which of both is not said."""
    if error.reason in (Reason.NOT_FOUND, Reason.PERMISSION_DENIED):
        return sentence("Nothing waits here", "There is no such call that you could answer.", 404)
    raise error
