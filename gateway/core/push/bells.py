"""The gateway's own webhooks: a remote agent that has no stream, or whose stream broke, rings when a task moves on.

A ring says *that* there is news, never what it is: the agent is asked for the task then, as polling would ask. So a
ring may come twice, late, out of order or with anything in it, and still nothing wrong gets into the task.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac


class Bells:
    """`key` makes the secrets: each is good for one task of one agent, after a restart too, and none is kept. `base` is
    the URL before the agent's id and the task's; `local` says that only this machine can reach it."""

    def __init__(self, key: bytes, base: str, *, local: bool) -> None:
        self.local = local
        self._key = key
        self._base = base
        self._bells: dict[tuple[str, str], Bell] = {}

    def hang(self, agent: str, task_id: str) -> Bell:
        bell = Bell(self, agent, task_id, f"{self._base}/{agent}/{task_id}", self._secret(agent, task_id))
        self._bells[agent, task_id] = bell
        return bell

    def ring(self, agent: str, task_id: str, secrets: list[str]) -> bool:
        """Whether one of the secrets is right. That nobody waits for the task makes no difference to whoever rings."""
        right = self._secret(agent, task_id).encode()
        if not any(hmac.compare_digest(right, secret.encode()) for secret in secrets):
            return False
        if (bell := self._bells.get((agent, task_id))) is not None:
            bell.ring()
        return True

    def take_down(self, agent: str, task_id: str, bell: Bell) -> None:
        if self._bells.get((agent, task_id)) is bell:
            del self._bells[agent, task_id]

    def _secret(self, agent: str, task_id: str) -> str:
        return hmac.new(self._key, f"{agent}\0{task_id}".encode(), hashlib.sha256).hexdigest()


class Bell:
    def __init__(self, bells: Bells, agent: str, task_id: str, url: str, secret: str) -> None:
        self.url = url
        self.secret = secret
        self.rang = False
        self._bells = bells
        self._name = (agent, task_id)
        self._news = asyncio.Event()

    def ring(self) -> None:
        self.rang = True
        self._news.set()

    async def wait(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        rang = self._news.is_set()
        self._news.clear()
        return rang

    def take_down(self) -> None:
        self._bells.take_down(*self._name, self)
