"""R7: receivers with every fault and a gateway that is killed: every event is delivered all the same, in order."""

from __future__ import annotations

import asyncio
import json
import random
import runpy
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from aiohttp import web

from tests.chaos.client import text
from tests.chaos.instance import ROOT
from tests.chaos.town import LOCAL, Plan, Result, Town, town
from tests.chaos.wire import Json, Lost, Refused

FAILURE_SHARE, RESET_SHARE, SLOW_SHARE = 0.3, 0.05, 0.05
SLOW_S = 1.0
# Attempts come after 1, 2, 4 s and so on, a host that failed rests, and an answer that never comes is waited for 15 s.
PATIENCE_S = 240.0
LISTENERS = 4  # hosts: what one of them does is no reason to leave the others alone
TOKEN_HEADER = "X-A2A-Notification-Token"


@dataclass(slots=True)
class Hook:
    """What came for one task: how often each body was tried, how many came through, and which headers were wrong."""

    secret: str
    hangs: bool = False  # once, at its second request
    gone_after: int | None = None  # 410 to all that comes after so many
    numbers: list[int] = field(default_factory=list)  # of the events, as they came
    failures: Counter[bytes] = field(default_factory=Counter)
    taken: Counter[bytes] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Receiver:
    """Webhooks on loopback. One of them fails at most `patience` times in a row for the same body. `keys` are the
    gateway's, as they were before anybody killed it."""

    def __init__(self, chance: random.Random, patience: int, keys: list[dict[str, str]]) -> None:
        self.hooks: dict[str, Hook] = {}
        self._keys = keys
        self._by_key: Any = runpy.run_path(str(ROOT / "examples" / "signatures.py"))["by_key"]
        self._chance = chance
        self._patience = patience

    async def take(self, request: web.Request) -> web.Response:
        hook = self.hooks[request.match_info["name"]]
        body = await request.read()
        self._look(hook, request, body)
        if hook.gone_after is not None and len(hook.numbers) > hook.gone_after:
            return web.Response(status=410)
        if hook.hangs and len(hook.numbers) == 2:
            await asyncio.sleep(PATIENCE_S)
        drawn = self._chance.random()
        if drawn < RESET_SHARE and request.transport is not None:
            request.transport.abort()  # taken, but the gateway cannot know, so it comes again
        elif drawn < RESET_SHARE + SLOW_SHARE:
            await asyncio.sleep(SLOW_S)
        failing = hook.failures[body] < self._patience and self._chance.random() < FAILURE_SHARE
        if failing and not hook.taken[body]:
            hook.failures[body] += 1
            return web.Response(status=self._chance.choice((500, 502, 503)))
        hook.taken[body] += 1
        return web.Response(status=204)

    def _look(self, hook: Hook, request: web.Request, body: bytes) -> None:
        hook.numbers.append(int(request.headers["webhook-id"].split("-")[1]))
        if not self._by_key(request.headers, body, self._keys):
            hook.wrong.append("it is not signed by the gateway's key")
        expected = {
            "Authorization": f"Bearer {hook.secret}",
            "Content-Type": "application/a2a+json",
            TOKEN_HEADER: f"token-{hook.secret}",
        }
        for name, value in expected.items():
            if (found := request.headers.get(name)) != value:
                hook.wrong.append(f"{name} is {found!r} in place of {value!r}")


@asynccontextmanager
async def listening(receiver: Receiver) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_post("/{name}", receiver.take)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


# What must come of each text, as the words of `expected` below say it.
TEXTS: dict[str, frozenset[str]] = {
    "hello": frozenset({"task", "TASK_STATE_COMPLETED"}),
    "count 5": frozenset({"task", "TASK_STATE_WORKING", "1", "2", "3", "4", "5", "TASK_STATE_COMPLETED"}),
    "wait 2": frozenset({"task", "0 of 2 s", "1 of 2 s", "TASK_STATE_COMPLETED"}),
}


async def push(plan: Plan) -> list[Result]:
    tasks, kills = (30, 3) if plan.short else (120, 6)
    chance = random.Random(f"{plan.seed}/push")
    async with town(plan, "push", "alice", egress={"allow_loopback": True}) as here, AsyncExitStack() as listeners:
        keys = (await here.caller("alice").admin("GET", "/.well-known/webhook-jwks.json"))["keys"]
        receiver = Receiver(chance, 2 if plan.short else 3, keys)
        urls = [await listeners.enter_async_context(listening(receiver)) for _ in range(LISTENERS)]
        texts = {f"p-{n}": list(TEXTS)[n % len(TEXTS)] for n in range(tasks)}
        for n, name in enumerate(texts):
            receiver.hooks[name] = Hook(f"secret-{name}", hangs=n % 10 == 3, gone_after=1 if n % 10 == 7 else None)
        killer = asyncio.create_task(_kill(here, kills, chance))
        await asyncio.gather(
            *(_send(here, urls[n % LISTENERS], name, said, n) for n, (name, said) in enumerate(texts.items()))
        )
        await killer
        missing = await _complete(receiver, {name: said for name, said in texts.items() if not _leaves(receiver, name)})
        return _judge(receiver, missing, here)


