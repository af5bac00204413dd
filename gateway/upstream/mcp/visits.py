"""People whom a session server sends to a URL, and its word that they have been there.

Source: 2025-11-25, client/elicitation (URL mode, `notifications/elicitation/complete`, -32042).
"""

from __future__ import annotations

from gateway.dialects.mcp.errors import Code
from gateway.dialects.mcp.message import Notification
from gateway.model.asking import ELICITED
from gateway.model.tool import Caller, PeerError, Tree

# Of one session, and nothing has been heard of them since; the first is forgotten first.
MAX_VISITS = 64


class Visits:
    """Who was sent to a URL by one session."""

    def __init__(self) -> None:
        self._callers: dict[str, Caller] = {}

    def asked(self, params: Tree, caller: Caller) -> None:
        """`params` of a question, or one of the `elicitations` of a refusal."""
        if isinstance(id := params.get("elicitationId"), str):
            self._callers[id] = caller
            if len(self._callers) > MAX_VISITS:
                del self._callers[next(iter(self._callers))]

    def refused(self, error: PeerError, caller: Caller) -> None:
        """The server may have answered that its caller has to go somewhere first."""
        found = error.data.get("elicitations") if isinstance(error.data, dict) else None
        if error.code == Code.URL_ELICITATION and isinstance(found, list):
            for each in found[:MAX_VISITS]:
                if isinstance(each, dict):
                    self.asked(each, caller)

    async def over(self, notification: Notification) -> None:
        """Tell the one whom it concerns, and nobody of what was never asked."""
        id = notification.params.get("elicitationId")
        caller = self._callers.pop(id, None) if isinstance(id, str) else None
        if caller is not None:
            await caller.notify(ELICITED, {"elicitationId": id})
