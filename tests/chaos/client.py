"""A client that writes down what it asks and what it hears, and that does not rest before it has an answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from tests.chaos.checker import Kept
from tests.chaos.history import Entry, History, What
from tests.chaos.wire import Caller, Json, Lost, Refused

# Tries of one request before a client gives up; with the pauses between them about a minute of a running gateway.
TRIES = 120
AGAIN = frozenset({"UNAVAILABLE", "OVERLOADED"})


@dataclass(frozen=True, slots=True)
class Told:
    """A message as it goes over the wire, always the same bytes for the same message."""

    message_id: str
    text: str
    task_id: str | None = None

    def tree(self) -> Json:
        message: Json = {
            "messageId": self.message_id,
            "role": "ROLE_USER",
            "parts": [{"text": self.text}],
        }
        return message | ({"taskId": self.task_id} if self.task_id else {})

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.tree(), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Heard:
    """What an answer or event says, whatever its kind."""

    task_id: str = ""
    state: str = ""
    reply: str = ""
    text: str = ""

    @classmethod
    def of(cls, tree: Json) -> Heard:
        if "message" in tree:
            message = tree["message"]
            return cls(task_id=message.get("taskId", ""), reply=message["messageId"], text=text(message))
        if "artifactUpdate" in tree:
            update = tree["artifactUpdate"]
            return cls(task_id=update["taskId"], text=text(update["artifact"]))
        task = tree.get("task") or tree.get("statusUpdate") or tree
        status = task["status"]
        return cls(task.get("id") or task["taskId"], status["state"], text=text(status.get("message") or {}))


class Client:
    def __init__(self, caller: Caller, history: History, up: asyncio.Event, chance: random.Random) -> None:
        self.who = caller.who
        self._caller = caller
        self._history = history
        self._up = up  # set while there is a gateway to talk to
        self._chance = chance

    async def send(self, agent: str, told: Told, *, immediately: bool = False, hang_up: bool = False) -> Heard | None:
        """The answer; None when it was an error. The same bytes go again until one of the two has come.
        `hang_up` loses the first answer on purpose."""
        params: Json = {"message": told.tree(), "configuration": {"returnImmediately": immediately}}
        return await self._insist(agent, "SendMessage", params, told, hang_up=hang_up)

    async def get(self, agent: str, task_id: str) -> Heard | None:
        return await self._insist(agent, "GetTask", {"id": task_id}, task_id=task_id)

    async def cancel(self, agent: str, task_id: str) -> Heard | None:
        return await self._insist(agent, "CancelTask", {"id": task_id}, task_id=task_id)

    async def peek(self, agent: str, task_id: str) -> Heard | None:
        """A single GetTask for a task of somebody else: what comes of it is the answer."""
        return await self._insist(agent, "GetTask", {"id": task_id}, task_id=task_id, tries=1)

    async def send_streaming(self, agent: str, told: Told) -> Heard | None:
        """The last thing heard. A stream that breaks is asked for again under the same messageId."""
        params: Json = {"message": told.tree()}
        entry = self._entry("SendStreamingMessage", agent, told)
        for _ in range(TRIES):
            await self._up.wait()
            asked = self._asked(entry)
            last: Heard | None = None
            try:
                events = self._caller.stream(agent, "SendStreamingMessage", params)
                async for heard in self._heard(asked, events):
                    last = heard
                # The history needs to know that nothing more came, and whether that was the end.
                if last is not None and (last.reply or _rests(last.state)):
                    return last
                self._note(asked, What.LOST, text="the stream ended before the turn")
            except Lost as error:
                self._note(asked, What.LOST, text=str(error))
            except Refused as error:
                self._note(asked, What.ERROR, reason=error.reason, text=error.message)
                if error.reason not in AGAIN:
                    return None
            await self._pause()
        self._note(entry, What.GIVEN_UP)
        return None

    async def tasks(self, agent: str, **filters: Any) -> AsyncIterator[Json]:
        """All tasks, page by page."""
        page = ""
        while True:
            params = {"pageSize": 100, "includeArtifacts": False, "pageToken": page, **filters}
            answer = await self._caller.call(agent, "ListTasks", params)
            for task in answer["tasks"]:
                yield task
            page = answer["nextPageToken"]
            if not page:
                return

    async def active(self, agent: str) -> int:
        """How many tasks are at work."""
        total = 0
        for state in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"):
            answer = await self._caller.call(agent, "ListTasks", {"status": state, "pageSize": 1})
            total += int(answer["totalSize"])
        return total

    async def kept(self, agent: str) -> list[Kept]:
        return [kept(self.who, agent, task) async for task in self.tasks(agent)]

    async def _insist(
        self,
        agent: str,
        method: str,
        params: Json,
        told: Told | None = None,
        *,
        task_id: str = "",
        hang_up: bool = False,
        tries: int = TRIES,
    ) -> Heard | None:
        entry = replace(self._entry(method, agent, told), task_id=task_id)
        for attempt in range(tries):
            await self._up.wait()
            asked = self._asked(entry)
            patience = {"patience": self._chance.uniform(0, 0.02)} if hang_up and attempt == 0 else {}
            try:
                heard = Heard.of(await self._caller.call(agent, method, params, **patience))
                self._hear(asked, What.ANSWERED, heard)
                return heard
            except Lost as error:
                self._note(asked, What.LOST, text=str(error))
            except Refused as error:
                self._note(asked, What.ERROR, reason=error.reason, text=error.message)
                if error.reason not in AGAIN:
                    return None
            await self._pause()
        if tries == TRIES:
            self._note(entry, What.GIVEN_UP)
        return None

    async def _heard(self, asked: Entry, events: AsyncIterator[Json]) -> AsyncIterator[Heard]:
        async with aclosing(events) as stream:  # type: ignore[type-var]
            async for tree in stream:
                heard = Heard.of(tree)
                self._hear(asked, What.EVENT, heard)
                yield heard

    def _entry(self, verb: str, agent: str, told: Told | None) -> Entry:
        entry = Entry(What.SENT, who=self.who, verb=verb, agent=agent)
        if told is None:
            return entry
        return replace(
            entry,
            message_id=told.message_id,
            body=told.fingerprint,
            text=told.text,
            task_id=told.task_id or "",
        )

    def _asked(self, entry: Entry) -> Entry:
        return self._history.add(replace(entry, call=self._history.call()))

    def _hear(self, asked: Entry, what: What, heard: Heard) -> None:
        self._history.add(
            replace(asked, what=what, task_id=heard.task_id, state=heard.state, reply=heard.reply, text=heard.text)
        )

    def _note(self, asked: Entry, what: What, *, reason: str = "", text: str = "") -> None:
        self._history.add(replace(asked, what=what, reason=reason, text=text))

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(0.02, 0.5))


def text(said: Json) -> str:
    """All text parts of a message or artifact."""
    return "\n".join(part["text"] for part in said.get("parts", ()) if "text" in part)


def kept(who: str, agent: str, task: Json) -> Kept:
    history = task.get("history") or [{}]
    first: Json = next((message for message in history if message.get("role") == "ROLE_USER"), {})
    said = task["status"].get("message") or {}
    return Kept(
        who=who,
        agent=agent,
        task_id=task["id"],
        state=task["status"]["state"],
        message_id=first.get("messageId", ""),
        said=text(first),
        text=text(said),
        reason=(said.get("metadata") or {}).get("reason", ""),
    )


def _rests(state: str) -> bool:
    return bool(state) and state not in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING")