def _leaves(receiver: Receiver, name: str) -> bool:
    return receiver.hooks[name].gone_after is not None


async def _send(here: Town, url: str, name: str, said: str, n: int) -> None:
    """Sent over the time of the kills, and again until it is answered."""
    client = here.caller("alice")
    config: Json = {
        "id": f"c-{name}",
        "url": f"{url}/{name}",
        "token": f"token-secret-{name}",
        "authentication": {"scheme": "Bearer", "credentials": f"secret-{name}"},
    }
    params: Json = {
        "message": {"messageId": name, "role": "ROLE_USER", "parts": [{"text": said}]},
        "configuration": {"returnImmediately": True, "taskPushNotificationConfig": config},
    }
    await asyncio.sleep(n * 0.1)
    for _ in range(100):
        await here.up.wait()
        try:
            await client.call(LOCAL, "SendMessage", params)
            return
        except Lost:
            await asyncio.sleep(0.1)
        except Refused as error:
            if error.reason not in ("UNAVAILABLE", "OVERLOADED"):
                raise
            await asyncio.sleep(0.3)


async def _kill(here: Town, kills: int, chance: random.Random) -> None:
    for _ in range(kills):
        await asyncio.sleep(chance.uniform(0.3, 1.5))
        here.up.clear()
        here.gateway.kill()
        await here.gateway.ended(10)
        await here.restart()
        here.up.set()


async def _complete(receiver: Receiver, texts: dict[str, str]) -> dict[str, set[str]]:
    """What is missing of each task when nothing is, or when patience ends."""
    began = asyncio.get_running_loop().time()
    while True:
        missing = {
            name: open_ends
            for name, said in texts.items()
            if (open_ends := set(TEXTS[said]) - words(receiver.hooks[name].taken))
        }
        took = asyncio.get_running_loop().time() - began
        if not missing or took > PATIENCE_S:
            print(f"  the last delivery came {took:.0f} s after the last kill" if not missing else "  gave up waiting")
            return missing
        await asyncio.sleep(0.25)


def words(bodies: Counter[bytes]) -> set[str]:
    found = set()
    for body in bodies:
        tree = json.loads(body)
        if "task" in tree:
            found.add("task")
        elif "artifactUpdate" in tree:
            found.add(text(tree["artifactUpdate"]["artifact"]).strip())
        elif "statusUpdate" in tree:
            status = tree["statusUpdate"]["status"]
            found |= {status["state"], text(status.get("message") or {})}
    return found


def _judge(receiver: Receiver, missing: dict[str, set[str]], here: Town) -> list[Result]:
    hooks = receiver.hooks.values()
    taken = sum(sum(hook.taken.values()) for hook in hooks)
    distinct = sum(len(+hook.taken) for hook in hooks)
    failures = sum(sum(hook.failures.values()) for hook in hooks)
    print(f"  {len(receiver.hooks)} tasks: {distinct} events delivered, {taken - distinct} twice, {failures} failures")
    details = [
        f"{name} misses {sorted(words)} (refused {max(receiver.hooks[name].failures.values(), default=0)} times)"
        for name, words in missing.items()
    ]
    disorder = [f"{name}: {hook.numbers}" for name, hook in receiver.hooks.items() if not _ordered(hook.numbers)]
    # What was on its way, or came to an end together with the gateway, may come once more.
    pestered = [
        f"{name}: {len(hook.numbers)} requests"
        for name, hook in receiver.hooks.items()
        if hook.gone_after is not None and len(hook.numbers) > hook.gone_after + 1 + len(here.gateway.starts)
    ]
    wrong = [f"{name}: {line}" for name, hook in receiver.hooks.items() for line in dict.fromkeys(hook.wrong)]
    given_up = [line for line in here.gateway.last_words(100_000).splitlines() if "given up" in line]
    return [
        Result("I7 every event of a configured task is delivered", not missing, (details + given_up)[:20]),
        Result("a webhook hears of its task in order, whatever fails", not disorder, disorder[:10]),
        Result("a webhook that answered 410 is left alone", not pestered, pestered),
        Result("every delivery is signed, with the credentials and the content type", not wrong, wrong[:10]),
    ]


def _ordered(numbers: list[int]) -> bool:
    """An event may come again, but not after a later one."""
    return all(before <= after for before, after in pairwise(numbers))
