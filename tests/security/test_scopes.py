"""Getting more than a token's scopes give, and learning from challenges and metadata what nobody was to know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gateway.core.policy import Policy
from gateway.core.policy.checks import Scopes, Who
from gateway.core.policy.index import Index
from gateway.core.scopes import ScopesInUse, _about_agent, _scopes
from gateway.model.principal import Principal
from gateway.server.mcp.legacy import Legacy
from tests.journeys.test_authorization_server import client, token
from tests.mcp import Door, Tree, configured, modern, request, scripted, tool
from tests.security.twins import Attacks, Attempt, each_of
from tests.serving import A2A, ROOT, Gateway, message, running

pytestmark = pytest.mark.security

CARD = f"card: {ROOT}/agent_cards/echo.json"
POLICY = """
rules:
  - {rule: read, who: "client:robot", do: tools/call, on: docs/read, when: {scopes: [read]}, verdict: PASS}
  - {rule: wipe, who: "client:other", do: tools/call, on: docs/wipe, when: {scopes: [wipe]}, verdict: PASS}
  - {rule: desk, who: "client:other", do: use, on: agents/desk, when: {scopes: [desk]}, verdict: PASS}
  - {rule: agent, who: "agent:helper", do: tools/call, on: docs/read, when: {scopes: [read]}, verdict: PASS}
  - {rule: asked, who: "*", do: call, on: agents/helper, verdict: PASS}
"""


@dataclass(frozen=True)
class House:
    """A gateway with a client of its own that may have the scope `read`."""

    gateway: Gateway
    secret: str

    async def having(self, scope: str) -> str:
        return await token(self.gateway, self.secret, "robot", scope=scope)

    async def reads(self, who: str) -> bool:
        answer = await Door(self.gateway, who=who).post("tools/call", modern(READ))
        return answer.status_code == 200


READ: Tree = {"name": "docs__read", "arguments": {}}


@asynccontextmanager
async def house(data: Path) -> AsyncIterator[House]:
    (data / "policy.yaml").write_text(POLICY)
    async with scripted(tool("read"), tool("wipe")) as docs:
        config = f"""
auth: {{authorization_server: {{}}}}
policy: {{file: {data}/policy.yaml}}
agents:
  desk: {{run: "agents.echo:Echo", {CARD}}}
  helper: {{run: "tests.actors:tooled", {CARD}}}
{configured(docs=docs)}"""
        async with running(data / "data", config) as gateway:
            yield House(gateway, await client(gateway, "robot", "read", "idle"))


# The attacks: each says of all its forms whether they got what they must not get.


async def the_token_before(house: House) -> list[bool]:
    """The same client with a token that could, and then with ones that cannot."""
    able, few = await house.having("read"), await house.having("idle")
    assert await house.reads(able)
    return [await house.reads(few), await house.reads(few)]


async def the_token_that_opened_the_session(house: House) -> list[bool]:
    able, few = await house.having("read"), await house.having("idle")
    got = []
    for version in ("2025-11-25", "2025-06-18"):
        session = await Door(house.gateway, who=able).session(version=version)
        assert (await session.raw(request("tools/call", READ))).status_code == 200
        session.door.who = few
        got.append((await session.raw(request("tools/call", READ))).status_code == 200)
    return got


async def an_agent_that_may_more(house: House) -> list[bool]:
    """A deputy that can be talked into what its caller's token is not good for."""
    said = {"parts": [{"text": "docs/read"}, {"data": {}}]}

    async def asked(who: str) -> bool:
        params = {"message": {**message("x"), **said}}
        return "result" in await house.gateway.rpc("SendMessage", params, agent="helper", who=who)

    assert await asked(await house.having("read"))
    return [await asked(await house.having("idle")), await asked(await house.gateway.key("ann"))]


async def whether_it_is_there(house: House) -> list[bool]:
    """What is others' and what is missing: whether the answers differ."""
    who = await house.having("idle")
    door, headers = Door(house.gateway, who=who), {**A2A, **house.gateway.bearer(who)}
    tools = [await door.post("tools/call", modern({"name": f"docs__{name}"})) for name in ("wipe", "nosuch")]
    agents = [await house.gateway.client.get(f"/agents/{id}/tasks/t", headers=headers) for id in ("desk", "nosuch")]
    return [
        tools[0].status_code != tools[1].status_code,
        (agents[0].status_code, agents[0].content) != (agents[1].status_code, agents[1].content),
    ]


async def which_agents_there_are(house: House) -> list[bool]:
    """Anybody may read metadata, and try names."""
    well_known = "/.well-known/oauth-protected-resource/agents"
    told = [(await house.gateway.client.get(f"{well_known}/{id}")).json() for id in ("desk", "helper", "nosuch")]
    return [told[0].get("scopes_supported") != each.get("scopes_supported") for each in told[1:]]


# The twins: what stands in the place of one defence.


class ByName(dict[Any, Any]):
    """Remembers by who it is, and not by what the token says."""

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((key[0].identity, *key[1:]), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((key[0].identity, *key[1:]), value)


def remembers_by_name(patch: pytest.MonkeyPatch) -> None:
    sound = Policy.__init__

    def made(self: Policy, *args: Any, **more: Any) -> None:
        sound(self, *args, **more)
        self._memo = ByName()

    patch.setattr(Policy, "__init__", made)


def goes_by_the_sessions_first_token(patch: pytest.MonkeyPatch) -> None:
    sound, first = Legacy.answer, dict[str, Principal]()

    async def answer(
        self: Legacy, asked: Any, tree: Any, session: Any, who: Principal, *args: Any, **more: Any
    ) -> None:
        await sound(self, asked, tree, session, first.setdefault(session.id, who), *args, **more)

    patch.setattr(Legacy, "answer", answer)


def lets_agents_have_every_scope(patch: pytest.MonkeyPatch) -> None:
    sound = Scopes.holds
    patch.setattr(Scopes, "holds", lambda self, question: question.who.hops > 0 or sound(self, question))


def challenges_whoever_comes(patch: pytest.MonkeyPatch) -> None:
    """As if rules asked for scopes before they asked who it is."""
    patch.setattr(Who, "holds", lambda self, question: True)
    patch.setattr(Index, "about", lambda self, verb, who: self._rulings)


def tells_of_each_agent(patch: pytest.MonkeyPatch) -> None:
    def of_agent(self: ScopesInUse, id: str) -> frozenset[str]:
        return _scopes(rule for rule in self._policy.scoped if _about_agent(rule, id))

    patch.setattr(ScopesInUse, "of_agent", of_agent)


ATTACKS: Attacks[House] = {
    "memory": (the_token_before, remembers_by_name),
    "session": (the_token_that_opened_the_session, goes_by_the_sessions_first_token),
    "deputy": (an_agent_that_may_more, lets_agents_have_every_scope),
    "challenge": (whether_it_is_there, challenges_whoever_comes),
    "metadata": (which_agents_there_are, tells_of_each_agent),
}


@each_of(ATTACKS)
async def test_scopes_open_nothing_more_and_tell_nothing_but_with_the_broken_twin(
    tmp_path: Path, attempt: Attempt[House]
) -> None:
    async with house(tmp_path) as here:
        await attempt(here)
