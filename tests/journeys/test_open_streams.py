"""Streams whose credential is taken back while they are open: they end, whatever door they came in by, and nobody
else's does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from tests.actors import Cue
from tests.bindings import BINDINGS, Caller
from tests.journeys.people import App, admin, app, claims
from tests.mcp import Door
from tests.person import PASSWORD, Person, somebody
from tests.rpc import caller
from tests.serving import BOUND, ROOT, Gateway, running

pytestmark = [pytest.mark.asyncio, pytest.mark.security]

CONFIG = f"""
agents:
  actor: {{run: "tests.actors:Actor", card: {ROOT}/agent_cards/echo.json, public: true}}
"""
PEOPLE = "auth: {authorization_server: {users: true}}"


async def key(gateway: Gateway, name: str) -> tuple[str, str]:
    """Its id, and the key."""
    made = await admin(gateway, "keys", name=name)
    return made["id"], made["key"]


async def taken_back(gateway: Gateway, path: str) -> None:
    answer = await gateway.client.delete(f"/admin/{path}", headers=gateway.bearer(None))
    assert answer.status_code == 204, answer.text


async def is_cut(events: AsyncIterator[Any]) -> bool:
    """Whether a stream ends without a further word."""
    said = []
    with suppress(httpx2.HTTPError, grpc.aio.AioRpcError):
        async with asyncio.timeout(BOUND):
            async for event in events:
                said.append(event)
    return not said


@pytest.mark.parametrize("binding", [*BINDINGS, "grpc"])
async def test_a_stream_ends_with_its_key_and_the_task_goes_on(tmp_path: Path, binding: str) -> None:
    async with running(tmp_path, CONFIG, base=ROOT, grpc_port=0) as gateway:
        (gone, first), (_, second) = await key(gateway, "ann"), await key(gateway, "ann")
        cue, ann = Cue(), replace(caller(gateway, binding, "actor"), who=first)
        task = await ann.started(cue.text)
        again = replace(ann, who=second)  # another key of the same person
        async with (
            ann.stream("SubscribeToTask", id=task["id"]) as lost,
            again.stream("SubscribeToTask", id=task["id"]) as kept,
        ):
            for events in (lost, kept):
                await asyncio.wait_for(anext(events), BOUND)
            await taken_back(gateway, f"keys/{gone}")
            cue.say("a secret")
            assert await is_cut(lost)
            cue.done()
            async with asyncio.timeout(BOUND):
                rest = [event async for event in kept]
        assert "a secret" in str(rest)
        assert "TASK_STATE_COMPLETED" in str(rest)


async def token(program: App, person: Person) -> str:
    await person.get(program.link())
    if "password" in person.page.labels:
        await person.log_in()
    await person.submit("allow")
    made: str = (await program.redeem(person.answer["code"])).json()["access_token"]
    return made


@pytest.mark.parametrize("way", ["token", "grant", "client", "user", "password"])
async def test_a_stream_ends_with_what_its_token_came_of(tmp_path: Path, way: str) -> None:
    async with running(tmp_path, PEOPLE + CONFIG, base=ROOT) as gateway, somebody(gateway.url) as ada:
        await admin(gateway, "users", name="ada", password=PASSWORD)
        program, other = await app(gateway), await app(gateway, "other")
        one, two = await token(program, ada), await token(other, ada)
        cue = Cue()
        caller = Caller(gateway, "jsonrpc", "actor", one)
        task = await caller.started(cue.text)
        async with (
            caller.stream("SubscribeToTask", id=task["id"]) as events,
            replace(caller, who=two).stream("SubscribeToTask", id=task["id"]) as others,
        ):
            for each in (events, others):
                await asyncio.wait_for(anext(each), BOUND)
            match way:
                case "token":
                    await program.form("/oauth/revoke", token=one)
                case "grant":
                    answer = await gateway.client.get("/admin/grants", headers=gateway.bearer(None))
                    (grant,) = [each for each in answer.json()["grants"] if each["client"] == claims(one)["client_id"]]
                    await taken_back(gateway, f"grants/{grant['id']}")
                case "client":
                    await taken_back(gateway, "clients/app")
                case "user":
                    await taken_back(gateway, "users/ada")
                case "password":
                    await admin(gateway, "users/ada:password", password="another long password")
            assert await is_cut(events)
            if way in ("user", "password"):
                assert await is_cut(others)
            else:
                cue.say("still here")
                assert "still here" in str(await asyncio.wait_for(anext(others), BOUND))
        cue.done()


async def test_whoever_listens_over_mcp_hears_nothing_any_more(tmp_path: Path) -> None:
    async with running(tmp_path, CONFIG, base=ROOT) as gateway:
        gone, first = await key(gateway, "ann")
        wanted = {"notifications": {"toolsListChanged": True}}
        async with Door(gateway, "", first).stream("subscriptions/listen", wanted) as told:
            await asyncio.wait_for(anext(told), BOUND)
            await taken_back(gateway, f"keys/{gone}")
            assert await is_cut(told)
