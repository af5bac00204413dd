"""Streams whose credential is taken back or over, or whose principal is frozen, while they are open: they end, whatever
door they came in by, and nobody else's does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import httpx2
import pytest

from tests.acp import Acp
from tests.actors import Cue
from tests.bindings import BINDINGS, Caller
from tests.issuer import Clock, Issuer, issuing
from tests.journeys.people import App, admin, app, claims
from tests.mcp import Door
from tests.person import PASSWORD, Person, somebody
from tests.rpc import caller
from tests.serving import BOUND, ROOT, Gateway, message, running
from tests.stopwatch import Stopwatch

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


# The end of a token.


@asynccontextmanager
async def trusting(data: Path, **more: Any) -> AsyncIterator[tuple[Gateway, Issuer, Clock]]:
    clock = Clock()
    async with issuing() as issuer:
        config = f"auth: {{issuers: [{{issuer: '{issuer.url}'}}]}}\n{CONFIG}"
        async with running(data, config, base=ROOT, now=clock.now, **more) as gateway:
            yield gateway, issuer, clock


def good_for(gateway: Gateway, issuer: Issuer, clock: Clock, seconds: int) -> str:
    """A token of ada's."""
    return issuer.token(gateway.url, sub="ada", iat=clock.now() // 1000, exp=clock.now() // 1000 + seconds)


@pytest.mark.parametrize("binding", [*BINDINGS, "grpc"])
async def test_a_stream_ends_with_its_token_and_whoever_comes_with_another_hears_the_rest(
    tmp_path: Path, binding: str
) -> None:
    async with trusting(tmp_path, grpc_port=0) as (gateway, issuer, clock):
        cue, short = Cue(), good_for(gateway, issuer, clock, 600)
        ada = replace(caller(gateway, binding, "actor"), who=short)
        task = await ada.started(cue.text)
        other = replace(ada, who=good_for(gateway, issuer, clock, 7200))
        async with (
            ada.stream("SubscribeToTask", id=task["id"]) as lost,
            other.stream("SubscribeToTask", id=task["id"]) as kept,
        ):
            for events in (lost, kept):
                await asyncio.wait_for(anext(events), BOUND)
            clock.ahead += 660
            if binding == "grpc":  # it is looked at before its next word
                cue.say("a secret")
            assert await is_cut(lost)
            if binding != "grpc":
                cue.say("a secret")
            await ada.refused("UNAUTHENTICATED", "GetTask", id=task["id"])
            async with replace(ada, who=good_for(gateway, issuer, clock, 600)).stream(
                "SubscribeToTask", id=task["id"]
            ) as again:
                await asyncio.wait_for(anext(again), BOUND)
                cue.done()
                async with asyncio.timeout(BOUND):
                    heard = [[event async for event in events] for events in (kept, again)]
        assert "a secret" in str(heard[0])
        assert all("TASK_STATE_COMPLETED" in str(each) for each in heard)


async def test_a_token_of_the_gateways_own_ends_its_streams_too(tmp_path: Path) -> None:
    clock = Clock()
    async with (
        running(tmp_path, PEOPLE + CONFIG, base=ROOT, now=clock.now) as gateway,
        somebody(gateway.url) as ada,
    ):
        await admin(gateway, "users", name="ada", password=PASSWORD)
        cue, program = Cue(), await app(gateway)
        speaker = Caller(gateway, "http", "actor", await token(program, ada))
        async with speaker.stream("SendStreamingMessage", message=message(cue.text)) as events:
            await asyncio.wait_for(anext(events), BOUND)
            clock.ahead += 600
            assert await is_cut(events)
        cue.done()


async def test_a_run_of_acp_goes_on_after_the_last_event_that_its_client_saw(tmp_path: Path) -> None:
    async with trusting(tmp_path) as (gateway, issuer, clock):
        cue, ada = Cue(), Acp(gateway, "actor", good_for(gateway, issuer, clock, 600))
        async with ada.stream("POST", "/runs", ada.body(cue.text, "stream")) as events:
            first = [await asyncio.wait_for(anext(events), BOUND)]
            clock.ahead += 660
            with suppress(httpx2.HTTPError):
                async with asyncio.timeout(BOUND):
                    first += [pair async for pair in events]
        last, run = first[-1][0], first[0][1]["run"]["run_id"]
        cue.say("a word")
        cue.done()
        rest = await replace(ada, who=good_for(gateway, issuer, clock, 600)).after(run, last)
        assert [number for number, _ in (*first, *rest)] == [*range(1, rest[-1][0] + 1)]
        assert "a word" in str(rest)


async def test_a_call_over_mcp_is_answered_though_its_token_ends_meanwhile(tmp_path: Path) -> None:
    """News end, and also when something is taken back that is not its own the answer to a call does not."""
    async with trusting(tmp_path) as (gateway, issuer, clock):
        cue, gone = Cue(), await key(gateway, "ann")
        door = Door(gateway, "", good_for(gateway, issuer, clock, 600))
        called = {"name": "agents__actor", "arguments": {"message": cue.text}}
        wanted = {"notifications": {"toolsListChanged": True}}
        async with (
            door.stream("tools/call", called, progressToken="p") as answer,
            door.stream("subscriptions/listen", wanted) as told,
        ):
            cue.say("one")
            assert "one" in str(await asyncio.wait_for(anext(answer), BOUND))
            await asyncio.wait_for(anext(told), BOUND)
            clock.ahead += 660
            assert await is_cut(told)
            await taken_back(gateway, f"keys/{gone[0]}")
            cue.say("two")
            cue.done()
            async with asyncio.timeout(BOUND):
                rest = [each async for each in answer]
        assert "two" in str(rest)
        assert rest[-1]["result"]["structuredContent"]["state"] == "TASK_STATE_COMPLETED"


# Whoever is frozen.


async def test_who_reads_the_audit_log_hears_nothing_any_more_once_frozen(tmp_path: Path) -> None:
    rules = tmp_path / "policy.yaml"
    rules.write_text("rules: [{rule: auditors, who: [ann, bob], do: ReadAudit, verdict: PASS}]")
    tmp_path.joinpath("data").mkdir()
    async with running(tmp_path / "data", f"{CONFIG}policy: {{file: {rules}}}", base=ROOT) as gateway:
        keys = [(await key(gateway, name))[1] for name in ("ann", "bob")]
        async with AsyncExitStack() as stack:
            path = "/admin/audit:watch"
            lost, kept = [
                (await stack.enter_async_context(gateway.client.stream("GET", path, headers=gateway.bearer(each))))
                for each in keys
            ]
            told = [each.aiter_raw() for each in (lost, kept)]
            for each in told:
                await asyncio.wait_for(anext(each), BOUND)
            watch = Stopwatch()
            await admin(gateway, "frozen", kind="principal", name="ann")
            with suppress(httpx2.HTTPError):
                async with asyncio.timeout(BOUND):
                    async for _ in told[0]:
                        pass
            assert watch.seconds() < 1
            await key(gateway, "carl")
            async with asyncio.timeout(BOUND):
                while b"carl" not in await anext(told[1]):
                    pass


@pytest.mark.parametrize("binding", [*BINDINGS, "grpc"])
async def test_an_actor_that_is_frozen_hears_no_more_of_what_others_do_for_whom_it_acts(
    tmp_path: Path, binding: str
) -> None:
    async with trusting(tmp_path, grpc_port=0) as (gateway, issuer, _):
        cue = Cue()
        ada = replace(caller(gateway, binding, "actor"), who=issuer.token(gateway.url, sub="ada"))
        robot = replace(ada, who=issuer.token(gateway.url, sub="ada", act={"sub": "robot"}))
        task = await ada.started(cue.text)
        async with (
            robot.stream("SubscribeToTask", id=task["id"]) as lost,
            ada.stream("SubscribeToTask", id=task["id"]) as kept,
        ):
            for events in (lost, kept):
                await asyncio.wait_for(anext(events), BOUND)
            await admin(gateway, "frozen", kind="principal", name=f"oauth:{issuer.url}#robot")
            if binding != "grpc":
                assert await is_cut(lost)
            cue.say("a secret")
            if binding == "grpc":  # it is looked at before its next word
                assert await is_cut(lost)
            cue.done()
            async with asyncio.timeout(BOUND):
                assert "a secret" in str([event async for event in kept])
