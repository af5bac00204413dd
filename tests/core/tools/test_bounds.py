"""Nothing here is without an end: parked requests, sessions, readers, states."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.tools import news, parking, state
from gateway.core.tools.breaker import MAX_FAILURES, PAUSES, Breaker
from gateway.core.tools.news import Board, News
from gateway.core.tools.parking import Parked, Parking
from gateway.core.tools.silent import Silent
from gateway.core.tools.state import States
from gateway.model.errors import GatewayError, Reason
from gateway.model.principal import Kind, Principal
from gateway.model.tool import Caller, CannotAsk, PeerError, Tree
from gateway.model.tool import Kind as Definitions
from gateway.server.mcp import sessions
from gateway.server.mcp.seal import Seal
from gateway.server.mcp.sessions import Sessions

ASKING: Tree = {"elicitation": {}}


async def asks(caller: Caller) -> Tree:
    return await caller.ask("elicitation/create", {"message": "?"})


def ids() -> Any:
    return map(str, range(1_000_000)).__next__


async def test_a_caller_can_park_so_many_requests_and_another_one_is_not_held_up(monkeypatch: Any) -> None:
    monkeypatch.setattr(parking, "MAX_PARKED_EACH", 2)
    monkeypatch.setattr(parking, "MAX_PARKED", 3)
    place = Parking(ids())
    ann, bob, eve = (Silent(name, ASKING) for name in ("ann", "bob", "eve"))
    first = await place.begin(ann, asks)
    assert isinstance(first, Parked)
    await place.begin(ann, asks)
    with pytest.raises(GatewayError) as full:
        await place.begin(ann, asks)
    assert full.value.reason is Reason.OVERLOADED
    await place.begin(bob, asks)
    with pytest.raises(GatewayError):
        await place.begin(eve, asks)
    assert await place.go_on(first.id, ann, {"ask-1": {"action": "accept"}}) == {"action": "accept"}
    assert isinstance(await place.begin(eve, asks), Parked)
    await place.aclose()


async def test_a_parked_request_that_nobody_comes_back_for_is_canceled(monkeypatch: Any) -> None:
    monkeypatch.setattr(parking, "PARK_SECONDS", 0.01)
    ended = asyncio.Event()

    async def work(caller: Caller) -> Tree:
        try:
            return await asks(caller)
        finally:
            ended.set()

    place = Parking(ids())
    ann = Silent("ann", ASKING)
    parked = await place.begin(ann, work)
    assert isinstance(parked, Parked)
    await asyncio.wait_for(ended.wait(), 5)
    with pytest.raises(GatewayError, match="is over"):
        await place.go_on(parked.id, ann, {})


async def test_a_caller_is_not_asked_what_it_did_not_declare() -> None:
    async def work(caller: Caller) -> Tree:
        with pytest.raises(CannotAsk):
            await caller.ask("roots/list", {})
        with pytest.raises(CannotAsk):
            await caller.ask("no/such", {})
        return {"done": True}

    assert await Parking(ids()).begin(Silent("ann", ASKING), work) == {"done": True}


async def test_sessions_are_bounded_and_idle_ones_make_room(monkeypatch: Any) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS_EACH", 2)
    clock = [0]
    kept = Sessions(lambda: clock[0], ids())
    ann, bob = Principal(Kind.KEY, "ann"), Principal(Kind.KEY, "bob")
    first = await kept.open(ann, "", "2025-11-25", {}, None)
    clock[0] = 1
    second = await kept.open(ann, "", "2025-11-25", {}, None)
    other = await kept.open(bob, "", "2025-11-25", {}, None)
    third = await kept.open(ann, "", "2025-11-25", {}, None)
    opened = ((first, ann), (second, ann), (third, ann), (other, bob))
    assert [kept.get(each.id, who, "") is each for each, who in opened] == [False, True, True, True]
    for each in (second, third):
        each.stream = asyncio.Event()  # in use
    with pytest.raises(GatewayError) as full:
        await kept.open(ann, "", "2025-11-25", {}, None)
    assert full.value.reason is Reason.OVERLOADED
    clock[0] = sessions.IDLE_MS + 100
    await kept.open(Principal(Kind.KEY, "eve"), "", "2025-11-25", {}, None)
    assert kept.get(other.id, bob, "") is None


async def test_a_reader_that_does_not_read_is_let_go_and_one_change_is_told_once(monkeypatch: Any) -> None:
    monkeypatch.setattr(news, "MAX_BACKLOG", 3)
    monkeypatch.setattr(news, "MAX_READERS", 2)
    board = Board()
    reader, other = board.read(), board.read()
    with pytest.raises(GatewayError):
        board.read()
    same = News("docs", Definitions.TOOL)
    board.publish([same, same, same])
    assert await reader.next() == (same,)
    board.publish(News("docs", Definitions.RESOURCE, f"x://{n}") for n in range(5))
    assert await reader.next() is None
    other.close()
    assert board.read() is not None


def test_a_breaker_opens_after_failures_in_a_row_and_lets_one_call_try() -> None:
    breaker = Breaker("docs")
    lost = GatewayError(Reason.UPSTREAM_FAILED, "lost")
    for _ in range(MAX_FAILURES - 1):
        breaker.heard(lost, 0)
    breaker.heard(PeerError(-1, "refused, so it is alive"), 0)
    for _ in range(MAX_FAILURES):
        breaker.admit(0)
        breaker.heard(lost, 0)
    with pytest.raises(GatewayError, match="rests for"):
        breaker.admit(999 * PAUSES[0])
    breaker.admit(1000 * PAUSES[0])
    with pytest.raises(GatewayError):
        breaker.admit(1000 * PAUSES[0])  # one is trying
    breaker.unknown()
    breaker.admit(1000 * PAUSES[0])
    breaker.worked()
    breaker.admit(0)


@pytest.mark.security
def test_a_sealed_state_shows_nothing_and_takes_no_change() -> None:
    clock = [1000]
    states = States(Seal(b"k", b"p"), lambda: clock[0])
    text = states.give({"state": "the server's secret word"}, "ann", "q")
    assert "secret" not in text
    assert states.take(text, "ann", "q")["state"] == "the server's secret word"
    for other in (States(Seal(b"K", b"p"), lambda: 0), States(Seal(b"k", b"P"), lambda: 0)):
        with pytest.raises(GatewayError, match="is not one"):
            other.take(text, "ann", "q")
    for index in range(len(text)):
        changed = text[:index] + ("A" if text[index] != "A" else "B") + text[index + 1 :]
        if changed != text:
            with pytest.raises(GatewayError):
                states.take(changed, "ann", "q")
    for wrong in ("", "=", "é", "a" * (state.MAX_STATE + 1), None, 7, text[:-1]):
        with pytest.raises(GatewayError):
            states.take(wrong, "ann", "q")
    clock[0] += state.LIFE_MS + 1
    with pytest.raises(GatewayError, match="expired"):
        states.take(text, "ann", "q")
