"""The profile at work on calls: what passes is examined, noted in the audit and marked for whoever gets it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import replace
from typing import Any, TypeVar

from gateway.core.audit import Recorder, Ticket
from gateway.core.compliance.caller import WatchedCaller
from gateway.core.compliance.held import Held, settled, uncut, word
from gateway.core.compliance.profile import Action, Noted, Profile, mark
from gateway.model.audit import Decision, Verdict
from gateway.model.call import SendMessage
from gateway.model.compliance import Place, Subject
from gateway.model.errors import GatewayError, Reason
from gateway.model.message import Artifact, Message, Role
from gateway.model.task import ArtifactUpdate, Event, StatusUpdate, Task, TaskStatus
from gateway.model.tool import Caller, Tree

MARK = "gateway/compliance"
"""The entry of `metadata` (A2A) or `_meta` (MCP) that says which rules found something: name -> what was done."""

_DONE = {Action.FLAG: "flagged", Action.REDACT: "redacted", Action.BLOCK: "blocked"}
_REFUSALS = {Place.ANSWER: Reason.INVALID_AGENT_RESPONSE, Place.RESULT: Reason.INVALID_AGENT_RESPONSE}
_SAID = ("parts", "metadata", "name", "description")  # of a message or artifact: all that somebody wrote

_SENT_BESIDE = ("inputResponses", "argument", "context")
"""What a tool or prompt is asked with beside arguments: answers to its questions, what is to be completed."""

Declared = Callable[[], Any]
"""How to get the schema that a tool declares: of most calls nobody looks at it."""


def _nothing() -> None:
    return None


Said = TypeVar("Said", Message, Artifact)


class Compliance:
    def __init__(self, profile: Profile, recorder: Recorder) -> None:
        self._profile = profile
        self._recorder = recorder

    def use(self, profile: Profile) -> None:
        """Another profile from now on, also for what streams already."""
        self._profile = profile

    def covers(self, place: Place, target: str) -> bool:
        return bool(self._profile.rules(place, target))

    async def message(self, call: SendMessage, ticket: Ticket, *, foreseen: bool = False) -> SendMessage:
        """A caller's message, and the metadata of its request, as its agent may have them. Raises GatewayError when it
        may not. `foreseen` is before somebody is asked whether it may be sent: what is found is recorded when it is
        sent, or if it may not pass."""
        if not self.covers(Place.MESSAGE, ticket.target):
            return call
        message = await self._said(call.message, Place.MESSAGE, ticket, foreseen=foreseen)
        metadata = await self._metadata(call.metadata, Place.MESSAGE, ticket, foreseen=foreseen)
        if message is call.message and metadata is call.metadata:
            return call
        return replace(call, message=message, metadata=metadata)

    async def foreseen(self, arguments: Tree, ticket: Ticket, declared: Declared = _nothing) -> Tree:
        """And of the arguments of a tool or prompt."""
        left: Tree = (await self.tree(arguments, Place.ARGUMENTS, ticket, declared, foreseen=True))[0]
        return left

    async def request(self, params: Tree, ticket: Ticket, declared: Declared = _nothing) -> Tree:
        """What a tool, prompt or resource is asked with: arguments, and answers to what it asked. Raises GatewayError.
        Nothing in it is marked: it is the server's own schema that says what it may hold."""
        if not self.covers(Place.ARGUMENTS, ticket.target):
            return params
        if "arguments" in params:
            sent, _ = await self.tree(params["arguments"], Place.ARGUMENTS, ticket, declared)
            params = {**params, "arguments": sent}
        beside = {name: params[name] for name in _SENT_BESIDE if name in params}
        if beside:
            params = {**params, **await self.examined(beside, Place.ARGUMENTS, ticket)}
        return params

    async def address(self, uri: str, ticket: Ticket) -> Ticket:
        """A resource's URI is what it is asked with. One that something would have to be cut out of may not pass: what
        is left would be another resource. What was found in it is not in the record either. Raises GatewayError."""
        if not self.covers(Place.ARGUMENTS, ticket.target):
            return ticket
        subject = Subject(Place.ARGUMENTS, ticket.target, {"uri": uri}, beside=True)
        noted = (await self._profile.examine(subject)).noted
        if not noted:
            return ticket
        ticket = replace(ticket, recorded=f"{ticket.target.removesuffix(uri)}{mark(noted[0].findings[0].what)}")
        stops = next((each for each in noted if each.action is not Action.FLAG), None)
        self._note(noted if stops is None else (replace(stops, action=Action.BLOCK),), ticket)
        if stops is not None:
            self._recorder.note(ticket, Reason.PERMISSION_DENIED)
            raise _refusal(stops, Place.ARGUMENTS)
        return ticket

    async def result(self, result: Tree, ticket: Ticket, declared: Declared = _nothing) -> Tree:
        """What comes back from it. Raises GatewayError."""
        left, noted = await self.tree(result, Place.RESULT, ticket, declared)
        if not noted:
            return result
        meta = left.get("_meta")
        return {**left, "_meta": {**(meta if isinstance(meta, dict) else {}), MARK: marks(noted)}}

    async def caller(self, caller: Caller, ticket: Ticket) -> Caller:
        """Whoever asked: what travels on with the request, and what a server tells and asks them on the way, passes
        too. Raises GatewayError."""
        places = (Place.ARGUMENTS, Place.RESULT)
        if not any(self.covers(place, ticket.target) for place in places):
            return caller
        meta = await self.examined(caller.meta, Place.ARGUMENTS, ticket) if caller.meta else caller.meta
        return WatchedCaller(caller, ticket, self, meta)

    async def examined(self, tree: Tree, place: Place, ticket: Ticket) -> Tree:
        """What is left of a part of the traffic that has no room for marks, and that no schema is about."""
        left: Tree = (await self.tree(tree, place, ticket, beside=True))[0]
        return left

    async def tree(
        self,
        tree: Any,
        place: Place,
        ticket: Ticket,
        declared: Declared = _nothing,
        *,
        foreseen: bool = False,
        beside: bool = False,
    ) -> tuple[Any, tuple[Noted, ...]]:
        """Arguments or a result as the other side may have them, and what was noted. Raises GatewayError."""
        if not self.covers(place, ticket.target):
            return tree, ()
        examined = await self._profile.examine(Subject(place, ticket.target, tree, declared(), beside))
        if examined.blocked is not None or not foreseen:
            self._note(examined.noted, ticket)
        if examined.blocked is not None:
            raise _refusal(examined.blocked, place)
        return examined.content, examined.noted

    async def answers(self, events: AsyncIterator[Event], ticket: Ticket) -> AsyncIterator[Event]:
        """What an agent says, as its caller may have it; texts that come in pieces are seen whole."""
        held = Held()
        try:
            async for event in events:
                cut = await self._cut(held.joined(event), ticket.target)
                for whole in held.take(event, cut):
                    yield await self.answer(whole, ticket)
            for rest in held.release():
                yield await self.answer(rest, ticket)
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def _cut(self, text: str | None, target: str) -> int | None:
        """How much of a text that goes on may be told; None for what may not be cut."""
        if text is None:
            return None
        cut = settled(text)
        if reach := self._profile.reach(Place.ANSWER, target):
            cut = min(cut, word(text, max(0, len(text) - reach)))
        return uncut(text, cut, await self._profile.stretches(Place.ANSWER, target, text)) if cut else 0

    async def answer(self, event: Event, ticket: Ticket) -> Event:
        """One event of an agent. Raises GatewayError when it may not pass."""
        if isinstance(event, Message):
            return await self._answer(event, ticket)
        update: dict[str, Any] = {}
        if isinstance(event, ArtifactUpdate):
            update["artifact"] = await self._answer(event.artifact, ticket)
        elif isinstance(event, StatusUpdate):
            update["status"] = await self._status(event.status, ticket)
        else:
            update = await self._task(event, ticket)
        if event.metadata:
            update["metadata"] = await self._metadata(event.metadata, Place.ANSWER, ticket)
        return event.model_copy(update=update)

    async def _task(self, task: Task, ticket: Ticket) -> dict[str, Any]:
        """A whole that a remote agent shows. Its history holds the caller's own words too: those have passed."""
        update: dict[str, Any] = {"status": await self._status(task.status, ticket)}
        if task.artifacts:
            update["artifacts"] = tuple([await self._answer(each, ticket) for each in task.artifacts])
        if task.history:
            heard = [each if each.role is Role.USER else await self._answer(each, ticket) for each in task.history]
            update["history"] = tuple(heard)
        return update

    async def _status(self, status: TaskStatus, ticket: Ticket) -> TaskStatus:
        if status.message is None:
            return status
        return status.model_copy(update={"message": await self._answer(status.message, ticket)})

    async def _answer(self, said: Said, ticket: Ticket) -> Said:
        return await self._said(said, Place.ANSWER, ticket)

    async def _said(self, said: Said, place: Place, ticket: Ticket, *, foreseen: bool = False) -> Said:
        tree = said.model_dump(by_alias=True, exclude_unset=True)
        content = {name: tree[name] for name in _SAID if name in tree}
        left, noted = await self.tree(content, place, ticket, foreseen=foreseen)
        if not noted:
            return said
        if left is content:
            left = {**content}
        left["metadata"] = {**(left.get("metadata") or {}), MARK: marks(noted)}
        return type(said).model_validate({**tree, **left})

    async def _metadata(
        self, metadata: Tree | None, place: Place, ticket: Ticket, *, foreseen: bool = False
    ) -> Tree | None:
        """Metadata of a request or of an event, which says something about a message and stands beside it."""
        if not metadata:
            return metadata
        left, noted = await self.tree({"metadata": metadata}, place, ticket, foreseen=foreseen, beside=True)
        return {**left["metadata"], MARK: marks(noted)} if noted else metadata

    def _note(self, noted: Iterable[Noted], ticket: Ticket) -> None:
        """One line in the audit for each rule that found something, beside the call's own."""
        for each in noted:
            verdict = Verdict.BLOCK if each.action is Action.BLOCK else Verdict.FLAG
            ticket.marks[each.rule] = _DONE[each.action]
            found = replace(ticket, decision=Decision(verdict, each.rule, each.sentence), marks={})
            self._recorder.found(found, f"{_DONE[each.action]}: {each.sentence}")


def marks(noted: Iterable[Noted]) -> dict[str, str]:
    return {each.rule: _DONE[each.action] for each in noted}


def _refusal(noted: Noted, place: Place) -> GatewayError:
    whose = {Place.MESSAGE: "The message", Place.ANSWER: "The agent's answer", Place.ARGUMENTS: "The arguments"}
    return GatewayError(
        _REFUSALS.get(place, Reason.PERMISSION_DENIED),
        f"{whose.get(place, 'The result')} may not pass: compliance rule {noted.rule} found {noted.sentence}",
        metadata={"rule": noted.rule},
    )
